"""Which processes are a Kata sandbox's, and of which: by program and arguments, for both runtimes.

Where each hypervisor has the sandbox's id stands in the sources of Kata 4.1.0: `virtcontainers/{clh,qemu,fc}.go`,
`crates/hypervisor/src`.
"""

import re
from typing import NamedTuple

SHIM = "shim"
VMM = "vmm"
VIRTIOFSD = "virtiofsd"
COMPONENTS = (VMM, VIRTIOFSD, SHIM)
MESSENGER = ""
CANARY_NAMESPACE = "katanode-canary"
BENCH_NAMESPACE = "katanode-bench"
OWN_NAMESPACES = frozenset((CANARY_NAMESPACE, BENCH_NAMESPACE))
"""Of sandboxes that are katanode's own, which metrics and findings are not about. They are named here since `canary.py`
and `owned.py` need gRPC, which the daemon does without."""

SHORTENED = 32
"""So much of the id remains in the Go runtime's Firecracker, for the sake of the length of its socket's path."""

_NAMES = (
    b"containerd-shim",
    b"cloud-hyperviso",
    b"qemu-",
    b"firecracker",
    b"jailer",
    b"stratovirt",
    b"openvmm",
    VIRTIOFSD.encode(),
)
_HYPERVISORS = {
    "cloud-hypervisor": "clh",
    "qemu-": "qemu",
    "firecracker": "fc",
    "jailer": "fc",
    "stratovirt": "stratovirt",
    "openvmm": "openvmm",
}
_ID = re.compile(
    rb"(?:\0--?id[\0=]|\0sandbox-|/run/(?:vc/vm|vc/firecracker|kata/firecracker|kata|kata-containers/shared/sandboxes)/)"
    rb"([A-Za-z0-9][A-Za-z0-9_.-]{0,127})(?=[/,\0]|$)"
)
_NAMESPACE = re.compile(rb"\0--?namespace[\0=]([A-Za-z0-9][A-Za-z0-9_.-]{0,127})(?=\0|$)")


class Part(NamedTuple):
    """What a process is of a sandbox.

    Attributes:
        sandbox: the sandbox's id; of Firecracker's under the Go runtime the first 32 characters.
        component: `shim`, `vmm` or `virtiofsd`; "" of containerd's messenger, a shim that is called with an action and
            ends at once, or becomes the shim itself.
        hypervisor: Kata's name for it, of a VMM; "" of others.
        namespace: containerd's namespace, of a shim; "" of others.
    """

    sandbox: str
    component: str
    hypervisor: str = ""
    namespace: str = ""


def may_be(name: bytes) -> bool:
    """Whether a process with this name, as /proc/PID/stat has it, is worth a look at its arguments."""
    return name.startswith(_NAMES)


def part(program: str, cmdline: bytes) -> Part | None:
    """What a process is, or None for one that is no part of a sandbox.

    Args:
        program: its program, the name or the path.
        cmdline: its arguments as /proc/PID/cmdline has them.
    """
    found = _ID.search(cmdline)
    if found is None:
        return None
    sandbox, name = found[1].decode(), program.rpartition("/")[2]
    if name.startswith("containerd-shim-kata"):
        if cmdline.rstrip(b"\0").endswith((b"\0start", b"\0delete")):
            return Part(sandbox, MESSENGER)
        where = _NAMESPACE.search(cmdline)
        return Part(sandbox, SHIM, namespace=where[1].decode() if where else "")
    if name.startswith(VIRTIOFSD):
        return Part(sandbox, VIRTIOFSD)
    kind = hypervisor(name)
    return Part(sandbox, VMM, kind) if kind else None


def hypervisor(name: str) -> str:
    """Kata's name for the hypervisor that a program of this name is; "" for one that is none."""
    return next((kind for beginning, kind in _HYPERVISORS.items() if name.startswith(beginning)), "")
