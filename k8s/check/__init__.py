"""Check rendered manifests by schemas of Kubernetes, CRDs, and rules for what schemas miss."""
