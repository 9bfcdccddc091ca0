"""The Grafana dashboard as a typed program; it writes k8s/chart/files/dashboards/."""
