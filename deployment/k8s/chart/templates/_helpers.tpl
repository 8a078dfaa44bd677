{{/* ---- names and labels ---- */}}

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

{{/* Of (dict "root" $ "image" .Values.triton.image). */}}
{{- define "stlab.image" -}}
{{- $tag := default .root.Chart.AppVersion .image.tag -}}
{{ .image.repository }}:{{ $tag }}{{ with .image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* ---- secrets ---- */}}

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

{{/* What stlab's commands are told in a pod. */}}
{{- define "stlab.commandEnv" -}}
- name: HOME
  value: /tmp
- name: MLFLOW_TRACKING_URI
  value: {{ .Values.registry.trackingUri | quote }}
{{- include "stlab.secretEnv" (dict "root" . "secret" .Values.registry.secret "name" "registry") }}
{{- end }}

{{/* ---- what every pod has ---- */}}

{{/* Of (dict "root" $ "settings" .Values.triton "part" "triton"); what follows `spec:` in a pod. */}}
{{- define "stlab.pod" -}}
serviceAccountName: {{ include "stlab.serviceAccount" .root }}
automountServiceAccountToken: false
# A Service called stlab-api would otherwise set STLAB_API_PORT.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- range $name, $id := .root.Values.security }}
  {{- if not (kindIs "invalid" $id) }}
  {{ $name }}: {{ $id | int64 }}
  {{- end }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

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
{{- with .settings.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "stlab.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Of (dict "path" … "port" … "probes" .Values.triton.probes "started" …). */}}
{{- define "stlab.probes" -}}
startupProbe:
  httpGet: {path: {{ .started }}, port: http}
  timeoutSeconds: 3
  periodSeconds: {{ .probes.startup.periodSeconds }}
  failureThreshold: {{ .probes.startup.failureThreshold }}
livenessProbe:
  httpGet: {path: {{ .live }}, port: http}
  timeoutSeconds: 3
  periodSeconds: {{ .probes.live.periodSeconds }}
  failureThreshold: {{ .probes.live.failureThreshold }}
readinessProbe:
  httpGet: {path: {{ .ready }}, port: http}
  timeoutSeconds: 3
  periodSeconds: {{ .probes.ready.periodSeconds }}
  failureThreshold: {{ .probes.ready.failureThreshold }}
{{- end }}

{{- define "stlab.preStop" -}}
lifecycle:
  preStop:
    exec:
      command: [sleep, {{ . | quote }}]
{{- end }}

{{/* ---- Triton ---- */}}

{{- define "stlab.tritonName" -}}
{{ include "stlab.fullname" . }}-triton
{{- end }}

{{- define "stlab.apiName" -}}
{{ include "stlab.fullname" . }}-api
{{- end }}

{{/* --exit-timeout-secs: what triton.args says, else what files/server.args does. */}}
{{- define "stlab.exitTimeout" -}}
{{- $flags := concat (splitList "\n" (.Files.Get "files/server.args")) .Values.triton.args }}
{{- $seconds := "" }}
{{- range $flags }}
{{- if hasPrefix "--exit-timeout-secs=" . }}
{{- $seconds = trimPrefix "--exit-timeout-secs=" . }}
{{- end }}
{{- end }}
{{- required "files/server.args does not say --exit-timeout-secs" $seconds }}
{{- end }}

{{- define "stlab.tritonGrace" -}}
{{- add .Values.triton.drain.preStopSeconds (include "stlab.exitTimeout" . | int) 15 }}
{{- end }}

{{/* The repository as Triton is told it: s3://https://host:port/bucket/prefix. */}}
{{- define "stlab.repository" -}}
{{- $repository := .Values.repository }}
{{- if eq $repository.type "pvc" -}}
/models
{{- else if eq $repository.type "bundle" -}}
/repository/models
{{- else if $repository.s3.endpoint -}}
s3://{{ trimSuffix "/" $repository.s3.endpoint }}/{{ trimPrefix "s3://" $repository.s3.url }}
{{- else -}}
{{ $repository.s3.url }}
{{- end }}
{{- end }}

{{- define "stlab.storeEnv" -}}
{{- if eq .Values.repository.type "s3" }}
- name: AWS_DEFAULT_REGION
  value: {{ .Values.repository.s3.region | quote }}
{{- include "stlab.secretEnv" (dict "root" . "secret" .Values.repository.s3.secret "name" "store") }}
{{- end }}
{{- end }}

{{/* Flags beyond files/server.args, one a line. */}}
{{- define "stlab.tritonFlags" -}}
- --model-repository={{ include "stlab.repository" . }}
{{- include "stlab.tritonOwnFlags" . }}
{{- end }}

{{- define "stlab.tritonOwnFlags" -}}
{{- if .Values.triton.tls.enabled }}
- --grpc-use-ssl=true
- --grpc-server-cert=/etc/stlab/tls/tls.crt
- --grpc-server-key=/etc/stlab/tls/tls.key
{{- if .Values.triton.tls.mutual }}
- --grpc-use-ssl-mutual=true
- --grpc-root-cert=/etc/stlab/tls/ca.crt
{{- end }}
{{- end }}
{{- range .Values.triton.args }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{- define "stlab.tritonResources" -}}
{{- $resources := deepCopy .Values.triton.resources }}
{{- with .Values.triton.gpu }}
{{- if .enabled }}
{{- $limits := merge (dict .resourceName .count) (default dict $resources.limits) }}
{{- $_ := set $resources "limits" $limits }}
{{- end }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{/* gRPC address, for clients in the release: every server behind the headless name, in turn. */}}
{{- define "stlab.tritonUrl" -}}
{{- if .Values.tritonUrl -}}
{{ .Values.tritonUrl }}
{{- else -}}
{{ ternary "grpcs://" "dns:///" .Values.triton.tls.enabled }}{{ include "stlab.tritonName" . }}-headless:8001
{{- end }}
{{- end }}

{{/* ---- what a client of Triton has: its key, certificates ---- */}}

{{- define "stlab.clientEnv" -}}
{{- $tls := .Values.triton.tls }}
{{- if $tls.enabled }}
- name: STLAB_TRITON_CA
  value: /etc/stlab/tls/ca.crt
{{- if $tls.mutual }}
- name: STLAB_TRITON_CERT
  value: /etc/stlab/client/tls.crt
- name: STLAB_TRITON_CERT_KEY
  value: /etc/stlab/client/tls.key
{{- end }}
{{- end }}
{{- include "stlab.secretEnv" (dict "root" . "secret" .Values.triton.restricted.secret "name" "triton") }}
{{- end }}

{{- define "stlab.clientMounts" -}}
{{- $tls := .Values.triton.tls }}
{{- if $tls.enabled }}
- {name: tls, mountPath: /etc/stlab/tls, readOnly: true}
{{- if $tls.mutual }}
- {name: client, mountPath: /etc/stlab/client, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{- define "stlab.clientVolumes" -}}
{{- $tls := .Values.triton.tls }}
{{- if $tls.enabled }}
- name: tls
  secret:
    secretName: {{ $tls.existingSecret }}
    items:
      - {key: ca.crt, path: ca.crt}
{{- if $tls.mutual }}
- name: client
  secret:
    secretName: {{ $tls.clientSecret }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- end }}

{{/* Whether `helm test` has a server to ask. */}}
{{- define "stlab.tests" -}}
{{- if and .Values.verify.test (or .Values.triton.enabled .Values.tritonUrl) }}yes{{ end }}
{{- end }}

{{- define "stlab.verifies" -}}
{{- if or (include "stlab.tests" .) .Values.verify.cronJob.enabled }}yes{{ end }}
{{- end }}

{{/* Port of a URL. */}}
{{- define "stlab.port" -}}
{{- $url := urlParse . }}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" }}
{{- default (ternary "443" "80" (eq $url.scheme "https")) $port }}
{{- end }}

{{/* ---- what cannot work together ---- */}}

{{- define "stlab.check" -}}
{{- $v := .Values }}
{{- $asks := or (and $v.api.enabled (eq $v.api.backend "triton")) (include "stlab.verifies" .) }}
{{- if and $v.triton.tls.mutual (not $v.triton.tls.enabled) }}
{{- fail "triton.tls.mutual needs triton.tls.enabled" }}
{{- end }}
{{- if and $v.triton.tls.enabled (not $v.triton.tls.existingSecret) }}
{{- fail "triton.tls.enabled needs triton.tls.existingSecret" }}
{{- end }}
{{- if and $v.triton.tls.mutual $asks (not $v.triton.tls.clientSecret) }}
{{- fail "triton.tls.mutual needs triton.tls.clientSecret, which the service and stlab verify show" }}
{{- end }}
{{- if and $v.api.enabled (eq $v.api.backend "triton") (not $v.triton.enabled) (not $v.tritonUrl) }}
{{- fail "api.backend is triton and triton.enabled is false: say tritonUrl, or api.backend=local" }}
{{- end }}
{{- if and $v.triton.enabled $v.tritonUrl }}
{{- fail "tritonUrl is for a Triton elsewhere: set triton.enabled=false" }}
{{- end }}
{{- if and $v.verify.cronJob.enabled (not $v.triton.enabled) (not $v.tritonUrl) }}
{{- fail "verify.cronJob has no Triton to ask: say tritonUrl" }}
{{- end }}
{{- if and (eq $v.repository.type "pvc") $v.triton.enabled (not $v.repository.pvc.claimName) }}
{{- fail "repository.type is pvc: say repository.pvc.claimName" }}
{{- end }}
{{- if and (eq $v.repository.type "bundle") $v.kserve.inferenceService.enabled (not $v.kserve.inferenceService.storageUri) }}
{{- fail "repository.type is bundle, which KServe cannot copy: say kserve.inferenceService.storageUri" }}
{{- end }}
{{- if and $v.ingress.enabled (not $v.ingress.host) }}
{{- fail "ingress.enabled needs ingress.host" }}
{{- end }}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) }}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs" }}
{{- end }}
{{- if and $v.externalSecrets.enabled (not $v.externalSecrets.store.name) }}
{{- fail "externalSecrets.enabled needs externalSecrets.store.name" }}
{{- end }}
{{- if and (eq $v.repository.type "bundle") $v.triton.enabled $v.triton.autoscaling.enabled }}
{{- fail "repository.type is bundle: a server that starts after the alias has moved would serve another version than the others; switch triton.autoscaling off, or use s3 or pvc" }}
{{- end }}
{{- $needs := dict "triton" (and $v.triton.enabled (eq $v.triton.autoscaling.signal "cpu")) "api" $v.api.enabled }}
{{- range $name, $part := dict "triton" $v.triton "api" $v.api }}
{{- if and $part.autoscaling.enabled (get $needs $name) (not (dig "requests" "cpu" "" (default dict $part.resources))) }}
{{- fail (printf "%s.autoscaling on CPU needs %s.resources.requests.cpu" $name $name) }}
{{- end }}
{{- if gt (int $part.autoscaling.minReplicas) (int $part.autoscaling.maxReplicas) }}
{{- fail (printf "%s.autoscaling: minReplicas is above maxReplicas" $name) }}
{{- end }}
{{- if and (eq (int $part.strategy.maxSurge) 0) (eq (int $part.strategy.maxUnavailable) 0) }}
{{- fail (printf "%s.strategy: maxSurge and maxUnavailable are both 0" $name) }}
{{- end }}
{{- end }}
{{- $scaling := $v.triton.autoscaling }}
{{- if and $scaling.enabled (eq $scaling.by "keda") (ne $scaling.signal "cpu") (not $scaling.prometheusUrl) }}
{{- fail "triton.autoscaling.by is keda: say prometheusUrl" }}
{{- end }}
{{- if and $v.triton.enabled $v.kserve.inferenceService.enabled }}
{{- fail "kserve.inferenceService runs Triton: set triton.enabled=false" }}
{{- end }}
{{- if and $v.kserve.inferenceService.enabled (not $v.kserve.runtime) }}
{{- fail "kserve.inferenceService.enabled needs kserve.runtime" }}
{{- end }}
{{- end }}
