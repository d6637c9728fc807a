"""A cgroup of the lab's own in every hierarchy of this machine, and its removal.

Everything that runs in a lab lives below it, so that two labs never meet in ``/k8s.io`` and nothing stays
behind. Works on cgroup v1, on v2 and on the hybrid of both.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

# On v2 processes live in leaves only, once controllers are handed down ("no internal processes").
LEAF = "init"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup hierarchy.

    Attributes:
        mount: where it is mounted.
        fstype: ``cgroup`` or ``cgroup2``.
        options: the mount options that select its controllers (``cpu,cpuacct`` or ``name=systemd``).
        own: the cgroup that this process has in it, as a path below the mount.
    """

    mount: Path
    fstype: str
    options: str
    own: Path


def hierarchies() -> list[Hierarchy]:
    """The cgroup hierarchies of this machine, in the order of their mounts."""
    own: dict[frozenset[str], str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[frozenset(filter(None, controllers.split(",")))] = path
    found: dict[Path, Hierarchy] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        root, mount = left.split()[3:5]
        fstype, _, superoptions = right.split(" ", 2)
        if fstype not in ("cgroup", "cgroup2"):
            continue
        options = [o for o in superoptions.split(",") if o not in ("rw", "ro") and "=" not in o]
        options += [o for o in superoptions.split(",") if o.startswith("name=")]
        if fstype == "cgroup2":
            options = []
        options = [o for o in options if o not in ("xattr", "clone_children", "noprefix")]
        path = own.get(frozenset(options), "/")
        top = Path(mount)
        where = top / os.path.relpath(path, root) if path.startswith(root) else top
        found[top] = Hierarchy(top, fstype, ",".join(options), where if where.is_dir() else top)
    return list(found.values())


def places(name: str) -> list[Path]:
    """Where the lab `name` has its groups: beside the caller's own on v1, at the top on v2."""
    # v2 hands controllers only to children of groups without processes; the top is exempt from that rule.
    return [(h.mount if h.fstype == "cgroup2" else h.own) / name for h in hierarchies()]


def create(name: str) -> list[Path]:
    """Make the cgroup `name` in every writable hierarchy.

    Returns:
        The folders made, to be handed to `join` and `remove`.
    """
    made: list[Path] = []
    for folder in places(name):
        try:
            folder.mkdir()
        except OSError:
            # A read-only hierarchy (an unprivileged container's): the lab does without it.
            continue
        made.append(folder)
        for file in ("cpuset.cpus", "cpuset.mems"):
            # A new v1 cpuset is empty, and no process may join an empty one.
            if (folder / file).exists() and not (folder / "cgroup.controllers").exists():
                (folder / file).write_text((folder.parent / file).read_text())
    return made


def join(folders: list[Path]) -> None:
    """Move the calling process into `folders`."""
    for folder in folders:
        (folder / "cgroup.procs").write_text("0")


def settle(folders: list[Path]) -> None:
    """From outside, on v2: move the lab's first processes into a leaf and hand every controller down."""
    for folder in folders:
        if not (folder / "cgroup.controllers").exists():
            continue
        leaf = folder / LEAF
        leaf.mkdir(exist_ok=True)
        for pid in (folder / "cgroup.procs").read_text().split():
            (leaf / "cgroup.procs").write_text(pid)
        for controller in (folder / "cgroup.controllers").read_text().split():
            try:
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
            except OSError:
                # A controller that cannot be handed down here is one that the runtime will do without.
                continue


def remove(folders: list[Path], *, seconds: float = 5.0) -> list[Path]:
    """Remove `folders` with all that was made below them.

    Args:
        folders: what `create` returned.
        seconds: how long to wait for groups that the kernel still holds after their last process has gone.

    Returns:
        The folders that could not be removed.
    """
    deadline = time.monotonic() + seconds
    left = [folder for folder in folders if folder.exists()]
    while left:
        for folder in left:
            for group, _, _ in os.walk(folder, topdown=False):
                try:
                    os.rmdir(group)
                except OSError:
                    continue
        left = [folder for folder in left if folder.exists()]
        if time.monotonic() > deadline:
            break
        if left:
            time.sleep(0.02)
    return left
