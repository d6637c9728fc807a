"""Grafana dashboards as code: `hack/dashboards` writes the files of manifests/monitoring/grafana from it."""
