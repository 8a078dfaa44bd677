{{/* Names, labels, images and secrets. */}}

{{/* Text that may be empty, on indented lines of its own: of (list 8 text). */}}
{{- define "stlab.indent" -}}
{{- with last . | trim }}{{ . | nindent (first $ | int) }}{{ end }}
{{- end }}

{{- define "stlab.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "stlab.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "stlab.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "stlab.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Of (dict "root" $ "part" "triton"). */}}
{{- define "stlab.selector" -}}
app.kubernetes.io/name: {{ include "stlab.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "stlab.labels" -}}
{{ include "stlab.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "stlab.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "stlab.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "stlab.tritonName" -}}
{{ include "stlab.fullname" . }}-triton
{{- end }}

{{- define "stlab.apiName" -}}
{{ include "stlab.fullname" . }}-api
{{- end }}

{{- define "stlab.dashboardName" -}}
{{ include "stlab.fullname" . }}-dashboard
{{- end }}

{{/* Of (dict "root" $ "image" .Values.triton.image). */}}
{{- define "stlab.image" -}}
{{- $tag := default .root.Chart.AppVersion .image.tag -}}
{{ .image.repository }}:{{ $tag }}{{ with .image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* Name of a Secret, or nothing: of (dict "root" $ "secret" … "name" "registry"). */}}
{{- define "stlab.secretName" -}}
{{- if .secret.existingSecret -}}
{{ .secret.existingSecret }}
{{- else if .secret.remoteKey -}}
{{- if not .root.Values.externalSecrets.enabled }}
{{- fail (printf "%s: a remoteKey needs externalSecrets.enabled" .name) }}
{{- end -}}
{{ include "stlab.fullname" .root }}-{{ .name }}
{{- end }}
{{- end }}

{{- define "stlab.secretEnv" -}}
{{- $name := include "stlab.secretName" . }}
{{- if $name }}
{{- range $variable, $key := .secret.keys }}
- name: {{ $variable }}
  valueFrom:
    secretKeyRef:
      name: {{ $name }}
      key: {{ $key }}
{{- end }}
{{- end }}
{{- end }}

{{/* Environment of stlab's commands in a pod. */}}
{{- define "stlab.commandEnv" -}}
- name: HOME
  value: /tmp
- name: MLFLOW_TRACKING_URI
  value: {{ .Values.registry.trackingUri | quote }}
- name: MLFLOW_MODEL_ALIAS
  value: {{ .Values.alias }}
{{- include "stlab.secretEnv" (dict "root" . "secret" .Values.registry.secret "name" "registry") }}
{{- include "stlab.caEnv" . }}
{{- end }}
