"""The end of the making: bytecode, checks, and the same time on every file."""

# ruff: noqa: INP001 - beside its script

from __future__ import annotations

import os
import py_compile
import stat
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path


def compile_all(out: Path, folders: Iterable[str], without: Collection[Path]) -> None:
    """Writes the bytecode of each module beside it.

    The file system is read-only where the image runs, so nobody else would. Valid by declaration and not by the
    source's time: the layers' times are set anew, and nothing is looked at twice at start.

    Args:
        out: the image's files.
        folders: where modules are, below `out`.
        without: modules that get none.
    """
    # One after the other, in order: what a compiler has in memory shows in the bytes that it writes.
    for path in sorted(path for folder in folders for path in (out / folder).rglob("*.py")):
        if path in without:
            continue
        py_compile.compile(
            str(path),
            dfile=f"/{path.relative_to(out)}",
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def check(out: Path, machine: int) -> None:
    """Looks at every file.

    Args:
        out: the image's files.
        machine: the architecture's number in ELF headers.

    Raises:
        SystemExit: a program or a library is for another machine, or a file gives its reader another's rights.
    """
    for path in _all(out):
        status = path.lstat()
        if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
            raise SystemExit(f"{path.relative_to(out)} is setuid or setgid")
        if not stat.S_ISREG(status.st_mode):
            continue
        with path.open("rb") as file:
            head = file.read(20)
        if head[:4] == b"\x7fELF" and struct.unpack_from("<H", head, 18)[0] != machine:
            raise SystemExit(f"{path.relative_to(out)} is for another machine")


def set_times(out: Path, epoch: int) -> None:
    """Gives every file and folder one time, one owner, and modes that no umask shaped."""
    for path in _all(out):
        os.utime(path, (epoch, epoch), follow_symlinks=False)
        os.chown(path, 0, 0, follow_symlinks=False)
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if executable else 0o644)


def _all(out: Path) -> Iterable[Path]:
    return (*sorted(out.rglob("*")), out)
