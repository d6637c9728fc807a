"""`katanode run` on a node without a cluster: it makes the node ready, keeps it so, and says so."""

from __future__ import annotations

import json
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from conftest import Machine

pytestmark = pytest.mark.runtime

PORT = 9810
FAST = f'[run]\ninterval_seconds = 10\n[serve]\naddress = "127.0.0.1"\nport = {PORT}\n'
_FETCH = """
import json, sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=5)
except urllib.error.HTTPError as error:
    answer = error
except OSError as error:
    sys.exit(str(error))
print(json.dumps([answer.status, dict(answer.headers), answer.read().decode()]))
"""


class Daemon:
    """`katanode run` on a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.log = machine.path("/run/katanode.log")
        with self.log.open("ab") as log:
            self.process: subprocess.Popen[bytes] = machine.popen(
                "run", "--settings", "/etc/katanode/katanode.toml", stderr=log
            )

    def fetch(self, path: str) -> tuple[int, str]:
        """Status and text of an answer; 0 while nobody listens."""
        done = self.machine.lab.run(["python3", "-c", _FETCH, f"http://127.0.0.1:{PORT}{path}"], check=False)
        if done.returncode:
            return 0, done.stderr
        status, _, body = json.loads(done.stdout)
        return int(status), str(body)

    def metric(self, name: str, **labels: str) -> float:
        """A metric's value; 0 for one that is not there."""
        wanted = "{" + ",".join(f'{key}="{value}"' for key, value in sorted(labels.items())) + "}" if labels else ""
        found = re.search(rf"^katanode_{re.escape(name + wanted)} (\S+)$", self.fetch("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def until(self, what: Callable[[], Any], seconds: float = 60.0) -> None:
        """Waits for a state."""
        deadline = time.monotonic() + seconds
        while not what():
            assert self.process.poll() is None, f"the daemon has ended:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"not so within {seconds:g} s:\n{self.log.read_text()[-4000:]}"
            time.sleep(0.2)

    def until_ready(self) -> None:
        self.until(lambda: self.metric("handler_ready", handler="kata-clh") == 1)

    @property
    def pids(self) -> list[int]:
        """Its process and its workers', inside, the daemon's first."""
        listed = self.machine.lab.run(["pgrep", "-f", "katanode run|agent.service.worker"], check=False).stdout
        return sorted(int(word) for word in listed.split())

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Sends a signal to the daemon itself; gives the seconds until it ended."""
        begin = time.monotonic()
        for pid in self.pids[:1]:
            self.machine.lab.run(["kill", f"-{int(number)}", str(pid)], check=False)
        self.process.wait(20)
        return time.monotonic() - begin


@pytest.fixture
def machine(start_machine: Callable[..., Machine]) -> Machine:
    made = start_machine("2.1")
    made.settings(more=FAST)
    return made


@pytest.fixture
def daemon(machine: Machine) -> Iterator[Daemon]:
    made = Daemon(machine)
    yield made
    if made.process.poll() is None:
        made.stop(signal.SIGKILL)


def test_it_makes_the_node_ready_and_says_so_everywhere(daemon: Daemon) -> None:
    daemon.until_ready()
    assert daemon.fetch("/healthz") == (200, "ok\n")
    assert daemon.fetch("/readyz") == (200, "ok\n")
    status, page = daemon.fetch("/")
    assert status == 200
    assert "kata-clh" in page
    assert daemon.metric("ready") == 1
    assert daemon.metric("runtime_restarts_total", outcome="ok") == 1
    assert daemon.metric("canary_start_seconds", handler="kata-clh") > 0
    assert daemon.fetch("/nothing")[0] == 404
    assert daemon.machine.serves()


def test_nothing_happens_without_a_cause(daemon: Daemon) -> None:
    daemon.until_ready()
    daemon.until(lambda: daemon.metric("reconcile_total", outcome="unchanged") >= 1)
    stamps, starts = daemon.machine.stamps(), daemon.machine.starts
    looks = daemon.metric("reconcile_total", outcome="unchanged")
    daemon.until(lambda: daemon.metric("reconcile_total", outcome="unchanged") >= looks + 2)
    after = daemon.machine.stamps()
    for changing in ("/var/lib/katanode",):
        stamps.pop(changing, None)
        after.pop(changing, None)
    assert after == stamps
    assert daemon.machine.starts == starts


def test_drift_is_repaired_once_and_a_tug_of_war_is_reported(daemon: Daemon) -> None:
    machine = daemon.machine
    daemon.until_ready()
    ours = next(machine.path("/etc/containerd").rglob("katanode.toml"))
    ours.unlink()
    daemon.until(lambda: daemon.metric("drift_repairs_total", kind="runtime-configuration") == 1)
    starts = machine.starts
    ours.unlink()
    daemon.until(lambda: daemon.metric("reason", reason="TugOfWar", severity="warning") == 1)
    assert machine.starts == starts
    assert not ours.exists()
    # The running daemon still has the handler: what the label says of it stays true.
    assert daemon.metric("handler_ready", handler="kata-clh") in {0, 1}
    assert machine.serves()


def test_settings_that_are_wrong_change_nothing_and_right_ones_heal(daemon: Daemon) -> None:
    machine = daemon.machine
    daemon.until_ready()
    good = machine.path("/etc/katanode/katanode.toml").read_text()
    starts, config = machine.starts, machine.config
    machine.write_settings(good + "\n[kata2]\nverson = 1\n")
    daemon.until(lambda: daemon.metric("reason", reason="SettingsInvalid", severity="error") == 1)
    assert "kata2" in daemon.fetch("/")[1]
    assert daemon.metric("handler_ready", handler="kata-clh") == 1
    assert (machine.starts, machine.config) == (starts, config)
    machine.write_settings(good)
    daemon.until(lambda: daemon.metric("reason", reason="SettingsInvalid", severity="error") == 0)
    assert daemon.metric("handler_ready", handler="kata-clh") == 1


def test_it_ends_within_five_seconds_at_any_moment_and_undoes_nothing(machine: Machine) -> None:
    pod = machine.run_pod()
    moments = ("restarting containerd", "unpacked and verified", "serves again", "canary kata-clh", "sysctl")
    for moment in moments:
        daemon = Daemon(machine)
        try:
            daemon.until(lambda said=moment, own=daemon: said in own.log.read_text())
            assert daemon.stop() < 5.0, moment
            assert daemon.process.returncode == 0, daemon.log.read_text()
        finally:
            if daemon.process.poll() is None:
                daemon.stop(signal.SIGKILL)
        daemon.log.unlink()
        machine.katanode("apply", "--retry")
        assert machine.serves()
        machine.katanode("uninstall")
    assert machine.shim_of(pod)


def test_a_daemon_that_was_killed_is_gone_on_with_by_the_next(machine: Machine) -> None:
    daemon = Daemon(machine)
    daemon.until(lambda: "restarting containerd" in daemon.log.read_text())
    for pid in daemon.pids:
        machine.lab.run(["kill", "-9", str(pid)], check=False)
    daemon.process.wait(20)
    second = Daemon(machine)
    try:
        second.until_ready()
        assert machine.serves()
    finally:
        second.stop(signal.SIGKILL)


def test_a_device_that_vanishes_takes_readiness_with_it(daemon: Daemon) -> None:
    machine = daemon.machine
    daemon.until_ready()
    device = machine.path("/dev/kvm")
    device.rename(device.with_name("kvm-away"))
    daemon.until(lambda: daemon.metric("handler_ready", handler="kata-clh") == 0, 20)
    device.with_name("kvm-away").rename(device)
    daemon.until_ready()


def test_absence_is_made_and_kept(daemon: Daemon) -> None:
    machine = daemon.machine
    plain = machine.config
    daemon.until_ready()
    good = machine.path("/etc/katanode/katanode.toml").read_text()
    machine.write_settings('state = "absent"\n' + good)
    daemon.until(lambda: not machine.releases())
    daemon.until(lambda: daemon.metric("ready") == 0)
    assert "kata-clh" not in machine.loaded()
    assert machine.config == plain
    assert not machine.path("/opt/kata").exists()
