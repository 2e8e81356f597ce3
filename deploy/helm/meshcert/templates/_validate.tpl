{{/* Values that contradict each other, as an error that names them. */}}
{{- define "meshcert.validate" -}}
{{- include "meshcert.validateModes" . }}
{{- include "meshcert.validateNamespaces" . }}
{{- include "meshcert.validateCertificates" . }}
{{- include "meshcert.validateRollout" . }}
{{- include "meshcert.validatePod" . }}
{{- include "meshcert.validateSecurity" . }}
{{- end }}

{{- define "meshcert.validateModes" -}}
{{- $mode := .Values.mode }}
{{- if and (eq $mode "sidecar") (not .Values.serviceAccount.name) }}
{{- fail "mode: sidecar needs serviceAccount.name: the ServiceAccount of the gateway's pod, which the Role is bound to" }}
{{- end }}
{{- if and (ne $mode "daemonset") .Values.socketDirectory }}
{{- fail (printf "socketDirectory is a directory of the node, for mode: daemonset; with mode: %s, use extraVolumes and extraVolumeMounts" $mode) }}
{{- end }}
{{- if and (ne $mode "deployment") (gt (int .Values.shards) 1) }}
{{- fail (printf "shards: %d needs mode: deployment" (int .Values.shards)) }}
{{- end }}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled }}
{{- fail "podMonitor.enabled and serviceMonitor.enabled would scrape each pod twice; enable one of them" }}
{{- end }}
{{- if and (eq $mode "sidecar") (or .Values.serviceMonitor.enabled .Values.podMonitor.enabled) }}
{{- fail "mode: sidecar creates no pods or Services to scrape; add the gateway's pods to your own PodMonitor" }}
{{- end }}
{{- if and (eq $mode "sidecar") .Values.prometheusRule.enabled (not .Values.prometheusRule.job) }}
{{- fail "mode: sidecar with prometheusRule.enabled needs prometheusRule.job: the job by which your Prometheus scrapes the gateway's pods" }}
{{- end }}
{{- if and (not .Values.networkPolicy.enabled) (or .Values.networkPolicy.ingressFrom .Values.networkPolicy.egress) }}
{{- fail "networkPolicy.ingressFrom and networkPolicy.egress restrict nothing with networkPolicy.enabled: false" }}
{{- end }}
{{- $actions := .Values.admissionPolicy.validationActions }}
{{- if and (has "Deny" $actions) (has "Warn" $actions) }}
{{- fail "admissionPolicy.validationActions: Deny and Warn exclude each other, because a request that is denied needs no warning" }}
{{- end }}
{{- include "meshcert.unique" (dict "own" list "list" $actions "what" "admissionPolicy.validationActions") }}
{{- end }}

{{- define "meshcert.validateNamespaces" -}}
{{- $which := list }}
{{- if .Values.allNamespaces }}{{ $which = append $which "allNamespaces" }}{{ end }}
{{- if .Values.watchNamespaces }}{{ $which = append $which "watchNamespaces" }}{{ end }}
{{- if gt (len $which) 1 }}
{{- fail "allNamespaces: true watches more than watchNamespaces; set one of them" }}
{{- end }}
{{- if and $which (ne .Values.source "resources") }}
{{- fail (printf "%s needs source: resources, because the documents of a file name their namespaces" (first $which)) }}
{{- end }}
{{- if and $which (ne .Values.observe "labels") }}
{{- fail (printf "%s needs observe: labels, because the Secrets there are not known by name" (first $which)) }}
{{- end }}
{{- if and .Values.gatewayApi (ne .Values.observe "labels") }}
{{- fail "gatewayApi: true is for observe: labels; with observe: names, the Role follows spec.gatewayApi of the certificates" }}
{{- end }}
{{- end }}

{{- define "meshcert.validateCertificates" -}}
{{- $names := list }}
{{- $secrets := list }}
{{- range .Values.certificates }}
{{- $names = append $names .name }}
{{- $secrets = append $secrets (default (printf "%s-ca" .name) .spec.caSecretName) }}
{{- $secrets = append $secrets (default (printf "%s-identity" .name) .spec.secretName) }}
{{- if .spec.trust }}{{ if .spec.trust.crl }}
{{- $secrets = append $secrets (default (printf "%s-crl" .name) .spec.crlSecretName) }}
{{- end }}{{ end }}
{{- end }}
{{- include "meshcert.unique" (dict "own" list "list" $names "what" "certificates: the name") }}
{{- include "meshcert.unique" (dict "own" list "list" $secrets "what" "certificates: the Secret") }}
{{- end }}

{{- define "meshcert.validateRollout" -}}
{{- $replicas := int .Values.replicas }}
{{- with .Values.podDisruptionBudget }}
{{- if and .enabled (eq $.Values.mode "deployment") (gt $replicas 1) }}
{{- $least := toString .minAvailable }}
{{- if ne $least "" }}
{{- if or (eq $least "100%") (and (not (hasSuffix "%" $least)) (ge (int $least) $replicas)) }}
{{- fail (printf "podDisruptionBudget.minAvailable: %s with replicas: %d lets no pod be evicted, so no node could be drained" $least $replicas) }}
{{- end }}
{{- else if has (toString .maxUnavailable) (list "0" "0%") }}
{{- fail (printf "podDisruptionBudget.maxUnavailable: %s lets no pod be evicted, so no node could be drained" (toString .maxUnavailable)) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.updateStrategy.type }}
{{- $other := dict "deployment" "Recreate" "daemonset" "OnDelete" }}
{{- $types := list "RollingUpdate" (get $other $.Values.mode) }}
{{- if and (ne $.Values.mode "sidecar") (not (has . $types)) }}
{{- fail (printf "updateStrategy.type: %s does not exist with mode: %s; use %s" . $.Values.mode (join " or " $types)) }}
{{- end }}
{{- if and (ne . "RollingUpdate") $.Values.updateStrategy.rollingUpdate }}
{{- fail (printf "updateStrategy.rollingUpdate is for type: RollingUpdate, and not for type: %s" .) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the chart itself puts into the pod must not be there twice. */}}
{{- define "meshcert.validatePod" -}}
{{- $values := dict "namespace" "" "config" "source" "observe" "observe" "all-namespaces" "allNamespaces" "watch-namespaces" "watchNamespaces" "allow-service-account" "allow.serviceAccounts" "allow-audience" "allow.audiences" "allow-address" "allow.addresses" "lease-name" "leaseName" "shards" "shards" "listen" "port" "log-level" "logLevel" "gateway-diagnostics" "gatewayDiagnostics" "allowed-hosts" "allowedHosts" }}
{{- range .Values.extraArgs }}
{{- $flag := regexReplaceAll "^--|=.*$" . "" }}
{{- if and (hasPrefix "--" .) (hasKey $values $flag) }}
{{- $value := get $values $flag }}
{{- fail (printf "extraArgs: the chart sets --%s by itself%s" $flag (ternary (printf ", and the Role with it; use the value %s" $value) ": the namespace of the release" (ne $value ""))) }}
{{- end }}
{{- end }}
{{- $env := list }}
{{- range .Values.extraEnv }}{{ $env = append $env .name }}{{ end }}
{{- include "meshcert.unique" (dict "own" (list "POD_NAME" "POD_NAMESPACE") "list" $env "what" "extraEnv: the variable") }}
{{- $own := dict }}
{{- if eq .Values.source "file" }}{{ $_ := set $own "config" "/etc/meshcert" }}{{ end }}
{{- if eq .Values.mode "sidecar" }}{{ $_ := set $own "workload-socket" "/var/run/secrets/workload-spiffe-uds" }}{{ end }}
{{- with .Values.socketDirectory }}{{ $_ := set $own "socket" . }}{{ end }}
{{- if .Values.tokens }}{{ $_ := set $own "tokens" "/var/run/secrets/meshcert" }}{{ end }}
{{- $volumes := list }}
{{- range .Values.extraVolumes }}{{ $volumes = append $volumes .name }}{{ end }}
{{- include "meshcert.unique" (dict "own" (keys $own) "list" $volumes "what" "extraVolumes: the volume") }}
{{- $paths := list }}
{{- range .Values.extraVolumeMounts }}
{{- $paths = append $paths .mountPath }}
{{- if not (has .name (concat (keys $own) $volumes)) }}
{{- fail (printf "extraVolumeMounts: there is no volume %q; add it to extraVolumes" .name) }}
{{- end }}
{{- end }}
{{- include "meshcert.unique" (dict "own" (values $own) "list" $paths "what" "extraVolumeMounts: the path") }}
{{- $tokens := list }}
{{- range .Values.tokens }}{{ $tokens = append $tokens .path }}{{ end }}
{{- include "meshcert.unique" (dict "own" list "list" $tokens "what" "tokens: the path") }}
{{- $labels := append (include "meshcert.ownLabels" . | fromYaml | keys) "sidecar.istio.io/inject" }}
{{- include "meshcert.unique" (dict "own" $labels "list" (keys .Values.commonLabels) "what" "commonLabels: the label") }}
{{- include "meshcert.unique" (dict "own" $labels "list" (concat (keys .Values.commonLabels) (keys .Values.podLabels)) "what" "podLabels: the label") }}
{{- $annotations := list "meshcert.dev/certificates" "linkerd.io/inject" "consul.hashicorp.com/connect-inject" }}
{{- include "meshcert.unique" (dict "own" $annotations "list" (keys .Values.podAnnotations) "what" "podAnnotations: the annotation") }}
{{- if and (not .Values.serviceAccount.create) .Values.serviceAccount.annotations }}
{{- fail "serviceAccount.annotations need serviceAccount.create: true; annotate your own ServiceAccount yourself" }}
{{- end }}
{{- end }}

{{- define "meshcert.validateSecurity" -}}
{{- $pod := .Values.podSecurityContext }}
{{- with .Values.securityContext }}
{{- $nonRoot := ternary .runAsNonRoot $pod.runAsNonRoot (hasKey . "runAsNonRoot") }}
{{- $user := ternary .runAsUser $pod.runAsUser (hasKey . "runAsUser") }}
{{- if and $nonRoot (eq (toString $user) "0") }}
{{- fail "securityContext.runAsUser: 0 is root, which runAsNonRoot: true forbids" }}
{{- end }}
{{- if and (hasKey . "allowPrivilegeEscalation") (not .allowPrivilegeEscalation) }}
{{- if .privileged }}
{{- fail "securityContext.privileged: true needs allowPrivilegeEscalation: true" }}
{{- end }}
{{- if .capabilities }}{{ if or (has "SYS_ADMIN" .capabilities.add) (has "CAP_SYS_ADMIN" .capabilities.add) }}
{{- fail "securityContext.capabilities.add: SYS_ADMIN needs allowPrivilegeEscalation: true" }}
{{- end }}{{ end }}
{{- end }}
{{- end }}
{{- $limits := default dict .Values.resources.limits }}
{{- range $name, $request := default dict .Values.resources.requests }}
{{- if hasKey $limits $name }}
{{- $limit := get $limits $name }}
{{- if gt (include "meshcert.quantity" $request | float64) (include "meshcert.quantity" $limit | float64) }}
{{- fail (printf "resources.requests.%s: %v is more than resources.limits.%s: %v" $name $request $name $limit) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A quantity of Kubernetes, such as 80Mi or 10m, as a number. */}}
{{- define "meshcert.quantity" -}}
{{- $number := regexFind "^[0-9.]+" (toString .) }}
{{- $units := dict "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 }}
{{- mulf (float64 $number) (default 1.0 (get $units (trimPrefix $number (toString .)))) }}
{{- end }}

{{/* Fails if a list has an element twice, or one that the chart itself sets (`own`). */}}
{{- define "meshcert.unique" -}}
{{- $seen := list }}
{{- range .list }}
{{- if has . $.own }}{{ fail (printf "%s %q is set by the chart itself" $.what .) }}{{ end }}
{{- if has . $seen }}{{ fail (printf "%s %q is there twice" $.what .) }}{{ end }}
{{- $seen = append $seen . }}
{{- end }}
{{- end }}
