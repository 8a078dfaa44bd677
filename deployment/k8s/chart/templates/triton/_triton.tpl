{{/* The server: its flags, its container, its volumes. */}}

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

{{/* The repository as Triton takes it: s3://https://host:port/bucket/prefix. */}}
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

{{/* The container: of (dict "root" $ "kserve" false). KServe copies the repository to /mnt/models. */}}
{{- define "stlab.tritonContainer" -}}
{{- $root := .root }}
{{- $triton := .root.Values.triton }}
{{- $type := ternary "kserve" .root.Values.repository.type .kserve }}
name: {{ ternary "kserve-container" "triton" .kserve }}
image: {{ include "stlab.image" (dict "root" $root "image" $triton.image) }}
imagePullPolicy: {{ $triton.image.pullPolicy }}
command: [/bin/sh, /etc/stlab/triton/start.sh]
args:
  - --model-repository={{ if .kserve }}/mnt/models{{ else }}{{ include "stlab.repository" $root }}{{ end }}
  {{- if $triton.tls.enabled }}
  - --grpc-use-ssl=true
  - --grpc-server-cert=/etc/stlab/tls/tls.crt
  - --grpc-server-key=/etc/stlab/tls/tls.key
  {{- if $triton.tls.mutual }}
  - --grpc-use-ssl-mutual=true
  - --grpc-root-cert=/etc/stlab/tls/ca.crt
  {{- end }}
  {{- end }}
  {{- range $triton.args }}
  - {{ . | quote }}
  {{- end }}
env:
  - name: HOME
    value: /tmp
  {{- if eq $type "s3" }}
  {{- include "stlab.indent" (list 2 (include "stlab.storeEnv" $root)) }}
  {{- end }}
  {{- include "stlab.indent" (list 2 (include "stlab.secretEnv" (dict "root" $root "secret" $triton.restricted.secret "name" "triton"))) }}
  {{- include "stlab.indent" (list 2 (include "stlab.extraEnv" $triton)) }}
{{- include "stlab.indent" (list 0 (include "stlab.extraEnvFrom" $triton)) }}
ports:
  {{- if .kserve }}
  # KServe's Service has port 80 for the first one, and the others as they are.
  - {name: h2c, containerPort: 8001, protocol: TCP}
  - {name: http1, containerPort: 8000, protocol: TCP}
  {{- else }}
  - {name: http, containerPort: 8000}
  - {name: grpc, containerPort: 8001}
  {{- end }}
  - {name: metrics, containerPort: 8002}
{{- include "stlab.probes" (dict "probes" $triton.probes "startup" "/v2/health/ready" "live" "/v2/health/live" "ready" "/v2/health/ready" "port" (ternary "http1" "http" .kserve)) }}
{{ include "stlab.preStop" $triton.drain.preStopSeconds }}
{{ include "stlab.containerSecurity" $root }}
resources:
  {{- include "stlab.tritonResources" $root | nindent 2 }}
volumeMounts:
  - {name: config, mountPath: /etc/stlab/triton, readOnly: true}
  - {name: tmp, mountPath: /tmp}
  - {name: shm, mountPath: /dev/shm}
  {{- if eq $type "pvc" }}
  {{- include "stlab.repositoryMount" $root | nindent 2 }}
  {{- end }}
  {{- if eq $type "bundle" }}
  - {name: repository, mountPath: /repository, readOnly: true}
  {{- end }}
  {{- if $triton.tls.enabled }}
  - {name: tls, mountPath: /etc/stlab/tls, readOnly: true}
  {{- end }}
  {{- if and (eq $type "s3") (include "stlab.caName" $root) }}
  # The server's S3 client reads this file and no environment variable.
  - {name: ca, mountPath: /etc/ssl/certs/ca-certificates.crt, subPath: ca.crt, readOnly: true}
  {{- end }}
  {{- include "stlab.indent" (list 2 (include "stlab.extraVolumeMounts" $triton)) }}
{{- end }}

{{- define "stlab.tritonVolumes" -}}
{{- $triton := .Values.triton }}
- name: config
  configMap:
    name: {{ include "stlab.tritonName" . }}
- name: tmp
  emptyDir:
    sizeLimit: {{ $triton.storage.tmpSizeLimit }}
- name: shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ $triton.storage.shmSizeLimit }}
{{- if $triton.tls.enabled }}
- name: tls
  secret:
    secretName: {{ $triton.tls.existingSecret }}
    defaultMode: 0440
{{- end }}
{{- include "stlab.extraVolumes" $triton }}
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
