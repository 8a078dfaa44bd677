{{/* What every pod has. */}}

{{/* Metadata of a pod: of (dict "root" $ "part" "triton" "settings" .Values.triton "annotations" …). */}}
{{- define "stlab.podMetadata" -}}
labels:
  {{- include "stlab.labels" . | nindent 2 }}
  {{- with .settings.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  kubectl.kubernetes.io/default-container: {{ .part }}
  {{- range $annotations := list .annotations .settings.podAnnotations }}
  {{- with $annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- end }}

{{/* Of the same; what follows `spec:` in a pod. */}}
{{- define "stlab.pod" -}}
serviceAccountName: {{ include "stlab.serviceAccount" .root }}
automountServiceAccountToken: false
# A Service called stlab-api would otherwise set STLAB_API_PORT.
enableServiceLinks: false
securityContext:
  {{- include "stlab.podSecurity" .root | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "stlab.podSecurity" -}}
runAsNonRoot: true
{{- range $name, $id := .Values.security }}
{{- if not (kindIs "invalid" $id) }}
{{ $name }}: {{ $id | int64 }}
{{- end }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Of (dict "root" $ "part" "triton" "settings" .Values.triton). */}}
{{- define "stlab.placement" -}}
{{- $selector := include "stlab.selector" . }}
{{- with .settings.topologySpread }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml . | nindent 4 | trim }}
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
  {{- end }}
{{- end }}
{{- range $name := list "nodeSelector" "tolerations" "affinity" }}
{{- with get $.settings $name }}
{{ $name }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "stlab.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Of (dict "probes" .Values.triton.probes "live" path "ready" path "startup" path "port" "http"). */}}
{{- define "stlab.probes" -}}
{{- range $name, $probe := dict "startup" "startupProbe" "live" "livenessProbe" "ready" "readinessProbe" }}
{{ $probe }}:
  httpGet: {path: {{ get $ $name }}, port: {{ $.port }}}
  timeoutSeconds: 3
  periodSeconds: {{ (get $.probes $name).periodSeconds }}
  failureThreshold: {{ (get $.probes $name).failureThreshold }}
{{- end }}
{{- end }}

{{- define "stlab.preStop" -}}
lifecycle:
  preStop:
    exec:
      command: [sleep, {{ . | quote }}]
{{- end }}

{{/* ---- what values add: of .Values.triton or another part's ---- */}}

{{- define "stlab.extraEnv" -}}
{{- range $name, $value := .env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with .extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "stlab.extraEnvFrom" -}}
{{- with .extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "stlab.extraVolumeMounts" -}}
{{- with .extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "stlab.extraVolumes" -}}
{{- with .extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "stlab.sidecars" -}}
{{- with .sidecars }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "stlab.initContainers" -}}
{{- with .initContainers }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* ---- authorities of a private CA ---- */}}

{{- define "stlab.caName" -}}
{{- default .Values.privateCA.configMap .Values.privateCA.existingSecret }}
{{- end }}

{{/* What OpenSSL, requests, botocore and gRPC read in place of the authorities that they come with. */}}
{{- define "stlab.caEnv" -}}
{{- if include "stlab.caName" . }}
{{- range list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "AWS_CA_BUNDLE" "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" }}
- name: {{ . }}
  value: /etc/stlab/ca/ca.crt
{{- end }}
{{- end }}
{{- end }}

{{- define "stlab.caMounts" -}}
{{- if include "stlab.caName" . }}
- {name: ca, mountPath: /etc/stlab/ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "stlab.caVolumes" -}}
{{- if include "stlab.caName" . }}
- name: ca
  {{- if .Values.privateCA.existingSecret }}
  secret:
    secretName: {{ .Values.privateCA.existingSecret }}
  {{- else }}
  configMap:
    name: {{ .Values.privateCA.configMap }}
  {{- end }}
    items:
      - {key: {{ .Values.privateCA.key }}, path: ca.crt}
{{- end }}
{{- end }}

{{/* A container that runs a command of stlab for each model, and fails where one does: of
(dict "root" $ "command" "verify"). */}}
{{- define "stlab.forEachModel" -}}
image: {{ include "stlab.image" (dict "root" .root "image" .root.Values.exporter.image) }}
imagePullPolicy: {{ .root.Values.exporter.image.pullPolicy }}
command:
  - /bin/sh
  - -c
  - |
    status=0
    for model; do
      stlab {{ .command }} -- "$model" || status=$?
    done
    exit $status
  - stlab
args:
  {{- toYaml .root.Values.models | nindent 2 }}
{{ include "stlab.containerSecurity" .root }}
{{- end }}
