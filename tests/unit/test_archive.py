"""Unpacking: what an honest archive gives, and that a hostile or broken one gives nothing outside and a reason."""

import hashlib
import io
import os
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest
import tarballs as t
import zstandard

from agent.errors import KatanodeError
from agent.kata.unpack import Budget, unpack
from agent.reasons import Reason

NAME = "kata-static-9.9.9-amd64.tar.zst"


def unpacked(
    folder: Path, data: bytes, *, name: str = NAME, sha256: str = "", budget: int = 1 << 24, archive: Any = None
) -> None:
    folder.mkdir(exist_ok=True)
    digest = sha256 or hashlib.sha256(data).hexdigest()
    unpack(archive or io.BytesIO(data), name, digest, folder, Budget(budget, budget), lambda _done: None)


def refused(folder: Path, data: bytes, **options: Any) -> KatanodeError:
    threads = threading.active_count()
    with pytest.raises(KatanodeError) as caught:
        unpacked(folder, data, **options)
    assert threading.active_count() == threads, "a thread was left behind"
    return caught.value


def zst(*members: t.Member) -> bytes:
    return t.compress(t.tar(members), NAME)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a witness beside it that nothing may touch."""
    (tmp_path / "witness").write_text("as it was")
    return tmp_path / "tree"


@pytest.mark.parametrize("name", [NAME, "kata-static-3.2.0-amd64.tar.xz"])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_folders_and_links_come_out_as_they_went_in(tree: Path, name: str, form: int) -> None:
    long = "opt/kata/share/" + "/".join(["a-folder-with-a-long-name"] * 12) + "/file"
    large = os.urandom(3 << 20)
    plain = t.tar(
        [
            t.folder("./opt"),
            t.folder("./opt/kata"),
            t.file("./opt/kata/bin/large", large, 0o775),
            t.file("opt/kata/empty", b""),
            t.file(long, b"deep"),
            t.symlink("opt/kata/bin/link", "../share/x"),
            t.symlink("opt/kata/bin/absolute", "/opt/kata/empty"),
            t.hardlink("opt/kata/bin/same", "./opt/kata/bin/large"),
        ],
        form,
    )
    unpacked(tree, t.compress(plain, name), name=name)
    assert (tree / "bin/large").read_bytes() == large
    assert (tree / "empty").read_bytes() == b""
    assert (tree / long.removeprefix("opt/kata/")).read_bytes() == b"deep"
    assert os.readlink(tree / "bin/link") == "../share/x"
    assert (tree / "bin/absolute").resolve() == tree / "empty"
    assert (tree / "bin/same").samefile(tree / "bin/large")


def test_modes_are_plain_and_owners_ours_whatever_the_archive_and_the_umask_say(tree: Path) -> None:
    before = os.umask(0o077)
    try:
        unpacked(tree, zst(t.folder("opt/kata/d"), t.file("opt/kata/d/p", b"", 0o4755 & 0o777), t.file("opt/kata/d/f")))
    finally:
        os.umask(before)
    assert {p.name: p.stat().st_mode & 0o7777 for p in tree.rglob("*")} == {"d": 0o755, "p": 0o755, "f": 0o644}
    assert {p.stat().st_uid for p in tree.rglob("*")} == {os.geteuid()}


def test_several_frames_are_one_archive(tree: Path) -> None:
    plain = t.tar([t.file("opt/kata/a", b"1" * 5000), t.file("opt/kata/b")])
    unpacked(tree, t.compress(plain[:3000], NAME) + t.compress(plain[3000:], NAME))
    assert (tree / "b").exists()


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_a_sparse_file_is_read_as_what_it_stands_for(tree: Path, tmp_path: Path, form: str) -> None:
    sparse = tmp_path / "in/opt/kata/image"
    sparse.parent.mkdir(parents=True)
    with sparse.open("wb") as out:
        for i in range(40):
            out.seek(i << 17)
            out.write(os.urandom(5000 if i % 2 else 70_000))
    argv = ["tar", "-C", str(tmp_path / "in"), "--sparse", f"--format={form}", "-cf", "-", "opt"]
    plain = subprocess.run(argv, check=True, capture_output=True).stdout
    assert len(plain) < sparse.stat().st_size
    unpacked(tree, t.compress(plain, NAME))
    assert (tree / "image").read_bytes() == sparse.read_bytes()


HOSTILE: dict[str, list[t.Member]] = {
    "an absolute path": [t.file("/opt/kata/x")],
    "a path that goes up": [t.file("opt/kata/../../witness")],
    "a path outside of the prefix": [t.file("etc/passwd")],
    "a file in place of the prefix's folder": [t.file("opt")],
    "a path that only begins like the prefix": [t.file("opt/katana/x")],
    "an endless path": [t.file("opt/kata/" + "x/" * 700)],
    "an endless name": [t.file("opt/kata/" + "x" * 2000)],
    "a link to an absolute path": [t.symlink("opt/kata/l", "/etc/passwd")],
    "a link to the prefix and out again": [t.symlink("opt/kata/l", "/opt/kata/../../etc/passwd")],
    "a link that goes up and out": [t.symlink("opt/kata/d/l", "../../witness")],
    "a link out by another link": [
        t.symlink("opt/kata/a/b/up", "../.."),
        t.symlink("opt/kata/out", "a/b/up/../witness"),
    ],
    "an empty link": [t.symlink("opt/kata/l", "")],
    "a file through a link": [t.symlink("opt/kata/l", "."), t.file("opt/kata/l/x")],
    "a folder through a link": [t.symlink("opt/kata/l", "."), t.folder("opt/kata/l/x")],
    "a folder in place of a link": [t.symlink("opt/kata/l", "d"), t.folder("opt/kata/l")],
    "a folder in place of a file": [t.file("opt/kata/f"), t.file("opt/kata/f/x")],
    "a file in place of a folder": [t.file("opt/kata/f/x"), t.file("opt/kata/f")],
    "a hard link out": [t.hardlink("opt/kata/h", "etc/passwd")],
    "a hard link up": [t.hardlink("opt/kata/h", "opt/kata/../../witness")],
    "a hard link to a link": [
        t.symlink("opt/kata/a/b/l", "../../x"),
        t.hardlink("opt/kata/h", "opt/kata/a/b/l"),
    ],
    "a hard link to nothing": [t.hardlink("opt/kata/h", "opt/kata/nothing")],
    "a character device": [t.special("opt/kata/null", tarfile.CHRTYPE)],
    "a block device": [t.special("opt/kata/disk", tarfile.BLKTYPE)],
    "a pipe": [t.special("opt/kata/fifo", tarfile.FIFOTYPE)],
    "a kind of member that nobody knows": [t.special("opt/kata/z", b"Z")],
    "setuid": [t.file("opt/kata/x", mode=0o4755)],
    "setgid": [t.file("opt/kata/x", mode=0o2755)],
    "sticky": [t.file("opt/kata/x", mode=0o1755)],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_nothing_leaves_the_folder(tree: Path, what: str) -> None:
    error = refused(tree, zst(*HOSTILE[what]))
    assert error.reason is Reason.RELEASE_UNSAFE
    assert "member" in error.message
    assert (tree.parent / "witness").read_text() == "as it was"
    assert sorted(p.name for p in tree.parent.iterdir()) == ["tree", "witness"]


def test_a_later_archive_goes_through_no_link_of_an_earlier_one(tree: Path) -> None:
    unpacked(tree, zst(t.symlink("opt/kata/a/b/l", "../../x"), t.symlink("opt/kata/d", "a"), t.file("opt/kata/x")))
    for member in (
        t.file("opt/kata/d/new"),
        t.folder("opt/kata/d"),
        # A link's other name stands elsewhere: there the same target leads out.
        t.hardlink("opt/kata/h", "opt/kata/a/b/l"),
        t.hardlink("opt/kata/h", "opt/kata/d/b/l"),
    ):
        assert refused(tree, zst(member)).reason is Reason.RELEASE_UNSAFE
    assert sorted(p.name for p in tree.iterdir()) == ["a", "d", "x"]


def test_a_later_archive_adds_and_changes_nothing_that_is_there(tree: Path) -> None:
    unpacked(tree, zst(t.file("opt/kata/both", b"first"), t.file("opt/kata/one")))
    unpacked(tree, zst(t.file("opt/kata/both", b"second"), t.file("opt/kata/two")))
    assert (tree / "both").read_bytes() == b"first"
    assert {p.name for p in tree.iterdir()} == {"both", "one", "two"}


@pytest.mark.parametrize("name", [NAME, "kata-static-3.2.0-amd64.tar.xz"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_half_an_archive_is_not_the_pinned_one(tree: Path, name: str, share: float) -> None:
    whole = t.compress(t.tar([t.file(f"opt/kata/{i}", os.urandom(200_000)) for i in range(20)]), name)
    sha256 = hashlib.sha256(whole).hexdigest()
    error = refused(tree, whole[: int(len(whole) * share)], name=name, sha256=sha256)
    assert error.reason is Reason.RELEASE_DIGEST_MISMATCH
    assert "damaged" in error.evidence


@pytest.mark.parametrize("name", [NAME, "kata-static-3.2.0-amd64.tar.xz"])
def test_half_an_archive_that_was_pinned_as_it_is_is_truncated(tree: Path, name: str) -> None:
    whole = t.compress(t.tar([t.file(f"opt/kata/{i}", os.urandom(200_000)) for i in range(20)]), name)
    assert refused(tree, whole[: len(whole) // 2], name=name).reason is Reason.RELEASE_TRUNCATED


@pytest.mark.parametrize("kept", [512, 1024, 1024 + 512, 1024 + 700])
def test_a_tar_without_its_end_is_truncated_wherever_it_was_cut(tree: Path, kept: int) -> None:
    plain = t.tar([t.file("opt/kata/a"), t.file("opt/kata/b"), t.file("opt/kata/c")])
    assert refused(tree, t.compress(plain[:kept], NAME)).reason is Reason.RELEASE_TRUNCATED


def test_a_damaged_header_is_not_an_end(tree: Path) -> None:
    plain = bytearray(t.tar([t.file("opt/kata/a"), t.file("opt/kata/b")]))
    plain[1024 + 5] ^= 1
    assert refused(tree, t.compress(bytes(plain), NAME)).reason is Reason.RELEASE_TRUNCATED


def test_one_flipped_bit_is_found(tree: Path) -> None:
    whole = bytearray(zst(t.file("opt/kata/x", os.urandom(1 << 20))))
    sha256 = hashlib.sha256(whole).hexdigest()
    whole[len(whole) // 2] ^= 1
    error = refused(tree, bytes(whole), sha256=sha256)
    assert error.reason is Reason.RELEASE_DIGEST_MISMATCH
    assert sha256 in error.evidence


def test_the_digest_is_of_the_whole_file_and_not_of_what_tar_needs(tree: Path) -> None:
    whole = zst(t.file("opt/kata/x"))
    error = refused(tree, whole + b"more", sha256=hashlib.sha256(whole).hexdigest())
    assert error.reason is Reason.RELEASE_DIGEST_MISMATCH


@pytest.mark.parametrize("data", [b"", b"no archive at all" * 100, b"\x28\xb5\x2f\xfd"])
def test_what_is_no_archive_is_said_to_be_none(tree: Path, data: bytes) -> None:
    assert refused(tree, data).reason is Reason.RELEASE_TRUNCATED


def test_a_bomb_stops_at_the_bound(tree: Path) -> None:
    info = tarfile.TarInfo("opt/kata/zeros")
    info.size = 8 << 30
    blocks = zstandard.ZstdCompressor(level=1).compressobj()
    data = blocks.compress(info.tobuf())
    for _ in range(64):
        data += blocks.compress(bytes(1 << 20))
    data += blocks.flush()
    assert refused(tree, data, budget=1 << 20).reason is Reason.RELEASE_TOO_LARGE
    assert sum(p.stat().st_size for p in tree.rglob("*")) <= 1 << 20


def test_many_small_files_count_together(tree: Path) -> None:
    data = zst(*[t.file(f"opt/kata/{i}", bytes(100_000)) for i in range(20)])
    assert refused(tree, data, budget=1 << 20).reason is Reason.RELEASE_TOO_LARGE


def _header(kind: bytes, size: int, name: str = "opt/kata/x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def _sparse_chain(blocks: int) -> bytes:
    """A sparse file whose map goes on for so many blocks; each costs a reader 21 entries."""
    head = bytearray(_header(tarfile.GNUTYPE_SPARSE, 0))
    head[482] = 1  # "extended" (tar(5), GNU)
    head[148:156] = b"%06o\0 " % (sum(head) - sum(head[148:156]) + 8 * 32)
    entry = b"%011o\0%011o\0" % (0, 0)
    return bytes(head) + (entry * 21 + b"\1" + bytes(7)) * blocks


HUGE = {
    "a long name": _header(tarfile.GNUTYPE_LONGNAME, 1 << 30),
    "an extended header": _header(tarfile.XHDTYPE, 1 << 30),
    "extended headers one behind the other": _header(tarfile.XHDTYPE, 0) * 3000,
    "long names one behind the other": (_header(tarfile.GNUTYPE_LONGNAME, 512) + b"a" * 512) * 3000,
    "a negative size": _header(tarfile.REGTYPE, -1024),
    "a map of holes without an end": _sparse_chain(40_000),
}


@pytest.mark.parametrize("what", HUGE)
def test_headers_that_would_fill_the_memory_or_the_stack_are_refused(tree: Path, what: str) -> None:
    data = t.compress(HUGE[what] + bytes(1 << 21), NAME)
    assert refused(tree, data).reason in {Reason.RELEASE_UNSAFE, Reason.RELEASE_TRUNCATED}


def test_a_window_beyond_what_zstd_itself_accepts_is_refused(tree: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # without a size: the window stays
    data = stream.compress(t.tar([t.file("opt/kata/x")])) + stream.flush()
    assert refused(tree, data).reason is Reason.RELEASE_TRUNCATED


class _Failing(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise OSError(5, "Input/output error")
        return super().read(min(size or 0, 100_000))


def test_a_source_that_cannot_be_read_is_named_as_such(tree: Path) -> None:
    data = zst(t.file("opt/kata/x", os.urandom(1 << 20)))
    error = refused(tree, data, archive=_Failing(data))
    assert error.reason is Reason.RELEASE_UNREACHABLE
    assert "Input/output error" in error.evidence


def test_an_interrupt_leaves_no_thread(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agent.kata.unpack._entry", interrupt)
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        unpacked(tree, zst(t.file("opt/kata/x", os.urandom(1 << 22))))
    assert threading.active_count() == threads
