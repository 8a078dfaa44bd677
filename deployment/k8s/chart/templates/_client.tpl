{{/* Clients of Triton and of the model repository: the address, the key, certificates. */}}

{{/* gRPC address, for clients in the release: every server behind the headless name, in turn. */}}
{{- define "stlab.tritonUrl" -}}
{{- if .Values.tritonUrl -}}
{{ .Values.tritonUrl }}
{{- else -}}
{{ ternary "grpcs://" "dns:///" .Values.triton.tls.enabled }}{{ include "stlab.tritonName" . }}-headless:8001
{{- end }}
{{- end }}

{{- define "stlab.clientEnv" -}}
{{- $tls := .Values.triton.tls }}
- name: STLAB_TRITON_URL
  value: {{ include "stlab.tritonUrl" . }}
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

{{/* Region and credentials of the store. */}}
{{- define "stlab.storeEnv" -}}
- name: AWS_DEFAULT_REGION
  value: {{ .Values.repository.s3.region | quote }}
{{- include "stlab.secretEnv" (dict "root" . "secret" .Values.repository.s3.secret "name" "store") }}
{{- end }}

{{/* The model repository, for stlab's own programs. */}}
{{- define "stlab.repositoryEnv" -}}
{{- if ne .Values.repository.type "bundle" }}
- name: STLAB_MODEL_REPOSITORY
  value: {{ ternary .Values.repository.s3.url "/models" (eq .Values.repository.type "s3") }}
{{- end }}
{{- if eq .Values.repository.type "s3" }}
{{- with .Values.repository.s3.endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{ include "stlab.storeEnv" . }}
{{- end }}
{{- end }}

{{- define "stlab.repositoryMount" -}}
- name: models
  mountPath: /models
  readOnly: true
  {{- with .Values.repository.pvc.subPath }}
  subPath: {{ . }}
  {{- end }}
{{- end }}

{{- define "stlab.repositoryVolume" -}}
- name: models
  persistentVolumeClaim:
    claimName: {{ .Values.repository.pvc.claimName }}
    readOnly: true
{{- end }}

{{/* Whether `helm test` has a server to verify. */}}
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
