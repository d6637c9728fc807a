"""From plain to pods in `kata-clh`, through every change that an operator makes, and back byte for byte."""

from __future__ import annotations

import copy
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hack.lab import configs
from hack.lab.containerd import CONFIG

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator, Sequence

    from conftest import Machine

pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="the stand-in's machines are KVM's: there is no /dev/kvm"),
]

CRI = '[plugins."io.containerd.grpc.v1.cri"]'
NEEDED_BY_QEMU = {"/dev/vhost-net": "VhostNetMissing", "/dev/vhost-vsock": "VhostVsockMissing"}


def without_ours(dump: dict[str, Any]) -> dict[str, Any]:
    """An effective configuration less what katanode may bring: its handlers, and the import of its drop-in."""
    rest = copy.deepcopy(dump)
    rest.pop("imports", None)
    for plugin in rest["plugins"].values():
        for name in ("kata-clh", "kata-qemu"):
            if isinstance(plugin, dict):
                plugin.get("containerd", {}).get("runtimes", {}).pop(name, None)
    return rest


def differing(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[object, object]]:
    """What is not the same in two tables, by name."""
    names = sorted(before.keys() | after.keys())
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def assert_unchanged(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert not differing(before, after)


def without_lock(stamps: dict[str, Any]) -> dict[str, Any]:
    """The stamps less that of the one folder whose own may differ: the lock's file comes and goes in it."""
    return {path: stamp for path, stamp in stamps.items() if path != "/var/lib/katanode"}


def is_ready(made: dict[str, Any], handler: str) -> bool:
    return next(bool(h["ready"]) for h in made["handlers"] if h["name"] == handler)


def cost_of(machine: Machine, command: Sequence[str | Path]) -> tuple[float, float]:
    """How long a command inside takes, on the clock and of processors, in seconds."""
    begin, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    machine.lab.run(command, env=machine.environment)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - begin, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def test_a_plain_machine_becomes_a_kata_host_and_plain_again(machine_of_each_schema: Machine) -> None:
    machine = machine_of_each_schema
    machine.path(CONFIG).chmod(0o640)
    runc_pod = machine.run_pod(name="runs-on")
    runc_process = machine.task_pid(runc_pod)
    assert runc_process
    files, configuration = machine.snapshot(), machine.effective()

    made = machine.json("apply")
    missing = [reason for device, reason in NEEDED_BY_QEMU.items() if not Path(device).exists()]
    clh, qemu = made["handlers"]
    assert clh == {"name": "kata-clh", "ready": True, "reasons": []}
    assert (qemu["ready"], qemu["reasons"]) == (not missing, missing)
    assert made["state"] == ("degraded" if missing else "ready")
    assert not differing(without_ours(configuration), without_ours(machine.effective()))
    assert machine.path(CONFIG).stat().st_mode & 0o7777 == 0o640
    assert {"kata-clh", "kata-qemu", "runc"} <= machine.loaded().keys()
    assert machine.task_pid(runc_pod) == runc_process

    sandbox = machine.run_pod("kata-clh", name="in-a-vm")
    assert machine.shim_of(sandbox) == f"{machine.release_path()}/bin/containerd-shim-kata-v2"
    assert machine.vmm_of(sandbox) is not None
    assert [p.handler for p in machine.pods() if p.name == "in-a-vm"] == ["kata-clh"]
    machine.remove_pod(sandbox)
    assert machine.processes_of(sandbox) == ()

    machine.katanode("uninstall")
    assert_unchanged(files, machine.snapshot())
    assert not machine.path("/var/lib/katanode").exists()
    assert machine.effective() == configuration
    assert "kata-clh" not in machine.loaded()
    assert machine.task_pid(runc_pod) == runc_process
    machine.remove_pod(machine.run_pod(name="afterwards"))


class TestAnAppliedMachine:
    """What does not change the machine's release; one machine of each generation for all of these."""

    @pytest.fixture(scope="class", params=["1.6", "1.7", "2.1"])
    @staticmethod
    def applied(
        request: pytest.FixtureRequest, launch: Callable[..., contextlib.AbstractContextManager[Machine]]
    ) -> Iterator[Machine]:
        with launch(request.param) as machine:
            machine.katanode("apply")
            yield machine

    def test_a_second_apply_writes_nothing_and_restarts_nothing(self, applied: Machine) -> None:
        files, stamps, pid = applied.snapshot(), applied.stamps(), applied.containerd.pid
        made = applied.json("apply")
        assert is_ready(made, "kata-clh")
        assert made["note"].startswith("nothing to do")
        assert_unchanged(files, applied.snapshot())
        assert_unchanged(without_lock(stamps), without_lock(applied.stamps()))
        assert applied.containerd.pid == pid

    def test_a_second_apply_takes_less_than_half_a_second_more_than_python_does(self, applied: Machine) -> None:
        apply = [Path(sys.executable).with_name("katanode"), "apply"]
        python = [sys.executable, "-c", "pass"]
        runs = [(cost_of(applied, python), cost_of(applied, apply)) for _ in range(5)]
        clock, processor = (min(a[i] for _, a in runs) - min(p[i] for p, _ in runs) for i in (0, 1))
        # On a machine that is busy with other things the clock says how busy.
        busy = os.getloadavg()[0] > (os.cpu_count() or 1)
        assert processor < 0.5
        assert busy or clock < 0.5

    def test_looking_changes_nothing(self, applied: Machine) -> None:
        files, stamps, pid = applied.snapshot(), applied.stamps(), applied.containerd.pid
        for command in (("check",), ("plan",), ("status",), ("apply", "--dry-run"), ("uninstall", "--dry-run")):
            applied.json(*command)
            assert_unchanged(files, applied.snapshot())
            assert_unchanged(stamps, applied.stamps())
        assert applied.containerd.pid == pid

    def test_each_link_for_people_that_has_gone_comes_again(self, applied: Machine) -> None:
        pid, configurations = applied.containerd.pid, "/etc/kata-containers"
        for path in (
            f"{configurations}/configuration-clh.toml",
            f"{configurations}/katanode/kata-clh/configuration.toml",
        ):
            target = os.readlink(applied.path(path))
            applied.path(path).unlink()
            assert "link the release" in applied.json("plan")["steps"][0]["title"]
            applied.katanode("apply")
            assert os.readlink(applied.path(path)) == target
        assert applied.containerd.pid == pid

    def test_an_uninstall_is_refused_while_a_kata_sandbox_runs(self, applied: Machine) -> None:
        sandbox = applied.run_pod("kata-clh", name="still-needed")
        files, pid = applied.snapshot(), applied.containerd.pid
        made = applied.katanode("uninstall", "--json", check=False)
        assert made.returncode == 1
        assert '"SandboxesRunning"' in made.stdout
        assert "default/still-needed (kata-clh)" in made.stdout
        assert_unchanged(files, applied.snapshot())
        assert applied.containerd.pid == pid
        assert applied.vmm_of(sandbox) is not None
        applied.remove_pod(sandbox)

    def test_a_changed_tunable_reaches_the_next_sandbox_without_a_restart(self, applied: Machine) -> None:
        old = applied.run_pod("kata-clh", name="old")
        pid = applied.containerd.pid
        applied.settings(more="[handlers.kata-clh.hypervisor.clh]\ndefault_memory = 512\ndefault_vcpus = 3")
        assert is_ready(applied.json("apply"), "kata-clh")
        assert applied.containerd.pid == pid
        new = applied.run_pod("kata-clh", name="new")
        assert applied.vmm_env(old)["KATANODE_STANDIN_MEMORY_MIB"] != "512"
        assert applied.vmm_env(new)["KATANODE_STANDIN_MEMORY_MIB"] == "512"
        assert applied.vmm_env(new)["KATANODE_STANDIN_VCPUS"] == "3"
        for sandbox in (old, new):
            applied.remove_pod(sandbox)
            assert applied.processes_of(sandbox) == ()


@pytest.mark.parametrize("machine", ["1.7"], indirect=True)
def test_a_wrong_tunable_is_refused_with_the_right_one_and_nothing_changes(machine: Machine) -> None:
    machine.katanode("apply")
    for line, reason, right in (
        ("defualt_memory = 512", "TunableUnknown", "did you mean default_memory?"),
        ('default_memory = "512"', "TunableWrongType", "default_memory"),
        ("default_memory = -5", "TunableWrongValue", "default_memory"),
        ("default_memory = 512\ndefualt_vcpus = 3", "TunableUnknown", "did you mean default_vcpus?"),
    ):
        machine.settings(more=f"[handlers.kata-clh.hypervisor.clh]\n{line}")
        files, stamps, pid = machine.snapshot(), machine.stamps(), machine.containerd.pid
        made = machine.json("apply", check=False)
        assert (made["error"]["reason"], made["exit_status"]) == (reason, 2)
        assert right in made["error"]["evidence"]
        assert_unchanged(files, machine.snapshot())
        assert_unchanged(without_lock(stamps), without_lock(machine.stamps()))
        assert machine.containerd.pid == pid


@pytest.mark.parametrize("machine", ["1.6", "1.7", "2.1"], indirect=True)
def test_a_release_is_changed_with_one_restart_and_gone_back_from(machine: Machine) -> None:
    machine.katanode("apply")
    first = machine.release_path("3.2.0")
    old = machine.run_pod("kata-clh", name="old")
    starts = machine.starts

    machine.settings(version="3.32.0")
    made = machine.json("apply")
    second = machine.release_path("3.32.0")
    assert (made["kata_version"], is_ready(made, "kata-clh")) == ("3.32.0", True)
    assert machine.starts == starts + 1
    assert machine.shim_of(old).startswith(f"{first}/")
    assert machine.vmm_of(old) is not None
    new = machine.run_pod("kata-clh", name="new")
    assert machine.shim_of(new).startswith(f"{second}/")
    for sandbox in (old, new):
        machine.remove_pod(sandbox)
        assert machine.processes_of(sandbox) == ()
    assert len(machine.releases()) == 2
    starts = machine.starts

    assert machine.json("rollback")["kata_version"] == "3.2.0"
    assert machine.starts == starts + 1
    back = machine.run_pod("kata-clh", name="back")
    assert machine.shim_of(back).startswith(f"{first}/")
    machine.remove_pod(back)
    held = machine.json("apply")
    assert (held["kata_version"], machine.starts) == ("3.2.0", starts + 1)
    assert machine.json("apply", "--release-hold")["kata_version"] == "3.32.0"
    assert machine.starts == starts + 2


@pytest.mark.parametrize("machine", ["2.1"], indirect=True)
def test_a_damaged_release_that_an_operator_went_back_to_is_unpacked_anew_and_stays(machine: Machine) -> None:
    machine.katanode("apply")
    machine.settings(version="3.32.0")
    machine.katanode("apply")
    machine.katanode("rollback")
    starts = machine.starts
    machine.path(f"{machine.release_path('3.2.0')}/VERSION").unlink()
    assert machine.json("apply", check=False)["error"]["reason"] == "ReleaseDamaged"
    assert machine.json("apply", "--reinstall")["kata_version"] == "3.2.0"
    assert machine.path(f"{machine.release_path('3.2.0')}/VERSION").exists()
    assert machine.json("apply")["note"].startswith("nothing to do")
    assert machine.starts == starts
    assert machine.json("apply", "--release-hold")["kata_version"] == "3.32.0"


def test_a_release_is_collected_when_nothing_uses_it_and_none_but_the_last_is_kept(
    start_machine: Callable[..., Machine],
) -> None:
    machine = start_machine("1.7")
    plain = machine.snapshot()
    machine.katanode("apply")
    user = machine.run_pod("kata-clh", name="user")
    for version in ("3.32.0", "4.1.0"):
        machine.settings(version=version)
        assert is_ready(machine.json("apply"), "kata-clh")
    assert [name.partition("-")[0] for name in machine.releases()] == ["3.2.0", "3.32.0", "4.1.0"]
    machine.remove_pod(user)
    rust = machine.run_pod("kata-clh", name="rust")
    assert machine.shim_of(rust).startswith(f"{machine.release_path('4.1.0')}/runtime-rs/")
    machine.remove_pod(rust)
    machine.katanode("apply")
    assert [name.partition("-")[0] for name in machine.releases()] == ["3.32.0", "4.1.0"]
    machine.katanode("uninstall")
    machine.settings(version="3.2.0")
    assert_unchanged(plain, machine.snapshot())


def test_without_an_earlier_release_there_is_nothing_to_go_back_to(start_machine: Callable[..., Machine]) -> None:
    machine = start_machine("1.7")
    machine.katanode("apply")
    files, pid = machine.snapshot(), machine.containerd.pid
    assert machine.json("rollback", check=False)["error"]["reason"] == "NothingToRollBack"
    assert_unchanged(files, machine.snapshot())
    assert machine.containerd.pid == pid


@pytest.mark.parametrize("name", ["1.6", "1.7", "2.1"])
def test_a_configuration_without_runtimes_keeps_the_default_one(
    name: str, start_machine: Callable[..., Machine]
) -> None:
    config = f'version = 2\n{CRI}\n{configs.restrict_oom_lines()}  [plugins."io.containerd.grpc.v1.cri".cni]\n'
    config += '    bin_dir = "/opt/cni/bin"\n'
    machine = start_machine(name, config=config.encode())
    plain = machine.snapshot()
    effective = machine.effective()
    machine.remove_pod(machine.run_pod(name="before"))
    assert is_ready(machine.json("apply"), "kata-clh")
    assert not differing(without_ours(effective), without_ours(machine.effective()))
    for handler in ("", "runc", "kata-clh"):
        machine.remove_pod(machine.run_pod(handler, name="after"))
    machine.katanode("uninstall")
    assert_unchanged(plain, machine.snapshot())
    machine.remove_pod(machine.run_pod(name="afterwards"))


def test_what_others_put_where_links_would_go_stays_untouched(start_machine: Callable[..., Machine]) -> None:
    machine = start_machine("2.1")
    machine.write("/opt/kata/bin/own", "somebody's own\n")
    machine.write("/usr/local/bin/kata-runtime", "#!/bin/sh\necho own\n")
    machine.path("/usr/local/bin/kata-runtime").chmod(0o755)
    plain = machine.snapshot()
    made = machine.json("apply")
    assert is_ready(made, "kata-clh")
    assert [f["reason"] for f in made["findings"]].count("ForeignFile") == 2
    applied = machine.snapshot()
    theirs = [path for path in plain if path.startswith(("/opt/kata/", "/usr/local/bin/kata-runtime"))]
    assert len(theirs) == 3
    assert {path: applied[path] for path in theirs} == {path: plain[path] for path in theirs}
    machine.remove_pod(machine.run_pod("kata-clh"))
    machine.katanode("uninstall")
    assert_unchanged(plain, machine.snapshot())


def test_an_absent_katanode_is_uninstalled_by_apply_and_a_plain_machine_stays_plain(
    start_machine: Callable[..., Machine],
) -> None:
    machine = start_machine("1.7")
    settings = machine.path("/etc/katanode/katanode.toml").read_text()
    absent = f'state = "absent"\n{settings}'
    machine.write_settings(absent)
    plain, pid = machine.snapshot(), machine.containerd.pid
    for command in ("uninstall", "apply"):
        assert machine.json(command)["state"] == "absent"
        assert_unchanged(plain, machine.snapshot())
        assert machine.containerd.pid == pid
    machine.write_settings(settings)
    machine.katanode("apply")
    machine.write_settings(absent)
    assert machine.json("apply")["state"] == "absent"
    assert_unchanged(plain, machine.snapshot())
