"""A whole life on a real machine: kernel modules, systemd, a reboot, and the runtime restarted by one of its pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hack.lab.packages import GENERATIONS

if TYPE_CHECKING:
    from nodes import Case

pytestmark = pytest.mark.node

every_generation = pytest.mark.parametrize("booted", GENERATIONS, indirect=True)
BOTH = {"kata-clh": "true", "kata-qemu": "true"}
OF_THIS_CPU = {"kvm", "kvm_amd", "vhost_net", "vhost_vsock"}
SYSCTL = "/proc/sys/fs/inotify/max_user_instances"


@every_generation
def test_a_plain_node_becomes_ready_is_kept_ready_and_goes_back_to_plain(case: Case) -> None:
    assert not case.modules() & OF_THIS_CPU
    plain, sysctl = case.tree(), case.file(SYSCTL)
    bystander = case.pods.sandbox("bystander")
    before = case.processes(bystander)
    assert before

    case.start_agent()
    case.until_ready()
    assert case.handlers() == BOTH
    assert case.modules() >= OF_THIS_CPU, "loaded"
    persisted = set(case.file("/etc/modules-load.d/katanode.conf").split()) & (OF_THIS_CPU | {"kvm_intel"})
    assert persisted >= OF_THIS_CPU - {"kvm"}, "and loaded again at every boot"
    assert "kvm_intel" not in persisted, "this CPU's alone"
    assert int(case.file(SYSCTL)) >= 8192
    assert "fs.inotify.max_user_instances" in case.file("/etc/sysctl.d/99-katanode.conf")

    pod = case.pods.sandbox("guest", "kata-clh")
    (hypervisor,) = [program for _, holds, program in case.processes(pod).values() if holds]
    assert hypervisor.endswith("/cloud-hypervisor"), "the pod's VM is Cloud Hypervisor's"

    made, restarts = case.tree(), case.restarts()
    case.stop_agent()
    case.start_agent()
    case.until(lambda: case.log().count('"serving"') == 2)
    assert "nothing to do" in case.katanode("plan").lower()
    assert (case.tree(), case.restarts()) == (made, restarts), "a second agent changes nothing"
    assert case.labels["katanode.io/state"] == "ready"

    case.pods.remove(pod)
    case.label("katanode.io/install", "absent")
    case.until(lambda: case.labels.get("katanode.io/state") == "absent")
    case.stop_agent()
    now = {line for line in case.tree() if "/var/lib/katanode" not in line}
    assert now ^ set(plain) == set(), "nothing is left behind, and nothing is missing"
    assert case.file(SYSCTL) == sysctl
    assert case.processes(bystander) == before, "a container ran through all of it"
    assert case.pods.running(bystander)


@every_generation
def test_a_node_that_reboots_is_ready_before_any_agent_has_run(case: Case) -> None:
    case.start_agent()
    case.until_ready()
    case.stop_agent()
    case.node.reboot()
    assert case.modules() >= OF_THIS_CPU
    assert int(case.file(SYSCTL)) >= 8192
    pods = [case.pods.sandbox(f"after-{handler}", handler) for handler in BOTH]
    for pod in pods:
        assert any(holds for _, holds, _ in case.processes(pod).values()), "a VM is held"
