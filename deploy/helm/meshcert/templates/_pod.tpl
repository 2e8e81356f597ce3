{{/* The one container, whatever runs it. */}}
{{- define "meshcert.container" -}}
name: meshcert
image: {{ include "meshcert.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  - agent
  {{- if eq .Values.source "file" }}
  - --config=/etc/meshcert/mesh.yaml
  {{- end }}
  - --namespace={{ .Release.Namespace }}
  - --observe={{ .Values.observe }}
  {{- if .Values.allNamespaces }}
  - --all-namespaces
  {{- else if and .Values.watchNamespaces (eq .Values.source "resources") }}
  - --watch-namespaces={{ join "," .Values.watchNamespaces }}
  {{- end }}
  {{- range .Values.allow.serviceAccounts }}
  - {{ printf "--allow-service-account=%s" . | quote }}
  {{- end }}
  {{- range .Values.allow.audiences }}
  - {{ printf "--allow-audience=%s" . | quote }}
  {{- end }}
  {{- range .Values.allow.addresses }}
  - {{ printf "--allow-address=%s" . | quote }}
  {{- end }}
  {{- if eq .Values.mode "deployment" }}
  - --lease-name={{ .Values.leaseName }}
  - --shards={{ .Values.shards }}
  {{- else }}
  - --lease-name={{ .Values.leaseName }}
  {{- end }}
  - --listen=:{{ .Values.port }}
  - --log-level={{ .Values.logLevel }}
  {{- with .Values.gatewayDiagnostics }}
  - --gateway-diagnostics={{ . }}
  {{- end }}
  {{- with .Values.allowedHosts }}
  - --allowed-hosts={{ join "," . }}
  {{- end }}
  {{- with .Values.extraArgs }}{{ toYaml . | nindent 2 }}{{ end }}
env:
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  - name: POD_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  {{- with .Values.extraEnv }}{{ toYaml . | nindent 2 }}{{ end }}
ports:
  - name: http
    containerPort: {{ .Values.port }}
    protocol: TCP
{{- with .Values.livenessProbe }}
livenessProbe: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.readinessProbe }}
readinessProbe: {{- toYaml . | nindent 2 }}
{{- end }}
{{- $security := deepCopy .Values.securityContext }}
{{- if eq .Values.mode "sidecar" }}
{{- /* The socket of Istio's proxy is open to the proxy's user alone. */}}
{{- $security = mergeOverwrite $security (dict "runAsUser" 1337 "runAsGroup" 1337) }}
{{- end }}
securityContext: {{- toYaml $security | nindent 2 }}
resources: {{- toYaml .Values.resources | nindent 2 }}
{{- $sidecar := eq .Values.mode "sidecar" }}
{{- $mounts := or (eq .Values.source "file") $sidecar .Values.socketDirectory .Values.tokens .Values.extraVolumeMounts }}
{{- if $mounts }}
volumeMounts:
  {{- if eq .Values.source "file" }}
  - {name: config, mountPath: /etc/meshcert, readOnly: true}
  {{- end }}
  {{- if $sidecar }}
  - {name: workload-socket, mountPath: /var/run/secrets/workload-spiffe-uds, readOnly: true}
  {{- end }}
  {{- with .Values.socketDirectory }}
  - {name: socket, mountPath: {{ . }}, readOnly: true}
  {{- end }}
  {{- if .Values.tokens }}
  - {name: tokens, mountPath: /var/run/secrets/meshcert, readOnly: true}
  {{- end }}
  {{- with .Values.extraVolumeMounts }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}

{{- define "meshcert.volumes" -}}
{{- $sidecar := eq .Values.mode "sidecar" }}
{{- if or (eq .Values.source "file") $sidecar .Values.socketDirectory .Values.tokens .Values.extraVolumes }}
volumes:
  {{- if eq .Values.source "file" }}
  - name: config
    configMap: {name: {{ include "meshcert.fullname" . }}}
  {{- end }}
  {{- if $sidecar }}
  - {name: workload-socket, emptyDir: {}}
  {{- end }}
  {{- with .Values.socketDirectory }}
  - name: socket
    hostPath: {path: {{ . }}, type: Directory}
  {{- end }}
  {{- with .Values.tokens }}
  - name: tokens
    projected:
      sources:
        {{- range . }}
        - serviceAccountToken: {path: {{ .path }}, audience: {{ .audience }}, expirationSeconds: {{ default 3600 .expirationSeconds }}}
        {{- end }}
  {{- end }}
  {{- with .Values.extraVolumes }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}

{{- define "meshcert.pod" -}}
metadata:
  labels:
    {{- include "meshcert.selector" . | nindent 4 }}
    {{- with .Values.commonLabels }}{{ toYaml . | nindent 4 }}{{ end }}
    # No mesh may put its proxy here: the agent speaks to the meshes by itself.
    sidecar.istio.io/inject: "false"
    {{- with .Values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    {{- if eq .Values.source "file" }}
    meshcert.dev/certificates: {{ toYaml .Values.certificates | sha256sum }}
    {{- end }}
    linkerd.io/inject: disabled
    consul.hashicorp.com/connect-inject: "false"
    {{- with .Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "meshcert.serviceAccount" . }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints: {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  securityContext: {{- toYaml .Values.podSecurityContext | nindent 4 }}
  containers:
    - {{- include "meshcert.container" . | nindent 6 }}
  {{- include "meshcert.volumes" . | nindent 2 }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.affinity }}
  affinity: {{- toYaml .Values.affinity | nindent 4 }}
  {{- else if eq .Values.mode "deployment" }}
  affinity:
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels: {{- include "meshcert.selector" . | nindent 16 }}
  {{- end }}
{{- end }}
