{{- define "halimede.args" -}}
- --model-repository={{ .Values.models.path }}
{{- range .Values.models.serve }}
- --model={{ . }}
{{- end }}
- --host={{ .Values.server.host }}
- --http-port=8000
- --grpc-port=8001
- --metrics-port=8002
- --metrics-interval-ms={{ .Values.server.metricsIntervalMs }}
- --exit-timeout={{ .Values.server.exitTimeoutSeconds }}
{{- with include "halimede.threads" . | int }}
- --threads={{ . }}
{{- end }}
- --log-level={{ .Values.server.logLevel }}
{{- if .Values.tracing.enabled }}
- --trace-url={{ .Values.tracing.url }}
- --trace-sample-rate={{ int .Values.tracing.sampleRate }}
{{- end }}
{{- range .Values.server.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- with include "halimede.tritonArgs" . | trim }}
- --
{{ . }}
{{- end }}
{{- end -}}

{{- /* Cores of the server's limit, else of its request, rounded up; 0 where there is neither. A process sees the
      limit by itself, but not the request, and would keep all cores of the node busy. */ -}}
{{- define "halimede.threads" -}}
{{- $limits := default (dict) .Values.resources.limits -}}
{{- $requests := default (dict) .Values.resources.requests -}}
{{- $cpu := default $requests.cpu $limits.cpu | default 0 | toString -}}
{{- $cores := ternary (divf (trimSuffix "m" $cpu) 1000) (float64 $cpu) (hasSuffix "m" $cpu) -}}
{{- .Values.server.threads | default (ceil $cores) | int -}}
{{- end -}}

{{- /* All flags after -- go to tritonserver unchanged. The kubelet fills in $(NAME) from a Secret. */ -}}
{{- define "halimede.tritonArgs" -}}
{{- with .Values.server.grpcConnectionAgeSeconds }}
- --grpc-max-connection-age={{ mul . 1000 }}
{{- end }}
{{- if .Values.tls.enabled }}
{{- if .Values.tls.mutual }}
- --grpc-use-ssl-mutual=true
- --grpc-root-cert=/etc/halimede/tls/ca.crt
{{- else }}
- --grpc-use-ssl=true
{{- end }}
- --grpc-server-cert=/etc/halimede/tls/tls.crt
- --grpc-server-key=/etc/halimede/tls/tls.key
{{- end }}
{{- if .Values.access.restrictAdministration }}
- --grpc-restricted-protocol=model-repository,shared-memory,trace,logging:admin-key=$(HALIMEDE_ADMIN_KEY)
- --http-restricted-api=model-repository,shared-memory,trace,logging:admin-key=$(HALIMEDE_ADMIN_KEY)
{{- end }}
{{- with .Values.access.apiKey }}
{{- if .enabled }}
- --grpc-restricted-protocol=inference:{{ .header }}=$(HALIMEDE_API_KEY)
- --http-restricted-api=inference:{{ .header }}=$(HALIMEDE_API_KEY)
{{- end }}
{{- end }}
{{- range .Values.server.tritonArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "halimede.env" -}}
- name: XDG_CACHE_HOME
  value: /var/cache/halimede
- name: CUDA_CACHE_PATH
  value: /var/cache/halimede/cuda
{{- if .Values.access.restrictAdministration }}
- name: HALIMEDE_ADMIN_KEY
  valueFrom:
    {{- with .Values.access.adminKey }}
    {{- if .secretName }}
    secretKeyRef:
      name: {{ .secretName }}
      key: {{ .key }}
    {{- else }}
    fieldRef:
      fieldPath: metadata.uid
    {{- end }}
    {{- end }}
- name: HALIMEDE_ADMIN_HEADER
  value: "admin-key: $(HALIMEDE_ADMIN_KEY)"
{{- end }}
{{- with .Values.access.apiKey }}
{{- if .enabled }}
- name: HALIMEDE_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .secretName }}
      key: {{ .key }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "halimede.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if eq .Values.device "gpu" -}}
{{- $gpu := dict .Values.gpu.resourceName .Values.gpu.count -}}
{{- $resources = mergeOverwrite $resources (dict "limits" (mergeOverwrite (default (dict) $resources.limits) $gpu)) -}}
{{- $resources = mergeOverwrite $resources (dict "requests" (mergeOverwrite (default (dict) $resources.requests) $gpu)) -}}
{{- end -}}
{{ toYaml $resources }}
{{- end -}}

{{- /* One model is asked over HTTP; for several the kubelet runs a program that asks for each. */ -}}
{{- define "halimede.modelProbe" -}}
{{- if eq (len .Values.models.serve) 1 }}
httpGet:
  path: /v2/models/{{ first .Values.models.serve }}/ready
  port: http
{{- else }}
exec:
  command:
    - python3
    - -I
    - -S
    - /etc/halimede/programs/models_ready.py
    {{- range .Values.models.serve }}
    - {{ . }}
    {{- end }}
{{- end }}
{{- end -}}

{{- /* The port of tracing.url, which the network policy lets Pods reach. */ -}}
{{- define "halimede.tracePort" -}}
{{- $url := urlParse .Values.tracing.url -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end -}}
