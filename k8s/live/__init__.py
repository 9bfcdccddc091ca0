"""The monitoring as it runs: Prometheus with the chart's rules, Alertmanager, a receiver of its webhooks."""
