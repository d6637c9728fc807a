"""When the handlers are proved again: at the interval, soon after a doubt, and never in a circle."""

from __future__ import annotations

import pytest

from agent.service.pace import CONFIRM, Renewal

HOUR = 3600


class Clocks:
    """A monotonic clock and a wall clock that go together until somebody sets the latter."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall = 1_700_000_000.0

    def go(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def renewal(clocks: Clocks) -> Renewal:
    return Renewal(lambda: clocks.now, lambda: clocks.wall)


def wait(renewal: Renewal, clocks: Clocks) -> float:
    return renewal.due - clocks.now


def test_nothing_is_renewed_before_anything_is_proved(renewal: Renewal, clocks: Clocks) -> None:
    assert not renewal.is_due
    renewal.follow(HOUR, {}, {})
    clocks.go(100 * HOUR)
    assert not renewal.is_due


def test_the_oldest_proof_is_renewed_after_the_interval_with_a_tenth_of_jitter(clocks: Clocks) -> None:
    waits = []
    for _ in range(300):
        renewal = Renewal(lambda: clocks.now, lambda: clocks.wall)
        renewal.follow(HOUR, {"kata-clh": clocks.wall - 600, "kata-qemu": clocks.wall}, {})
        waits.append(wait(renewal, clocks) + 600)
    assert 0.9 * HOUR <= min(waits) < 0.93 * HOUR
    assert 1.07 * HOUR < max(waits) <= 1.1 * HOUR
    assert len(set(waits)) > 200


def test_looks_that_change_nothing_draw_no_new_jitter(renewal: Renewal, clocks: Clocks) -> None:
    proved = {"kata-clh": clocks.wall}
    renewal.follow(HOUR, proved, {})
    due = renewal.due
    for _ in range(12):
        clocks.go(300)
        renewal.follow(HOUR, proved, {})
    assert renewal.due == due, "else the shortest of many draws would win"


def test_an_agent_that_is_restarted_keeps_to_the_proofs_own_time(clocks: Clocks) -> None:
    proved = {"kata-clh": clocks.wall}
    clocks.go(HOUR / 2)
    after = Renewal(lambda: clocks.now, lambda: clocks.wall)
    after.follow(HOUR, proved, {})
    assert 0.4 * HOUR - 1 <= wait(after, clocks) <= 0.6 * HOUR + 1


def test_a_proof_that_is_overdue_is_renewed_with_the_next_look(renewal: Renewal, clocks: Clocks) -> None:
    renewal.follow(HOUR, {"kata-clh": clocks.wall - 5 * HOUR}, {})
    assert renewal.is_due


def test_zero_renews_nothing_but_settles_doubts(renewal: Renewal, clocks: Clocks) -> None:
    renewal.follow(0, {"kata-clh": clocks.wall - 50 * HOUR}, {})
    assert not renewal.is_due
    renewal.follow(0, {"kata-clh": clocks.wall - 50 * HOUR}, {"kata-clh": clocks.wall})
    assert wait(renewal, clocks) == pytest.approx(CONFIRM)


def test_a_doubt_is_settled_soon_and_not_at_once(renewal: Renewal, clocks: Clocks) -> None:
    renewal.follow(HOUR, {"kata-clh": clocks.wall - HOUR}, {"kata-clh": clocks.wall})
    renewal.due = float("inf")  # what the proof's own age asks for is not looked at here
    renewal.follow(HOUR, {"kata-clh": clocks.wall}, {"kata-clh": clocks.wall - 10})
    assert wait(renewal, clocks) == pytest.approx(CONFIRM - 10)


def test_the_interval_may_be_shorter_than_the_patience_with_a_doubt(renewal: Renewal, clocks: Clocks) -> None:
    renewal.follow(12, {"kata-clh": clocks.wall}, {"kata-clh": clocks.wall})
    assert wait(renewal, clocks) <= 12


def test_a_look_that_could_not_renew_does_not_make_looks_without_end(renewal: Renewal, clocks: Clocks) -> None:
    proved = {"kata-clh": clocks.wall - 2 * HOUR}
    renewal.follow(HOUR, proved, {})
    looks = 0
    for _ in range(2 * HOUR):
        if renewal.is_due:
            looks += 1
            renewal.begun(HOUR)
            renewal.follow(HOUR, proved, {})
        clocks.go(1)
    assert 15 <= looks <= 21


def test_a_renewed_proof_begins_the_interval_anew(renewal: Renewal, clocks: Clocks) -> None:
    renewal.follow(HOUR, {"kata-clh": clocks.wall - 2 * HOUR}, {})
    renewal.begun(HOUR)
    renewal.follow(HOUR, {"kata-clh": clocks.wall}, {})
    assert 0.9 * HOUR <= wait(renewal, clocks) <= 1.1 * HOUR


def test_another_interval_counts_at_once(renewal: Renewal, clocks: Clocks) -> None:
    proved = {"kata-clh": clocks.wall - 600}
    renewal.follow(HOUR, proved, {})
    assert not renewal.is_due
    renewal.follow(60, proved, {})
    assert renewal.is_due


def test_a_wall_clock_that_jumps_neither_hurries_nor_stops_it(renewal: Renewal, clocks: Clocks) -> None:
    ahead = {"kata-clh": clocks.wall + 1000 * HOUR}
    renewal.follow(HOUR, ahead, {})
    assert wait(renewal, clocks) <= 1.1 * HOUR
