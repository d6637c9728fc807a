"""A quiet moment for a restart: no image is being pulled and no sandbox is being made."""

import time
from collections.abc import Iterator
from pathlib import Path

from agent.cri.client import Client, CRIError
from agent.cri.daemon import Daemon
from agent.host.root import HostRoot

# containerd's defaults; a daemon with other folders is simply not waited for, which the bound makes harmless.
_INGEST = "/var/lib/containerd/io.containerd.content.v1.content/ingest"
_TASKS = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
_FRESH = 10.0
"""Seconds without a write after which an ingest is an abandoned one."""
_POLL = 0.25


def wait_quiet(root: HostRoot, daemon: Daemon, timeout: float) -> str:
    """Waits for a quiet moment, but not for ever.

    Returns:
        What was still under way when `timeout` seconds had passed; "" when it is quiet.
    """
    deadline = time.monotonic() + timeout
    while True:
        busy = next(_under_way(root, daemon), "")
        if not busy or time.monotonic() >= deadline:
            return busy
        time.sleep(_POLL)


def _under_way(root: HostRoot, daemon: Daemon) -> Iterator[str]:
    now = time.time()
    for ingest in _entries(root(_INGEST)):
        try:
            written = max(p.stat().st_mtime for p in (ingest, *ingest.iterdir()))
        except OSError:  # it ended meanwhile
            continue
        if now - written < _FRESH:
            yield "an image is being pulled"
    tasks = {p.name for p in _entries(root(_TASKS))}
    if not tasks:
        return
    try:
        with Client(root(daemon.socket)) as client:
            known = {s.id for s in client.sandboxes()} | set(client.running_containers())
    except CRIError:
        return
    for task in tasks - known:
        try:
            age = now - root(_TASKS).joinpath(task).stat().st_mtime
        except OSError:
            continue
        if age < _FRESH:
            yield f"sandbox or container {task[:13]} is being made"


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
