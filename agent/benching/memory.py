"""The host's memory that one sandbox takes, by component."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.sandboxes import naming, processes, procfs
from agent.sandboxes.naming import SHIM, VIRTIOFSD, VMM
from agent.sandboxes.processes import PROC, Process

PAUSE = "pause"
COMPONENTS = (*naming.COMPONENTS, PAUSE, "other")
"""What a sandbox is made of on the host. `pause` is a pod's own process where that runs on the host's kernel."""

_SETTLED = 0.01
_SETTLED_BYTES = 256 << 10
_STEP = 0.1
_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Footprint:
    """The memory of a sandbox.

    Attributes:
        components: component to bytes; only those that the sandbox has.
        resident: the same by RSS, which counts shared pages once for each process.
        proportional: whether `components` is PSS, to which a page shared by n processes adds its nth part; where the
            kernel does not let it be read, RSS stands in.
        hypervisor: the program that holds the virtual machine; "" when none does.
    """

    components: Mapping[str, int]
    resident: Mapping[str, int]
    proportional: bool
    hypervisor: str

    @property
    def total(self) -> int:
        """All components together, in bytes."""
        return sum(self.components.values())


def of_sandbox(sandbox_id: str, proc: Path = PROC, clock: Callable[[], float] = time.monotonic) -> Footprint | None:
    """The memory of a sandbox once it has settled: a guest still boots services when its agent answers.

    Two readings a tenth of a second apart that differ by less than 1 % count as settled; after 2 s the last one does.

    Returns:
        None when no process of the sandbox was found.
    """
    found = _components(sandbox_id, proc)
    hypervisor = next((os.path.basename(p.exe(proc)) for p, _ in found if p.holds_vm(proc)), "")
    deadline = clock() + _PATIENCE
    last = _read(found, hypervisor, proc)
    while last.components and clock() < deadline:
        time.sleep(_STEP)
        now = _read(found, hypervisor, proc)
        if abs(now.total - last.total) <= max(_SETTLED_BYTES, last.total * _SETTLED):
            return now if now.components else None
        last = now
    return last if last.components else None


def _components(sandbox_id: str, proc: Path) -> list[tuple[Process, str]]:
    named = processes.of_sandbox(sandbox_id[: naming.SHORTENED], proc)
    shims = {process.pid for process in named if process.is_shim_of(sandbox_id)}
    # A pod's own process does not name its sandbox, but the shim adopted it (PR_SET_CHILD_SUBREAPER).
    children = _descendants(shims, proc) - {process.pid for process in named}
    found = [(process, component(process, sandbox_id, proc)) for process in named]
    return found + [(Process(pid, ()), PAUSE) for pid in sorted(children)]


def component(process: Process, sandbox_id: str, proc: Path = PROC) -> str:
    """Which component a process is that names the sandbox in its arguments."""
    if process.holds_vm(proc):  # first: Dragonball's machine lives in the shim
        return VMM
    if process.is_shim_of(sandbox_id):
        return SHIM
    program = os.path.basename(process.argv[0]) if process.argv else ""
    return VIRTIOFSD if program.startswith(VIRTIOFSD) else "other"


def _descendants(roots: Iterable[int], proc: Path) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid in procfs.processes(str(proc)):
        seen = procfs.stat(str(proc), pid)
        if seen is not None:
            children.setdefault(seen.parent, []).append(pid)
    found: set[int] = set()
    pending = list(roots)
    while pending:
        new = [pid for pid in children.get(pending.pop(), ()) if pid not in found]
        found.update(new)
        pending += new
    return found


def _read(found: Iterable[tuple[Process, str]], hypervisor: str, proc: Path) -> Footprint:
    shares: dict[str, int] = {}
    resident: dict[str, int] = {}
    proportional = True
    for process, kind in found:
        fields = procfs.rollup(str(proc), process.pid)
        if fields:
            # Huge pages are in neither (Documentation/filesystems/proc.rst); a guest's are its VMM's, and only mapped
            # a second time by virtiofsd.
            huge = fields.get("Private_Hugetlb", 0) + (fields.get("Shared_Hugetlb", 0) if kind == VMM else 0)
            share, whole = fields.get("Pss", 0) + huge, fields.get("Rss", 0) + huge
        else:
            seen = procfs.stat(str(proc), process.pid)
            share = whole = seen.resident if seen else 0
            proportional = proportional and not whole
        if whole:
            shares[kind] = shares.get(kind, 0) + share
            resident[kind] = resident.get(kind, 0) + whole
    return Footprint(_ordered(shares), _ordered(resident), proportional, hypervisor)


def _ordered(sizes: Mapping[str, int]) -> dict[str, int]:
    return {name: sizes[name] for name in COMPONENTS if name in sizes}
