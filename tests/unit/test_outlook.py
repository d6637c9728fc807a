"""Health, as the kubelet's probes see it: what is stuck is told from what waits."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.report import Report, State
from agent.service.messages import Result
from agent.service.metrics import Metrics
from agent.service.outlook import SILENCE, STANDSTILL, Outlook

NOTHING = SimpleNamespace(waiting=None)


def outlook(turn: object = NOTHING, cluster: object = None) -> Outlook:
    return Outlook("node-1", cast("Any", cluster), Metrics(), cast("Any", turn))


def run(heard: float, step: str = "canary kata-clh") -> Any:
    return SimpleNamespace(heard=time.monotonic() - heard, step=step, began=time.time() - heard)


def test_a_daemon_between_two_looks_is_well() -> None:
    assert outlook().healthy() == (200, "ok")


def test_a_loop_that_stands_still_is_seen() -> None:
    made = outlook()
    made.ticked -= STANDSTILL + 5
    status, words = made.healthy()
    assert (status, "the loop has not turned for" in words) == (503, True)


@pytest.mark.parametrize(("silent", "status"), [(SILENCE - 30, 200), (SILENCE + 30, 503)])
def test_a_worker_that_says_nothing_is_stuck_after_a_while(silent: float, status: int) -> None:
    made = outlook()
    made.run = run(silent)
    assert made.healthy()[0] == status
    if status != 200:
        assert "its last step: canary kata-clh" in made.healthy()[1]


def test_a_worker_that_waits_for_its_turn_is_not_stuck() -> None:
    waiting = SimpleNamespace(at=time.monotonic(), waiting=None)
    made = outlook(SimpleNamespace(waiting=waiting))
    made.run = run(SILENCE * 10)
    assert made.healthy()[0] == 200


def test_ready_means_that_there_is_something_to_say_and_somebody_to_say_it_to() -> None:
    made = outlook()
    assert made.ready()[0] == 503
    made.result = Result(Report((), (), State.ABSENT).as_json())
    assert made.ready() == (200, "ok")
    away = outlook(cluster=SimpleNamespace(reached=False))
    away.result = made.result
    assert away.ready()[0] == 503
