"""Keeps one lab: makes its cgroups and its namespaces, and removes every trace when its owner goes.

A process of its own, so that a lab is cleaned up even when the test that owns it is killed: the owner's end
of the pipe on standard input closes, whatever the reason. Run as ``python -m hack.lab.keeper ORDER``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hack.lab import cgroups

if TYPE_CHECKING:
    from hack.lab.order import Order

UNSHARE = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
UNSHARE += ["--net", "--ipc", "--uts", "--cgroup", "--"]


PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def prepare(folders: list[Path]) -> None:
    """In the child, before it becomes ``unshare``: join the lab's cgroups, and die with the keeper."""
    # The cgroup namespace's top is the group that its creator is in.
    cgroups.join(folders)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    """Start process 1, pass its word on, wait for the owner to go, and clean up."""
    order: Order = json.loads(sys.argv[1])
    # Terminal signals are for the owner, who closes the lab in its own time.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # So that process 1 comes here when unshare is gone, and its end, with that of all inside, can be waited for.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    folders = cgroups.create(Path(order["work"]).name)
    tops = [h.mount for h in cgroups.hierarchies()]
    order["hierarchies"] = [str(top) for top in tops if any(f.is_relative_to(top) for f in folders)]
    holder = subprocess.Popen(
        [*UNSHARE, sys.executable, "-S", "-m", "hack.lab.init", json.dumps(order)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: prepare(folders),  # noqa: PLW1509 - there is one thread
        start_new_session=True,
    )
    assert holder.stdout is not None
    try:
        word = holder.stdout.readline()
        cgroups.settle(folders)
        os.write(1, word)
        # Until the owner goes, or process 1 does; nothing is ever written to the pipe.
        select.select([sys.stdin, os.pidfd_open(holder.pid)], [], [])
    finally:
        # unshare's --kill-child takes process 1 along, and the kernel every process of its pid namespace.
        holder.kill()
        holder.wait()
        with contextlib.suppress(ChildProcessError):
            while os.wait():
                pass
        left = cgroups.remove(folders)
        shutil.rmtree(order["work"], ignore_errors=True)
    if not word.startswith(b"ready"):
        return 1
    if left or os.path.exists(order["work"]):
        print(f"left behind: {[str(f) for f in left]} {order['work']}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
