"""The host gateways: paths, files, processes and the lock."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.errors import EVIDENCE_LIMIT, KatanodeError, bounded
from agent.host import files, systemd
from agent.host.lock import held
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.reasons import Reason


def test_links_are_followed_inside_the_root(tmp_path: Path) -> None:
    root = HostRoot(tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var/real.toml").write_text("x")
    (tmp_path / "etc/config.toml").symlink_to("/var/real.toml")
    (tmp_path / "etc/up").symlink_to("../../../../var")
    assert root("/etc/config.toml") == tmp_path / "var/real.toml"
    assert root("/etc/up/real.toml") == tmp_path / "var/real.toml"
    assert root.entry("/etc/config.toml") == tmp_path / "etc/config.toml"
    assert root("/nowhere/at/all") == tmp_path / "nowhere/at/all"
    assert root.host_path(root("/etc/config.toml")) == "/var/real.toml"


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(KatanodeError, match="loop"):
        HostRoot(tmp_path)("/a/x")


def test_a_write_keeps_mode_owner_and_attributes(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"old")
    os.chown(path, 12, 34)
    path.chmod(0o640)
    try:
        os.setxattr(path, "user.note", b"kept")
    except OSError:
        pytest.skip(reason="this file system has no user attributes")
    files.write_atomic(path, b"new")
    now = path.stat()
    assert (path.read_bytes(), now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode)) == (b"new", 12, 34, 0o640)
    assert os.getxattr(path, "user.note") == b"kept"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KatanodeError) as caught:
        files.write_atomic(path, b"new")
    assert caught.value.reason is Reason.FILE_WRITE_FAILED
    assert "ENOSPC" in caught.value.evidence
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_reading_is_bounded_and_takes_regular_files_only(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 11)
    os.mkfifo(tmp_path / "fifo")
    for name in ("big", "fifo"):
        with pytest.raises(KatanodeError):
            files.read_bounded(tmp_path / name, limit=10)
    with pytest.raises(KatanodeError):
        files.read_bounded(tmp_path)
    assert files.read_if_there(tmp_path / "none") is None


def test_a_link_is_replaced_without_a_gap(tmp_path: Path) -> None:
    link = tmp_path / "current"
    files.link_atomic(link, "one")
    files.link_atomic(link, "two")
    assert str(link.readlink()) == "two"
    assert list(tmp_path.iterdir()) == [link]


def test_folders_that_were_made_are_told(tmp_path: Path) -> None:
    assert files.make_folder(tmp_path / "a/b") == [tmp_path / "a/b", tmp_path / "a"]
    assert files.make_folder(tmp_path / "a/b") == []


def test_a_program_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(KatanodeError) as caught:
        Runner().run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout=5)
    assert "exit status 3\nerr\nout" in caught.value.evidence


def test_a_program_that_does_not_exist_is_told() -> None:
    with pytest.raises(KatanodeError, match="no-such-program cannot be started"):
        Runner().run(["no-such-program"], timeout=5)


def test_a_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    begin = time.monotonic()
    with pytest.raises(KatanodeError, match=r"did not end within 0\.3 s"):
        Runner().run(["sh", "-c", f"sleep 60 & echo $! > {pidfile}; wait"], timeout=0.3)
    assert time.monotonic() - begin < 3
    pid = int(pidfile.read_text())
    deadline = time.monotonic() + 3
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1]:
        assert time.monotonic() < deadline, "a grandchild is left"
        time.sleep(0.01)


def test_a_program_gets_the_prefix_of_its_runner() -> None:
    assert Runner(("env", "X=1")).run(["sh", "-c", "echo $X"], timeout=5).stdout == b"1\n"


def test_evidence_is_bounded_and_printable() -> None:
    text = bounded("\x1b[31m" + "a" * 100_000)
    assert "\x1b" not in text
    assert len(text) < EVIDENCE_LIMIT + 100


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/containerd.service\n", "containerd.service"),
        ("1:name=systemd:/system.slice/k3s.service\n0::/system.slice/other\n", "k3s.service"),
        ("0::/docker/abc/system.slice/docker.service/kubelet.slice/containerd.service", "containerd.service"),
        ("0::/user.slice/user-0.slice/session-1.scope\n", ""),
        ("5:devices:/system.slice/x.service\n0::/\n", ""),
        ("", ""),
    ],
)
def test_a_process_names_its_unit(cgroups: str, unit: str) -> None:
    assert systemd.unit_of(cgroups) == unit


def test_the_lock_is_for_one(tmp_path: Path) -> None:
    path = tmp_path / "state/lock"
    with held(path), pytest.raises(KatanodeError) as caught, held(path):
        pass
    assert caught.value.reason is Reason.ANOTHER_RUN
    assert f"process {os.getpid()} holds" in caught.value.evidence
    assert not path.exists()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import time\nfrom pathlib import Path\nfrom agent.host.lock import held\n"
        f"with held(Path({str(path)!r})):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    with held(path):
        pass
