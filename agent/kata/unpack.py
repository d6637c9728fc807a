"""One pass over an archive: read, hash, decompress, unpack; nothing that it holds can reach outside its folder."""

import contextlib
import errno
import os
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from agent.errors import KatanodeError
from agent.kata.pipe import MAX_HEADER, Pipe
from agent.reasons import Reason

PREFIX = "opt/kata"
"""Everything in a Kata archive is below this."""

_CHUNK = 1 << 18
_MAX_MEMBERS = 200_000
_MAX_NAME = 1024
_END = bytes(512)
"""The block that ends a tar (tar(5))."""

_REFUSED_MODE = 0o7000


@dataclass(slots=True)
class Budget:
    """What may still be unpacked, in bytes, over all the archives of a release."""

    left: int
    total: int

    def take(self, size: int, name: str) -> None:
        """Takes a member's size off.

        Raises:
            KatanodeError: `RELEASE_TOO_LARGE`.
        """
        self.left -= size
        if self.left < 0:
            raise KatanodeError(
                Reason.RELEASE_TOO_LARGE,
                f"the archive unpacks to more than kata.max_unpacked_bytes = {self.total}",
                evidence=f"reached at {name}, which has {size} bytes",
            )


@dataclass(slots=True)
class _Tree:
    """The staging folder, and what of it was made."""

    folder: Path
    budget: Budget
    pipe: Pipe
    links: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    members: int = 0


class _BoundedHeader(tarfile.TarInfo):
    """Refuses extended headers of more than a sane size."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and not self.isdir() and self.size > MAX_HEADER:
            raise _unsafe(self.name, f"has an extended header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]


def unpack(
    archive: BinaryIO, name: str, sha256: str, folder: Path, budget: Budget, tell: Callable[[int], None]
) -> None:
    """Unpacks what an archive has below `opt/kata` into a folder, in one pass.

    Args:
        archive: the archive's bytes.
        name: its file name: its end tells the compression.
        sha256: the digest that it must have. It is known only at the end, so nothing of the folder may be used before
            this function has returned.
        folder: where to; what is there already (from an earlier archive of the release) is kept.
        budget: bytes that may be unpacked.
        tell: told of the compressed bytes read so far.

    Raises:
        KatanodeError: `RELEASE_DIGEST_MISMATCH`, `RELEASE_TRUNCATED`, `RELEASE_UNSAFE`, `RELEASE_TOO_LARGE`,
            `RELEASE_UNREACHABLE` when the archive cannot be read, `RELEASE_DISK_FULL`, `FILE_WRITE_FAILED`.
    """
    pipe = Pipe(archive, name, tell)
    try:
        failure = _members(_Tree(folder, budget, pipe), name)
    except BaseException:
        pipe.abandon()
        raise
    # A wrong digest says more than what came of it, unless the machine is at fault or reading on would take for ever.
    if failure is not None and failure.reason not in {Reason.RELEASE_TRUNCATED, Reason.RELEASE_UNSAFE}:
        pipe.abandon()
        raise failure
    digest = pipe.digest()
    if pipe.broken is not None:
        raise KatanodeError(
            Reason.RELEASE_UNREACHABLE, f"{name} cannot be read", evidence=str(pipe.broken)
        ) from pipe.broken
    if digest != sha256:
        raise KatanodeError(
            Reason.RELEASE_DIGEST_MISMATCH,
            f"{name} is not the pinned archive",
            evidence=f"sha256 {digest}\npinned {sha256}"
            + (f"\nit also is damaged: {failure.message}" if failure else ""),
        )
    if failure is not None:
        raise failure
    if pipe.error is not None:
        raise KatanodeError(Reason.RELEASE_TRUNCATED, f"{name} cannot be decompressed", evidence=str(pipe.error))


def _members(tree: _Tree, name: str) -> KatanodeError | None:
    """Unpacks all members; gives what is wrong with the archive or the disk, if anything is."""
    try:
        # tarfile reads the headers; contents go from the pipe's buffers to the files without a copy.
        with tarfile.open(fileobj=cast("BinaryIO", tree.pipe), mode="r:", tarinfo=_BoundedHeader) as tar:
            for member in tar:
                _member(tree, tar, member)
                tar.members.clear()  # type: ignore[attr-defined]  # no list of all that went by is needed
                tree.pipe.begin()
    except KatanodeError as error:
        return error
    except RecursionError:  # tarfile calls itself for each header before a member
        return KatanodeError(Reason.RELEASE_UNSAFE, f"{name} has a member with headers without end")
    except (tarfile.TarError, EOFError, ValueError) as error:
        return KatanodeError(Reason.RELEASE_TRUNCATED, f"{name} is not a whole archive", evidence=str(error))
    except OSError as error:
        return write_failure(error, tree.folder)
    # tarfile takes a header that is damaged or cut off, if it is not the first, for the end.
    if tree.pipe.last != _END:
        return KatanodeError(Reason.RELEASE_TRUNCATED, f"{name} has no end mark")
    return None


def _member(tree: _Tree, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    tree.members += 1
    if tree.members > _MAX_MEMBERS:
        raise KatanodeError(Reason.RELEASE_TOO_LARGE, f"the archive has more than {_MAX_MEMBERS} members")
    if member.size < 0:
        raise _unsafe(member.name, f"has {member.size} bytes")
    path = _relative(member.name)
    if path is None:
        if not member.isdir():
            raise _unsafe(member.name, f"is not below {PREFIX}")
    elif any(part in tree.links for part in _ancestors(path)):
        raise _unsafe(member.name, "is reached through a link")
    elif member.isdir():
        _make_folder(tree, path)
    else:
        _entry(tree, tar, member, path)


def _entry(tree: _Tree, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    """A file or a link."""
    parent, target = posixpath.dirname(path), tree.folder / path
    if not (member.isreg() or member.issym() or member.islnk()):
        raise _unsafe(member.name, "is a device or a pipe")
    if member.mode & _REFUSED_MODE and not member.issym():
        raise _unsafe(member.name, f"has mode {member.mode:o}")
    _make_folder(tree, parent)
    if member.isreg():
        tree.budget.take(member.size, member.name)
    if target.is_dir() and not target.is_symlink():
        raise _unsafe(member.name, "is a file in one place and a folder in another")
    if os.path.lexists(target):
        return  # the archives of a release overlap; the main one comes first and stays
    if member.issym():
        os.symlink(_link_target(member, parent), target)
        tree.links.add(path)
    elif member.islnk():
        os.link(_linked(tree, member), target, follow_symlinks=False)
    else:
        _write(tree, tar, member, target)


def _linked(tree: _Tree, member: tarfile.TarInfo) -> Path:
    """The file that a hard link is of: one that is there already, and no symbolic link.

    The disk is asked, since an earlier archive may have brought the link: its second name would stand elsewhere, and
    from there its target may lead out.
    """
    source, what = _relative(member.linkname), f"is a hard link to {member.linkname[:200]!r}"
    if source is None or any(os.path.islink(tree.folder / part) for part in (*_ancestors(source), source)):
        raise _unsafe(member.name, what)
    if not (tree.folder / source).is_file():
        raise _unsafe(member.name, f"{what}, which is not in the archive before it")
    return tree.folder / source


def _write(tree: _Tree, tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    mode = 0o755 if member.mode & 0o111 else 0o644
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        if not member.issparse():
            tree.pipe.copy(fd, member.size)
            return
        source = tar.extractfile(member)
        assert source is not None  # it is a regular file
        tree.pipe.begin()
        while chunk := source.read(_CHUNK):
            _write_all(fd, chunk)
            tree.pipe.begin()
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _relative(name: str) -> str | None:
    """A member's path below the prefix; None for the folders above it.

    Raises:
        KatanodeError: `RELEASE_UNSAFE` for a path that is absolute, goes up or is too long.
    """
    if name.startswith("/") or ".." in name.split("/") or len(name) > _MAX_NAME or "\0" in name:
        raise _unsafe(name, "has a path that leaves the archive")
    path = posixpath.normpath(name)
    if path == PREFIX or PREFIX.startswith(path + "/") or path == ".":
        return None
    if not path.startswith(PREFIX + "/"):
        raise _unsafe(name, f"is not below {PREFIX}")
    return path.removeprefix(PREFIX + "/")


def _link_target(member: tarfile.TarInfo, parent: str) -> str:
    """A symbolic link's target, relative and inside.

    `..` may only lead: behind a name it would start from wherever a link of that name leads.
    """
    target = member.linkname
    if target.startswith(f"/{PREFIX}/") and ".." not in target.split("/"):
        # Both from a root: relpath would start from the current folder.
        target = posixpath.relpath(target.removeprefix(f"/{PREFIX}"), f"/{parent}")
    parts = [part for part in target.split("/") if part not in {"", "."}]
    up = len(parts) - len(_after_ups(parts))
    depth = len(parent.split("/")) if parent else 0
    if target.startswith("/") or not target or up > depth or ".." in _after_ups(parts):
        raise _unsafe(member.name, f"is a link to {member.linkname[:200]!r}")
    return target


def _after_ups(parts: list[str]) -> list[str]:
    count = 0
    while count < len(parts) and parts[count] == "..":
        count += 1
    return parts[count:]


def _ancestors(path: str) -> Iterator[str]:
    parent = posixpath.dirname(path)
    while parent:
        yield parent
        parent = posixpath.dirname(parent)


def _make_folder(tree: _Tree, path: str) -> None:
    if not path or path in tree.folders:
        return
    _make_folder(tree, posixpath.dirname(path))
    with contextlib.suppress(FileExistsError):
        os.mkdir(tree.folder / path)
        os.chmod(tree.folder / path, 0o755)  # noqa: S103 - whatever the umask that katanode was called with
    if not (tree.folder / path).is_dir() or (tree.folder / path).is_symlink():
        raise _unsafe(path, "is a folder in one place and a file in another")
    tree.folders.add(path)


def _unsafe(name: str, what: str) -> KatanodeError:
    return KatanodeError(Reason.RELEASE_UNSAFE, f"the archive's member {name[:200]!r} {what}")


def write_failure(error: OSError, folder: Path) -> KatanodeError:
    """What a failure to write below a folder amounts to."""
    reason = Reason.RELEASE_DISK_FULL if error.errno in {errno.ENOSPC, errno.EDQUOT} else Reason.FILE_WRITE_FAILED
    free = os.statvfs(folder)
    return KatanodeError(
        reason,
        f"the release cannot be unpacked to {folder}",
        evidence=f"{error.strerror}; {free.f_bavail * free.f_frsize >> 20} MiB free",
    )
