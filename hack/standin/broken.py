"""Archives that an installer must refuse, and a few odd ones that it must not: for tests of faults.

``python3 hack/standin/broken.py --list``, ``python3 hack/standin/broken.py device --out DIR``.
"""

from __future__ import annotations

import argparse
import enum
import hashlib
import io
import lzma
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:
    # Run as a script: the folder of hack/ is not on the path.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from hack.standin import archive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_MIB = 1 << 20
_BOMB = 8 << 30
_VICTIM = "/tmp/katanode-standin-was-here"
_SCRIPT = b"#!/bin/sh\necho 'katanode STAND-IN: no isolation'\n"


class Fault(enum.StrEnum):
    """What is wrong, or odd, with an archive."""

    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    NOT_AN_ARCHIVE = "not-an-archive"
    EMPTY = "empty"
    PARENT_MEMBER = "parent-member"
    ABSOLUTE_MEMBER = "absolute-member"
    SYMLINK_OUT = "symlink-out"
    SYMLINK_ABSOLUTE = "symlink-absolute"
    HARDLINK_OUT = "hardlink-out"
    THROUGH_SYMLINK = "through-symlink"
    DEVICE = "device"
    FIFO = "fifo"
    SETUID = "setuid"
    WRONG_TOP = "wrong-top"
    FILE_AND_FOLDER = "file-and-folder"
    BOMB = "bomb"
    SPARSE_BOMB = "sparse-bomb"
    FOREIGN_OWNER = "foreign-owner"
    SPARSE = "sparse"
    PAX = "pax"
    DUPLICATE = "duplicate"


LEGAL = frozenset({Fault.FOREIGN_OWNER, Fault.SPARSE, Fault.PAX, Fault.DUPLICATE})  # odd, and safe: taken

Member = tuple[tarfile.TarInfo, bytes]


def make(fault: Fault, out: Path, *, version: str = "3.2.0", arch: str = "amd64", zst: bool = False) -> archive.Archive:
    """Make an archive with one fault; all but `Fault.BOMB` are quick and small.

    Args:
        fault: what is wrong with it.
        out: the folder for it; made if it is missing.
        version: in its name.
        arch: in its name.
        zst: whether it is ``.tar.zst`` and not ``.tar.xz``.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"kata-static-{version}-{arch}.tar.{'zst' if zst else 'xz'}"
    if fault is Fault.BOMB:
        _write_bomb(path)
    else:
        with (
            path.open("wb") as file,
            archive.compressed(file, path.name) as stream,
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            for info, content in _members(fault):
                tar.addfile(info, io.BytesIO(content))
        _spoil(fault, path)
    data = path.read_bytes()
    return archive.Archive(path, hashlib.sha256(data).hexdigest(), len(data))


def _member(name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, **more: Any) -> Member:
    """One member; `more` sets attributes of its `tarfile.TarInfo`."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime, info.mode = kind, len(content), archive.MTIME, 0o755
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def _members(fault: Fault) -> Iterator[Member]:
    """The members of a small release, with the fault among them."""
    top = "./opt/kata-wrong" if fault is Fault.WRONG_TOP else "./opt/kata"
    more: dict[str, Any] = {}
    if fault is Fault.FOREIGN_OWNER:
        more = {"uid": 1001, "gid": 127, "uname": "runner", "gname": "docker"}
    for folder in ("./opt", top, f"{top}/bin", f"{top}/share"):
        yield _member(folder, kind=tarfile.DIRTYPE, **more)
    yield _member(f"{top}/bin/containerd-shim-kata-v2", _SCRIPT, **more)
    if fault in _BAD_MEMBERS:
        yield from _BAD_MEMBERS[fault](top)
    # Noise after it: an installer that stops at the fault has not read this, and a cut file ends in it.
    yield _member(f"{top}/share/noise", hashlib.shake_256(b"standin").digest(_MIB), **more)


def _sparse(top: str, real_size: int) -> list[Member]:
    """A file of `real_size` bytes that is a hole but for its beginning, as GNU tar's pax format has it."""
    data = b"1\n0\n512\n".ljust(512, b"\0") + b"x" * 512
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": f"{top}/share/sparse.img"}
    headers["GNU.sparse.realsize"] = str(real_size)
    return [_member(f"{top}/share/GNUSparseFile.0/sparse.img", data, pax_headers=headers)]


_BAD_MEMBERS: dict[Fault, Callable[[str], list[Member]]] = {
    Fault.PARENT_MEMBER: lambda top: [_member(f"{top}/../../..{_VICTIM}", b"out\n")],
    Fault.ABSOLUTE_MEMBER: lambda _: [_member(_VICTIM, b"out\n")],
    Fault.SYMLINK_OUT: lambda top: [_member(f"{top}/out", kind=tarfile.SYMTYPE, linkname="../../../etc/passwd")],
    Fault.SYMLINK_ABSOLUTE: lambda top: [_member(f"{top}/out", kind=tarfile.SYMTYPE, linkname="/etc/passwd")],
    Fault.HARDLINK_OUT: lambda top: [_member(f"{top}/out", kind=tarfile.LNKTYPE, linkname="../../etc/passwd")],
    Fault.THROUGH_SYMLINK: lambda top: [
        _member(f"{top}/lib", kind=tarfile.SYMTYPE, linkname="bin"),
        _member(f"{top}/lib/containerd-shim-kata-v2", b"#!/bin/sh\necho replaced\n"),
    ],
    Fault.DEVICE: lambda top: [_member(f"{top}/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    Fault.FIFO: lambda top: [_member(f"{top}/fifo", kind=tarfile.FIFOTYPE)],
    Fault.SETUID: lambda top: [_member(f"{top}/bin/setuid", _SCRIPT, mode=0o4755)],
    Fault.FILE_AND_FOLDER: lambda top: [_member(f"{top}/bin", b"a file now\n")],
    Fault.SPARSE_BOMB: lambda top: _sparse(top, 1 << 40),
    Fault.SPARSE: lambda top: _sparse(top, 4 * _MIB),
    Fault.PAX: lambda top: [
        _member(f"{top}/share/{'long-' * 40}name", b"long\n"),
        _member(f"{top}/share/ünïcode", b"name\n", pax_headers={"comment": "odd", "mtime": "1698019200.25"}),
    ],
    Fault.DUPLICATE: lambda top: [_member(f"{top}/bin/containerd-shim-kata-v2", _SCRIPT)],
}


def _spoil(fault: Fault, path: Path) -> None:
    """What is done to the finished file."""
    data = bytearray(path.read_bytes())
    match fault:
        case Fault.TRUNCATED:
            path.write_bytes(data[: len(data) * 2 // 3])
        case Fault.CORRUPT:
            data[len(data) // 2] ^= 0xFF
            path.write_bytes(data)
        case Fault.NOT_AN_ARCHIVE | Fault.EMPTY:
            path.write_bytes(b"" if fault is Fault.EMPTY else b"<!DOCTYPE html>\n<title>Sign in</title>\n")


def _write_bomb(path: Path) -> None:
    """8 GiB of zeros in a few megabytes or less."""
    head = tarfile.TarInfo("./opt/kata/share/zeros")
    head.size, head.mtime = _BOMB, archive.MTIME
    header = head.tobuf(tarfile.GNU_FORMAT)
    with path.open("wb") as file:
        if path.name.endswith(".zst"):
            with archive.compressed(file, path.name) as stream:
                stream.write(header)
                for _ in range(_BOMB // (64 * _MIB)):
                    stream.write(bytes(64 * _MIB))
            return
        # An .xz file may be several streams in a row: the zeros are compressed once.
        file.write(lzma.compress(header, preset=0))
        zeros = lzma.compress(bytes(256 * _MIB), preset=0)
        for _ in range(_BOMB // (256 * _MIB)):
            file.write(zeros)
        file.write(lzma.compress(bytes(1024), preset=0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what the command line names; print digest and path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fault", nargs="?", choices=[str(fault) for fault in Fault])
    parser.add_argument("--out", type=Path, default=Path("standin-broken"), help="folder (default: %(default)s)")
    parser.add_argument("--zst", action="store_true", help=".tar.zst, not .tar.xz")
    parser.add_argument("--list", action="store_true", help="name all faults")
    options = parser.parse_args(arguments)
    if options.list:
        for fault in Fault:
            print(f"{fault}{'  (legal)' if fault in LEGAL else ''}")
    elif options.fault is None:
        parser.error("name a fault, or --list")
    else:
        made = make(Fault(options.fault), options.out, zst=options.zst)
        print(f"{made.sha256}  {made.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
