"""One sandbox in detail: its processes, and where on this node each part of it is."""

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.host.root import HostRoot
from agent.listing.row import Row
from agent.sandboxes import measure, procfs
from agent.sandboxes.measure import IO, Memory, Network
from agent.sandboxes.members import Process
from agent.sandboxes.naming import SHIM, SHORTENED, VMM

FOLDERS = (
    "/run/vc/sbs",
    "/run/vc/vm",
    "/run/vc/firecracker",
    "/run/kata",
    "/run/kata/firecracker",
    "/run/kata-containers/shared/sandboxes",
)
"""In each a folder for every sandbox, of the Go runtime and of runtime-rs (sources of Kata 4.1.0)."""
_DEPTH = 3
"""So deep sockets are looked for: Firecracker's are in root/run below its folder."""
_LIMIT = 200
_BUNDLE_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Running:
    """A process in detail.

    Attributes:
        component: `vmm`, `virtiofsd` or `shim`.
        pid: its number.
        program: its program on the host.
        cpu_seconds: since it started.
        resident: bytes.
        threads: how many.
        cgroups: the cgroups that it is in; of version 1 the memory controller's.
    """

    component: str
    pid: int
    program: str
    cpu_seconds: float
    resident: int
    threads: int
    cgroups: str


@dataclass(frozen=True, slots=True)
class Detail:
    """What is known of one sandbox; paths are the host's.

    Attributes:
        row: as in the table.
        processes: its processes.
        memory: its memory; None when it could not be read.
        allowed: bytes of memory beyond the guest's own that the RuntimeClass grants; None when not known.
        io: its I/O.
        network: its tap's counters; None without one.
        taps: interfaces in its network namespace to (bytes received, bytes sent) of the host.
        namespace: the network namespace's path, as the bundle names it; "" when it is not known.
        bundle: containerd's folder of the sandbox; "" when its shim is gone.
        folders: state folders that are there.
        sockets: sockets in them.
        config: the configuration of its handler for its release; "" when that is not katanode's.
    """

    row: Row
    processes: tuple[Running, ...]
    memory: Memory | None
    allowed: int | None
    io: IO
    network: Network | None
    taps: Mapping[str, tuple[int, int]]
    namespace: str
    bundle: str
    folders: tuple[str, ...]
    sockets: tuple[str, ...]
    config: str

    @property
    def containerd_namespace(self) -> str:
        """containerd's namespace of it: the name of the folder that its bundle is in."""
        return Path(self.bundle).parent.name if self.bundle else "k8s.io"

    def as_json(self, now: float) -> dict[str, object]:
        """It for machines."""
        return {
            **self.row.as_json(now),
            "processes": [
                {
                    "component": each.component,
                    "pid": each.pid,
                    "program": each.program,
                    "cpu_seconds": each.cpu_seconds,
                    "resident_bytes": each.resident,
                    "threads": each.threads,
                    "cgroup": each.cgroups,
                }
                for each in self.processes
            ],
            "overhead_bytes": {"measured": self.memory and self.memory.beyond_guest, "granted": self.allowed},
            "io_bytes": self.io._asdict(),
            "network": self.network and self.network._asdict(),
            "interfaces": {name: {"received": rx, "transmitted": tx} for name, (rx, tx) in self.taps.items()},
            "network_namespace": self.namespace or None,
            "bundle": self.bundle or None,
            "folders": list(self.folders),
            "sockets": list(self.sockets),
            "configuration": self.config or None,
        }


def look(root: HostRoot, proc: Path, row: Row, *, allowed: int | None = None, config: str = "") -> Detail:
    """Looks at a sandbox.

    Args:
        root: the host's root.
        proc: the host's processes.
        row: the sandbox.
        allowed: what the RuntimeClass grants.
        config: the path of its configuration.
    """
    own = row.sandbox
    memory = measure.memory(proc, own)
    shim = next((each.pid for each in own.processes.get(SHIM, ())), 0)
    holder = next((each.pid for each in own.processes.get(VMM, ())), 0)
    bundle = procfs.link(f"{proc}/{shim}/cwd") if shim else ""
    folders = tuple(_folders(root, own.id))
    return Detail(
        row.with_memory(memory.proportional) if memory else row,
        tuple(_running(proc, component, each) for component, group in own.processes.items() for each in group),
        memory,
        allowed,
        measure.io(proc, own),
        measure.network(proc, own),
        _interfaces(procfs.read_whole(f"{proc}/{holder}/net/dev", 1 << 20)) if holder else {},
        _network_namespace(procfs.read_whole(f"{proc}/{shim}/cwd/config.json", _BUNDLE_LIMIT)) if shim else "",
        bundle,
        folders,
        tuple(socket for folder in folders for socket in _sockets(root, root(folder), _DEPTH)),
        config,
    )


def _running(proc: Path, component: str, process: Process) -> Running:
    program = procfs.link(f"{proc}/{process.pid}/exe")
    cgroups = _cgroup(procfs.read(f"{proc}/{process.pid}/cgroup", 1 << 14) or b"")
    return Running(component, process.pid, program, process.cpu_seconds, process.resident, process.threads, cgroups)


def _cgroup(data: bytes) -> str:
    """The cgroup that memory is counted in, of /proc/PID/cgroup (cgroups(7)): version 1's, or else version 2's."""
    lines = [line.split(":", 2) for line in data.decode("utf-8", "replace").splitlines()]
    named = {controllers: path for _, controllers, path in (line for line in lines if len(line) == 3)}
    return next((path for names, path in named.items() if "memory" in names.split(",")), named.get("", ""))


def _interfaces(data: bytes | None) -> dict[str, tuple[int, int]]:
    """Interfaces of /proc/PID/net/dev but the loopback, with the bytes that the host received and sent on them."""
    found = {}
    for line in (data or b"").decode("utf-8", "replace").splitlines()[2:]:
        name, _, counters = line.partition(":")
        numbers = counters.split()
        if name.strip() != "lo" and len(numbers) == 16:
            found[name.strip()] = (int(numbers[0]), int(numbers[8]))
    return found


def _network_namespace(data: bytes | None) -> str:
    """The path of the network namespace in a bundle's config.json (OCI runtime specification, linux.namespaces)."""
    try:
        spaces = json.loads(data or b"")["linux"]["namespaces"]
        return next((str(each.get("path", "")) for each in spaces if each["type"] == "network"), "")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""


def _folders(root: HostRoot, sandbox_id: str) -> Iterator[str]:
    for folder in FOLDERS:
        for name in dict.fromkeys((sandbox_id, sandbox_id[:SHORTENED])):
            if root(folder).joinpath(name).is_dir():
                yield f"{folder}/{name}"


def _sockets(root: HostRoot, folder: Path, depth: int) -> Iterator[str]:
    """Sockets in a folder, without what is mounted below it: that is the pod's."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)[:_LIMIT]
        home = folder.stat().st_dev
    except OSError:
        return
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISSOCK(status.st_mode):
            yield root.host_path(Path(entry.path))
        elif stat.S_ISDIR(status.st_mode) and depth and status.st_dev == home:
            yield from _sockets(root, Path(entry.path), depth - 1)
