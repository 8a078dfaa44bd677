{{/* What every policy starts with: of (dict "root" $ "part" "triton"). */}}
{{- define "stlab.policy" }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "stlab.fullname" .root }}-{{ .part }}
  labels:
    {{- include "stlab.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "stlab.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end }}

{{/* Pods of this release, and further peers: of (dict "root" $ "parts" (list "api") "peers" …). */}}
{{- define "stlab.peers" -}}
{{- range .parts }}
- podSelector:
    matchLabels:
      {{- include "stlab.selector" (dict "root" $.root "part" .) | nindent 6 }}
{{- end }}
{{- with .peers }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* DNS, ports of networkPolicy.egressTo, and ports of this release's pods: of (dict "root" $
"ports" (list "443") "triton" (list 8001) "api" (list 8080)). */}}
{{- define "stlab.egress" -}}
{{- $policy := .root.Values.networkPolicy }}
{{- $further := list }}
{{- range $policy.egressPorts }}{{ $further = append $further (toString .) }}{{ end }}
- ports:
    {{- range $policy.dnsPorts }}
    - {protocol: UDP, port: {{ . }}}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- range concat .ports $further | uniq }}
- ports:
    - {protocol: TCP, port: {{ . }}}
  {{- with $policy.egressTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- range $part := list "triton" "api" }}
{{- with get $ $part }}
- ports:
    {{- range . }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  to:
    {{- include "stlab.indent" (list 4 (include "stlab.peers" (dict "root" $.root "parts" (list $part)))) }}
{{- end }}
{{- end }}
{{- end }}
