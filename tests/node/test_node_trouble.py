"""What goes wrong on real nodes: forbidden modules, KVM that goes away, packages that take their files back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nodes import Case

pytestmark = [pytest.mark.node, pytest.mark.parametrize("booted", ["1.7"], indirect=True)]

FORBID = "/etc/modprobe.d/forbidden.conf"


def forbid(case: Case, *modules: str) -> None:
    """Has modprobe refuse modules, as administrators do who follow hardening guides."""
    lines = "".join(f"blacklist {name}\ninstall {name} /bin/false\n" for name in modules)
    case.node.guest.write(FORBID, lines.encode())


def allow(case: Case) -> None:
    """Takes that back."""
    case.node.run("rm", FORBID)


def test_forbidden_modules_are_said_and_their_return_heals_the_node(case: Case) -> None:
    forbid(case, "kvm_amd", "vhost_vsock")
    case.start_agent()
    case.until_not_ready("KVMModuleMissing", "KVMDeviceMissing")
    report = case.katanode("check", status=1)
    assert "forbidden" in report or "/bin/false" in report or "blacklist" in report, report

    allow(case)
    case.until_ready()
    assert case.modules() >= {"kvm_amd", "vhost_vsock"}


def test_a_ready_node_that_loses_kvm_is_no_longer_ready_until_it_is_back(case: Case) -> None:
    case.start_agent()
    case.until_ready()
    forbid(case, "kvm_amd")
    case.node.shell("modprobe -r kvm_amd kvm; test ! -e /dev/kvm || rm /dev/kvm")
    assert case.until_not_ready("KVMDeviceMissing", "KVMModuleMissing") < 90, "withdrawn soon"

    allow(case)
    case.until_ready()


def test_a_package_that_takes_its_configuration_back_is_repaired(case: Case) -> None:
    bystander = case.pods.sandbox("bystander")
    before = case.processes(bystander)
    original = case.file("/etc/containerd/config.toml")
    case.start_agent()
    case.until_ready()
    assert case.file("/etc/containerd/config.toml") != original

    # As dpkg does when the administrator chooses the maintainer's version, and the package's script restarts the unit.
    case.node.guest.write("/etc/containerd/config.toml.dpkg-new", original.encode())
    case.node.shell("mv /etc/containerd/config.toml.dpkg-new /etc/containerd/config.toml; systemctl restart containerd")
    case.until(lambda: case.log().count("containerd serves again") == 2)
    assert "kata-clh" in case.file("/etc/containerd/config.toml")
    case.until_ready()
    pod = case.pods.sandbox("guest", "kata-clh")
    assert any(holds for _, holds, _ in case.processes(pod).values())
    assert case.processes(bystander) == before


def test_the_reset_button_in_the_middle_of_an_installation_costs_no_node(case: Case) -> None:
    case.start_agent()
    case.until(lambda: "restarting containerd" in case.log())
    case.node.reset()
    case.node.wait()
    case.node.network_up()
    case.start_agent()
    case.until_ready()
    assert "journal.json" not in case.node.run("ls", "/var/lib/katanode").stdout
