"""A runtime handler as the container runtime is told of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Handler:
    """One entry of the runtime's table of handlers.

    Attributes:
        name: what a RuntimeClass calls it, for instance `kata-clh`.
        runtime_type: containerd's name of the shim; containerd 1.6 finds the program by it alone.
        runtime_path: the shim's path on the host, pinned to a release; "" leaves the key out.
        config_path: the hypervisor configuration that the shim is given (`options.ConfigPath`).
        pod_annotations: patterns of pod annotations that reach the shim.
        privileged_without_host_devices: a privileged container gets no host devices; in a virtual machine they
            would mean nothing, and Kata fails on some.
        snapshotter: the snapshotter that the handler needs; "" for the daemon's default.
    """

    name: str
    runtime_type: str
    runtime_path: str
    config_path: str
    pod_annotations: tuple[str, ...] = ("io.katacontainers.*",)
    privileged_without_host_devices: bool = True
    snapshotter: str = ""
