"""The cluster side as it runs in the daemon: it watches, it publishes, it outlasts whatever the API server does."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from places import Place, both, client, delete, place

from agent.cluster import names, saying
from agent.cluster.api import Api
from agent.cluster.cluster import Cluster, Identity
from agent.cluster.saying import Saying
from agent.cluster.slots import Policy, Slots
from agent.reasons import Reason
from hack.lab.apiserver import AGENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hack.apistandin import ApiStandin

__all__ = ["place"]

READY = Saying({"kata-clh": True}, "ready", "4.1.0", "True", "Ready", "Sandboxes start through kata-clh.", {})
BROKEN = Saying({"kata-clh": False}, "blocked", "4.1.0", "False", "KVMHangs", "KVM does not answer.", {})
POLICY = Policy(1, 15, 3, "digest")


class Agent:
    """The cluster side of one node's daemon."""

    def __init__(self, place: Place, **node: Any) -> None:
        self.place = place
        self.node = place.node(**node)
        self.changes = 0
        self.cluster = Cluster(place.agent(self.node), Identity(self.node, place.namespace, "pod-1"), self._changed)
        self.cluster.start()

    def _changed(self) -> None:
        self.changes += 1

    def tell(self, what: Saying) -> None:
        self.cluster.tell(what, POLICY)

    def reason(self) -> str:
        return saying.condition_of(self.place.read(self.node)).get("reason", "")

    def gate(self) -> str:
        return saying.labels_of(self.place.read(self.node)).get(names.GATE, "")

    def reasons(self) -> set[Reason]:
        return {f.reason for f in self.cluster.findings() if f.reason}

    def events(self) -> list[tuple[str, str]]:
        items = self.place.admin.get("/apis/events.k8s.io/v1/namespaces/default/events")["items"]
        mine = [e for e in items if e.get("regarding", {}).get("name") == self.node]
        mine = [e for e in mine if e.get("reportingController") == "katanode"]
        return [(e["type"], e["reason"]) for e in sorted(mine, key=lambda e: str(e["eventTime"]))]


def until(what: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(Exception):
            if what():
                return
        assert time.monotonic() < deadline, "not so in time"
        time.sleep(0.05)


@pytest.fixture
def agent(place: Place) -> Iterator[Agent]:
    made = Agent(place)
    yield made
    made.cluster.stop()


@pytest.fixture
def standin(place: Place) -> ApiStandin:
    assert place.standin is not None
    return place.standin


@both
def test_it_publishes_transitions_with_one_event_each(agent: Agent) -> None:
    agent.tell(READY)
    until(lambda: agent.reason() == "Ready")
    agent.tell(READY)
    agent.tell(BROKEN)
    until(lambda: agent.reason() == "KVMHangs")
    agent.tell(BROKEN)
    agent.tell(READY)
    until(lambda: agent.reason() == "Ready")
    until(lambda: len(agent.events()) == 3)
    assert agent.events() == [("Normal", "Ready"), ("Warning", "KVMHangs"), ("Normal", "Ready")]


@both
def test_an_agent_that_comes_back_says_again_what_holds_without_an_event(agent: Agent, place: Place) -> None:
    agent.tell(READY)
    until(lambda: agent.reason() == "Ready" and len(agent.events()) == 1)
    agent.cluster.stop()
    second = Cluster(place.agent(agent.node), Identity(agent.node, place.namespace, "pod-2"), lambda: None)
    second.start()
    second.tell(READY, POLICY)
    until(lambda: second.published_at)
    second.stop()
    assert len(agent.events()) == 1


@both
def test_the_operators_label_is_heard(agent: Agent, place: Place) -> None:
    until(lambda: agent.cluster.node_known)
    assert agent.cluster.wish == ""
    place.label(agent.node, "kubectl-label", katanode__install="disabled")
    until(lambda: agent.cluster.wish == "disabled")
    place.label(agent.node, "kubectl-label", katanode__install=None)
    until(lambda: agent.cluster.wish == "")
    assert agent.changes >= 2


@both
def test_a_label_that_somebody_changes_comes_back_by_itself_and_is_reported(agent: Agent, place: Place) -> None:
    agent.tell(READY)
    until(lambda: agent.gate() == "true")
    place.label(agent.node, "kubectl-label", katacontainers__kata_runtime="false")
    until(lambda: agent.gate() == "true")
    until(lambda: Reason.PUBLICATION_CONTESTED in agent.reasons())
    until(lambda: ("Warning", "PublicationContested") in agent.events())
    place.label(agent.node, "kubectl-label", katacontainers__kata_runtime="false")
    until(lambda: agent.reason() == "PublicationContested")
    assert agent.gate() == "false"


@both
def test_a_node_that_is_deleted_and_made_anew_is_told_again(agent: Agent, place: Place) -> None:
    agent.tell(READY)
    until(lambda: agent.gate() == "true")
    delete(place.admin, f"/api/v1/nodes/{agent.node}")
    until(lambda: Reason.NODE_OBJECT_MISSING in agent.reasons())
    place.admin.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": agent.node}})
    until(lambda: agent.gate() == "true", 30)
    until(lambda: not agent.reasons())


def test_a_startup_taint_goes_with_readiness(place: Place) -> None:
    agent = Agent(place, taints=[{"key": names.TAINT, "effect": "NoSchedule"}])
    until(lambda: agent.cluster.takes_no_pods_yet)
    agent.tell(READY)
    until(lambda: not any(t["key"] == names.TAINT for t in saying.taints_of(place.read(agent.node))))
    until(lambda: not agent.cluster.takes_no_pods_yet)
    agent.cluster.stop()


def test_what_was_true_while_the_api_server_was_away_is_published_when_it_is_back(
    agent: Agent, standin: ApiStandin
) -> None:
    agent.tell(READY)
    until(lambda: agent.reason() == "Ready")
    standin.absent()
    agent.tell(BROKEN)
    until(lambda: Reason.CLUSTER_UNREACHABLE in agent.reasons())
    assert not agent.cluster.reached
    agent.tell(replace(BROKEN, reason="KVMBusy"))
    time.sleep(1.0)
    standin.present()
    until(lambda: agent.reason() == "KVMBusy", 30)
    until(lambda: not agent.reasons())
    assert agent.cluster.reached
    assert ("Warning", "KVMHangs") not in agent.events()


FAULTS: dict[str, Callable[[ApiStandin], object]] = {
    "dropped watches": lambda api: api.drop_watches(),
    "watches too old": lambda api: (api.compact(), api.expire_watches()),
    "watches at their end": lambda api: api.finish_watches(),
    "too many requests": lambda api: api.faults.throttle(count=6, retry_after=1),
    "a storm of errors": lambda api: api.faults.storm(code=500, rate=0.6, seconds=3),
    "reset connections": lambda api: api.faults.reset(count=6),
    "lost answers": lambda api: api.faults.reset(after_write=True, count=3),
    "slow answers": lambda api: api.faults.slow(1.0, count=4),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_is_true_arrives_whatever_the_api_server_does(
    agent: Agent, standin: ApiStandin, fault: Callable[[ApiStandin], object]
) -> None:
    agent.tell(READY)
    until(lambda: agent.reason() == "Ready")
    fault(standin)
    agent.tell(BROKEN)
    until(lambda: (agent.reason(), agent.gate()) == ("KVMHangs", "false"), 40)
    standin.faults.clear()
    until(lambda: agent.place.read(agent.node)["metadata"]["labels"][names.STATE] == "blocked")
    agent.tell(READY)
    until(lambda: (agent.reason(), agent.gate()) == ("Ready", "true"), 40)
    until(lambda: not agent.reasons())


def test_a_server_that_asks_to_wait_is_not_asked_meanwhile(agent: Agent, standin: ApiStandin) -> None:
    agent.tell(READY)
    until(lambda: agent.reason() == "Ready")
    standin.journal.reset()
    standin.faults.throttle(seconds=3, retry_after=2)
    agent.tell(BROKEN)
    time.sleep(3.5)
    refused = standin.journal.requests(status=429)
    assert 1 <= refused <= 6
    until(lambda: agent.reason() == "KVMHangs")


def test_a_token_that_was_rotated_is_read_again(place: Place, standin: ApiStandin) -> None:
    node = place.node()
    tokens = ["first"]
    standin.add_token("first", "system:serviceaccount:katanode:katanode", node=node, rules=AGENT)
    api = Api(lambda: client(standin.url, tokens[-1]))
    cluster = Cluster(api, Identity(node, "katanode", "pod"), lambda: None)
    cluster.start()
    cluster.tell(READY, POLICY)
    until(lambda: cluster.published_at)
    tokens.append("second")
    standin.rotate_token("first", "second")
    cluster.tell(BROKEN, POLICY)
    until(lambda: saying.condition_of(place.read(node)).get("reason") == "KVMHangs")
    assert not cluster.findings()
    cluster.stop()


def test_an_agent_that_may_not_write_says_so(place: Place, standin: ApiStandin) -> None:
    node = place.node()
    standin.add_token("poor", "system:serviceaccount:katanode:katanode", node=node, rules=AGENT[:0])
    cluster = Cluster(Api(lambda: client(standin.url, "poor")), Identity(node, "katanode", "pod"), lambda: None)
    cluster.start()
    cluster.tell(READY, POLICY)
    until(lambda: {f.reason for f in cluster.findings()} == {Reason.CLUSTER_FORBIDDEN})
    assert "Apply the manifests" in cluster.findings()[0].remedy
    cluster.stop()


@both
def test_every_agent_hears_that_the_rollout_is_halted_and_that_it_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.cluster.cluster._HALT_INTERVAL", 0.3)
    agent = Agent(place)
    agent.tell(READY)
    for name in ("a", "b", "c"):
        slot = Slots(place.agent(name), place.namespace, name).acquire(POLICY, threading.Event(), lambda _: None)
        slot.give_back("RolledBack")
    until(lambda: agent.reasons() == {Reason.ROLLOUT_HALTED})
    assert "a (RolledBack), b (RolledBack), c (RolledBack)" in agent.cluster.findings()[0].evidence
    delete(place.admin, f"/apis/coordination.k8s.io/v1/namespaces/{place.namespace}/leases/katanode-failed-a")
    until(lambda: not agent.reasons())
    agent.cluster.stop()
