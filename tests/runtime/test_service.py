"""`katanode run` on a node without a cluster: it makes the node ready, keeps it so, and says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from daemon import FAST, Daemon, hide_kvm, running, show_kvm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Machine

pytestmark = pytest.mark.runtime


@pytest.fixture
def machine(start_machine: Callable[..., Machine]) -> Machine:
    made = start_machine("2.1")
    made.settings(more=FAST)
    return made


@pytest.fixture
def daemon(machine: Machine) -> Iterator[Daemon]:
    with running(machine) as made:
        yield made


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
        with running(machine) as daemon:
            daemon.until(lambda said=moment, own=daemon: said in own.log.read_text())
            assert daemon.stop() < 5.0, moment
            assert daemon.process.returncode == 0, daemon.log.read_text()
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
    with running(machine) as second:
        second.until_ready()
        assert machine.serves()


def test_a_device_that_vanishes_takes_readiness_with_it(daemon: Daemon) -> None:
    machine = daemon.machine
    daemon.until_ready()
    hide_kvm(machine)
    daemon.until(lambda: daemon.metric("handler_ready", handler="kata-clh") == 0, 20)
    show_kvm(machine)
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


def test_a_port_that_another_agent_still_has_is_taken_when_it_is_free(machine: Machine) -> None:
    with running(machine) as first:
        first.until(lambda: first.fetch("/healthz")[0] == 200)
        with running(machine) as second:
            second.until(lambda: "cannot serve on 127.0.0.1" in second.log.read_text())
            first.stop()
            second.until(lambda: second.fetch("/healthz")[0] == 200)
