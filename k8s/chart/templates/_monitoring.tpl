{{- /* The label `job` of the scraped series: rules and dashboards select by it. */ -}}
{{- define "halimede.job" -}}
{{- default (include "halimede.fullname" .) .Values.monitoring.job -}}
{{- end -}}

{{- define "halimede.percent" -}}
{{- mulf . 100 | printf "%.6g" -}}
{{- end -}}

{{- /* The texts of a rule file that are replaced, with their replacements: a list of pairs. */ -}}
{{- define "halimede.replacements" -}}
{{- $rules := .root.Values.monitoring.rules -}}
{{- if hasPrefix "slo-" .file -}}
{{- $name := .file | trimPrefix "slo-" | trimSuffix ".yaml" -}}
{{- $said := get (dict "ttft" "2.5" "gap" "0.5") $name -}}
{{- $slo := get $rules.objectives $name -}}
{{- /* Prometheus 2 keeps Triton's le="1", Prometheus 3 makes it le="1.0". */}}
{{- $is := ternary "le=~\"%v([.]0)?\"" "le=\"%v\"" (eq (floor $slo.seconds) (float64 $slo.seconds)) }}
- [{{ printf "le=%q" $said | quote }}, {{ printf $is $slo.seconds | quote }}]
- [{{ printf "%s s" $said | quote }}, "{{ $slo.seconds }} s"]
- ["(1 - 0.99)", "(1 - {{ $slo.ratio }})"]
- ["99 %", "{{ include "halimede.percent" $slo.ratio }} %"]
{{- else if eq .file "requests.yaml" -}}
- ["per_replica{job=\"halimede\"} > 4", "per_replica{job=\"halimede\"} > {{ $rules.waitingPerReplica }}"]
{{- end }}
- ["job=\"halimede\"", {{ printf "namespace=%q,job=%q" .root.Release.Namespace (include "halimede.job" .root) | quote }}]
- ["runbook_url: docs/runbooks/", "runbook_url: {{ trimSuffix "/" $rules.runbookUrl }}/"]
{{- end -}}

{{- /* A text that a file no longer has is refused: the rules would keep numbers other than the values. */ -}}
{{- define "halimede.ruleFile" -}}
{{- $text := .root.Files.Get (printf "files/rules/%s" .file) -}}
{{- $file := .file -}}
{{- range include "halimede.replacements" . | fromYamlArray -}}
{{- if not (contains (first .) $text) -}}
{{- fail (printf "files/rules/%s: has no %q, which the chart replaces by a value" $file (first .)) -}}
{{- end -}}
{{- $text = replace (first .) (last .) $text -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{- /* The groups of all rule files, without the alerts that are disabled, with labels for the others. */ -}}
{{- define "halimede.rules" -}}
{{- $values := .Values.monitoring.rules -}}
{{- $groups := list -}}
{{- $unknown := $values.disabled -}}
{{- range $path, $_ := .Files.Glob "files/rules/*.yaml" -}}
{{- range (include "halimede.ruleFile" (dict "root" $ "file" (base $path)) | fromYaml).groups -}}
{{- $kept := list -}}
{{- range .rules -}}
{{- if .alert -}}
{{- $_ := set . "labels" (merge .labels $values.alertLabels) -}}
{{- $unknown = without $unknown .alert -}}
{{- end -}}
{{- if not (has .alert $values.disabled) -}}
{{- $kept = append $kept . -}}
{{- end -}}
{{- end -}}
{{- if or (ne .name "halimede-gpu") (eq $.Values.device "gpu") -}}
{{- $groups = append $groups (set . "rules" $kept) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $unknown -}}
{{- fail (printf "monitoring.rules.disabled: no alert %s in files/rules" (join ", " .)) -}}
{{- end -}}
{{ dict "groups" $groups | toYaml }}
{{- end -}}

{{- /* A dashboard whose burn rates start from this release's objectives. */ -}}
{{- define "halimede.dashboard" -}}
{{- $board := .root.Files.Get .path | fromJson -}}
{{- $objectives := .root.Values.monitoring.rules.objectives -}}
{{- range $board.templating.list -}}
{{- if hasSuffix "_objective" .name -}}
{{- $slo := get $objectives (trimSuffix "_objective" .name) -}}
{{- $_ := set . "query" (toString $slo.ratio) -}}
{{- end -}}
{{- end -}}
{{ toJson $board }}
{{- end -}}
