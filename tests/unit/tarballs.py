"""Small archives for the tests of releases: honest ones and hostile ones."""

import hashlib
import io
import lzma
import tarfile
from collections.abc import Sequence
from pathlib import Path

import zstandard

SHIM = "opt/kata/bin/containerd-shim-kata-v2"

Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"x", mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    info.uid, info.gid = 1001, 1001  # upstream's CI does not always pack as root
    return info, content


def folder(name: str) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o777
    return info, b""


def special(name: str, kind: bytes, target: str = "", mode: int = 0o777) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info, b""


def symlink(name: str, target: str) -> Member:
    return special(name, tarfile.SYMTYPE, target)


def hardlink(name: str, target: str) -> Member:
    return special(name, tarfile.LNKTYPE, target)


def tar(members: Sequence[Member], form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def compress(plain: bytes, name: str) -> bytes:
    return lzma.compress(plain, preset=0) if name.endswith(".xz") else zstandard.ZstdCompressor().compress(plain)


def make(path: Path, members: Sequence[Member]) -> str:
    """Writes an archive; gives its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = compress(tar(members), path.name)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
