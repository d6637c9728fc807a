"""Restart slots: never too many at once, none lost for long, none given after too many nodes failed."""

from __future__ import annotations

import datetime as dt
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from places import Place, both, delete, place

from agent.cluster import leases
from agent.cluster.api import ApiError
from agent.cluster.slots import Cancelled, Policy, Slot, Slots, Waiting
from agent.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from hack.apistandin import ApiStandin

__all__ = ["place"]

POLICY = Policy(slots=1, lease_seconds=15, failed_nodes_limit=2, settings="digest-1")


def slots(place: Place, node: str) -> Slots:
    return Slots(place.agent(node), place.namespace, node)


class Waiter:
    """A node that waits for a slot in a thread of its own."""

    def __init__(self, place: Place, node: str, policy: Policy = POLICY) -> None:
        self.told: list[Waiting] = []
        self.slot: Slot | None = None
        self.cancelled = threading.Event()
        self.took = 0.0
        self._slots = slots(place, node)
        self._policy = policy
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        begin = time.monotonic()
        try:
            self.slot = self._slots.acquire(self._policy, self.cancelled, self.told.append)
        except Cancelled:
            return
        self.took = time.monotonic() - begin

    def ends(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def until_told(self, seconds: float = 10) -> Waiting:
        deadline = time.monotonic() + seconds
        while not self.told:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self.told[-1]


def take(place: Place, node: str, policy: Policy = POLICY) -> Slot:
    waiter = Waiter(place, node, policy)
    assert waiter.ends(10), waiter.told
    assert waiter.slot is not None
    return waiter.slot


def holders(place: Place) -> list[str]:
    items = place.admin.get(f"/apis/coordination.k8s.io/v1/namespaces/{place.namespace}/leases")["items"]
    return [leases.holder(item) for item in items if item["metadata"]["name"].startswith("katanode-restart-")]


@both
def test_one_waits_until_the_other_is_done_and_not_much_longer(place: Place) -> None:
    took = []
    held = take(place, "n0")
    for number in range(1, 4):
        waiter = Waiter(place, f"n{number}")
        assert waiter.until_told().reason is Reason.WAITING_FOR_SLOT
        assert f"n{number - 1}" in waiter.told[0].message
        time.sleep(0.5)
        assert waiter.slot is None
        begin = time.monotonic()
        held.give_back("")
        assert waiter.ends(15)
        took.append(time.monotonic() - begin)
        assert holders(place) == [f"n{number}"]
        assert waiter.slot is not None
        held = waiter.slot
    assert sorted(took)[1] < 2.0, took  # the median: a busy machine may hold up one


@both
def test_so_many_at_once_as_there_are_slots(place: Place) -> None:
    three = replace(POLICY, slots=3)
    held = [take(place, node, three) for node in ("a", "b", "c")]
    fourth = Waiter(place, "d", three)
    assert fourth.until_told().reason is Reason.WAITING_FOR_SLOT
    held[1].give_back("")
    assert fourth.ends(5)
    assert sorted(holders(place)) == ["a", "c", "d"]


@both
def test_an_agent_that_was_killed_with_its_slot_has_it_again_at_once(place: Place) -> None:
    slot = take(place, "a")
    slot._done.set()  # as if its process were gone: nobody renews
    again = Waiter(place, "a")
    assert again.ends(3)
    assert again.took < 1.0


@pytest.mark.parametrize("skew", [0.0, -7200.0, 7200.0], ids=["right clock", "two hours behind", "two hours ahead"])
def test_a_holder_that_vanished_delays_the_rest_by_at_most_the_lease(
    place: Place, skew: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(POLICY, lease_seconds=3)
    real = leases.timestamp
    monkeypatch.setattr(leases, "timestamp", lambda: _skewed(real(), skew))
    place.admin.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}})
    slot = take(place, "a", short)
    slot._done.set()
    waiter = Waiter(place, "b", short)
    assert waiter.ends(8)
    assert 2.5 <= waiter.took <= 3.0 + 1.5


def _skewed(stamp: str, seconds: float) -> str:
    moment = dt.datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_a_holder_whose_node_is_gone_does_not_keep_its_slot_for_the_whole_lease(place: Place) -> None:
    long = replace(POLICY, lease_seconds=8)
    slot = take(place, "no-such-node", long)
    slot._done.set()
    waiter = Waiter(place, "b", long)
    assert waiter.ends(8)
    assert waiter.took < 7.0


@both
def test_a_holder_that_renews_keeps_its_slot_beyond_the_lease(place: Place) -> None:
    short = replace(POLICY, lease_seconds=2)
    slot = take(place, "a", short)
    waiter = Waiter(place, "b", short)
    time.sleep(5)
    assert waiter.slot is None
    slot.give_back("")
    assert waiter.ends(5)


@both
def test_after_too_many_failed_nodes_nobody_restarts_until_somebody_looked(place: Place) -> None:
    take(place, "a").give_back("RolledBack")
    take(place, "b").give_back("CanaryFailed")
    waiter = Waiter(place, "c")
    told = waiter.until_told()
    assert told.reason is Reason.ROLLOUT_HALTED
    assert "a (RolledBack)" in told.message
    assert "b (CanaryFailed)" in told.message
    assert [f.node for f in slots(place, "d").halted(POLICY)] == ["a", "b"]
    assert holders(place) == [""]
    delete(place.admin, f"/apis/coordination.k8s.io/v1/namespaces/{place.namespace}/leases/katanode-failed-a")
    assert waiter.ends(5)


@both
def test_failures_of_other_settings_do_not_count(place: Place) -> None:
    take(place, "a").give_back("RolledBack")
    take(place, "b").give_back("RolledBack")
    mended = replace(POLICY, settings="digest-2")
    take(place, "c", mended).give_back("")


@both
def test_a_node_that_succeeds_takes_its_failure_back(place: Place) -> None:
    take(place, "a").give_back("RolledBack")
    take(place, "a").give_back("")
    assert slots(place, "b").halted(replace(POLICY, failed_nodes_limit=1)) == ()


def test_a_slot_that_is_not_wanted_any_more_is_not_taken(place: Place) -> None:
    first = take(place, "a")
    waiter = Waiter(place, "b")
    waiter.until_told()
    waiter.cancelled.set()
    first.give_back("")
    assert waiter.ends(5)
    assert waiter.slot is None
    assert holders(place) == [""]


def test_who_waits_outlasts_the_api_servers_absence(place: Place) -> None:
    assert place.standin is not None
    first = take(place, "a")
    waiter = Waiter(place, "b")
    waiter.until_told()
    place.standin.absent()
    time.sleep(2)
    assert waiter.slot is None
    place.standin.present()
    first.give_back("")
    assert waiter.ends(20)


FAULTS: dict[str, Callable[[ApiStandin], object]] = {
    "dropped watches": lambda api: api.drop_watches(),
    "watches too old": lambda api: (api.compact(), api.expire_watches()),
    "watches at their end": lambda api: api.finish_watches(),
    "silent watches": lambda api: api.faults.stall(seconds=2),
    "too many requests": lambda api: api.faults.throttle(count=5, retry_after=1),
    "a storm of errors": lambda api: api.faults.storm(code=503, rate=0.5, seconds=3),
    "reset connections": lambda api: api.faults.reset(count=4),
    "lost answers": lambda api: api.faults.reset(after_write=True, count=2),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_slot_is_had_in_the_end_whatever_the_api_server_does(
    place: Place, fault: Callable[[ApiStandin], object]
) -> None:
    assert place.standin is not None
    first = take(place, "a")
    waiter = Waiter(place, "b")
    waiter.until_told()
    fault(place.standin)
    for _ in range(20):  # as the daemon does in the background
        try:
            first.give_back("")
        except ApiError:
            time.sleep(0.5)
        else:
            break
    assert waiter.ends(30)
    place.standin.faults.clear()
    assert holders(place) == ["b"]
