"""What sandboxes left behind: state without a shim, and cgroups without a process. Looked for, never removed."""

import os
import re
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from agent.sandboxes import naming, procfs

STATE_FOLDER = "state-folder"
CGROUP = "cgroup"
_FOLDERS = (
    "vc/sbs",
    "vc/vm",
    "vc/firecracker",
    "kata",
    "kata/firecracker",
    "kata-containers/shared/sandboxes",
)
"""Below /run; in each a folder for every sandbox, of the Go runtime and of runtime-rs."""
_OF_ALL = frozenset({*_FOLDERS, "vc/vm/template"})
"""What stands among those folders and is of no sandbox; the template is `factory.template_path` by default."""
_OVERHEAD = ("kata_overhead", "kata-overhead.slice")
"""cgroups of both runtimes, without systemd and with it, where sandbox_cgroup_only is false."""
_SETTLED = 60.0
"""Seconds for which a folder must have been as it is: sandboxes come and go while one looks."""
_DEPTH = 12
_LIMIT = 1000
_ID = re.compile(r"[0-9a-f]{64}")


class Leftover(NamedTuple):
    """Something that was left.

    Attributes:
        kind: `state-folder` or `cgroup`.
        path: as this process sees it.
        sandbox: the id of the sandbox that it was of; "" when the name does not tell.
    """

    kind: str
    path: Path
    sandbox: str


def find(run: Path, cgroups: Path, alive: Collection[str], *, settled: float = _SETTLED) -> tuple[Leftover, ...]:
    """What was left, the first thousand pieces of it.

    Args:
        run: the host's /run.
        cgroups: the host's /sys/fs/cgroup, of either version.
        alive: ids of the sandboxes of which a process runs, from a census made before.
        settled: seconds since the last change below which a folder or cgroup is left out.
    """
    shortened = {sandbox_id[: naming.SHORTENED] for sandbox_id in alive}
    before = time.time() - settled
    found = [*_folders(run), *_cgroups(cgroups)]
    return tuple(
        each
        for each in found
        if each.sandbox not in alive and each.sandbox not in shortened and _changed(each.path) < before
    )[:_LIMIT]


def _folders(run: Path) -> Iterator[Leftover]:
    for name in _FOLDERS:
        for entry in _entries(run / name):
            if f"{name}/{entry.name}" not in _OF_ALL and entry.is_dir(follow_symlinks=False):
                yield Leftover(STATE_FOLDER, Path(entry.path), entry.name)


def _cgroups(top: Path) -> Iterator[Leftover]:
    """Leaves below the overhead's cgroups that have no process: directly below version 2's top or a controller's."""
    tops = [top, *(Path(entry.path) for entry in _entries(top) if entry.is_dir(follow_symlinks=False))]
    for each in tops:
        for name in _OVERHEAD:
            yield from _leaves(each / name, _DEPTH)


def _leaves(folder: Path, depth: int) -> Iterator[Leftover]:
    for entry in _entries(folder):
        if not entry.is_dir(follow_symlinks=False):
            continue
        path = Path(entry.path)
        if any(inner.is_dir(follow_symlinks=False) for inner in _entries(path)):
            if depth:
                yield from _leaves(path, depth - 1)
        elif _is_empty(path):
            found = _ID.search(entry.name)
            yield Leftover(CGROUP, path, found[0] if found else entry.name)


def _is_empty(cgroup: Path) -> bool:
    """Whether a cgroup has no process: version 2's events say so for threads too, version 1 has a list."""
    events = procfs.read(f"{cgroup}/cgroup.events")
    return b"populated 0" in events if events is not None else procfs.read(f"{cgroup}/cgroup.procs", 16) == b""


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)[: 10 * _LIMIT]
    except OSError:
        return ()


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return float("inf")  # gone meanwhile
