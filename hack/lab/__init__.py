"""A real, private containerd on this machine, for the demo, the tests and the benches. See README.md."""
