{{/* Values that cannot work together: each row has the condition and the message. */}}
{{- define "stlab.check" -}}
{{- $v := .Values }}
{{- $tls := $v.triton.tls }}
{{- $type := $v.repository.type }}
{{- $kserve := $v.kserve.inferenceService }}
{{- $scaling := $v.triton.autoscaling }}
{{- $server := or $v.triton.enabled $v.tritonUrl }}
{{- $byTriton := and $v.api.enabled (eq $v.api.backend "triton") }}
{{- $clients := or $byTriton (include "stlab.verifies" .) (and $v.dashboard.enabled $server) }}
{{- $byCPU := dict "triton" (and $v.triton.enabled (eq $scaling.signal "cpu")) "api" $v.api.enabled }}
{{- $rows := list
  (list (and $tls.mutual (not $tls.enabled))
    "triton.tls.mutual needs triton.tls.enabled")
  (list (and $tls.enabled (not $tls.existingSecret))
    "triton.tls.enabled needs triton.tls.existingSecret")
  (list (and $tls.mutual $clients (not $tls.clientSecret))
    "triton.tls.mutual needs triton.tls.clientSecret, the certificate of the service, the dashboard and stlab verify")
  (list (and $byTriton (not $server))
    "api.backend is triton and triton.enabled is false: set tritonUrl, or api.backend=local")
  (list (and $v.triton.enabled $v.tritonUrl)
    "tritonUrl is for a Triton outside this release: set triton.enabled=false")
  (list (and $v.verify.cronJob.enabled (not $server))
    "verify.cronJob has no Triton to verify: set tritonUrl")
  (list (and (eq $type "pvc") (or $v.triton.enabled $v.dashboard.enabled) (not $v.repository.pvc.claimName))
    "repository.type is pvc: set repository.pvc.claimName")
  (list (and (eq $type "bundle") $v.dashboard.enabled)
    "repository.type is bundle, so the dashboard has no repository to show: use s3 or pvc")
  (list (and (eq $type "bundle") $kserve.enabled (not $kserve.storageUri))
    "repository.type is bundle, which KServe cannot copy: set kserve.inferenceService.storageUri")
  (list (and (eq $type "bundle") $v.triton.enabled $scaling.enabled)
    "repository.type is bundle: a server that starts after the alias has moved would serve another version than the others; switch triton.autoscaling off, or use s3 or pvc")
  (list (and $v.ingress.enabled (not $v.ingress.host))
    "ingress.enabled needs ingress.host")
  (list (and $v.httpRoute.enabled (not $v.httpRoute.parentRefs))
    "httpRoute.enabled needs httpRoute.parentRefs")
  (list (and $v.externalSecrets.enabled (not $v.externalSecrets.store.name))
    "externalSecrets.enabled needs externalSecrets.store.name")
  (list (and $v.privateCA.configMap $v.privateCA.existingSecret)
    "privateCA: set configMap or existingSecret, not both")
  (list (and $scaling.enabled (eq $scaling.by "keda") (ne $scaling.signal "cpu") (not $scaling.prometheusUrl))
    "triton.autoscaling.by is keda: set prometheusUrl")
  (list (and $v.triton.enabled $kserve.enabled)
    "kserve.inferenceService runs Triton: set triton.enabled=false")
  (list (and $kserve.enabled (not $v.kserve.runtime))
    "kserve.inferenceService.enabled needs kserve.runtime")
}}
{{- range $name, $part := pick $v "triton" "api" }}
{{- $cpu := dig "requests" "cpu" "" (default dict $part.resources) }}
{{- $rows = concat $rows (list
  (list (and $part.autoscaling.enabled (get $byCPU $name) (not $cpu))
    (printf "%s.autoscaling on CPU needs %s.resources.requests.cpu" $name $name))
  (list (gt (int $part.autoscaling.minReplicas) (int $part.autoscaling.maxReplicas))
    (printf "%s.autoscaling: minReplicas is above maxReplicas" $name))
  (list (and (eq (int $part.strategy.maxSurge) 0) (eq (int $part.strategy.maxUnavailable) 0))
    (printf "%s.strategy: maxSurge and maxUnavailable are both 0" $name))
) }}
{{- end }}
{{- range $rows }}
{{- if first . }}{{ fail (last .) }}{{ end }}
{{- end }}
{{- end }}
