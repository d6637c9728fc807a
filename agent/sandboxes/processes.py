"""The processes of one sandbox, from /proc: its shim, and whoever holds its virtual machine."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.sandboxes import procfs

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A process that names a sandbox in its arguments."""

    pid: int
    argv: tuple[str, ...]

    def is_file(self, path: Path, proc: Path = PROC) -> bool:
        """Whether it runs this very file: compared by inode, since each mount namespace has names of its own."""
        try:
            mine, other = os.stat(proc / str(self.pid) / "exe"), path.stat()
        except OSError:
            return False
        return (mine.st_dev, mine.st_ino) == (other.st_dev, other.st_ino)

    def exe(self, proc: Path = PROC) -> str:
        """Its program as the kernel names it; "" when it is gone."""
        return procfs.link(f"{proc}/{self.pid}/exe")

    def holds_vm(self, proc: Path = PROC) -> bool:
        """Whether it holds a KVM virtual machine."""
        return procfs.machine(str(proc), self.pid).held

    def is_shim_of(self, sandbox_id: str) -> bool:
        """Whether it is the shim: both runtimes' shims carry `-id SANDBOX` (facts of Kata 4.1.0)."""
        return any(a == "-id" and b == sandbox_id for a, b in zip(self.argv, self.argv[1:], strict=False))


def of_sandbox(sandbox_id: str, proc: Path = PROC) -> tuple[Process, ...]:
    """The processes whose arguments name a sandbox; all of Kata's do, for both runtimes and every hypervisor."""
    needle = sandbox_id.encode()
    return tuple(
        Process(pid, tuple(cmdline.rstrip(b"\0").decode("utf-8", "surrogateescape").split("\0")))
        for pid, cmdline in _cmdlines(proc)
        if needle in cmdline
    )


def _cmdlines(proc: Path) -> Iterator[tuple[int, bytes]]:
    for name in os.listdir(proc):
        if name.isdecimal():
            try:
                yield int(name), (proc / name / "cmdline").read_bytes()
            except OSError:  # it ended meanwhile
                continue
