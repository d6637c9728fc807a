"""`katanode fleet`: every node of a cluster, seen from a laptop with a kubeconfig. Reads only."""
