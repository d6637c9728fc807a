"""Archives that are the same byte for byte whenever they are made of the same content."""

from __future__ import annotations

import contextlib
import hashlib
import io
import lzma
import tarfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol, cast

import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# 2023-10-23, the day of Kata 3.2.0.
MTIME = 1698019200


class Readable(Protocol):
    """What `tarfile` needs of a member's content."""

    def read(self, size: int = -1, /) -> bytes:
        """The next `size` bytes, or fewer at the end."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of an archive.

    Attributes:
        name: its path, as ``opt/kata/bin/kata-runtime``.
        content: a file's bytes, or what it is read from; None for a folder or a link.
        link: a symbolic link's target.
        mode: a file's permissions.
        size: of a content that is read; bytes know it themselves.
    """

    name: str
    content: bytes | Readable | None = None
    link: str = ""
    mode: int = 0o644
    size: int = 0


@dataclass(frozen=True, slots=True)
class Archive:
    """A finished archive.

    Attributes:
        path: where it is.
        sha256: its digest, in hex.
        size: its bytes.
    """

    path: Path
    sha256: str
    size: int


class _Hashing:
    """A file that is hashed while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write and hash `data`."""
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Nothing is held back here."""


@contextlib.contextmanager
def compressed(file: IO[bytes], suffix: str) -> Iterator[IO[bytes]]:
    """A stream that compresses into `file`, by the archive's `suffix`: ``.tar.xz`` or ``.tar.zst``."""
    if suffix.endswith(".zst"):
        with zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(file, closefd=False) as stream:
            yield cast("IO[bytes]", stream)
    else:
        # The lowest preset: these archives are made often and read seldom.
        with lzma.LZMAFile(file, "wb", preset=0) as xz:
            yield cast("IO[bytes]", xz)


def write(path: Path, entries: Iterable[Entry]) -> Archive:
    """Write `entries` and the folders above them, sorted, owned by root; the suffix says how to compress."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        hashing = _Hashing(file)
        with (
            compressed(cast("IO[bytes]", hashing), path.name) as stream,
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as tar,
        ):
            for entry in sorted(_with_folders(entries), key=lambda entry: entry.name):
                _add(tar, entry)
    partial.replace(path)
    return Archive(path, hashing.digest.hexdigest(), hashing.size)


def _with_folders(entries: Iterable[Entry]) -> Iterator[Entry]:
    """`entries`, and a folder for every path above them."""
    seen: set[str] = set()
    for entry in entries:
        yield entry
        parts = entry.name.split("/")
        seen.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    yield from (Entry(name, mode=0o755) for name in seen)


def _add(tar: tarfile.TarFile, entry: Entry) -> None:
    """Add one member as ``./NAME``, as upstream's archives have it."""
    info = tarfile.TarInfo(f"./{entry.name}")
    info.mtime = MTIME
    info.uname = info.gname = "root"
    info.mode = entry.mode
    if entry.link:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
        tar.addfile(info)
    elif entry.content is None:
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    elif isinstance(entry.content, bytes):
        info.size = len(entry.content)
        tar.addfile(info, io.BytesIO(entry.content))
    else:
        info.size = entry.size
        tar.addfile(info, cast("IO[bytes]", entry.content))
