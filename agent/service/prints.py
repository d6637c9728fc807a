"""Seeing that something changed: by `lstat` only, so that it can be often."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

Prints = Mapping[str, tuple[int, ...] | None]


def prints(paths: Iterable[str]) -> Prints:
    """What can be seen of these paths without opening them; None for what is not there."""
    return {path: _print(path) for path in paths}


def _print(path: str) -> tuple[int, ...] | None:
    try:
        seen = os.lstat(path)
    except OSError:
        return None
    # Not the times of a folder's or device's use: only what a change of content, mode or owner brings.
    return (seen.st_ino, seen.st_mode, seen.st_uid, seen.st_gid, seen.st_rdev, seen.st_size, seen.st_mtime_ns)


def changed(before: Prints, now: Prints) -> list[str]:
    """Paths that are not as they were."""
    return sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))


def content(path: Path) -> bytes | None:
    """A small file's bytes, for the settings: a ConfigMap's file changes by a link three levels up."""
    try:
        with path.open("rb") as file:
            return file.read(1 << 20)
    except OSError:
        return None
