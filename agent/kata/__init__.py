"""Kata's releases, the handlers that they serve and the hypervisor configuration of each."""
