{{/* Rules of the release's namespace: what `meshcert render --rbac` gives for these certificates. */}}
{{- define "meshcert.rules" -}}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create]}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  {{- if gt (int .Values.shards) 1 }}
  resourceNames: [{{ range $shard := until (int .Values.shards) }}{{ if $shard }}, {{ end }}{{ $.Values.leaseName }}-{{ $shard }}{{ end }}, {{ .Values.leaseName }}-handover]
  {{- else }}
  resourceNames: [{{ .Values.leaseName }}]
  {{- end }}
  verbs: [get, update, watch]
{{- if eq .Values.source "resources" }}
- {apiGroups: [meshcert.dev], resources: [meshcertificates], verbs: [get, list, watch]}
- {apiGroups: ["", events.k8s.io], resources: [events], verbs: [create, patch]}
{{- end }}
- {apiGroups: [""], resources: [secrets], verbs: [create]}
{{- if eq .Values.observe "labels" }}
- {apiGroups: [""], resources: [secrets, configmaps], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [getambassador.io], resources: [tlscontexts], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [getambassador.io], resources: [mappings, tcpmappings], verbs: [get, list, watch, patch]}
- {apiGroups: [meshcert.dev], resources: [meshcertificates, meshcertificates/status], verbs: [patch]}
- {apiGroups: [""], resources: [services, pods], verbs: [get, list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
{{- if .Values.gatewayApi }}
- {apiGroups: [gateway.networking.k8s.io], resources: [gateways], verbs: [get, list, watch, patch]}
- {apiGroups: [gateway.networking.k8s.io], resources: [httproutes, grpcroutes], verbs: [get, list, watch]}
- {apiGroups: [gateway.networking.k8s.io], resources: [backendtlspolicies], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [gateway.networking.k8s.io], resources: [referencegrants], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [gateway.envoyproxy.io], resources: [envoyproxies], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [gateway.envoyproxy.io], resources: [backends], verbs: [get, list, watch, patch]}
{{- end }}
{{- else }}
{{- range .Values.certificates }}
{{- $spec := .spec }}
{{- $context := default dict $spec.tlsContext }}
{{- $delete := eq (default "Retain" $spec.deletionPolicy) "Delete" }}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ default (printf "%s-ca" .name) $spec.caSecretName }}, {{ default (printf "%s-identity" .name) $spec.secretName }}]
  verbs: [get, list, watch, patch{{ if $delete }}, delete{{ end }}]
{{- with $spec.configMapName }}
- {apiGroups: [""], resources: [configmaps], verbs: [create]}
- {apiGroups: [""], resources: [configmaps], resourceNames: [{{ . }}], verbs: [get, list, watch, patch{{ if $delete }}, delete{{ end }}]}
{{- end }}
{{- $none := and (hasKey $context "enabled") (not $context.enabled) }}
{{- if include "meshcert.usesEmissary" $spec }}
- {apiGroups: [getambassador.io], resources: [tlscontexts], verbs: [get, list, watch{{ if not $none }}, create, patch{{ end }}, delete]}
{{- end }}
{{- with $spec.gatewayApi }}
{{- $place := default (ternary "EnvoyProxy" "Backend" (or (hasKey . "gateways") (hasKey . "services"))) .clientCertificate }}
{{- $isBackend := eq $place "Backend" }}
- {apiGroups: [gateway.networking.k8s.io], resources: [gateways], verbs: [get, list, watch{{ if eq $place "Gateway" }}, patch{{ end }}]}
- {apiGroups: [gateway.envoyproxy.io], resources: [envoyproxies], verbs: [get, list, watch{{ if not $isBackend }}, create, patch, delete{{ end }}]}
- {apiGroups: [gateway.envoyproxy.io], resources: [backends], verbs: [get, list, watch{{ if $isBackend }}, patch{{ end }}]}
{{- end }}
{{- if eq $.Values.source "resources" }}
- {apiGroups: [meshcert.dev], resources: [meshcertificates/status], resourceNames: [{{ .name }}], verbs: [patch]}
{{- if $delete }}
- {apiGroups: [meshcert.dev], resources: [meshcertificates], resourceNames: [{{ .name }}], verbs: [patch]}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What stands elsewhere, or perhaps elsewhere: a list of {namespace, rule}, as JSON. "*" is every namespace. */}}
{{- define "meshcert.grants" -}}
{{- $own := .Release.Namespace }}
{{- $grants := list }}
{{- range .Values.certificates }}
{{- $spec := .spec }}
{{- $name := .name }}
{{- $named := list }}
{{- $tokens := list }}
{{- if and $spec.istio $spec.istio.ca }}
{{- $ca := $spec.istio.ca }}
{{- with $ca.serviceAccount }}{{ $tokens = append $tokens (dict "namespace" $own "name" .) }}{{ end }}
{{- $root := default dict $ca.root }}
{{- if hasKey $root "clusterTrustBundle" }}
{{- $bundle := default "istio.io:istiod-ca:root-cert" (default dict $root.clusterTrustBundle).name }}
{{- $rule := dict "apiGroups" (list "certificates.k8s.io") "resources" (list "clustertrustbundles") "resourceNames" (list $bundle) "verbs" (list "get" "list" "watch") }}
{{- $grants = append $grants (dict "namespace" "*" "rule" $rule) }}
{{- else if not (or $root.file $root.inline) }}
{{- $map := default dict $root.configMap }}
{{- $named = append $named (dict "namespace" (default $own $map.namespace) "name" (default "istio-ca-root-cert" $map.name)) }}
{{- end }}
{{- end }}
{{- with $spec.linkerd }}
{{- $plane := default "linkerd" .controlPlaneNamespace }}
{{- $roots := default dict .trustRoots }}
{{- with .serviceAccount }}{{ $tokens = append $tokens (dict "namespace" (default $own .namespace) "name" .name) }}{{ end }}
{{- $named = append $named (dict "namespace" $plane "name" "linkerd-config") }}
{{- $named = append $named (dict "namespace" $plane "name" (default "linkerd-identity-trust-roots" $roots.configMap)) }}
{{- end }}
{{- with $spec.consul }}
{{- $login := default dict (default dict .auth).login }}
{{- with $login.serviceAccount }}{{ $tokens = append $tokens (dict "namespace" $own "name" .) }}{{ end }}
{{- range (list .http .grpc) }}
{{- $ca := default dict (default dict (default dict .).tls).ca }}
{{- with $ca.configMap }}{{ $named = append $named (dict "namespace" (default $own .namespace) "name" .name) }}{{ end }}
{{- end }}
{{- end }}
{{- range $named }}
{{- $rule := dict "apiGroups" (list "") "resources" (list "configmaps") "resourceNames" (list .name) "verbs" (list "get" "list" "watch") }}
{{- $grants = append $grants (dict "namespace" .namespace "rule" $rule) }}
{{- end }}
{{- range $tokens }}
{{- $rule := dict "apiGroups" (list "") "resources" (list "serviceaccounts/token") "resourceNames" (list .name) "verbs" (list "create") }}
{{- $grants = append $grants (dict "namespace" .namespace "rule" $rule) }}
{{- $account := dict "apiGroups" (list "") "resources" (list "serviceaccounts") "resourceNames" (list .name) "verbs" (list "get") }}
{{- $grants = append $grants (dict "namespace" .namespace "rule" $account) }}
{{- end }}
{{- with $spec.gatewayApi }}
{{- $read := list "get" "list" "watch" }}
{{- $write := list "get" "list" "watch" "create" "patch" "delete" }}
{{- $classes := dict "apiGroups" (list "gateway.networking.k8s.io") "resources" (list "gatewayclasses") "verbs" $read }}
{{- $grants = append $grants (dict "namespace" "*" "rule" $classes) }}
{{- $gateways := list }}
{{- with .gateways }}{{ $gateways = default (list $own) .namespaces }}{{ end }}
{{- $named := ternary (without $gateways "*" $own) list (eq (default "" .clientCertificate) "Gateway") }}
{{- if has "*" $gateways }}{{ $gateways = list "*" }}{{ end }}
{{- $look := dict "apiGroups" (list "gateway.networking.k8s.io") "resources" (list "gateways") "verbs" $read }}
{{- range $gateways }}
{{- $grants = append $grants (dict "namespace" . "rule" $look) }}
{{- end }}
{{- $change := dict "apiGroups" (list "gateway.networking.k8s.io") "resources" (list "gateways") "verbs" (list "patch") }}
{{- range $named }}
{{- $grants = append $grants (dict "namespace" . "rule" $change) }}
{{- end }}
{{- if $named }}
{{- $let := dict "apiGroups" (list "gateway.networking.k8s.io") "resources" (list "referencegrants") "verbs" $write }}
{{- $grants = append $grants (dict "namespace" $own "rule" $let) }}
{{- end }}
{{- $behind := list }}
{{- with .services }}{{ $behind = default (list $own) .namespaces }}{{ end }}
{{- with .backends }}
{{- $places := uniq (prepend (default list .namespaces) $own) }}
{{- if has "*" $places }}{{ $places = list "*" }}{{ end }}
{{- $backends := dict "apiGroups" (list "gateway.envoyproxy.io") "resources" (list "backends") "verbs" $read }}
{{- range $places }}
{{- $grants = append $grants (dict "namespace" . "rule" $backends) }}
{{- end }}
{{- $behind = uniq (concat $behind $places) }}
{{- end }}
{{- if has "*" $behind }}{{ $behind = list "*" }}{{ end }}
{{- $routes := dict "apiGroups" (list "gateway.networking.k8s.io") "resources" (list "httproutes" "grpcroutes") "verbs" $read }}
{{- range (ternary $behind (uniq (append $behind $own)) (has "*" $behind)) }}
{{- $grants = append $grants (dict "namespace" . "rule" $routes) }}
{{- end }}
{{- $policies := dict "apiGroups" (list "gateway.networking.k8s.io") "resources" (list "backendtlspolicies") "verbs" $write }}
{{- $services := dict "apiGroups" (list "") "resources" (list "services" "pods") "verbs" $read }}
{{- $slices := dict "apiGroups" (list "discovery.k8s.io") "resources" (list "endpointslices") "verbs" $read }}
{{- $create := dict "apiGroups" (list "") "resources" (list "configmaps") "verbs" (list "create") }}
{{- $bundle := default (printf "%s-ca" $name) .caConfigMapName }}
{{- $change := dict "apiGroups" (list "") "resources" (list "configmaps") "resourceNames" (list $bundle) "verbs" (list "get" "list" "watch" "patch" "delete") }}
{{- range $place := $behind }}
{{- range (list $policies $services $slices $create $change) }}
{{- $grants = append $grants (dict "namespace" $place "rule" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if include "meshcert.usesEmissary" $spec }}
{{- $places := list $own }}
{{- with $spec.mappings }}{{ with .namespaces }}{{ $places = . }}{{ end }}{{ end }}
{{- range $place := $places }}
{{- $verbs := list "get" "list" "watch" }}
{{- if $spec.mappings }}{{ $verbs = append $verbs "patch" }}{{ end }}
{{- $rule := dict "apiGroups" (list "getambassador.io") "resources" (list "mappings" "tcpmappings") "verbs" $verbs }}
{{- $grants = append $grants (dict "namespace" $place "rule" $rule) }}
{{- $upstreams := default dict $spec.upstreams }}
{{- if or $spec.linkerd (and $upstreams.serviceAccounts (ne (toString $upstreams.enabled) "false")) }}
{{- $backends := dict "apiGroups" (list "") "resources" (list "services" "pods") "verbs" (list "get" "list" "watch") }}
{{- $slices := dict "apiGroups" (list "discovery.k8s.io") "resources" (list "endpointslices") "verbs" (list "get" "list" "watch") }}
{{- $grants = concat $grants (list (dict "namespace" $place "rule" $backends) (dict "namespace" $place "rule" $slices)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (eq .Values.observe "labels") .Values.gatewayApi }}
{{- $classes := dict "apiGroups" (list "gateway.networking.k8s.io") "resources" (list "gatewayclasses") "verbs" (list "get" "list" "watch") }}
{{- $grants = append $grants (dict "namespace" "*" "rule" $classes) }}
{{- end }}
{{- if eq .Values.observe "labels" }}
{{- $watched := list "*" }}
{{- if not .Values.allNamespaces }}{{ $watched = uniq (prepend .Values.watchNamespaces $own) }}{{ end }}
{{- range .Values.allow.serviceAccounts }}
{{- $account := splitList "/" . }}
{{- $rule := dict "apiGroups" (list "") "resources" (list "serviceaccounts/token") "verbs" (list "create") }}
{{- /* Whether the account is being deleted; the annotation by which one of another namespace consents. */}}
{{- $consent := dict "apiGroups" (list "") "resources" (list "serviceaccounts") "verbs" (list "get") }}
{{- if not (contains "*" (last $account)) }}
{{- $_ := set $rule "resourceNames" (list (last $account)) }}
{{- $_ := set $consent "resourceNames" (list (last $account)) }}
{{- end }}
{{- range (ternary $watched (list (first $account)) (contains "*" (first $account))) }}
{{- $grants = concat $grants (list (dict "namespace" . "rule" $rule) (dict "namespace" . "rule" $consent)) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $grants }}
{{- end }}

{{/* A role and its binding: {root, namespace, rules}. */}}
{{- define "meshcert.role" -}}
{{- $everywhere := eq .namespace "*" }}
{{- $kind := ternary "ClusterRole" "Role" $everywhere }}
{{- /* Releases of one name in two namespaces may need roles in the same third one. */}}
{{- $name := printf "%s-%s" (include "meshcert.fullname" .root) .root.Release.Namespace }}
{{- $labels := set (include "meshcert.labels" .root | fromYaml) "meshcert.dev/agent" (include "meshcert.agentLabel" .root) }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}
metadata:
  name: {{ $name }}
  {{- if not $everywhere }}
  namespace: {{ .namespace }}
  {{- end }}
  labels: {{- toYaml $labels | nindent 4 }}
rules: {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
metadata:
  name: {{ $name }}
  {{- if not $everywhere }}
  namespace: {{ .namespace }}
  {{- end }}
  labels: {{- toYaml $labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $kind }}
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ include "meshcert.serviceAccount" .root }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}

{{/* Not empty if a certificate of this spec is also, or only, for Emissary. */}}
{{- define "meshcert.usesEmissary" -}}
{{- if or (hasKey . "tlsContext") .mappings (not .gatewayApi) }}true{{ end }}
{{- end }}
