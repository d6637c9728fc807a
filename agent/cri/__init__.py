"""The container runtime: which daemon serves CRI, its configuration, the edit, the journal and the activation."""
