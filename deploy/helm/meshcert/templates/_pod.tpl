{{/* The one container, whatever runs it. */}}
{{- define "meshcert.container" -}}
name: meshcert
image: "{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}"
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
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 20
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 10
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
resources: {{- toYaml .Values.resources | nindent 2 }}
{{- $mounts := or (eq .Values.source "file") .Values.socketDirectory .Values.tokens .Values.extraVolumeMounts }}
{{- if $mounts }}
volumeMounts:
  {{- if eq .Values.source "file" }}
  - {name: config, mountPath: /etc/meshcert, readOnly: true}
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
{{- if or (eq .Values.source "file") .Values.socketDirectory .Values.tokens .Values.extraVolumes }}
volumes:
  {{- if eq .Values.source "file" }}
  - name: config
    configMap: {name: {{ include "meshcert.fullname" . }}}
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
  # Long enough to finish a write and give the Lease back.
  terminationGracePeriodSeconds: 15
  securityContext: {runAsNonRoot: true, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
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
