"""The processes of sandboxes, kept current: new ones looked at, known ones read once, ended ones forgotten.

A pid that was used again has another inode in /proc, a program that exec replaced another name, and a process that
ended no file: what is remembered of one process is never said of another.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.sandboxes import naming, procfs
from agent.sandboxes.naming import Part

_ARGUMENTS = 8192
"""Bytes of a command line that are read: each hypervisor names its sandbox near the beginning."""
_YOUNG = 2.0
"""Seconds of age below which a process is looked at again: between fork and exec it bears its parent's name."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was last seen; pid and start together are it and no other.

    Attributes:
        pid: its number.
        start: when it started, in clock ticks after the boot.
        cpu_seconds: of all its threads.
        resident: bytes in RAM, shared ones included.
        threads: how many.
    """

    pid: int
    start: int
    cpu_seconds: float
    resident: int
    threads: int


@dataclass(slots=True)
class Member:
    """A process that is part of a sandbox.

    Attributes:
        name: as the kernel has it.
        part: what it is of which sandbox.
        program: its program's path.
        now: as it was last seen.
    """

    name: bytes
    part: Part
    program: str
    now: Process


class Members:
    """All of them on a node.

    Args:
        proc: the /proc to look at.
    """

    def __init__(self, proc: Path) -> None:
        self._proc = str(proc)
        self._native = procfs.link(f"{self._proc}/1/ns/pid")
        self._inodes: Mapping[int, int] = {}
        self._young: set[int] = set()
        self._members: dict[int, Member] = {}

    def update(self) -> Collection[Member]:
        """Looks again.

        Raises:
            OSError: there is no such /proc.
        """
        listed = procfs.processes(self._proc)
        fresh = {pid for pid, inode in listed.items() if self._inodes.get(pid) != inode}
        candidates = (self._young & listed.keys()) | (fresh - self._members.keys())
        self._inodes, self._young = listed, set()
        for pid, member in list(self._members.items()):
            seen = procfs.stat(self._proc, pid) if pid in listed else None
            if seen is not None and (seen.start, seen.name) == (member.now.start, member.name):
                member.now = _process(pid, seen)
                continue
            del self._members[pid]
            if pid in listed:
                candidates.add(pid)
        if candidates:
            uptime = procfs.uptime(self._proc)
            for pid in sorted(candidates):  # parents first: pids go up
                self._meet(pid, uptime)
        return self._members.values()

    def _meet(self, pid: int, uptime: float) -> None:
        """Finds out what a process is that was not seen before, or not as it is now."""
        seen = procfs.stat(self._proc, pid)
        if seen is None:  # ended, or a read that failed: who is still there next time is looked at again
            self._young.add(pid)
            return
        if uptime - seen.start / procfs.TICKS < _YOUNG:
            self._young.add(pid)
        if not naming.may_be(seen.name):
            return
        cmdline = procfs.read(f"{self._proc}/{pid}/cmdline", _ARGUMENTS) or b""
        program = procfs.link(f"{self._proc}/{pid}/exe").removesuffix(" (deleted)")
        program = program or cmdline.partition(b"\0")[0].decode("utf-8", "replace")
        part = naming.part(program, cmdline)
        if not cmdline or (part is not None and part.component == naming.MESSENGER):
            self._young.add(pid)
        elif part is not None and self._is_native(pid, seen, part):
            self._members[pid] = Member(seen.name, part, program, _process(pid, seen))

    def _is_native(self, pid: int, seen: procfs.Stat, part: Part) -> bool:
        """Whether a process is the node's own, and not one in a container that pretends to be part of a sandbox.

        virtiofsd goes into a pid namespace of its own, but its parent is virtiofsd too and stays outside.
        """
        home = procfs.link(f"{self._proc}/{pid}/ns/pid")
        parent = self._members.get(seen.parent)
        if not home:
            self._young.add(pid)
        return home == self._native or not self._native or (parent is not None and parent.part == part)


def _process(pid: int, seen: procfs.Stat) -> Process:
    return Process(pid, seen.start, seen.cpu_seconds, seen.resident, seen.threads)
