"""The periodic canary: it renews proofs, tells what broke and what to do, and leaves nothing, whoever is killed.

Kata's programs are broken behind katanode's back: what covers one has its size, mode and time, so that the release
looks whole and only a start can tell.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from daemon import FAST, SETTINGS, running

from agent.reasons import CATALOGUE, Reason
from agent.sandboxes import canary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Machine

pytestmark = pytest.mark.runtime

CLH = "kata-clh"
ONE = f'handlers = ["{CLH}"]'
VMM, VIRTIOFSD = "bin/cloud-hypervisor", "libexec/virtiofsd"
EMPTY = """echo 'image "/opt/kata/share/kata-containers/kata-containers.img" is empty' >&2; exit 1"""
COVER = """set -e
program=$1; cover=/srv/$(basename "$program")
printf '#!/bin/sh\\n%s\\n' "$2" >"$cover"
truncate -s "$(stat -c %s "$program")" "$cover"
chmod --reference="$program" "$cover"; touch -r "$program" "$cover"
mount --bind "$cover" "$program"
"""
KILLED = """
import json, os, signal, sys
sys.path[:0] = [sys.argv[2]]
from crashing import Steps
from agent.service import worker
steps = Steps(sys.argv[1], "/run/steps", lambda: os.kill(os.getpid(), signal.SIGKILL))
steps.watch()
sys.argv[1:] = [sys.argv[3]]
worker.main()
"""


@contextlib.contextmanager
def broken(machine: Machine, program: str, script: str) -> Iterator[None]:
    """Lets one of the release's programs be a script."""
    path = f"{machine.release_path()}/{program}"
    machine.lab.run(["sh", "-c", COVER, "sh", path, script])
    try:
        yield
    finally:
        machine.lab.run(["umount", path])


@contextlib.contextmanager
def noexec(machine: Machine, program: str) -> Iterator[None]:
    """Mounts one of the release's programs so that it may not be run, as a hardened /opt would be."""
    path = f"{machine.release_path()}/{program}"
    machine.lab.run(["sh", "-c", f"mount --bind {path} {path} && mount -o remount,bind,noexec {path}"])
    try:
        yield
    finally:
        machine.lab.run(["umount", path])


def task(*, renew: bool) -> str:
    return json.dumps({"root": "/", "settings": SETTINGS, "want": "present", "full": False, "renew": renew})


def look(machine: Machine, *, renew: bool = True) -> dict[str, Any]:
    """One look of the daemon's worker; gives its result."""
    done = machine.lab.run(
        [sys.executable, "-P", "-m", "agent.service.worker", task(renew=renew)], env=machine.environment
    )
    kind, result = json.loads(done.stdout.splitlines()[-1])
    assert kind == "result", done.stdout
    assert isinstance(result, dict)
    return result


def killed_look(machine: Machine, request: pytest.FixtureRequest, step: str) -> None:
    """A look that is killed with SIGKILL before a step."""
    tests = str(request.path.parent)
    command = [sys.executable, "-P", "-c", KILLED, step, tests, task(renew=True)]
    done = machine.lab.run(command, check=False, env=machine.environment)
    assert done.returncode in {-9, 137}, done


def findings(result: dict[str, Any], reason: Reason) -> list[dict[str, Any]]:
    return [f for f in result["report"]["findings"] if f["reason"] == reason]


def is_ready(result: dict[str, Any]) -> bool:
    (handler,) = result["report"]["handlers"]
    return bool(handler["ready"])


@contextlib.contextmanager
def pod_that_survives(machine: Machine) -> Iterator[None]:
    """A pod's sandbox that runs all the while."""
    pod = machine.run_pod(CLH)
    try:
        yield
        assert machine.task_pid(pod)
    finally:
        machine.remove_pod(pod)


def canaries(machine: Machine) -> list[str]:
    return [pod.id for pod in machine.pods() if canary.is_canary(pod)]


@pytest.fixture(scope="module")
def proved(launch: Callable[..., contextlib.AbstractContextManager[Machine]]) -> Iterator[Machine]:
    """A machine that is proved; each test leaves it so."""
    with launch("2.1") as machine:
        machine.settings(kata=ONE)
        machine.katanode("apply")
        yield machine
        assert is_ready(look(machine))
        assert not canaries(machine)


def test_a_look_that_renews_starts_a_sandbox_and_measures_it(proved: Machine) -> None:
    before = look(proved, renew=False)
    result = look(proved)
    assert (before["tries"], result["tries"]) == ([], [{"handler": CLH, "outcome": "ok"}])
    assert result["proved"][CLH] > before["proved"][CLH]
    assert result["steps"] == []
    assert set(result["memory"][CLH]) == {"vmm", "virtiofsd", "shim"}
    assert all(100_000 < size < 100 << 20 for size in result["memory"][CLH].values())
    assert not canaries(proved)
    told = proved.json("status")["details"][CLH]
    assert "the guest's kernel was not told of" in told, "the stand-in's shim has no socket that tells"


def test_a_program_that_may_not_be_run_takes_readiness_at_once_and_harms_no_sandbox(proved: Machine) -> None:
    with pod_that_survives(proved), noexec(proved, VIRTIOFSD):
        result = look(proved)
        assert not is_ready(result)
        (finding,) = findings(result, Reason.CANARY_PROGRAM_MISSING)
        assert f"{VIRTIOFSD}: Permission denied" in finding["evidence"], "the runtime's own words"
        assert finding["remedy"] == CATALOGUE[Reason.CANARY_PROGRAM_MISSING].remedy
        assert finding["handlers"] == [CLH]
        assert result["problem"]["reason"] == Reason.CANARY_PROGRAM_MISSING
        assert {item["outcome"] for item in result["tries"]} == {"failed"}
        check = proved.json("check", check=False)
        assert check["handlers"][0]["reasons"] == [Reason.CANARY_PROGRAM_MISSING], "also where nothing is started"
    assert is_ready(look(proved, renew=False)), "a handler without a proof is tried by every look"


def test_a_hypervisor_that_is_late_once_is_a_doubt_and_twice_is_an_end(proved: Machine) -> None:
    proved.settings(kata=ONE, more="[canary]\ntimeout_seconds = 1")
    assert is_ready(look(proved, renew=False))
    with broken(proved, VMM, "exec sleep 3"):
        first = look(proved)
        assert is_ready(first)
        assert first["problem"] is None
        (doubt,) = findings(first, Reason.CANARY_TIMED_OUT)
        assert doubt["severity"] == "warning"
        assert set(first["doubts"]) == {CLH}
        assert is_ready(look(proved, renew=False)), "only a second canary settles it"
        second = look(proved)
        assert not is_ready(second)
        (finding,) = findings(second, Reason.CANARY_TIMED_OUT)
        assert finding["severity"] == "error"
        assert second["doubts"] == {}
    proved.settings(kata=ONE)
    third = look(proved, renew=False)
    assert is_ready(third)
    assert not findings(third, Reason.CANARY_TIMED_OUT)


def test_a_pod_network_that_goes_is_its_own_reason_and_speaks_against_no_handler(proved: Machine) -> None:
    def network(*, ready: bool) -> None:
        with proved.client() as client:
            assert wait_for(lambda: client.status().network_ready is ready)

    proved.lab.run(["sh", "-c", "mkdir /etc/cni/away && mv /etc/cni/net.d/* /etc/cni/away"])
    try:
        network(ready=False)
        first, second = look(proved), look(proved)
    finally:
        # Written, since containerd overlooks a file that is moved to its folder.
        proved.lab.run(["sh", "-c", "cp /etc/cni/away/* /etc/cni/net.d && rm -r /etc/cni/away"])
    assert is_ready(first)
    assert not is_ready(second)
    (finding,) = findings(second, Reason.NETWORK_PLUGIN_NOT_READY)
    assert finding["remedy"] == CATALOGUE[Reason.NETWORK_PLUGIN_NOT_READY].remedy
    network(ready=True)
    assert is_ready(look(proved, renew=False))


def test_what_a_killed_canary_left_goes_with_the_next_look_and_nothing_else_does(
    proved: Machine, request: pytest.FixtureRequest
) -> None:
    with pod_that_survives(proved):
        killed_look(proved, request, "canary stop_sandbox")
        (left,) = canaries(proved)
        assert proved.vmm_of(left)
        result = look(proved, renew=False)
        assert is_ready(result)
        assert result["tries"] == [], "no further canary is needed for that"
        assert not canaries(proved)
        assert not proved.processes_of(left)


def test_an_uninstall_leaves_no_canary_of_a_killed_look_either(proved: Machine, request: pytest.FixtureRequest) -> None:
    killed_look(proved, request, "canary stop_sandbox")
    (left,) = canaries(proved)
    proved.katanode("uninstall")
    assert not proved.pods()
    assert not proved.processes_of(left)
    proved.katanode("apply")


def test_the_daemon_finds_by_itself_what_only_a_start_tells_and_that_it_is_mended(
    start_machine: Callable[..., Machine],
) -> None:
    machine = start_machine("2.1")
    machine.settings(kata=ONE, more=FAST + "[canary]\ninterval_seconds = 10")
    with running(machine) as daemon:

        def success() -> float:
            return daemon.metric("canary_last_success_timestamp_seconds", handler=CLH)

        daemon.until_ready()
        first, starts = success(), machine.starts
        assert first > time.time() - 60
        assert daemon.metric("canary_runs_total", handler=CLH, outcome="ok") >= 1
        assert daemon.metric("canary_memory_bytes", handler=CLH, component="vmm") > 0
        with broken(machine, VMM, EMPTY):
            daemon.until(lambda: daemon.metric("handler_ready", handler=CLH) == 0, 25)
            assert daemon.metric("reason", reason="CanaryGuestFilesBroken", severity="error") == 1
            assert daemon.metric("canary_runs_total", handler=CLH, outcome="failed") >= 1
            assert success() >= first, "when it last worked is still said"
            page = daemon.fetch("/")[1]
            assert "kata-containers.img" in page
            assert "puts the release" in page, "the remedy"
        daemon.until_ready()
        assert success() > first
        assert daemon.metric("reason", reason="CanaryGuestFilesBroken", severity="error") == 0
        assert machine.starts == starts, "nothing of this is a reason to restart the runtime"


def wait_for(what: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
