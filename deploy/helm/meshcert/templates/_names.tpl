{{- define "meshcert.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "meshcert.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "meshcert.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- $full | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "meshcert.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "meshcert.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "meshcert.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- define "meshcert.selector" -}}
app.kubernetes.io/name: {{ include "meshcert.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "meshcert.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{ include "meshcert.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Values that contradict each other, as an error that names them. */}}
{{- define "meshcert.validate" -}}
{{- if and (eq .Values.mode "sidecar") (not .Values.serviceAccount.name) }}
{{- fail "mode: sidecar needs serviceAccount.name: the ServiceAccount of the gateway's pod, which the Role is bound to" }}
{{- end }}
{{- if and (ne .Values.mode "daemonset") .Values.socketDirectory }}
{{- fail (printf "socketDirectory is a directory of the node, for mode: daemonset; with mode: %s, use extraVolumes and extraVolumeMounts" .Values.mode) }}
{{- end }}
{{- if and (ne .Values.mode "deployment") (gt (int .Values.shards) 1) }}
{{- fail (printf "shards: %d needs mode: deployment" (int .Values.shards)) }}
{{- end }}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled }}
{{- fail "podMonitor.enabled and serviceMonitor.enabled would scrape each pod twice; enable one of them" }}
{{- end }}
{{- if and (eq .Values.mode "sidecar") (or .Values.serviceMonitor.enabled .Values.podMonitor.enabled) }}
{{- fail "mode: sidecar creates no pods or Services to scrape; add the gateway's pods to your own PodMonitor" }}
{{- end }}
{{- end }}
