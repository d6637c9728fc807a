"""What the cluster is told: which label, which taint, which condition, for every state of node and cluster."""

from typing import Any

import pytest

from agent.cluster import names, saying
from agent.cluster.saying import Saying

READY = Saying({"kata-clh": True}, "ready", "4.1.0", "True", "Ready", "Sandboxes start.", {})
BROKEN = Saying({"kata-clh": False}, "blocked", "4.1.0", "False", "KVMHangs", "KVM does not answer.", {})
CLH = "handler.katanode.io/kata-clh"
STARTUP = {"key": names.TAINT, "effect": "NoSchedule"}
WITHDRAWN = {"key": names.TAINT, "value": "withdrawn", "effect": "NoSchedule"}
FOREIGN = {"key": "dedicated", "value": "kata", "effect": "NoSchedule"}


def node(labels: dict[str, str] | None = None, taints: list[dict[str, str]] | None = None) -> dict[str, Any]:
    return {
        "metadata": {"name": "n", "uid": "u", "labels": labels or {}},
        "spec": {"taints": taints} if taints else {},
        "status": {},
    }


def running(what: Saying, sandboxes: dict[str, int] | None) -> Saying:
    return Saying(what.handlers, what.state, what.version, what.status, what.reason, what.message, sandboxes)


def test_a_ready_node_says_so_in_every_label() -> None:
    assert saying.labels(READY, node()).wanted == {
        names.GATE: "true",
        CLH: "true",
        names.STATE: "ready",
        names.VERSION: "4.1.0",
    }


def test_a_node_without_a_release_says_no_version() -> None:
    assert names.VERSION not in saying.labels(Saying({}, "absent", "", "False", "NotInstalled", "", {}), node()).wanted


def test_readiness_is_withdrawn_by_label_when_no_sandbox_runs() -> None:
    made = saying.labels(BROKEN, node({names.GATE: "true", CLH: "true"}))
    assert (made.wanted[names.GATE], made.wanted[CLH], made.kept) == ("false", "false", ())


@pytest.mark.parametrize("sandboxes", [{"kata-clh": 1}, None], ids=["one runs", "nobody knows"])
def test_a_label_is_never_withdrawn_from_under_a_sandbox(sandboxes: dict[str, int] | None) -> None:
    made = saying.labels(running(BROKEN, sandboxes), node({names.GATE: "true", CLH: "true"}))
    assert (made.wanted[names.GATE], made.wanted[CLH]) == ("true", "true")
    assert set(made.kept) == {names.GATE, CLH}


def test_a_label_that_was_not_there_is_not_given_because_something_runs() -> None:
    made = saying.labels(running(BROKEN, None), node())
    assert (made.wanted[names.GATE], made.wanted[CLH], made.kept) == ("false", "false", ())


def test_only_the_handler_whose_sandboxes_run_keeps_its_label() -> None:
    both = Saying(
        {"kata-clh": False, "kata-qemu": False}, "blocked", "4.1.0", "False", "KVMHangs", "", {"kata-qemu": 2}
    )
    qemu = "handler.katanode.io/kata-qemu"
    made = saying.labels(both, node({names.GATE: "true", CLH: "true", qemu: "true"}))
    assert (made.wanted[CLH], made.wanted[qemu], made.wanted[names.GATE]) == ("false", "true", "true")


def test_a_handler_that_is_not_wanted_any_more_loses_its_label_once_nothing_of_it_runs() -> None:
    old = "handler.katanode.io/kata-fc"
    assert old not in saying.labels(READY, node({old: "true"})).wanted
    assert saying.labels(running(READY, {"kata-fc": 1}), node({old: "true"})).wanted[old] == "true"


def test_a_startup_taint_goes_only_when_the_node_is_ready() -> None:
    assert saying.taints(READY, node(taints=[FOREIGN, STARTUP]), ()) == [FOREIGN]
    assert saying.taints(BROKEN, node(taints=[FOREIGN, STARTUP]), ()) is None


def test_the_taint_speaks_while_a_label_says_more_than_is_true() -> None:
    assert saying.taints(BROKEN, node(taints=[FOREIGN]), (CLH,)) == [FOREIGN, WITHDRAWN]
    assert saying.taints(BROKEN, node(taints=[WITHDRAWN]), (CLH,)) is None


def test_the_taint_of_a_withdrawal_goes_with_its_end_even_if_the_node_stays_broken() -> None:
    assert saying.taints(BROKEN, node(taints=[FOREIGN, WITHDRAWN]), ()) == [FOREIGN]


def test_a_taint_of_our_key_with_another_effect_is_not_ours() -> None:
    other = {"key": names.TAINT, "effect": "NoExecute"}
    assert saying.taints(READY, node(taints=[other]), ()) is None


def test_the_time_of_transition_is_that_of_the_status_and_not_of_the_words() -> None:
    there = saying.condition(READY, node(), "2026-01-01T00:00:00Z")
    known = node() | {"status": {"conditions": [there]}}
    other = Saying(READY.handlers, "ready", "4.1.0", "True", "Degraded", "Other words.", {})
    later = saying.condition(other, known, "2026-01-02T00:00:00Z")
    assert (later["lastTransitionTime"], later["lastHeartbeatTime"]) == ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    assert saying.condition(BROKEN, known, "2026-01-03T00:00:00Z")["lastTransitionTime"] == "2026-01-03T00:00:00Z"


@pytest.mark.parametrize(("value", "wish"), [("disabled", "disabled"), ("absent", "absent"), ("yes", ""), ("", "")])
def test_the_operators_wish_is_one_of_two_words(value: str, wish: str) -> None:
    assert saying.wish(node({names.INSTALL: value})) == wish


def test_a_new_node_is_one_that_a_startup_taint_keeps_free() -> None:
    assert saying.takes_no_pods_yet(node(taints=[STARTUP]))
    assert not saying.takes_no_pods_yet(node())
    assert not saying.takes_no_pods_yet(node(taints=[WITHDRAWN]))
    assert not saying.takes_no_pods_yet(node({names.GATE: "true"}, [STARTUP]))
