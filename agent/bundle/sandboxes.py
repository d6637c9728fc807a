"""The node's sandboxes: as CRI lists them, as processes, and as what is left of them in folders."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from agent.bundle.masking import json_piece, one_line, text_piece
from agent.bundle.piece import Failure, Piece
from agent.bundle.scene import Scene
from agent.cri.client import Client
from agent.errors import KatanodeError
from agent.kata.handlers import HANDLERS

_FOLDERS = (
    "/run/containerd/io.containerd.runtime.v2.task/k8s.io",
    "/run/vc/sbs",
    "/run/vc/vm",
    "/run/kata",
    "/run/kata-containers/shared/sandboxes",
)
"""Where containerd and both of Kata's runtimes keep something of each sandbox."""
_PROGRAMS = ("containerd", "containerd-shim", "cloud-hypervisor", "qemu-system", "firecracker", "virtiofsd", "kata-")


def sandboxes(scene: Scene) -> Iterator[Piece | Failure]:
    """The sandboxes that CRI lists: those of Kata one by one, of others how many."""
    if scene.daemon is None or not scene.answers:
        yield Failure("sandboxes/cri.json", "the container runtime does not answer")
        return
    with Client(scene.root(scene.daemon.socket)) as client:
        found = client.sandboxes()
    kata = [box for box in found if box.handler in HANDLERS]
    others = Counter(box.handler or "(default)" for box in found if box.handler not in HANDLERS)
    listed = [
        {
            "id": box.id,
            "namespace": box.namespace,
            "name": box.name,
            "uid": box.uid,
            "handler": box.handler,
            "ready": box.ready,
        }
        for box in sorted(kata, key=lambda box: (box.namespace, box.name, box.id))
    ]
    note = f"{sum(box.ready for box in kata)} of Kata's run"
    yield json_piece("sandboxes/cri.json", {"kata": listed, "others": dict(others)}, note=note)


def traces(scene: Scene) -> Iterator[Piece | Failure]:
    """The processes of containerd and Kata with their arguments, and the folders that sandboxes have."""
    lines = [line for line in map(_process, _pids()) if line]
    yield text_piece("sandboxes/processes.txt", "\n".join(lines or ["none"]) + "\n")
    folders = []
    for folder in _FOLDERS:
        try:
            names = sorted(os.listdir(scene.root(folder)))
        except (OSError, KatanodeError) as error:
            folders.append(f"{folder}: {getattr(error, 'strerror', None) or error}")
            continue
        folders += [f"{folder}: {len(names)}", *(f"  {one_line(name)}" for name in names[:1000])]
    yield text_piece("sandboxes/folders.txt", "\n".join(folders) + "\n")


def _pids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())


def _process(pid: int) -> str:
    """A process's number, memory and arguments; "" for one that is none of Kata's, or has ended."""
    folder = Path("/proc") / str(pid)
    try:
        argv = (folder / "cmdline").read_bytes().rstrip(b"\0").decode("utf-8", "replace").split("\0")
        if not os.path.basename(argv[0]).startswith(_PROGRAMS):
            return ""
        fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    resident = int(fields[21]) * os.sysconf("SC_PAGE_SIZE") // 1024
    return f"{pid} parent {fields[1]} {fields[0]} {resident} kB: {one_line(' '.join(argv))}"
