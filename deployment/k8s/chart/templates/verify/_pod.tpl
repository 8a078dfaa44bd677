{{/* A pod's spec that runs `stlab verify` for every model. */}}
{{- define "stlab.verifyPod" -}}
{{- $verify := .Values.verify }}
{{- include "stlab.pod" (dict "root" .) }}
restartPolicy: Never
containers:
  {{- range $index, $model := .Values.models }}
  - name: verify-{{ $index }}
    image: {{ include "stlab.image" (dict "root" $ "image" $.Values.exporter.image) }}
    imagePullPolicy: {{ $.Values.exporter.image.pullPolicy }}
    command: [stlab]
    args:
      - verify
      - {{ $model | quote }}
      - --alias={{ $.Values.alias }}
      - --triton-url={{ include "stlab.tritonUrl" $ }}
    env:
      {{- include "stlab.commandEnv" $ | nindent 6 }}
      {{- if eq $.Values.repository.type "s3" }}
      - name: STLAB_MODEL_REPOSITORY
        value: {{ $.Values.repository.s3.url }}
      {{- with $.Values.repository.s3.endpoint }}
      - name: AWS_ENDPOINT_URL
        value: {{ . | quote }}
      {{- end }}
      {{- end }}
      {{- include "stlab.storeEnv" $ | trim | nindent 6 }}
      {{- include "stlab.clientEnv" $ | trim | nindent 6 }}
    {{- include "stlab.container" $ | nindent 4 }}
    resources:
      {{- toYaml $verify.resources | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- include "stlab.clientMounts" $ | trim | nindent 6 }}
  {{- end }}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: {{ $verify.storage.tmpSizeLimit }}
  {{- include "stlab.clientVolumes" . | trim | nindent 2 }}
{{- end }}
