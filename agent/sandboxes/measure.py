"""What a sandbox costs its node beyond what the census sees: I/O, network, and memory without counting twice.

Figures are those of the node's side: what the guest knows of itself, `guest.py` passes through.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from agent.sandboxes import procfs
from agent.sandboxes.census import Sandbox
from agent.sandboxes.naming import SHIM, VIRTIOFSD, VMM

_IO = re.compile(rb"^read_bytes: (\d+)\nwrite_bytes: (\d+)$", re.MULTILINE)
_TAP = re.compile(rb"^\s*tap\d+_kata:\s*([\d ]+)$", re.MULTILINE)
"""The tap's line in /proc/PID/net/dev; Kata names it so in both runtimes and all of its network models."""
_SMAPS_LIMIT = 16 << 20
"""Bytes of /proc/PID/smaps that are read; a hundred mappings have about 70 kB."""
_MAPPING = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)")
_SHARED_MEMORY = (b"/memfd:", b"/dev/shm/", b"/dev/hugepages", b"/anon_hugepage", b"/dev/zero")
_GUEST_SIZE = 64 << 20
"""Bytes from which a writable private mapping is taken for a guest's memory; a VMM's heap and stacks are far smaller,
and no guest of Kata is."""


class IO(NamedTuple):
    """Bytes that reached block devices or came from there, as /proc/PID/io counts them."""

    read: int
    written: int


class Network(NamedTuple):
    """Counters of the sandbox's taps, from the sandbox's side: what a tap sent, the sandbox received."""

    received: int
    transmitted: int
    receive_drops: int
    transmit_drops: int


class Memory(NamedTuple):
    """Memory of a sandbox in bytes.

    Attributes:
        proportional: component to its share: a page of several processes is divided among them (PSS).
        beyond_guest: of all components, what is not the guest's own memory.
    """

    proportional: Mapping[str, int]
    beyond_guest: int


def io(proc: Path, sandbox: Sandbox) -> IO:
    """The I/O of VMM and virtiofsd; the shim does none for the pod, but for its Dragonball."""
    components = (VMM, VIRTIOFSD) if VMM in sandbox.processes else (VIRTIOFSD, SHIM)
    read = written = 0
    for pid in _pids(sandbox, components):
        found = _IO.search(procfs.read(f"{proc}/{pid}/io") or b"")
        if found:
            read += int(found[1])
            written += int(found[2])
    return IO(read, written)


def network(proc: Path, sandbox: Sandbox) -> Network | None:
    """The counters of its taps; None when there are none.

    The VMM lives in the pod's network namespace. Dragonball's shim does not, but its thread `vmm_master` does.
    """
    pid = next(_pids(sandbox, (VMM,)), None)
    if pid is not None:
        return _taps(procfs.read_whole(f"{proc}/{pid}/net/dev", 1 << 20))
    shim = next(_pids(sandbox, (SHIM,)), None)
    if shim is None or not sandbox.holds_vm:
        return None
    thread = _elsewhere(f"{proc}/{shim}/task", shim)
    return _taps(procfs.read_whole(f"{thread}/net/dev", 1 << 20)) if thread else None


def memory(proc: Path, sandbox: Sandbox) -> Memory | None:
    """Its memory: costly, since the kernel walks all page tables; None when its processes have ended meanwhile.

    The guest's memory is mapped by the VMM and, shared, by virtiofsd; what either has of it is left out of
    `beyond_guest`. Page cache that nobody maps, and the kernel's own memory, are in neither figure.
    """
    proportional, beyond = {}, 0
    for component, processes in sandbox.processes.items():
        shares = [share for each in processes if (share := _share(f"{proc}/{each.pid}/smaps")) is not None]
        if shares:
            proportional[component] = sum(whole for whole, _ in shares)
            beyond += sum(whole - guest for whole, guest in shares)
    return Memory(proportional, beyond) if proportional else None


def _pids(sandbox: Sandbox, components: Iterable[str]) -> Iterator[int]:
    return (process.pid for component in components for process in sandbox.processes.get(component, ()))


def _taps(data: bytes | None) -> Network | None:
    lines = [[int(word) for word in found.split()] for found in _TAP.findall(data or b"")]
    # Eight counters each way, of the host: bytes, packets, errs, drop, ... (Linux, net/core/net-procfs.c)
    lines = [line for line in lines if len(line) == 16]
    if not lines:
        return None
    host_in, _, _, host_in_drops, *_ = sums = [sum(column) for column in zip(*lines, strict=True)]
    return Network(received=sums[8], transmitted=host_in, receive_drops=sums[11], transmit_drops=host_in_drops)


def _elsewhere(tasks: str, leader: int) -> str:
    """A thread in another network namespace than the process itself; "" when there is none."""
    home = procfs.link(f"{tasks}/{leader}/ns/net")
    try:
        threads = os.listdir(tasks)
    except OSError:
        return ""
    return next((f"{tasks}/{t}" for t in threads if procfs.link(f"{tasks}/{t}/ns/net") not in {home, ""}), "")


def _share(smaps: str) -> tuple[int, int] | None:
    """Bytes of a process's proportional share, and those of them that are guest's memory."""
    data = procfs.read_whole(smaps, _SMAPS_LIMIT)
    if not data:
        return None
    whole = guest = 0
    is_guest = False
    for line in data.splitlines():
        if line.startswith(b"Pss:"):
            share = int(line.split()[1]) << 10
            whole += share
            guest += share if is_guest else 0
        elif found := _MAPPING.match(line):
            is_guest = _is_guest(found)
    return whole, guest


def _is_guest(mapping: re.Match[bytes]) -> bool:
    """Whether a mapping is the guest's memory: shared memory of any size, or a private one that is large."""
    if mapping[4].startswith(_SHARED_MEMORY):
        return True
    size = int(mapping[2], 16) - int(mapping[1], 16)
    return not mapping[4] and mapping[3].startswith(b"rw") and size >= _GUEST_SIZE
