{{- /* The folder with the model repository, by models.source.kind. */ -}}
{{- define "halimede.modelVolume" -}}
{{- $source := .Values.models.source -}}
- name: models
{{- if eq $source.kind "pvc" }}
  persistentVolumeClaim:
    claimName: {{ $source.pvc.claimName }}
    readOnly: true
{{- else if eq $source.kind "build" }}
  persistentVolumeClaim:
    claimName: {{ include "halimede.buildClaim" . }}
{{- else if eq $source.kind "ociImage" }}
  image:
    reference: {{ $source.ociImage.reference }}
    pullPolicy: {{ $source.ociImage.pullPolicy }}
{{- else }}
  emptyDir:
    sizeLimit: {{ $source.sizeLimit }}
{{- end }}
{{- end -}}

{{- define "halimede.modelMount" -}}
- name: models
  mountPath: {{ .Values.models.path }}
  readOnly: true
  {{- $source := .Values.models.source }}
  {{- if eq $source.kind "pvc" }}
  {{- with $source.pvc.subPath }}
  subPath: {{ . }}
  {{- end }}
  {{- else if eq $source.kind "ociImage" }}
  {{- with $source.ociImage.subPath }}
  subPath: {{ . }}
  {{- end }}
  {{- end }}
{{- end -}}

{{- define "halimede.initContainers" -}}
{{- $source := .Values.models.source -}}
{{- if eq $source.kind "build" }}
- name: build
  image: {{ $source.build.image }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [python3, /etc/halimede/programs/build_models.py]
  args:
    - --repository={{ .Values.models.path }}
    {{- range $source.build.recipes }}
    - --recipe={{ . }}
    {{- end }}
    {{- with $source.build.args }}
    - --
    {{- range . }}
    - {{ . | quote }}
    {{- end }}
    {{- end }}
  {{- include "halimede.initRest" (list . false) | nindent 2 }}
{{- else if include "halimede.delivers" . }}
- name: deliver
  image: {{ include "halimede.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  workingDir: /opt/halimede/server
  command: [python3, -m, deliver]
  args:
    - {{ $source.url | quote }}
    - {{ .Values.models.path }}
    {{- with $source.sha256 }}
    - --sha256={{ . }}
    {{- end }}
    {{- range .Values.models.serve }}
    - --model={{ . }}
    {{- end }}
  {{- include "halimede.initRest" (list . false) | nindent 2 }}
{{- end }}
{{- if and .Values.models.verify (has $source.kind (list "pvc" "ociImage")) }}
- name: verify
  image: {{ include "halimede.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  workingDir: /opt/halimede/server
  command: [python3, -m, deliver]
  args: [verify, {{ .Values.models.path }}]
  {{- include "halimede.initRest" (list . true) | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "halimede.initRest" -}}
{{- $readOnly := index . 1 -}}
{{- with index . 0 -}}
env:
  - name: HOME
    value: /tmp
  {{- with .Values.models.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.models.source.credentialsSecret }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
resources:
  {{- include "halimede.initResources" . | nindent 2 }}
volumeMounts:
  {{- if $readOnly }}
  {{- include "halimede.modelMount" . | nindent 2 }}
  {{- else }}
  - name: models
    mountPath: {{ .Values.models.path }}
  - name: programs
    mountPath: /etc/halimede/programs
    readOnly: true
  {{- end }}
  - name: tmp
    mountPath: /tmp
  {{- with .Values.models.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- /* A TensorRT plan is built on the GPU that serves it: init containers and the server take turns with it. */ -}}
{{- define "halimede.initResources" -}}
{{- $resources := deepCopy .Values.models.resources -}}
{{- if and (eq .Values.device "gpu") (eq .Values.models.source.kind "build") -}}
{{- $gpu := dict .Values.gpu.resourceName .Values.gpu.count -}}
{{- $_ := set $resources "limits" (mergeOverwrite (default (dict) $resources.limits) $gpu) -}}
{{- $_ := set $resources "requests" (mergeOverwrite (default (dict) $resources.requests) $gpu) -}}
{{- end -}}
{{ toYaml $resources }}
{{- end -}}
