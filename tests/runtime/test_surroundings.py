"""Other surroundings than a bare machine with the Go runtime: a pod, runtime-rs, a node that cannot."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Machine

pytestmark = pytest.mark.runtime

either = pytest.mark.parametrize("machine", ["1.7", "2.1"], indirect=True)


@either
def test_from_a_pod_the_host_is_served_through_its_mapped_root(machine: "Machine") -> None:
    before = machine.snapshot()
    machine.lab.run(["sh", "-c", "mkdir -p /run/pod/host && mount --rbind / /run/pod/host"])
    seen = ("--root", "/run/pod/host", "--settings", "/etc/katanode/katanode.toml")
    machine.katanode("apply", *seen)
    assert machine.json("status")["handlers"][0]["ready"], "what was done from the pod holds on the host"
    sandbox = machine.run_pod("kata-clh")
    assert machine.shim_of(sandbox).startswith("/opt/katanode/releases/")
    machine.remove_pod(sandbox)
    machine.katanode("uninstall", *seen)
    assert machine.snapshot() == before


@either
def test_the_rust_runtime_of_4_1_is_served(machine: "Machine") -> None:
    machine.settings(version="4.1.0")
    machine.katanode("apply")
    sandbox = machine.run_pod("kata-clh")
    assert machine.shim_of(sandbox).endswith("/runtime-rs/bin/containerd-shim-kata-v2")
    machine.remove_pod(sandbox)


def test_a_node_without_kvm_is_told_so_and_nothing_is_installed(start_machine: "Callable[..., Machine]") -> None:
    machine = start_machine("2.1")
    machine.lab.run(["mount", "--bind", "/dev/null", "/dev/kvm"])
    made = machine.json("apply", check=False)
    assert made["state"] == "blocked"
    assert "KVMApiUnknown" in made["handlers"][0]["reasons"]
    assert "nothing was installed" in made["note"]
    assert not machine.path("/opt/katanode").exists()


def test_every_command_says_how_it_is_used() -> None:
    katanode = Path(sys.executable).with_name("katanode")
    for command in ("check", "plan", "apply", "status", "rollback", "uninstall", "pin", "bench", "bundle", "sandboxes"):
        done = subprocess.run([katanode, command, "--help"], capture_output=True, text=True, check=True)
        assert f"katanode {command}" in done.stdout.partition("examples:")[2]
