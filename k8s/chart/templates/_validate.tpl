{{- /* Checks beyond the schema: combinations that would fail only when a Pod runs, or that nobody would notice. */ -}}
{{- define "halimede.validate" -}}
{{- $source := .Values.models.source -}}
{{- if and (eq $source.kind "pvc") (not $source.pvc.claimName) -}}
{{- fail "models.source.pvc.claimName: empty; name the PersistentVolumeClaim that holds the model repository" -}}
{{- end -}}
{{- if eq $source.kind "ociImage" -}}
{{- if not $source.ociImage.reference -}}
{{- fail "models.source.ociImage.reference: empty; name the image that holds the model repository" -}}
{{- end -}}
{{- if semverCompare "<1.33-0" .Capabilities.KubeVersion.Version -}}
{{- fail (printf "models.source.kind=ociImage: this cluster is %s, an image volume needs Kubernetes 1.33 or newer, with the feature gate ImageVolume on; use pvc or http" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
{{- $schemes := dict "s3" "^s3://" "gcs" "^gs://" "http" "^https?://" -}}
{{- if hasKey $schemes $source.kind -}}
{{- if not (regexMatch (get $schemes $source.kind) $source.url) -}}
{{- fail (printf "models.source.url: %q does not match %s, as models.source.kind=%s needs" $source.url (get $schemes $source.kind) $source.kind) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tls.enabled (not .Values.tls.secretName) -}}
{{- fail "tls.secretName: empty with tls.enabled; name a Secret with tls.crt and tls.key (and ca.crt for tls.mutual)" -}}
{{- end -}}
{{- if and .Values.tls.mutual (not .Values.tls.enabled) -}}
{{- fail "tls.mutual: needs tls.enabled" -}}
{{- end -}}
{{- if and .Values.access.apiKey.enabled (not .Values.access.apiKey.secretName) -}}
{{- fail "access.apiKey.secretName: empty with access.apiKey.enabled; name the Secret that holds the key" -}}
{{- end -}}
{{- $auto := .Values.autoscaling -}}
{{- if gt (int $auto.minReplicas) (int $auto.maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas: %d, exceeds autoscaling.maxReplicas %d" (int $auto.minReplicas) (int $auto.maxReplicas)) -}}
{{- end -}}
{{- if and (ne $auto.mode "none") (not (or $auto.targets.inFlightPerReplica $auto.targets.waitingPerReplica $auto.targets.kvCacheUsage $auto.targets.ttftP95Seconds)) -}}
{{- fail "autoscaling.targets: all null; at least one target is needed" -}}
{{- end -}}
{{- $budget := .Values.podDisruptionBudget -}}
{{- if and $budget.enabled (not (kindIs "invalid" $budget.minAvailable)) (not (kindIs "invalid" $budget.maxUnavailable)) -}}
{{- fail "podDisruptionBudget: both minAvailable and maxUnavailable are set; set one of them to null" -}}
{{- end -}}
{{- if and $budget.enabled (kindIs "invalid" $budget.minAvailable) (kindIs "invalid" $budget.maxUnavailable) -}}
{{- fail "podDisruptionBudget: neither minAvailable nor maxUnavailable is set; set one, or enabled to false" -}}
{{- end -}}
{{- if and .Values.gateway.enabled (not .Values.gateway.parentRefs) -}}
{{- fail "gateway.parentRefs: empty with gateway.enabled; name the Gateway that routes attach to" -}}
{{- end -}}
{{- if and .Values.gateway.enabled .Values.gateway.grpc .Values.tls.enabled -}}
{{- fail "gateway.grpc: a route to a TLS port needs a BackendTLSPolicy that this chart does not make; set gateway.grpc or tls.enabled to false" -}}
{{- end -}}
{{- if and (not .Values.service.http) (or (and .Values.gateway.enabled .Values.gateway.http) .Values.ingress.enabled) -}}
{{- fail "service.http: false, but a route or the Ingress leads to the HTTP port; set gateway.http and ingress.enabled to false" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.host: empty with ingress.enabled" -}}
{{- end -}}
{{- if and .Values.inferencePool.enabled (not .Values.inferencePool.endpointPicker.name) -}}
{{- fail "inferencePool.endpointPicker.name: empty with inferencePool.enabled; name the Service of the endpoint picker" -}}
{{- end -}}
{{- if and .Values.tracing.enabled (not .Values.tracing.url) -}}
{{- fail "tracing.url: empty with tracing.enabled; name the collector, such as http://collector.monitoring:4318/v1/traces" -}}
{{- end -}}
{{- $monitoring := .Values.monitoring -}}
{{- if gt (int $monitoring.scrape.timeoutSeconds) (int $monitoring.scrape.intervalSeconds) -}}
{{- fail (printf "monitoring.scrape.timeoutSeconds: %d, must be at most monitoring.scrape.intervalSeconds, %d" (int $monitoring.scrape.timeoutSeconds) (int $monitoring.scrape.intervalSeconds)) -}}
{{- end -}}
{{- if and (ne $monitoring.scrape.kind "none") .Values.networkPolicy.enabled (not .Values.networkPolicy.monitoring) -}}
{{- fail "networkPolicy.monitoring: empty, so that no Prometheus reaches the metrics; name its namespace, or set monitoring.scrape.kind to none" -}}
{{- end -}}
{{- if and .Values.loadtest.enabled (or .Values.tls.enabled .Values.access.apiKey.enabled) -}}
{{- fail "loadtest.enabled: the load test speaks plain gRPC without a key; set tls.enabled and access.apiKey.enabled to false in the release that is loaded" -}}
{{- end -}}
{{- end -}}
