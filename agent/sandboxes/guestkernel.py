"""Whether a sandbox's guest has a kernel of its own, as far as the runtime tells.

Kata's shim passes on what its agent reads in the guest's /proc/vmstat (`kata_guest_vm_stat`, facts of Kata 4.1.0). The
number of page faults there counts from a kernel's boot and only grows, and no namespace has one of its own: a value
that does not lie between the host's before and after is another kernel's.
"""

import re
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from agent.sandboxes import guest, naming
from agent.sandboxes.processes import PROC

Kernel = Literal["own", "host", ""]
"""A kernel of its own, the host's, or nothing was told."""

TIMEOUT = guest.TIMEOUT
"""Seconds for the answer; the agent gives it within some milliseconds."""
_FAULTS = re.compile(rb'^kata_guest_vm_stat\{[^}\n]*item="pgfault"[^}\n]*\} (\S+)\r?$', re.MULTILINE)
_HOST_FAULTS = re.compile(rb"^pgfault (\d+)$", re.MULTILINE)
_SHIM = "containerd-shim"
"""How the program begins that holds the machine where it is Dragonball's, which lives in the shim."""


def look(sandbox_id: str, hypervisor: str, run: Path, proc: Path = PROC) -> Kernel:
    """Asks the shim for what its guest's kernel counts.

    Args:
        sandbox_id: the sandbox.
        hypervisor: the program that holds its virtual machine.
        run: where the host's /run is.
        proc: where /proc is.
    """
    name = hypervisor.rpartition("/")[2]
    kind = "dragonball" if name.startswith(_SHIM) else naming.hypervisor(name)
    if not guest.may_be_asked(run, sandbox_id, kind):
        return ""
    before = _host_faults(proc)
    said = guest.metrics(run, sandbox_id, TIMEOUT)
    after = _host_faults(proc)
    match = _FAULTS.search(said.text) if said.status == HTTPStatus.OK else None
    if match is None or not after:
        return ""
    try:
        faults = float(match[1])
    except ValueError:
        return ""
    return "host" if before <= faults <= after else "own"


def _host_faults(proc: Path) -> int:
    try:
        match = _HOST_FAULTS.search((proc / "vmstat").read_bytes())
    except OSError:
        return 0
    return int(match[1]) if match else 0
