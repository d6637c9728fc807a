"""Files of the node, read within bounds and written so that a crash leaves the old bytes or the new ones."""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path

from agent.errors import KatanodeError
from agent.reasons import Reason

TEMP_PREFIX = ".katanode-tmp-"
"""Start of the name of every temporary file, so that those of a killed run are known and removed."""

READ_LIMIT = 4 << 20
"""Bytes that a configuration file may have; containerd's largest known one has about 20 kB."""


def read_bounded(path: Path, limit: int = READ_LIMIT) -> bytes:
    """The bytes of a regular file.

    Raises:
        FileNotFoundError: there is no such file; callers tell it from the other failures.
        KatanodeError: `FILE_READ_FAILED` when it is no regular file, is larger than `limit` bytes, or cannot be read.
    """
    try:
        # O_NONBLOCK: a FIFO in a file's place must not block the agent.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                mode = stat.filemode(os.fstat(fd).st_mode)
                raise KatanodeError(Reason.FILE_READ_FAILED, f"{path} is not a regular file", evidence=mode)
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KatanodeError(Reason.FILE_READ_FAILED, f"{path} cannot be read", evidence=_why(error)) from error
    if len(data) > limit:
        raise KatanodeError(Reason.FILE_READ_FAILED, f"{path} is larger than {limit} bytes")
    return data


def read_if_there(path: Path, limit: int = READ_LIMIT) -> bytes | None:
    """As `read_bounded`, but None when there is no such file."""
    try:
        return read_bounded(path, limit)
    except FileNotFoundError:
        return None


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replaces or creates a file durably: afterwards, and after a crash at any moment, it is the old or the new whole.

    An existing file's mode, owner and extended attributes (ACLs and the SELinux label among them) are kept; `mode` is
    for a new one. A link is followed by `HostRoot`, not here: pass the mapped path.

    Raises:
        KatanodeError: `FILE_WRITE_FAILED`; the old file is as it was and no temporary file is left.
    """
    temp: str | None = None
    try:
        fd, temp = tempfile.mkstemp(prefix=TEMP_PREFIX, dir=path.parent)
        with open(fd, "wb") as file:
            _copy_identity(path, fd, mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(temp, path)
        temp = None
        fsync_folder(path.parent)
    except OSError as error:
        raise KatanodeError(Reason.FILE_WRITE_FAILED, f"{path} cannot be written", evidence=_why(error)) from error
    finally:
        if temp is not None:
            with contextlib.suppress(OSError):
                os.unlink(temp)


def _copy_identity(old: Path, fd: int, mode: int) -> None:
    """Gives the new file the old one's owner, mode and attributes, in this order: chown clears setuid bits and ACLs."""
    try:
        was = os.stat(old)
    except FileNotFoundError:
        os.fchmod(fd, mode)
        return
    os.fchown(fd, was.st_uid, was.st_gid)
    os.fchmod(fd, stat.S_IMODE(was.st_mode))
    for name in os.listxattr(old):
        try:
            os.setxattr(fd, name, os.getxattr(old, name))
        except OSError as error:
            # Some attributes are the kernel's own (security.ima) or unknown to this file system: not ours to carry.
            if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENODATA}:
                raise


def fsync_folder(folder: Path) -> None:
    """Makes the entries of a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(path: Path, mode: int = 0o755) -> list[Path]:
    """Makes a folder and its missing parents durably.

    Returns:
        The folders that were missing, the innermost first: what an uninstall may remove again.

    Raises:
        KatanodeError: `FILE_WRITE_FAILED`.
    """
    missing = []
    here = path
    while not here.exists():
        missing.append(here)
        here = here.parent
    try:
        for folder in reversed(missing):
            folder.mkdir(mode=mode, exist_ok=True)
            fsync_folder(folder.parent)
    except OSError as error:
        raise KatanodeError(Reason.FILE_WRITE_FAILED, f"folder {path} cannot be made", evidence=_why(error)) from error
    return missing


def link_atomic(link: Path, target: str) -> None:
    """Makes or replaces a symbolic link durably, without a moment in which it is missing.

    Raises:
        KatanodeError: `FILE_WRITE_FAILED`.
    """
    temp = link.parent / f"{TEMP_PREFIX}{os.getpid()}-{link.name}"
    try:
        with contextlib.suppress(FileNotFoundError):
            temp.unlink()
        temp.symlink_to(target)
        os.rename(temp, link)
        fsync_folder(link.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise KatanodeError(Reason.FILE_WRITE_FAILED, f"link {link} cannot be made", evidence=_why(error)) from error


def remove(path: Path) -> bool:
    """Removes a file or link durably; False when there was none.

    Raises:
        KatanodeError: `FILE_WRITE_FAILED`.
    """
    try:
        path.unlink()
        fsync_folder(path.parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise KatanodeError(Reason.FILE_WRITE_FAILED, f"{path} cannot be removed", evidence=_why(error)) from error
    return True


def remove_empty(folder: Path) -> bool:
    """Removes a folder if it is there and empty."""
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            return False
        raise KatanodeError(Reason.FILE_WRITE_FAILED, f"{folder} cannot be removed", evidence=_why(error)) from error
    return True


def sweep(folder: Path) -> None:
    """Removes the temporary files and folders that a killed run left in a folder; the caller holds the node's lock.

    Raises:
        KatanodeError: `FILE_WRITE_FAILED`.
    """
    try:
        left = [path for path in folder.iterdir() if path.name.startswith(TEMP_PREFIX)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            remove(path)


def _why(error: OSError) -> str:
    return f"{errno.errorcode.get(error.errno or 0, 'error')}: {error.strerror or error}"
