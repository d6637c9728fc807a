"""`katanode run` with a cluster behind it: the Node says what is true, and the cluster's turns and wishes count."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from daemon import AGENT, FAST, NODE, SETTINGS, api_server, hide_kvm, running, show_kvm

from agent.cluster import names, saying

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Machine

    from hack.apistandin import ApiStandin

pytestmark = pytest.mark.runtime

STARTUP = {"key": names.TAINT, "effect": "NoSchedule"}


@pytest.fixture
def machine(start_machine: Callable[..., Machine]) -> Machine:
    made = start_machine("2.1")
    made.settings(more=FAST)
    return made


def found(api: ApiStandin, plural: str, name: str, namespace: str = "") -> dict[str, Any]:
    made = api.get(plural, name, namespace)
    assert made is not None, f"there is no {name}"
    return made


def reason(api: ApiStandin) -> str:
    return saying.condition_of(found(api, "nodes", NODE)).get("reason", "")


def holder(api: ApiStandin) -> str:
    return str(found(api, "leases", "katanode-restart-0", "katanode")["spec"].get("holderIdentity") or "")


def label(api: ApiStandin, key: str) -> str | None:
    return saying.labels_of(found(api, "nodes", NODE)).get(key)


def taints(api: ApiStandin) -> list[str]:
    return [t.get("value", "") for t in saying.taints_of(found(api, "nodes", NODE)) if t["key"] == names.TAINT]


def wish(api: ApiStandin, value: str | None) -> None:
    node = found(api, "nodes", NODE)
    labels = saying.labels_of(node)
    labels.pop(names.INSTALL, None)
    labels |= {names.INSTALL: value} if value else {}
    api.put("nodes", {**node, "metadata": {**node["metadata"], "labels": labels}})


def test_a_new_node_becomes_ready_loses_its_startup_taint_and_needs_no_turn(machine: Machine) -> None:
    with api_server(machine, STARTUP) as (api, env), running(machine, env) as daemon:
        daemon.until(lambda: label(api, names.GATE) == "true")
        daemon.until(lambda: not taints(api))
        assert label(api, "handler.katanode.io/kata-clh") == "true"
        assert label(api, names.VERSION) == "3.2.0"
        assert saying.condition_of(found(api, "nodes", NODE))["status"] == "True"
        assert daemon.fetch("/readyz")[0] == 200
        assert daemon.metric("api_reachable") == 1
        assert api.list("leases", "katanode") == []
        daemon.until(lambda: {e["reason"] for e in api.list("events", "default")} & {"Ready", "Degraded"})


def test_the_runtime_is_restarted_only_in_this_nodes_turn(machine: Machine) -> None:
    with api_server(machine) as (api, env):
        api.add_node("node-2")
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
        held = {"holderIdentity": "node-2", "leaseDurationSeconds": 3000, "renewTime": now, "acquireTime": now}
        api.create("leases", {"metadata": {"name": "katanode-restart-0"}, "spec": held}, "katanode")
        with running(machine, env) as daemon:
            daemon.until(lambda: "node-2" in daemon.fetch("/")[1] and "restart slot" in daemon.fetch("/")[1])
            starts = machine.starts
            assert daemon.fetch("/healthz")[0] == 200
            time.sleep(3)
            assert machine.starts == starts
            lease = found(api, "leases", "katanode-restart-0", "katanode")
            api.put("leases", {**lease, "spec": {**held, "holderIdentity": ""}})
            daemon.until_ready()
            assert machine.starts == starts + 1
            daemon.until(lambda: not holder(api))
            assert daemon.metric("restart_slot_wait_seconds_count") == 1


def test_a_node_that_breaks_under_a_sandbox_is_tainted_and_the_sandbox_lives(machine: Machine) -> None:
    with api_server(machine) as (api, env), running(machine, env) as daemon:
        daemon.until(lambda: label(api, names.GATE) == "true")
        pod = machine.run_pod("kata-clh")
        hide_kvm(machine)
        daemon.until(lambda: taints(api) == ["withdrawn"])
        daemon.until(lambda: saying.condition_of(found(api, "nodes", NODE))["status"] == "False")
        assert label(api, names.GATE) == "true"
        assert machine.shim_of(pod)
        machine.remove_pod(pod)
        daemon.until(lambda: label(api, names.GATE) == "false")
        daemon.until(lambda: not taints(api))
        show_kvm(machine)
        daemon.until(lambda: label(api, names.GATE) == "true")


def test_wrong_settings_are_named_in_the_condition_and_the_node_stays_as_it_is(machine: Machine) -> None:
    with api_server(machine) as (api, env), running(machine, env) as daemon:
        daemon.until(lambda: label(api, names.GATE) == "true")
        good, starts = machine.path(SETTINGS).read_text(), machine.starts
        machine.write_settings(good.replace("[kata]", "[kata]\nverson = 1", 1))
        daemon.until(lambda: reason(api) == "SettingsInvalid")
        condition = saying.condition_of(found(api, "nodes", NODE))
        assert (condition["status"], "kata.verson" in condition["message"]) == ("True", True)
        assert label(api, names.GATE) == "true"
        assert machine.starts == starts
        machine.write_settings(good)
        daemon.until(lambda: reason(api) in {"Ready", "Degraded"})


def test_a_node_label_takes_kata_off_once_no_sandbox_runs_and_brings_it_back(machine: Machine) -> None:
    with api_server(machine) as (api, env), running(machine, env) as daemon:
        daemon.until(lambda: label(api, names.GATE) == "true")
        pod = machine.run_pod("kata-clh")
        wish(api, "absent")
        daemon.until(lambda: reason(api) == "SandboxesRunning")
        daemon.until(lambda: taints(api) == ["withdrawn"])
        assert machine.releases()
        machine.remove_pod(pod)
        daemon.until(lambda: label(api, names.STATE) == "absent", 90)
        assert (label(api, names.GATE), taints(api), machine.releases()) == ("false", [], [])
        wish(api, None)
        daemon.until(lambda: label(api, names.GATE) == "true")


def test_a_disabled_node_is_left_alone_also_by_an_agent_that_does_not_reach_the_api_server(machine: Machine) -> None:
    with api_server(machine) as (api, env):
        wish(api, "disabled")
        plain = machine.config
        with running(machine, env) as daemon:
            daemon.until(lambda: reason(api) == "InstallDisabled")
        api.absent()
        with running(machine, env) as daemon:
            time.sleep(20)
            assert not machine.releases()
            assert machine.config == plain
            api.present()
            wish(api, None)
            daemon.until(lambda: label(api, names.GATE) == "true", 120)


def test_the_node_is_kept_right_while_the_api_server_is_away_and_says_so_afterwards(machine: Machine) -> None:
    with api_server(machine) as (api, env), running(machine, env) as daemon:
        daemon.until(lambda: label(api, names.GATE) == "true")
        api.absent()
        machine.lab.run(["rm", "/etc/sysctl.d/99-katanode.conf"])
        daemon.until(lambda: daemon.metric("drift_repairs_total", kind="boot-files") == 1)
        assert machine.path("/etc/sysctl.d/99-katanode.conf").exists()
        hide_kvm(machine)
        daemon.until(lambda: daemon.metric("handler_ready", handler="kata-clh") == 0)
        assert daemon.fetch("/readyz")[0] == 503
        assert daemon.fetch("/healthz")[0] == 200
        api.present()
        daemon.until(lambda: label(api, names.GATE) == "false", 90)


def test_an_agent_with_a_wrong_token_works_on_and_says_what_is_wrong(machine: Machine) -> None:
    with api_server(machine) as (api, env), running(machine, env) as daemon:
        daemon.until(lambda: label(api, names.GATE) == "true")
        api.rotate_token("agent", "other")
        api.drop_watches()
        daemon.until(lambda: "ClusterForbidden" in daemon.fetch("/")[1])
        assert daemon.metric("handler_ready", handler="kata-clh") == 1
        api.add_token("agent", "system:serviceaccount:katanode:katanode", node=NODE, rules=AGENT)
        daemon.until(lambda: "ClusterForbidden" not in daemon.fetch("/")[1], 120)
