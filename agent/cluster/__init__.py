"""Kubernetes: what the cluster is told of this node, and the fleet's restart slots."""
