{{- define "halimede.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* 40 characters: Pod, "-headless" and "-loadtest-workers" have to fit into 63. */ -}}
{{- define "halimede.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "halimede.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "halimede.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "halimede.instanceLabels" -}}
app.kubernetes.io/name: halimede
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* Never change these: a Deployment's selector cannot be altered. */ -}}
{{- define "halimede.selectorLabels" -}}
{{ include "halimede.instanceLabels" . }}
app.kubernetes.io/component: server
{{- end -}}

{{- /* Joins maps as YAML; a later map wins. Many readers refuse YAML with the same key twice. */ -}}
{{- define "halimede.merged" -}}
{{- $found := dict -}}
{{- range . -}}
{{- range $key, $value := . -}}
{{- $_ := set $found $key $value -}}
{{- end -}}
{{- end -}}
{{ toYaml $found }}
{{- end -}}

{{- /* Labels of an object: (list $ COMPONENT MAP...). A map cannot override the labels that selectors and Helm use. */ -}}
{{- define "halimede.labelsOf" -}}
{{- $root := index . 0 -}}
{{- $about := dict "app.kubernetes.io/version" $root.Chart.AppVersion -}}
{{- $_ := set $about "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
{{- $own := fromYaml (include "halimede.instanceLabels" $root) -}}
{{- $_ := set $own "app.kubernetes.io/component" (index . 1) -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{ include "halimede.merged" (concat (list $about $root.Values.commonLabels) (slice . 2) (list $own)) }}
{{- end -}}

{{- define "halimede.labels" -}}
{{ include "halimede.labelsOf" (list . "server") }}
{{- end -}}

{{- define "halimede.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "halimede.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "halimede.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* The drain, then the launcher's own wait, then Triton's last seconds. */ -}}
{{- define "halimede.gracePeriod" -}}
{{- $needed := add .Values.drain.timeoutSeconds .Values.server.exitTimeoutSeconds 15 -}}
{{- with .Values.terminationGracePeriodSeconds -}}
{{- if lt (int .) (int $needed) -}}
{{- fail (printf "terminationGracePeriodSeconds: %d, must be at least %d: drain.timeoutSeconds + server.exitTimeoutSeconds + 15; leave it out to have it computed" (int .) (int $needed)) -}}
{{- end -}}
{{- end -}}
{{- default $needed .Values.terminationGracePeriodSeconds | int -}}
{{- end -}}

{{- /* Each model needs 16 MiB, and 16 MiB stay free. Twice that is given, since regions grow with long prompts. */ -}}
{{- define "halimede.sharedMemory" -}}
{{- default (printf "%dMi" (max 256 (mul 32 (add 1 (len .Values.models.serve))))) .Values.sharedMemory -}}
{{- end -}}

{{- /* The taint of a node is the plain name of the vendor's device, even if a Pod requests a part of a device. */ -}}
{{- define "halimede.gpuTaints" -}}
{{- $name := .Values.gpu.resourceName -}}
{{- uniq (list (ternary "nvidia.com/gpu" $name (hasPrefix "nvidia.com/" $name)) $name) | toJson -}}
{{- end -}}

{{- define "halimede.delivers" -}}
{{- if has .Values.models.source.kind (list "s3" "gcs" "http") -}}true{{- end -}}
{{- end -}}

{{- define "halimede.buildClaim" -}}
{{- default (printf "%s-models" (include "halimede.fullname" .)) .Values.models.source.build.claimName -}}
{{- end -}}
