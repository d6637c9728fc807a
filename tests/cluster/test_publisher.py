"""What an agent writes on its Node, on an API server as strict as the real one, and on the real one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from places import Place, both, place

from agent.cluster import names, saying
from agent.cluster.api import ApiError
from agent.cluster.publisher import HEARTBEAT, Publisher
from agent.cluster.saying import Saying
from agent.cluster.truce import TRUCE

__all__ = ["place"]

READY = Saying({"kata-clh": True}, "ready", "4.1.0", "True", "Ready", "Sandboxes start through kata-clh.", {})
BROKEN = Saying({"kata-clh": False}, "blocked", "4.1.0", "False", "KVMHangs", "KVM does not answer.", {})
BUSY = replace(BROKEN, running={"kata-clh": 2})
STARTUP = {"key": names.TAINT, "effect": "NoSchedule"}
DEDICATED = {"key": "dedicated", "value": "kata", "effect": "NoSchedule"}
CLH = "handler.katanode.io/kata-clh"


class Clock:
    def __init__(self) -> None:
        self.now = 10_000.0

    def __call__(self) -> float:
        return self.now


class Agent:
    """A publisher for one Node, which reads the Node before each time."""

    def __init__(self, place: Place, **node: Any) -> None:
        self.place = place
        self.node = place.node(**node)
        self.clock = Clock()
        self.publisher = Publisher(place.agent(self.node), self.node, self.clock)

    def says(self, what: Saying) -> dict[str, Any]:
        self.publisher.publish(what, self.place.read(self.node))
        return self.place.read(self.node)


def ours(node: dict[str, Any]) -> dict[str, str]:
    return {key: value for key, value in saying.labels_of(node).items() if names.ours(key)}


def our_taints(node: dict[str, Any]) -> list[str]:
    return [t.get("value", "") for t in saying.taints_of(node) if t["key"] == names.TAINT]


def version(node: dict[str, Any]) -> str:
    return str(node["metadata"]["resourceVersion"])


@both
def test_everything_is_said_and_nothing_twice(place: Place) -> None:
    agent = Agent(place, taints=[DEDICATED, STARTUP])
    node = agent.says(READY)
    assert ours(node) == {names.GATE: "true", CLH: "true", names.STATE: "ready", names.VERSION: "4.1.0"}
    assert saying.condition_of(node)["reason"] == "Ready"
    assert our_taints(node) == []
    assert DEDICATED in [{k: t[k] for k in DEDICATED if k in t} for t in saying.taints_of(node)]
    before = version(place.read(agent.node))
    published = agent.publisher.publish(READY, place.read(agent.node))
    assert version(published) == before


@both
def test_the_heartbeat_is_the_only_write_of_a_steady_node(place: Place) -> None:
    agent = Agent(place)
    first = saying.condition_of(agent.says(READY))
    agent.clock.now += HEARTBEAT - 1
    before = place.read(agent.node)
    assert agent.publisher.publish(READY, before) is before
    agent.clock.now += HEARTBEAT * 0.2
    after = agent.publisher.publish(READY, before)
    assert after is not before
    assert saying.condition_of(after)["lastTransitionTime"] == first["lastTransitionTime"]


@both
def test_a_node_that_broke_under_sandboxes_keeps_its_labels_and_is_tainted_until_they_ended(place: Place) -> None:
    agent = Agent(place, taints=[DEDICATED])
    agent.says(READY)
    node = agent.says(BUSY)
    assert ours(node)[names.GATE] == ours(node)[CLH] == "true"
    assert our_taints(node) == ["withdrawn"]
    assert saying.condition_of(node)["status"] == "False"
    node = agent.says(BROKEN)
    assert ours(node)[names.GATE] == ours(node)[CLH] == "false"
    assert our_taints(node) == []
    assert any(t["key"] == "dedicated" for t in saying.taints_of(node))


@both
def test_a_startup_taint_stays_until_the_node_is_ready(place: Place) -> None:
    agent = Agent(place, taints=[STARTUP])
    assert our_taints(agent.says(BROKEN)) == [""]
    assert our_taints(agent.says(READY)) == []


@both
def test_a_handler_that_is_not_wanted_any_more_loses_its_label(place: Place) -> None:
    agent = Agent(place)
    both_handlers = replace(READY, handlers={"kata-clh": True, "kata-qemu": True})
    assert "handler.katanode.io/kata-qemu" in ours(agent.says(both_handlers))
    assert "handler.katanode.io/kata-qemu" not in ours(agent.says(READY))


@both
def test_what_others_wrote_stays(place: Place) -> None:
    agent = Agent(place, labels={"team": "a"})
    agent.says(READY)
    place.label(agent.node, "kubectl-label", example__zone="z")
    labels = saying.labels_of(agent.says(BROKEN))
    assert (labels["team"], labels["example.io/zone"]) == ("a", "z")


@both
def test_a_label_that_another_installer_left_is_taken_over(place: Place) -> None:
    agent = Agent(place, labels={names.GATE: "true"})
    assert ours(agent.says(BROKEN))[names.GATE] == "false"


@both
def test_a_label_that_somebody_changes_is_taken_back_once_and_then_the_fight_is_reported(place: Place) -> None:
    agent = Agent(place)
    agent.says(READY)
    place.label(agent.node, "kubectl-label", katacontainers__kata_runtime="false")
    assert ours(agent.says(READY))[names.GATE] == "true"
    assert [c.who for c in agent.publisher.truce.contests] == ["kubectl-label"]
    place.label(agent.node, "kubectl-label", katacontainers__kata_runtime="false")
    node = agent.says(READY)
    assert ours(node)[names.GATE] == "false"
    assert saying.condition_of(node)["reason"] == "PublicationContested"
    assert "kubectl-label" in saying.condition_of(node)["message"]
    before = version(agent.says(READY))
    assert version(agent.says(READY)) == before
    agent.clock.now += TRUCE + 1
    node = agent.says(READY)
    assert ours(node)[names.GATE] == "true"
    assert saying.condition_of(node)["reason"] == "Ready"


@both
def test_a_label_that_somebody_removes_is_given_back_once(place: Place) -> None:
    agent = Agent(place)
    agent.says(READY)
    place.label(agent.node, "kubectl-label", katanode__state=None)
    assert ours(agent.says(READY))[names.STATE] == "ready"
    place.label(agent.node, "kubectl-label", katanode__state=None)
    assert names.STATE not in ours(agent.says(READY))


@both
def test_a_label_that_somebody_insists_on_does_not_open_a_broken_node(place: Place) -> None:
    agent = Agent(place)
    agent.says(BROKEN)
    for _ in range(2):
        place.label(agent.node, "kubectl-label", katacontainers__kata_runtime="true")
        node = agent.says(BROKEN)
    assert ours(node)[names.GATE] == "true"
    assert our_taints(node) == ["withdrawn"]


@both
def test_two_agents_of_one_node_end_in_a_report_and_not_in_a_war(place: Place) -> None:
    agent = Agent(place)
    agent.says(READY)
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": agent.node, "labels": {names.GATE: "false"}}}
    writes = 0
    for _ in range(6):
        place.admin.apply(f"/api/v1/nodes/{agent.node}", body, manager="other-agent", force=True)
        before = version(place.read(agent.node))
        writes += version(agent.says(READY)) != before
    assert writes <= 3
    assert agent.publisher.truce.is_lost(names.GATE)
    assert "other-agent" in saying.condition_of(place.read(agent.node))["message"]


@both
def test_a_node_that_is_gone_is_not_made_again(place: Place) -> None:
    agent = Agent(place)
    node = place.read(agent.node)
    place.clear()
    with pytest.raises(ApiError):
        agent.publisher.publish(READY, node)
    with pytest.raises(ApiError) as caught:
        place.read(agent.node)
    assert caught.value.status == 404


@both
def test_a_node_that_was_made_anew_is_not_taken_for_the_old_one(place: Place) -> None:
    agent = Agent(place)
    node = place.read(agent.node)
    node["metadata"]["uid"] = "11111111-1111-1111-1111-111111111111"
    with pytest.raises(ApiError) as caught:
        agent.publisher.publish(READY, node)
    assert caught.value.status in {409, 422}
    assert ours(place.read(agent.node)) == {}


@both
def test_taints_that_changed_meanwhile_are_not_written_over(place: Place) -> None:
    agent = Agent(place, taints=[STARTUP])
    old = place.read(agent.node)
    place.admin.json_patch(
        f"/api/v1/nodes/{agent.node}",
        [{"op": "add", "path": "/spec/taints/-", "value": DEDICATED}],
        manager="kubectl-taint",
    )
    taints = saying.taints(READY, old, ())
    with pytest.raises(ApiError) as caught:
        agent.publisher._taint(READY, old, ())
    assert (caught.value.status, taints is not None) == (422, True)
    node = agent.says(READY)
    assert our_taints(node) == []
    assert any(t["key"] == "dedicated" for t in saying.taints_of(node))


@both
def test_what_katanode_owns_is_exactly_its_labels_and_its_condition(place: Place) -> None:
    agent = Agent(place)
    node = agent.says(READY)
    owned = [
        m
        for m in node["metadata"]["managedFields"]
        if m["manager"] == names.FIELD_MANAGER and m["operation"] == "Apply"
    ]
    fields = {m.get("subresource", ""): m["fieldsV1"] for m in owned}
    assert set(fields[""]) == {"f:metadata"}
    assert set(fields[""]["f:metadata"]) == {"f:labels"}
    assert set(fields[""]["f:metadata"]["f:labels"]) == {f"f:{key}" for key in ours(node)}
    assert set(fields["status"]) == {"f:status"}
    assert set(fields["status"]["f:status"]["f:conditions"]) == {'k:{"type":"KataReady"}'}
