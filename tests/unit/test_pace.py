"""When the daemon looks again: after failures more and more slowly, after changes soon but not all the time."""

import itertools

import pytest

from agent.service.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_first_look_is_at_once(clock: Clock) -> None:
    assert Pace(clock).due == clock.now


def test_a_good_look_is_followed_by_one_at_the_interval_with_jitter(clock: Clock) -> None:
    waits = set()
    for _ in range(200):
        pace = Pace(clock)
        pace.ended(300, "")
        waits.add(pace.due - clock.now)
    assert 270 <= min(waits) < max(waits) <= 330
    assert len(waits) > 100


def test_a_reason_that_repeats_is_waited_for_longer_each_time(clock: Clock) -> None:
    pace = Pace(clock)
    waits = []
    for _ in range(12):
        pace.ended(300, "ReleaseUnreachable")
        waits.append(pace.due - clock.now)
    assert waits[0] <= 15 * 1.1
    assert all(b > a for a, b in itertools.pairwise(waits[:7]))
    assert 1800 * 0.9 <= waits[-1] <= 1800 * 1.1


def test_another_reason_begins_anew(clock: Clock) -> None:
    pace = Pace(clock)
    for _ in range(6):
        pace.ended(300, "ReleaseUnreachable")
    pace.ended(300, "RuntimeNotFound")
    assert pace.due - clock.now <= 15 * 1.1


def test_what_ends_by_itself_is_not_waited_for_long(clock: Clock) -> None:
    pace = Pace(clock)
    for _ in range(10):
        pace.ended(300, "SandboxesRunning")
    assert pace.due - clock.now <= 60 * 1.1


def test_a_change_is_looked_at_soon(clock: Clock) -> None:
    pace = Pace(clock)
    pace.ended(300, "")
    clock.now += 100
    pace.touch()
    assert pace.due == clock.now


def test_changes_without_end_do_not_make_looks_without_end(clock: Clock) -> None:
    pace = Pace(clock)
    looks = 0
    end = clock.now + 3600
    while clock.now < end:
        pace.touch()
        if clock.now >= pace.due:
            looks += 1
            pace.ended(300, "")
        clock.now += 1
    assert 30 < looks < 90


def test_a_change_after_failures_is_somebodys_remedy_and_tried_soon(clock: Clock) -> None:
    pace = Pace(clock)
    for _ in range(8):
        pace.ended(300, "KVMDeviceMissing")
    clock.now += 5
    pace.touch()
    assert pace.due - clock.now <= 2


def test_what_somebody_wants_is_looked_at_at_once_however_much_changed_before(clock: Clock) -> None:
    pace = Pace(clock)
    for _ in range(10):
        pace.ended(300, "")
        pace.touch()
    pace.wanted()
    assert pace.due == clock.now
