{{/* A pod's spec that runs `stlab verify` for every model. */}}
{{- define "stlab.verifyPod" -}}
{{- $verify := .Values.verify }}
{{- include "stlab.pod" (dict "root" .) }}
restartPolicy: Never
{{- with $verify.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: verify
    {{- include "stlab.forEachModel" (dict "root" . "command" "verify") | nindent 4 }}
    env:
      {{- include "stlab.commandEnv" . | nindent 6 }}
      {{- if eq .Values.repository.type "s3" }}
      {{- include "stlab.indent" (list 6 (include "stlab.repositoryEnv" .)) }}
      {{- end }}
      {{- include "stlab.indent" (list 6 (include "stlab.clientEnv" .)) }}
      {{- include "stlab.indent" (list 6 (include "stlab.extraEnv" $verify)) }}
    {{- include "stlab.indent" (list 4 (include "stlab.extraEnvFrom" $verify)) }}
    resources:
      {{- toYaml $verify.resources | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- include "stlab.indent" (list 6 (include "stlab.clientMounts" .)) }}
      {{- include "stlab.indent" (list 6 (include "stlab.caMounts" .)) }}
      {{- include "stlab.indent" (list 6 (include "stlab.extraVolumeMounts" $verify)) }}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: {{ $verify.storage.tmpSizeLimit }}
  {{- include "stlab.indent" (list 2 (include "stlab.clientVolumes" .)) }}
  {{- include "stlab.indent" (list 2 (include "stlab.caVolumes" .)) }}
  {{- include "stlab.indent" (list 2 (include "stlab.extraVolumes" $verify)) }}
{{- end }}
