"""A daemon that runs in a lab, and what the kernel says of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from hack.lab.figures import SETTINGS, until
from hack.lab.lab import REPO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hack.lab.lab import Lab

KATANODE = Path(sys.executable).with_name("katanode")
PORT = 9810
_TICKS = os.sysconf("SC_CLK_TCK")
_FETCH = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())
"""


class CPU(NamedTuple):
    """Seconds of one core since its start.

    Attributes:
        own: the daemon's.
        workers: those of its children that have ended.
    """

    own: float
    workers: float


class Running:
    """A daemon at work, gone with its workers when the context ends.

    Args:
        lab: where.
        env: the environment by which it finds its cluster.
        argv: another way to start it.
    """

    def __init__(self, lab: Lab, env: Mapping[str, str], argv: Sequence[str | Path] = ()) -> None:
        self._lab = lab
        self.log = lab.path("/run/katanode.log")
        own = ["-P", KATANODE, "run", "--settings", SETTINGS]
        with self.log.open("ab") as log:
            self._process = lab.popen(
                ["/bin/sh", "-c", 'echo $$; exec "$@"', "sh", *(argv or [sys.executable, *own])],
                cwd=REPO,
                env=env,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        self._inside = int(self._process.stdout.readline())
        self.pid = lab.host_pid(self._inside)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lab.run(["kill", f"-{int(signal.SIGTERM)}", str(self._inside)], check=False)
        with self._process:
            self._process.wait(20)

    @property
    def rss(self) -> int:
        """Bytes of memory that are resident."""
        found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert found
        return int(found[1]) << 10

    @property
    def cpu(self) -> CPU:
        """What it has used; /proc/PID/stat counts hundredths of a second (proc(5), fields 14 to 17)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        user, system, of_children, of_their_system = (int(field) / _TICKS for field in fields[11:15])
        return CPU(user + system, of_children + of_their_system)

    def looks(self) -> int:
        """How many looks have ended."""
        url = f"http://127.0.0.1:{PORT}/metrics"
        text = self._lab.run([sys.executable, "-S", "-c", _FETCH, url], check=False).stdout
        return sum(int(float(n)) for n in re.findall(r"^katanode_reconcile_total\{[^}]*\} (\S+)$", text, re.MULTILINE))

    def until_looked(self, looks: int, seconds: float = 60) -> None:
        """Waits for looks to have ended.

        Raises:
            TimeoutError: they have not within `seconds`.
        """
        until(lambda: self.looks() >= looks, seconds)
