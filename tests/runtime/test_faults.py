"""Faults, one by one: containerd serves after each, files are the old or the new ones, the report says what came."""

import hashlib
import json
import os
import shutil
import signal
import tarfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from crashing import Crasher

from hack.lab.containerd import CONFIG
from hack.standin import broken
from hack.standin.archive import Archive

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Machine, Standins

pytestmark = pytest.mark.runtime

either = pytest.mark.parametrize("machine", ["1.7", "2.1"], indirect=True)


def failure(machine: "Machine", status: int, *arguments: str) -> dict[str, Any]:
    """Applies, which must fail with this exit status; gives the error."""
    made = machine.json("apply", *arguments, check=False)
    assert made.get("exit_status") == status, made
    error: dict[str, Any] = made["error"]
    assert error["message"]
    assert error["remedy"]
    return error


def with_files(source: Archive, folder: Path, files: dict[str, str]) -> Archive:
    """A copy of an archive in which some files have other content."""
    tree = folder / "tree"
    with tarfile.open(source.path) as archive:
        archive.extractall(tree, filter="tar")
    for name, content in files.items():
        (tree / "opt/kata" / name).write_text(content)
        (tree / "opt/kata" / name).chmod(0o755)
    made = folder / source.path.name
    with tarfile.open(made, "w:xz", preset=0) as archive:
        archive.add(tree / "opt", "./opt")
    shutil.rmtree(tree)
    return Archive(made, hashlib.sha256(made.read_bytes()).hexdigest(), made.stat().st_size)


def with_program(machine: "Machine", first: str) -> None:
    """Lets containerd's program do something else first; the daemon that runs goes on as it is."""
    machine.lab.run(["cp", "/usr/local/bin/containerd", "/usr/local/lib/real-containerd"])
    machine.write("/usr/local/lib/wrapper", f'#!/bin/sh\n{first}\nexec /usr/local/lib/real-containerd "$@"\n')
    machine.path("/usr/local/lib/wrapper").chmod(0o755)
    machine.lab.run(["mount", "--bind", "/usr/local/lib/wrapper", "/usr/local/bin/containerd"])


@either
def test_a_daemon_that_refuses_the_new_file_keeps_the_old_one(machine: "Machine") -> None:
    with_program(machine, 'grep -qs "runtimes.kata" "$2" /etc/containerd/.katanode-tmp-* && { echo "no" >&2; exit 1; }')
    before, starts = machine.snapshot(), machine.starts
    error = failure(machine, 1)
    assert error["reason"] == "RuntimeConfigEditImpossible"
    assert "no" in error["evidence"].splitlines()
    assert machine.snapshot() == before, "nothing was fetched, raised or written"
    assert machine.starts == starts
    assert machine.serves()


@either
def test_a_daemon_that_hesitates_is_waited_for(machine: "Machine") -> None:
    # As one whose control group has used up its share of the processor, or on a node that is busy with other things.
    pid = machine.containerd.host_pid
    awake = threading.Timer(1.0, os.kill, (pid, signal.SIGCONT))
    with machine.client() as client:
        os.kill(pid, signal.SIGSTOP)
        awake.start()
        try:
            assert client.status().ready
        finally:
            awake.join()


@either
def test_a_daemon_that_does_not_come_back_gets_its_old_file_back(machine: "Machine") -> None:
    before = machine.config
    machine.containerd.refuse_start(times=1)
    error = failure(machine, 3)
    assert error["reason"] == "RolledBack"
    assert "RestartFailed" in error["evidence"]
    assert machine.config == before
    assert machine.serves()
    assert "kata-clh" not in machine.loaded()
    assert failure(machine, 1)["reason"] == "CoolingDown"
    machine.katanode("apply", "--retry")
    assert "kata-clh" in machine.loaded()


@either
def test_a_daemon_that_never_comes_back_has_its_old_file_and_the_next_run_goes_on(machine: "Machine") -> None:
    before = machine.config
    machine.containerd.refuse_start()
    error = failure(machine, 4)
    assert error["reason"] == "RollbackFailed"
    assert "journal" in error["evidence"]
    assert machine.config == before
    assert machine.path("/var/lib/katanode/journal.json").exists(), "the next run is to know what is left to do"
    machine.containerd.heal()
    assert failure(machine, 1)["reason"] == "CoolingDown"
    assert machine.serves(), "before it looks at anything else, a run brings the runtime back"
    assert machine.config == before
    machine.katanode("apply", "--retry")
    assert machine.serves()
    assert "kata-clh" in machine.loaded()
    assert not machine.path("/var/lib/katanode/journal.json").exists()


@either
def test_a_daemon_that_comes_back_without_the_handler_is_gone_back_from(machine: "Machine") -> None:
    before = machine.config
    machine.write("/etc/other.toml", before)
    machine.containerd.start_with_config("/etc/other.toml", times=1)
    error = failure(machine, 3)
    assert "HandlerNotLoaded" in error["evidence"]
    assert machine.config == before
    assert machine.serves()


@either
def test_a_sandbox_that_does_not_start_undoes_the_change(
    machine: "Machine", standin: "Standins", tmp_path: Path
) -> None:
    before = machine.config
    bad = with_files(standin["3.2.0"], tmp_path, {"bin/cloud-hypervisor": "#!/bin/sh\necho no luck >&2\nexit 1\n"})
    tmp_path.chmod(0o755)
    machine.lab.run(["mkdir", "-p", "/srv/bad"])
    machine.write(f"/srv/bad/{bad.path.name}", bad.path.read_bytes())
    machine.settings(source="/srv/bad", pins={bad.path.name: bad.sha256})
    error = failure(machine, 3)
    assert "CanaryFailed" in error["evidence"]
    assert "no luck" in error["evidence"], "the runtime's own message is there"
    assert machine.config == before
    assert machine.serves()
    assert not machine.pods()
    cooling = failure(machine, 1)
    assert cooling["reason"] == "CoolingDown"
    assert "a sandbox does not start through kata-clh" in cooling["evidence"]
    assert "CanaryFailed" in failure(machine, 3, "--retry")["evidence"]
    machine.settings()  # another release is another change
    machine.katanode("apply")
    assert "kata-clh" in machine.loaded()


@either
def test_a_node_without_the_pause_image_is_told_in_the_runtimes_own_words(machine: "Machine") -> None:
    before = machine.config
    listed = machine.lab.run(["ctr", "-n", "k8s.io", "images", "ls", "-q"]).stdout.split()
    machine.lab.run(["ctr", "-n", "k8s.io", "images", "rm", "--sync", *listed])
    error = failure(machine, 3)
    assert "PauseImageMissing" in error["evidence"]
    assert "image" in error["evidence"]
    assert machine.config == before
    assert machine.serves()
    machine.containerd.import_pause()
    machine.katanode("apply", "--retry")


@either
def test_a_broken_upgrade_leaves_the_working_release_in_force(
    machine: "Machine", standin: "Standins", tmp_path: Path
) -> None:
    machine.katanode("apply")
    sandbox, works = machine.run_pod("kata-clh"), machine.config
    bad = with_files(standin["3.2.0"], tmp_path, {"bin/cloud-hypervisor": "#!/bin/sh\nexit 1\n"})
    machine.write(f"/srv/bad/{bad.path.name}", bad.path.read_bytes())
    machine.settings(source="/srv/bad", pins={bad.path.name: bad.sha256})
    error = failure(machine, 3)
    assert error["reason"] == "RolledBack"
    assert "kata-clh" in error["message"]
    assert failure(machine, 1)["reason"] == "CoolingDown"
    assert machine.config == works
    assert machine.task_pid(sandbox), "what ran runs on"
    other = machine.run_pod("kata-clh", name="other")
    assert machine.shim_of(other) == machine.shim_of(sandbox)
    machine.remove_pod(other)
    machine.remove_pod(sandbox)


@pytest.mark.parametrize("fault", list(broken.Fault), ids=str)
def test_a_broken_archive_is_refused_with_its_reason(
    fault: broken.Fault, start_machine: "Callable[..., Machine]", tmp_path: Path
) -> None:
    made = broken.make(fault, tmp_path, version="3.2.0", arch="amd64")
    machine = start_machine("2.1")
    machine.write(f"/srv/bad/{made.path.name}", made.path.read_bytes())
    machine.settings(source="/srv/bad", pins={made.path.name: made.sha256}, kata="max_unpacked_bytes = 200000000")
    before, starts, plain = machine.config, machine.starts, machine.snapshot()
    error = failure(machine, 1)
    if fault in broken.LEGAL:  # unpacked; that it holds a shim and nothing else is found afterwards
        assert error["reason"] == "HandlerNotInRelease"
    else:
        assert error["reason"].startswith("Release"), error
        assert machine.snapshot() == plain, "nothing is left, and nothing came outside"
    assert not machine.path(broken._VICTIM).exists()
    assert not [path for path in machine.snapshot() if ".staging-" in path]
    assert machine.config == before
    assert machine.starts == starts
    assert machine.serves()


def test_a_disk_that_is_too_small_is_told_before_anything_is_unpacked(start_machine: "Callable[..., Machine]") -> None:
    machine = start_machine("2.1")
    machine.lab.run(["sh", "-c", "mkdir -p /opt/katanode && mount -t tmpfs -o size=1m small /opt/katanode"])
    before = machine.config
    made = machine.json("apply", check=False)
    assert made["state"] == "blocked"
    assert "DiskSpaceLow" in made["handlers"][0]["reasons"]
    assert not machine.releases()
    assert machine.config == before
    assert machine.serves()


@either
def test_a_disk_that_fills_up_while_a_release_is_unpacked_keeps_what_was_there(machine: "Machine") -> None:
    # Bytes are free when they are asked for, and inodes come to an end: full in the middle of the archive.
    # Many sizes of a file system are in tests/unit/test_releases.py.
    small = "mkdir -p /opt/katanode && mount -t tmpfs -o size=8g,nr_inodes=30 small /opt/katanode"
    machine.lab.run(["sh", "-c", small])
    before, starts = machine.snapshot(), machine.starts
    error = failure(machine, 1)
    assert error["reason"] == "ReleaseDiskFull"
    assert "No space left" in error["evidence"]
    assert machine.snapshot() == before
    assert machine.starts == starts
    assert machine.serves()


def small_etc(machine: "Machine") -> None:
    """Puts containerd's configuration on a disk of its own, on which little is free."""
    script = (
        "mkdir /srv/keep && cp -a /etc/containerd/. /srv/keep && mount -t tmpfs -o size=64k small /etc/containerd "
        "&& cp -a /srv/keep/. /etc/containerd"
    )
    machine.lab.run(["sh", "-c", script])


FILL = "dd if=/dev/zero of=/etc/containerd/fill bs=1k 2>/dev/null; true"
JOURNALLED = "rename /var/lib/katanode/journal.json"
"""The step with which a change begins: all is checked, nothing is written."""


@either
def test_a_disk_that_fills_up_before_the_configuration_is_written_keeps_the_old_one(machine: "Machine") -> None:
    small_etc(machine)
    before, starts = machine.config, machine.starts
    with Crasher(machine) as katanode:
        made = katanode("apply", "--json", fatal=JOURNALLED, shell=FILL)
        error = json.loads(made.stdout)["error"]
        assert made.status == 3, made
        assert error["reason"] == "RolledBack"
        assert "FileWriteFailed" in error["evidence"]
        assert "ENOSPC" in error["evidence"]
        assert machine.config == before
        assert machine.starts == starts, "nothing was written, so nothing is restarted"
        assert not [name for name in machine.snapshot() if "katanode-tmp" in name or "journal.json" in name]
        assert machine.serves()
        machine.path("/etc/containerd/fill").unlink()
        assert katanode("apply", "--retry").status == 0


@either
def test_a_disk_that_is_full_of_other_things_keeps_the_configuration(machine: "Machine") -> None:
    small_etc(machine)
    machine.lab.run(["sh", "-c", FILL])
    before, starts = machine.config, machine.starts
    error = failure(machine, 1)
    assert error["reason"] == "FileWriteFailed"
    assert "ENOSPC" in error["evidence"]
    assert machine.config == before
    assert machine.starts == starts
    assert not list(machine.path("/etc/containerd").glob(".katanode*"))


def test_two_at_once_are_one_too_many(start_machine: "Callable[..., Machine]") -> None:
    machine = start_machine("2.1")
    machine.containerd.delay_start(3, times=1)
    first = machine.popen("apply")
    deadline = time.monotonic() + 20
    while not machine.path("/var/lib/katanode/journal.json").exists():
        assert time.monotonic() < deadline, "the first does not come to its transaction"
        time.sleep(0.02)
    error = failure(machine, 5)
    assert error["reason"] == "AnotherRunInProgress"
    assert first.wait(60) == 0
    assert machine.serves()


@either
def test_a_terminated_run_undoes_nothing_and_the_next_one_ends_it(machine: "Machine") -> None:
    machine.containerd.delay_start(2, times=1)
    first = machine.popen("apply")
    deadline = time.monotonic() + 20
    while not machine.path("/var/lib/katanode/journal.json").exists():
        assert time.monotonic() < deadline, "it does not come to its transaction"
        time.sleep(0.02)
    # The nsenter that runs it hands no signal on: katanode itself is told, by the lock that names it.
    pid = machine.path("/var/lib/katanode/lock").read_text().strip()
    machine.lab.run(["kill", "-TERM", pid])
    first.wait(30)
    done = machine.katanode("apply")
    assert "an earlier run ended in the middle" in done.stderr
    assert machine.serves()
    assert "kata-clh" in machine.loaded()


def test_a_configuration_that_somebody_else_changed_meanwhile_stays_theirs(
    start_machine: "Callable[..., Machine]",
) -> None:
    machine = start_machine("1.7")
    # Somebody who writes just when containerd's own parser is asked about the candidate.
    theirs = b"\n# somebody else was here\n"
    says = 'printf "\\n# somebody else was here\\n"'
    with_program(machine, f'case "$2" in *candidate*) {says} >> {CONFIG};; esac')
    error = failure(machine, 1)
    assert error["reason"] == "RuntimeConfigChangedMeanwhile"
    assert machine.config.endswith(theirs)
    assert machine.serves()


@either
def test_what_somebody_else_writes_in_the_middle_of_the_change_stays_too(machine: "Machine") -> None:
    before, starts = machine.config, machine.starts
    theirs = b"# somebody else was here"
    with Crasher(machine) as katanode:
        made = katanode("apply", "--json", fatal=JOURNALLED, shell=f"echo '{theirs.decode()}' >> {CONFIG}")
        error = json.loads(made.stdout)["error"]
        assert made.status == 3, made
        assert "RuntimeConfigChangedMeanwhile" in error["evidence"]
        assert CONFIG in error["message"]
        assert machine.config == before + theirs + b"\n"
        assert not machine.path("/etc/containerd/katanode.d/katanode.toml").exists()
        assert machine.starts == starts
        assert machine.serves()
        assert katanode("apply").status == 0, "the next run plans anew"
    assert theirs in machine.config
    assert "kata-clh" in machine.loaded()
