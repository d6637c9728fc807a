"""Releases: whole and verified or not there, and gone only when nothing alive needs them."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import tarballs as t

from agent.errors import KatanodeError
from agent.host.root import HostRoot
from agent.kata import releases
from agent.kata.releases import FOLDER, Wanted
from agent.reasons import Reason
from agent.settings import Kata

MAIN, GO = "kata-static-9.9.9-amd64.tar.zst", "kata-go-static-9.9.9-amd64.tar.zst"
KATA = Kata(version="9.9.9", source="/media", handlers=("kata-clh", "kata-fc"))
MEMBERS = (
    t.folder("./opt/kata/bin"),
    t.file("./" + t.SHIM, b"shim", 0o755),
    t.file("./opt/kata/share/image", os.urandom(1 << 20)),
    t.symlink("./opt/kata/share/link", "image"),
)


def install(root: HostRoot, wanted: Wanted) -> releases.Release:
    return releases.install(root, KATA, wanted, lambda _what, _done, _total: None)


def wanted(root: HostRoot, *members: t.Member, go: Sequence[t.Member] = ()) -> Wanted:
    digests = {MAIN: t.make(root.path / "media" / MAIN, members or MEMBERS)}
    if not go:
        return Wanted("9.9.9", f"9.9.9-{digests[MAIN][:8]}", tuple(digests.items()))
    digests[GO] = t.make(root.path / "media" / GO, go)
    return releases.wanted(KATA, digests, "amd64")


def there(root: HostRoot) -> list[str]:
    folder = root(FOLDER)
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def root(tmp_path: Path) -> HostRoot:
    return HostRoot(tmp_path)


def test_a_release_has_what_upstream_has_below_its_prefix(root: HostRoot) -> None:
    wish = wanted(root)
    assert releases.find(root, wish.id) is None
    release = install(root, wish)
    assert release == releases.find(root, wish.id) == releases.installed(root)[0]
    assert release.path == wish.path == f"{FOLDER}/{wish.id}"
    assert (root(release.path) / "bin/containerd-shim-kata-v2").read_bytes() == b"shim"
    assert os.readlink(root(release.path) / "share/link") == "image"
    assert there(root) == [wish.id]
    releases.verify(root, release)


def test_people_can_look_into_a_release_whatever_the_umask_was(root: HostRoot) -> None:
    before = os.umask(0o077)
    try:
        release = install(root, wanted(root))
    finally:
        os.umask(before)
    assert root(release.path).stat().st_mode & 0o777 == 0o755


def test_two_archives_are_one_release_and_the_first_stays_where_they_overlap(root: HostRoot) -> None:
    wish = wanted(
        root,
        t.file("opt/kata/runtime-rs/bin/containerd-shim-kata-v2", b"rust", 0o755),
        t.file("opt/kata/libexec/virtiofsd", b"one"),
        go=[t.file(t.SHIM, b"go", 0o755), t.file("opt/kata/libexec/virtiofsd", b"other")],
    )
    assert [name for name, _ in wish.archives] == [MAIN, GO]
    folder = root(install(root, wish).path)
    assert (folder / "bin/containerd-shim-kata-v2").read_bytes() == b"go"
    assert (folder / "runtime-rs/bin/containerd-shim-kata-v2").read_bytes() == b"rust"
    assert (folder / "libexec/virtiofsd").read_bytes() == b"one"
    releases.verify(root, releases.installed(root)[0])


def test_the_bound_is_for_all_archives_together(root: HostRoot) -> None:
    half = [t.file(t.SHIM), t.file("opt/kata/main", bytes(600_000))]
    wish = wanted(root, *half, go=[t.file("opt/kata/go", bytes(600_000))])
    with pytest.raises(KatanodeError) as caught:
        releases.install(root, Kata(source="/media", max_unpacked_bytes=1 << 20), wish, lambda *_: None)
    assert caught.value.reason is Reason.RELEASE_TOO_LARGE
    assert there(root) == []


def test_a_release_without_a_shim_is_none(root: HostRoot) -> None:
    with pytest.raises(KatanodeError) as caught:
        install(root, wanted(root, t.file("opt/kata/versions.yaml")))
    assert caught.value.reason is Reason.RELEASE_INCOMPLETE
    assert there(root) == []
    assert not root("/opt/katanode").exists()


def test_a_release_that_fails_leaves_the_others_alone(root: HostRoot) -> None:
    first = install(root, wanted(root))
    wish = wanted(root, *MEMBERS, t.file("opt/kata/more"))
    with pytest.raises(KatanodeError) as caught:
        install(root, Wanted(wish.version, wish.id, ((MAIN, "0" * 64),)))
    assert caught.value.reason is Reason.RELEASE_DIGEST_MISMATCH
    assert there(root) == [first.id]
    releases.verify(root, first)


def _grow(folder: Path) -> None:
    with (folder / "share/image").open("ab") as out:
        out.write(b"x")


def _overwrite(folder: Path) -> None:
    with (folder / "share/image").open("r+b") as out:
        out.write(b"x")
    os.utime(folder / "share/image", ns=(0, time.time_ns() + 1))


DAMAGE = {
    "share/image": [_grow, _overwrite, lambda f: (f / "share/image").unlink(), lambda f: (f / "share/image").chmod(0)],
    "share/link": [lambda f: (f / "share/link").unlink(), lambda f: os.replace(f / "share/image", f / "share/link")],
    "bin/new": [lambda f: (f / "bin/new").touch()],
    "new": [lambda f: (f / "new").symlink_to("bin")],
    "bin/containerd-shim-kata-v2": [lambda f: shutil.rmtree(f / "bin")],
}


@pytest.mark.parametrize(("name", "which"), [(name, i) for name, ways in DAMAGE.items() for i in range(len(ways))])
def test_what_is_changed_is_named(root: HostRoot, name: str, which: int) -> None:
    release = install(root, wanted(root))
    DAMAGE[name][which](root(release.path))
    with pytest.raises(KatanodeError) as caught:
        releases.verify(root, release)
    assert caught.value.reason is Reason.RELEASE_DAMAGED
    assert name in caught.value.evidence.splitlines()


def test_a_folder_without_its_manifest_is_no_release(root: HostRoot) -> None:
    release = install(root, wanted(root))
    (root(release.path) / releases.MANIFEST).write_text('{"version": "9.9.9", "fil')
    assert releases.find(root, release.id) is None
    assert releases.installed(root) == ()


def test_looking_costs_milliseconds(root: HostRoot) -> None:
    release = install(root, wanted(root, *MEMBERS, *[t.file(f"opt/kata/d{i % 20}/{i}") for i in range(500)]))
    took = []
    for _ in range(5):
        start = time.perf_counter()
        found = releases.find(root, release.id)
        assert found is not None
        releases.verify(root, found)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.05


@contextlib.contextmanager
def running(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv) as process:
        try:
            while not Path(f"/proc/{process.pid}/cmdline").read_bytes():  # exec(2) is not through yet
                time.sleep(0.001)
            yield process
        finally:
            process.kill()


@pytest.fixture
def program() -> t.Member:
    """A shim that runs: the machine's own sleep."""
    found = shutil.which("sleep")
    assert found
    return t.file(t.SHIM, Path(found).read_bytes(), 0o755)


def test_a_damaged_release_is_replaced_while_its_shim_runs(root: HostRoot, program: t.Member) -> None:
    wish = wanted(root, program, *MEMBERS[2:])
    release = install(root, wish)
    shim = root(release.path) / "bin/containerd-shim-kata-v2"
    with running(str(shim), "60") as old:
        _grow(root(release.path))
        assert install(root, wish) == release
        releases.verify(root, release)
        assert there(root) == [release.id]
        assert old.poll() is None
        assert release.id in releases.in_use(root)


def test_what_runs_keeps_its_release(root: HostRoot, program: t.Member) -> None:
    first = install(root, wanted(root, program))
    second = install(root, wanted(root, program, t.file("opt/kata/two")))
    assert releases.in_use(root) == frozenset()
    with running(str(root(first.path) / "bin/containerd-shim-kata-v2"), "60"):
        assert releases.in_use(root) == {first.id}
    with running(sys.executable, "-c", "import time; time.sleep(60)", f"--kernel={second.path}/share/vmlinux"):
        assert releases.in_use(root) == {second.id}
    assert releases.in_use(root) == frozenset()


def test_a_sandbox_that_the_daemon_remembers_keeps_its_release(root: HostRoot) -> None:
    release = install(root, wanted(root))
    bundle = root("/run/containerd/io.containerd.runtime.v2.task/k8s.io/abc")
    bundle.mkdir(parents=True)
    (bundle / "shim-binary-path").write_text(f"{release.path}/bin/containerd-shim-kata-v2")
    assert releases.in_use(root) == {release.id}


def test_what_may_not_be_looked_at_may_use_anything(root: HostRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install(root, wanted(root))
    plain_read = Path.read_bytes

    def read(path: Path) -> bytes:
        if path.name == "cmdline":
            raise PermissionError(13, "Permission denied")
        return plain_read(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert releases.in_use(root) == {release.id}


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_all_releases_go_at_once_or_not_at_all(root: HostRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    install(root, wanted(root))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("agent.kata.releases.shutil.rmtree", interrupted)
        releases.remove_all(root)
    assert releases.installed(root) == (), "a half of one would count as damaged by the next apply"
    releases.sweep(root)
    assert there(root) == []


def test_a_release_goes_at_once_or_not_at_all(root: HostRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = install(root, wanted(root)), install(root, wanted(root, *MEMBERS, t.file("opt/kata/two")))
    # Raised, not signalled: a run in the background of a shell ignores the signal.
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("agent.kata.releases.shutil.rmtree", interrupted)
        releases.remove(root, one)
    assert releases.find(root, one.id) is None
    assert releases.installed(root) == (two,)
    releases.sweep(root)
    assert there(root) == [two.id]


def test_what_a_release_was_unpacked_from_is_in_its_manifest_or_said_to_be_missing(root: HostRoot) -> None:
    wish = wanted(root)
    release = install(root, wish)
    assert releases.made_of(root, release) == wish
    (root(release.path) / releases.MANIFEST).write_text('{"version": "4.1.0"}')
    with pytest.raises(KatanodeError, match="does not say what") as caught:
        releases.made_of(root, release)
    assert caught.value.reason is Reason.RELEASE_DAMAGED


CHILD = """
import sys
from pathlib import Path
from agent.host.root import HostRoot
from agent.kata import releases
from agent.settings import Kata
root, name, sha256, slow = HostRoot(Path(sys.argv[1])), sys.argv[2], sys.argv[3], float(sys.argv[4])
def progress(what, done, total):
    import time
    if what.startswith("unpack"):
        print("unpacking", flush=True)
        time.sleep(slow)
wish = releases.Wanted("9.9.9", "9.9.9-x", ((name, sha256),))
releases.install(root, Kata(version="9.9.9", source="/media"), wish, progress)
"""


def test_an_installation_killed_in_the_middle_leaves_nothing_that_looks_like_a_release(root: HostRoot) -> None:
    wish = wanted(root, *MEMBERS, *[t.file(f"opt/kata/{i}", os.urandom(1 << 20)) for i in range(8)])
    (_, sha256), *_ = wish.archives
    argv = [sys.executable, "-c", CHILD, str(root.path), MAIN, sha256, "0.05"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for _ in range(4):
            assert child.stdout.readline()
        child.kill()
    assert there(root) == [".staging-9.9.9-x"]
    assert releases.installed(root) == ()
    release = install(root, wish)
    assert there(root) == [release.id]
    releases.verify(root, release)


FULL = """
import subprocess, sys
from pathlib import Path
from agent.errors import KatanodeError
from agent.host.root import HostRoot
from agent.kata import releases
from agent.settings import Kata
path, name, sha256 = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
home = path / "opt/katanode"
home.mkdir(parents=True)
wish = releases.Wanted("9.9.9", "9.9.9-x", ((name, sha256),))
for kilobytes in range(4, 1400, 4) if len(sys.argv) < 5 else [64]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", home], check=True)
    try:
        releases.install(HostRoot(path), Kata(version="9.9.9", source="/media"), wish, lambda *_: None)
        print("installed")
        break
    except KatanodeError as error:
        left = sorted(p.name for p in home.rglob("*"))
        print(error.reason, "MiB free" in error.evidence, left)
    finally:
        subprocess.run(["umount", home], check=True)
"""


def test_a_full_disk_is_said_wherever_it_strikes_and_nothing_is_left(root: HostRoot) -> None:
    wish = wanted(root, *MEMBERS, *[t.file(f"opt/kata/{i}") for i in range(40)])
    (_, sha256), *_ = wish.archives
    argv = ["unshare", "-m", sys.executable, "-c", FULL, str(root.path), MAIN, sha256]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no mount namespace can be made here: {done.stderr.strip()}")
    *refused, last = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert last == "installed"
    assert len(refused) > 250
    assert set(refused) <= {f"{Reason.RELEASE_DISK_FULL} True {left}" for left in ("[]", "['releases']")}


def test_importing_is_cheap() -> None:
    code = "import sys, agent.kata.releases; print('zstandard' in sys.modules, 'rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


EXCHANGED = """
import os, sys
from pathlib import Path
from agent.host.root import HostRoot
from agent.kata import releases
from agent.settings import Kata
root, name, sha256, release = HostRoot(Path(sys.argv[1])), *sys.argv[2:]
releases.shutil.rmtree = lambda path, **_: os._exit(7)
wish = releases.Wanted("9.9.9", release, ((name, sha256),))
releases.install(root, Kata(version="9.9.9", source="/media"), wish, lambda *_: None)
"""


def test_a_run_killed_right_behind_the_exchange_leaves_the_new_tree_whole(root: HostRoot) -> None:
    wish = wanted(root)
    release = install(root, wish)
    _grow(root(release.path))
    (_, sha256), *_ = wish.archives
    argv = [sys.executable, "-c", EXCHANGED, str(root.path), MAIN, sha256, wish.id]
    assert subprocess.run(argv, check=False).returncode == 7
    assert there(root) == [f".staging-{wish.id}", wish.id]
    releases.verify(root, release)
    assert releases.installed(root) == (release,)
    releases.sweep(root)
    assert there(root) == [wish.id]


def test_an_installation_killed_at_any_time_leaves_the_standing_release_whole(root: HostRoot) -> None:
    wish = wanted(root, *MEMBERS, *[t.file(f"opt/kata/{i}", os.urandom(1 << 18)) for i in range(8)])
    (_, sha256), *_ = wish.archives
    argv = [sys.executable, "-c", CHILD, str(root.path), MAIN, sha256, "0.0"]
    start = time.monotonic()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    took = time.monotonic() - start
    for share in range(4, 11):
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as child:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(took * share / 10)
            child.kill()
        release = releases.find(root, "9.9.9-x")
        assert release is not None, "what stands is exchanged in one step"
        releases.verify(root, release)
    install(root, wish)
    assert there(root) == sorted(["9.9.9-x", wish.id])


def test_only_what_names_a_release_itself_uses_it(root: HostRoot, tmp_path: Path) -> None:
    release = install(root, wanted(root))
    proc = tmp_path / "proc"
    for name in ("self", "17", "18"):  # the first is no process, the second ended meanwhile
        (proc / name).mkdir(parents=True)
    assert releases.in_use(root, proc) == frozenset()
    (proc / "18/cmdline").write_bytes(b"vmm\0--kernel\0" + f"{release.path}/share/vmlinux".encode() + b"\0")
    assert releases.in_use(root, proc) == {release.id}
    (proc / "18/cmdline").write_bytes(f"{release.path}-other/bin/x".encode())
    assert releases.in_use(root, proc) == frozenset()
    (proc / "18/exe").symlink_to(f"{release.path}/bin/x (deleted)")
    assert releases.in_use(root, proc) == {release.id}


def test_a_release_that_stands_is_exchanged_for_the_same(root: HostRoot) -> None:
    wish = wanted(root)
    first = install(root, wish)
    before = root(first.path).stat().st_ino
    assert install(root, wish) == first
    assert root(first.path).stat().st_ino != before
    releases.verify(root, first)
    assert there(root) == [wish.id]


def test_a_manifest_says_what_a_release_was_made_from(root: HostRoot) -> None:
    wish = wanted(root)
    release = install(root, wish)
    manifest = json.loads((root(release.path) / releases.MANIFEST).read_text())
    assert manifest["version"] == "9.9.9"
    assert manifest["archives"] == dict(wish.archives)
    assert set(manifest["files"]) == {"bin/containerd-shim-kata-v2", "share/image", "share/link"}


@pytest.mark.parametrize("junk", [b"", b"[]", b"7", b"\xff"])
def test_a_manifest_that_is_none_makes_no_release(root: HostRoot, junk: bytes) -> None:
    release = install(root, wanted(root))
    (root(release.path) / releases.MANIFEST).write_bytes(junk)
    assert releases.find(root, release.id) is None
    assert releases.find(root, "") is None
    assert releases.installed(root) == ()
    assert install(root, wanted(root)) == release
    releases.verify(root, release)
