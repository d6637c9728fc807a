"""One katanode at a time on a node."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from agent.errors import KatanodeError
from agent.host.files import make_folder, remove_empty
from agent.reasons import Reason


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the node's lock; the kernel releases it when the process ends, however that is.

    The file is removed on release, and its folder when nothing else is in it: a node on which nothing was done keeps
    nothing.

    Raises:
        KatanodeError: `ANOTHER_RUN`, naming the process that holds it.
    """
    while True:
        make_folder(path.parent, 0o700)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # the holder removed the folder just now
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode("ascii", "replace").strip()
            os.close(fd)
            raise KatanodeError(
                Reason.ANOTHER_RUN, "another katanode is at work", evidence=f"process {holder} holds {path}"
            ) from None
        if _is_current(path, fd):
            break
        os.close(fd)  # the holder removed the file between open and flock: take the new one
    try:
        os.truncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with contextlib.suppress(KatanodeError):
            remove_empty(path.parent)
        os.close(fd)


def _is_current(path: Path, fd: int) -> bool:
    try:
        there, mine = path.stat(), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
