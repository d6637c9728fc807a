"""Unpacking against whatever may stand in an archive: made faults, made-up ones, and bombs in a small memory."""

import contextlib
import errno
import hashlib
import io
import lzma
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import BinaryIO

import pytest
import tarballs as t
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import KatanodeError
from agent.host.root import HostRoot
from agent.kata import releases, unpack
from agent.kata.pipe import MAX_HEADER, Pipe
from agent.kata.unpack import Budget
from agent.reasons import Reason
from agent.settings import Kata
from hack.standin import broken
from hack.standin.broken import Fault

XZ, ZST = "kata-static-3.2.0-amd64.tar.xz", "kata-static-9.9.9-amd64.tar.zst"
REASONS = {
    Fault.TRUNCATED: Reason.RELEASE_TRUNCATED,
    Fault.CORRUPT: Reason.RELEASE_TRUNCATED,
    Fault.NOT_AN_ARCHIVE: Reason.RELEASE_TRUNCATED,
    Fault.EMPTY: Reason.RELEASE_TRUNCATED,
    Fault.SPARSE_BOMB: Reason.RELEASE_TOO_LARGE,
}
"""All others are unsafe."""
VICTIM = Path(broken._VICTIM)


def take(folder: Path, data: bytes, name: str = ZST, budget: int = 1 << 24) -> None:
    folder.mkdir(exist_ok=True)
    digest = hashlib.sha256(data).hexdigest()
    unpack.unpack(io.BytesIO(data), name, digest, folder, Budget(budget, budget), lambda _done: None)


def install(root: HostRoot, made: broken.archive.Archive, sha256: str = "") -> releases.Release:
    wish = releases.Wanted("3.2.0", "3.2.0-x", ((made.path.name, sha256 or made.sha256),))
    return releases.install(root, Kata(version="3.2.0", source="/media"), wish, lambda *_: None)


@pytest.mark.parametrize("zst", [False, True], ids=["xz", "zst"])
@pytest.mark.parametrize("fault", [f for f in Fault if f not in broken.LEGAL and f is not Fault.BOMB])
def test_a_made_fault_is_refused_and_nothing_is_left(tmp_path: Path, fault: Fault, zst: bool) -> None:  # noqa: FBT001
    made = broken.make(fault, tmp_path / "media", zst=zst)
    with pytest.raises(KatanodeError) as caught:
        install(HostRoot(tmp_path), made)
    assert caught.value.reason is REASONS.get(fault, Reason.RELEASE_UNSAFE)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")) == [f"media/{made.path.name}"]
    assert not VICTIM.exists()


@pytest.mark.parametrize("fault", [f for f in Fault if f not in broken.LEGAL and f is not Fault.BOMB])
def test_a_faulty_archive_that_is_not_even_the_pinned_one_is_said_to_be_another(tmp_path: Path, fault: Fault) -> None:
    made = broken.make(fault, tmp_path / "media", zst=True)
    with pytest.raises(KatanodeError) as caught:
        install(HostRoot(tmp_path), made, "0" * 64)
    too_large = fault is Fault.SPARSE_BOMB  # reading on for the digest might take for ever
    assert caught.value.reason is (Reason.RELEASE_TOO_LARGE if too_large else Reason.RELEASE_DIGEST_MISMATCH)


@pytest.mark.parametrize("zst", [False, True], ids=["xz", "zst"])
@pytest.mark.parametrize("fault", sorted(broken.LEGAL))
def test_what_is_odd_and_safe_is_taken(tmp_path: Path, fault: Fault, zst: bool) -> None:  # noqa: FBT001
    root = HostRoot(tmp_path)
    release = install(root, broken.make(fault, tmp_path / "media", zst=zst))
    releases.verify(root, release)
    owners = {(p.stat().st_uid, p.stat().st_gid) for p in root(release.path).rglob("*")}
    assert owners == {(os.geteuid(), os.getegid())}
    if fault is Fault.SPARSE:
        assert (root(release.path) / "share/sparse.img").stat().st_size == 4 << 20


SMALL = """
import hashlib, sys
from pathlib import Path
from agent.errors import KatanodeError
from agent.kata.unpack import Budget, unpack
path, folder, budget = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
digest = hashlib.file_digest(path.open("rb"), "sha256").hexdigest()
try:
    unpack(path.open("rb", buffering=0), path.name, digest, folder, Budget(budget, budget), lambda done: None)
    said = "unpacked"
except KatanodeError as error:
    said = error.reason
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(said, int(peak.split()[1]) >> 10)
"""


def peak(path: Path, folder: Path, budget: int) -> tuple[str, int]:
    """What came of an archive in a process of its own, and the most memory in MiB that this took.

    By /proc, since what getrusage(2) says includes the memory of the process that forked.
    """
    argv = [sys.executable, "-c", SMALL, str(path), str(folder), str(budget)]
    said, most = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
    return said, int(most)


def write_zeros(path: Path, mib: int) -> None:
    """An archive whose one file is so many MiB of zeros."""
    info = tarfile.TarInfo("opt/kata/zeros")
    info.size = mib << 20
    zero = bytes(1 << 20)
    made = lzma.LZMACompressor(preset=0) if path.suffix == ".xz" else zstandard.ZstdCompressor(level=1).compressobj()
    parts = (info.tobuf(tarfile.GNU_FORMAT), *[zero] * mib, bytes(10240))
    path.write_bytes(b"".join(made.compress(part) for part in parts) + made.flush())


@pytest.mark.parametrize(("name", "mib"), [(XZ, 128), (ZST, 512)])
def test_a_bomb_stays_small_in_memory_and_on_disk(tmp_path: Path, name: str, mib: int) -> None:
    write_zeros(tmp_path / name, mib)
    assert (tmp_path / name).stat().st_size < 1 << 20
    folder = tmp_path / "tree"
    folder.mkdir()
    said, idle = peak(tmp_path / name, folder, 1 << 20)
    assert said == str(Reason.RELEASE_TOO_LARGE)
    assert list(folder.iterdir()) == []
    # The same, expanded to its end without a byte of it being kept: the file is there already.
    (folder / "zeros").touch()
    said, most = peak(tmp_path / name, folder, mib << 20)
    assert said == "unpacked"
    assert most < idle + 32 < 128


def test_what_stands_behind_the_end_of_an_archive_is_hashed_and_not_expanded(tmp_path: Path) -> None:
    packer = zstandard.ZstdCompressor(level=1)
    path = tmp_path / ZST
    path.write_bytes(packer.compress(t.tar([t.file("opt/kata/x")])) + packer.compress(bytes(64 << 20)) * 100)
    folder = tmp_path / "tree"
    folder.mkdir()
    said, most = peak(path, folder, 1 << 20)
    assert said == "unpacked"
    assert most < 128


def test_a_window_of_the_size_that_zstd_accepts_is_accepted(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    take(tmp_path, stream.compress(t.tar([t.file("opt/kata/x", b"1")])) + stream.flush())
    assert (tmp_path / "x").read_bytes() == b"1"


def test_members_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "_MAX_MEMBERS", 10)
    take(tmp_path / "ten", t.compress(t.tar([t.file(f"opt/kata/{i}") for i in range(10)]), ZST))
    for member in (t.file, t.folder):
        with pytest.raises(KatanodeError, match="more than 10 members") as caught:
            take(tmp_path / member.__name__, t.compress(t.tar([member(f"opt/kata/{i}") for i in range(11)]), ZST))
        assert caught.value.reason is Reason.RELEASE_TOO_LARGE


@pytest.mark.parametrize("odd", ["\udcff", "a\nb", "\x1b[31m", "ünï", "x" * 300, "\u202e"])
def test_odd_names_are_told_as_text_that_can_be_printed(tmp_path: Path, odd: str) -> None:
    for member in (
        t.special(f"opt/kata/{odd}", tarfile.FIFOTYPE),
        t.symlink(f"opt/kata/{odd}", f"/{odd}"),
        t.hardlink(f"opt/kata/{odd}", f"opt/kata/{odd}2"),
        t.file(f"opt/kata/{odd}", bytes(2000)),
    ):
        with pytest.raises(KatanodeError) as caught:
            take(tmp_path, t.compress(t.tar([member]), ZST), budget=1000)
        text = f"{caught.value}\n{caught.value.evidence}"
        text.encode()
        assert "\x1b" not in text


_NAMES = st.lists(st.sampled_from(["a", "b", "l", "..", ".", ""]), min_size=1, max_size=4).map("/".join)
_TARGETS = st.one_of(
    _NAMES, _NAMES.map("/opt/kata/{}".format), _NAMES.map("../{}".format), _NAMES.map("../../{}".format)
)
_FOLDERS = st.sampled_from(["opt/kata/", "./opt/kata/", "opt/kata/a/", "opt/kata/a/b/", "/opt/kata/"])


@st.composite
def members(draw: st.DrawFn) -> t.Member:
    name = draw(_FOLDERS) + draw(_NAMES)
    match draw(st.sampled_from(["file", "folder", "symlink", "symlink", "hardlink"])):
        case "file":
            return t.file(name, b"x")
        case "folder":
            return t.folder(name)
        case "symlink":
            return t.symlink(name, draw(_TARGETS))
        case _:
            return t.hardlink(name, draw(st.one_of(_TARGETS, _NAMES.map("opt/kata/{}".format))))


def leads_to(path: Path) -> str:
    """Where the kernel would go; a link in a circle leads nowhere, and Python makes something up for it."""
    try:
        os.stat(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return str(path)
    return os.path.realpath(path)


@settings(max_examples=150)
@given(st.lists(st.lists(members(), min_size=1, max_size=6), min_size=1, max_size=3))
def test_no_order_of_files_and_links_leads_out(archives: list[list[t.Member]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outside = Path(folder)
        (outside / "a").mkdir()
        for name in ("a/l", "b", "l"):
            (outside / name).write_text("theirs")
        tree = outside / "tree"
        for archive in archives:
            with contextlib.suppress(KatanodeError):
                take(tree, t.compress(t.tar(archive), ZST))
        assert sorted(path.name for path in outside.iterdir()) == ["a", "b", "l", "tree"]
        assert {(outside / name).read_text() for name in ("a/l", "b", "l")} == {"theirs"}
        for path in tree.rglob("*"):
            assert leads_to(path).startswith(str(tree)), f"{path} leads to {leads_to(path)}"
            if path.is_file() and not path.is_symlink():
                assert path.read_bytes() == b"x", "a hard link of somebody else's file"


@pytest.mark.parametrize(
    ("name", "target", "there"),
    [
        ("l", "/opt/kata/share/x", "share/x"),
        ("bin/l", "/opt/kata/share/x", "../share/x"),
        ("bin/l", "/opt/kata//bin/x/", "x"),
        ("bin/a/l", "/opt/kata/", "../.."),
        ("l", "../../x", None),
        ("bin/a/l", "../../x", "../../x"),
        ("bin/a/l", "../../../x", None),
        ("bin/a/l", "b/../x", None),
        ("bin/l", "/opt/kata/../kata/x", None),
        ("bin/l", "/opt/kata/share/../x", None),
        ("bin/l", "/opt/kata", None),
        ("bin/l", "/opt/kata2/x", None),
    ],
)
@pytest.mark.parametrize("place", ["/", "/tmp"])
def test_a_links_target_is_made_relative_wherever_katanode_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, target: str, there: str | None, place: str
) -> None:
    monkeypatch.chdir(place)
    data = t.compress(t.tar([t.symlink(f"opt/kata/{name}", target)]), ZST)
    if there is None:
        with pytest.raises(KatanodeError) as caught:
            take(tmp_path, data)
        assert caught.value.reason is Reason.RELEASE_UNSAFE
    else:
        take(tmp_path, data)
        assert os.readlink(tmp_path / name) == there


_NUMBERS = st.one_of(st.integers(-3, 6).map(lambda n: n * 512), st.integers(-(1 << 70), 1 << 70), st.integers(0, 3000))
_HOLES = st.lists(st.tuples(_NUMBERS, _NUMBERS), max_size=5)


@given(_HOLES, st.integers(-10, 1 << 13), st.integers(0, 4), st.booleans())
def test_a_map_of_holes_that_makes_no_sense_ends_all_the_same(
    holes: list[tuple[int, int]],
    size: int,
    blocks: int,
    short: bool,  # noqa: FBT001
) -> None:
    numbers = [len(holes), *(number for hole in holes for number in hole)]
    head = b"".join(b"%d\n" % number for number in (numbers[:-1] if short else numbers))
    content = head.ljust(-(-len(head) // 512) * 512, b"\0") + b"x" * (blocks * 512)
    info, _ = t.file("opt/kata/GNUSparseFile.0/image", content)
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "opt/kata/image",
        "GNU.sparse.realsize": str(size),
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            take(Path(folder), t.compress(t.tar([(info, content), t.file("opt/kata/z")], tarfile.PAX_FORMAT), ZST))
        except KatanodeError:
            return
        assert (Path(folder) / "image").stat().st_size <= 1 << 13


def pipe(plain: bytes, name: str = ZST) -> tuple[Pipe, BinaryIO, list[int]]:
    told: list[int] = []
    archive = io.BytesIO(t.compress(plain, name))
    return Pipe(archive, name, told.append), archive, told


PLAIN = b"".join(b"%08d" % i for i in range(3 << 17))  # three buffers


@pytest.mark.parametrize("name", [XZ, ZST])
def test_a_pipe_reads_skips_and_steps_back_by_one(name: str) -> None:
    made, archive, told = pipe(PLAIN, name)
    assert made.read(8) == b"00000000"
    assert made.tell() == 8
    for position in (16, 17, 1 << 20, (1 << 20) + 1, (2 << 20) - 1, 2 << 20, len(PLAIN) - 8):
        assert made.seek(position - 1) == position - 1
        assert made.read(1) == PLAIN[position - 1 : position]
        assert made.seek(position - 1) == position - 1, "one back, at the border of a buffer too"
        assert made.read(2) == PLAIN[position - 1 : position + 1]
    assert made.seek(len(PLAIN) + 5) == len(PLAIN), "the end is where the bytes end"
    assert made.read(10) == b""
    assert made.digest() == hashlib.sha256(t.compress(PLAIN, name)).hexdigest()
    assert archive.closed
    assert told == sorted(told)
    assert told[-1] == len(t.compress(PLAIN, name))


def test_a_pipe_goes_no_further_back() -> None:
    made, archive, _ = pipe(PLAIN)
    made.read(100)
    for position in (98, 0):
        with pytest.raises(OSError, match="does not go back"):
            made.seek(position)
    made.abandon()
    assert archive.closed


def test_a_pipe_gives_no_more_for_headers_than_they_may_have() -> None:
    made, _, _ = pipe(PLAIN)
    for _ in range(2):
        made.begin()
        assert len(made.read(MAX_HEADER)) == MAX_HEADER
    with pytest.raises(KatanodeError) as caught:
        made.read(1)
    assert caught.value.reason is Reason.RELEASE_UNSAFE
    made.abandon()


def test_a_pipe_copies_and_says_when_there_is_too_little(tmp_path: Path) -> None:
    made, _, _ = pipe(PLAIN)
    with (tmp_path / "out").open("wb", buffering=0) as out:
        made.copy(out.fileno(), 10)
        made.seek(20)
        made.copy(out.fileno(), (1 << 20) + 7)
        with pytest.raises(EOFError, match="in the middle"):
            made.copy(out.fileno(), len(PLAIN))
    assert (tmp_path / "out").read_bytes() == PLAIN[:10] + PLAIN[20:]
    made.abandon()


@pytest.mark.parametrize("name", [XZ, ZST])
def test_a_pipe_of_damaged_bytes_ends_and_keeps_the_error(name: str) -> None:
    data = t.compress(os.urandom(3 << 20), name)
    archive = io.BytesIO(data[: len(data) // 2])
    made = Pipe(archive, name, lambda _done: None)
    made.seek(3 << 20)
    assert made.tell() < 3 << 20
    assert made.digest() == hashlib.sha256(data[: len(data) // 2]).hexdigest()
    assert archive.closed
    assert made.error is not None or name == ZST  # zstandard gives what it has and no error
