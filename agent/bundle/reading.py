"""Files of the host for a bundle: their first part where they are long, and never anything but a regular file."""

import os
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from agent.bundle.masking import one_line, toml_piece
from agent.bundle.piece import Failure, Piece, human
from agent.errors import KatanodeError
from agent.host.root import HostRoot

FILE_LIMIT = 512 << 10
"""Bytes of a configuration file that are taken; the largest known one has 40 kB."""


def head(path: Path, limit: int = FILE_LIMIT) -> tuple[bytes, int]:
    """The first bytes of a regular file, and how many more it has.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, f"no regular file: {stat.filemode(status.st_mode)}")
        data = file.read(limit)
        return data, max(0, status.st_size - len(data))


def file_piece(
    root: HostRoot, path: str, name: str, make: Callable[[str, bytes, str], Piece] = toml_piece
) -> Piece | Failure:
    """A file of the host as a piece; why not, where it cannot be one.

    Args:
        root: the host's root.
        path: the file on the host.
        name: of the piece.
        make: masks it.
    """
    try:
        data, more = head(root(path))
        if not more:
            return make(name, data, "")
        whole = data[: data.rfind(b"\n") + 1] or data
        more += len(data) - len(whole)
        piece = make(name, whole, f"cut: its last {human(more)} are left out")
        return replace(piece, text=f"{piece.text}# [cut: the last {more} bytes are left out]\n")
    except OSError as error:
        return Failure(name, f"{path}: {error.strerror or error}")
    except (ValueError, KatanodeError) as error:
        return Failure(name, f"{path}: {error}")


def listed(root: HostRoot, folder: str, *, depth: int = 3, limit: int = 500) -> list[str]:
    """What is in a folder of the host, a line each: mode, size, time of change, path, and where a link leads.

    Args:
        root: the host's root.
        folder: its path on the host.
        depth: how many folders deep.
        limit: lines at most.
    """
    lines: list[str] = []
    pending = [(folder, 0)]
    while pending and len(lines) < limit:
        path, level = pending.pop()
        try:
            names = sorted(os.listdir(root(path)))
        except (OSError, KatanodeError) as error:
            lines.append(f"?          {path}: {getattr(error, 'strerror', None) or error}")
            continue
        deeper = []
        for name in names[: limit - len(lines)]:
            here = f"{path}/{name}"
            line, is_folder = _line(root, here)
            lines.append(line)
            if is_folder and level + 1 < depth:
                deeper.append((here, level + 1))
        pending += deeper[::-1]
    return [*lines, f"[cut: more than {limit} entries]"] if len(lines) >= limit else lines


def _line(root: HostRoot, path: str) -> tuple[str, bool]:
    try:
        entry = root.entry(path)
        status = entry.lstat()
        target = f" -> {os.readlink(entry)}" if stat.S_ISLNK(status.st_mode) else ""
    except (OSError, KatanodeError) as error:
        return f"?          {one_line(path)}: {error}", False
    owner, when = f"{status.st_uid}:{status.st_gid}", _moment(status.st_mtime)
    line = f"{stat.filemode(status.st_mode)} {owner} {status.st_size:>10} {when} {one_line(path + target)}"
    return line, stat.S_ISDIR(status.st_mode)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
