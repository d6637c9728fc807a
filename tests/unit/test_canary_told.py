"""What a look says of its canaries on the way from the worker to the metrics, and when the daemon asks for one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import generate_latest

from agent.host.root import HostRoot
from agent.service import service as module
from agent.service.messages import Result, Task, Try, line, parsed
from agent.service.metrics import Metrics
from agent.service.service import Service
from agent.service.worker import _proved
from agent.settings import Canary, Serve, Settings
from agent.state import State

if TYPE_CHECKING:
    from pathlib import Path

CLH, QEMU = "kata-clh", "kata-qemu"
NOW = time.time()


def result(**more: Any) -> Result:
    handlers = [{"name": name, "ready": name == CLH, "reasons": []} for name in (CLH, QEMU)]
    report = {"state": "degraded", "kata_version": "4.1.0", "note": "", "handlers": handlers, "findings": []}
    return Result(report, full=True, **more)


def text(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_canaries_survive_the_pipe() -> None:
    sent = result(tries=(Try(CLH, "ok"),), memory={CLH: {"vmm": 1}}, proved={CLH: 5.5}, doubts={QEMU: 6.5})
    kind, value = parsed(line("result", sent.as_json()))
    received = Result.from_json(value)
    assert kind == "result"
    assert (received.tries, received.memory) == (sent.tries, sent.memory)
    assert (received.proved, received.doubts) == (sent.proved, sent.doubts)


def test_runs_are_counted_once_and_by_what_came_of_them() -> None:
    metrics = Metrics()
    look = result(tries=(Try(CLH, "ok"), Try(QEMU, "failed")))
    metrics.did(look)
    for _ in range(3):  # shown again with each publication
        metrics.show(look.report, look, {})
    assert f'katanode_canary_runs_total{{handler="{CLH}",outcome="ok"}} 1.0' in text(metrics)
    assert f'katanode_canary_runs_total{{handler="{QEMU}",outcome="failed"}} 1.0' in text(metrics)
    assert f'katanode_canary_runs_total{{handler="{QEMU}",outcome="ok"}} 0.0' in text(metrics), "rate() needs a zero"


def test_memory_is_shown_by_component_and_a_success_that_never_was_not_at_all() -> None:
    metrics = Metrics()
    look = result(memory={CLH: {"vmm": 20 << 20, "shim": 8 << 20}}, proved={CLH: 1_700_000_000.0, QEMU: 0.0})
    metrics.show(look.report, look, {})
    shown = text(metrics)
    assert f'katanode_canary_memory_bytes{{component="vmm",handler="{CLH}"}} 2.097152e+07' in shown
    assert f'katanode_canary_last_success_timestamp_seconds{{handler="{CLH}"}} 1.7e+09' in shown
    assert f'timestamp_seconds{{handler="{QEMU}"' not in shown


def test_the_nodes_memory_tells_doubts_from_failures_and_keeps_the_last_success() -> None:
    kept = State(
        proofs={CLH: {"digest": "a", "seconds": 0.2, "at": 50.0, "memory": {"vmm": 9}}, "kata-fc": {"seconds": 1}},
        failed={CLH: {"digest": "a", "at": 60.0}, QEMU: {"digest": "b", "at": 61.0, "proved": 40.0}},
    )
    told = _proved(kept)
    assert told["doubts"] == {CLH: 60.0}
    assert told["proved"] == {CLH: 50.0, QEMU: 40.0, "kata-fc": 0.0}
    assert told["memory"] == {CLH: {"vmm": 9}, "kata-fc": {}}
    assert told["canaries"] == {CLH: 0.2, "kata-fc": 1.0}


class Look:
    """A look that the test ends; it stands in for a worker's process."""

    began = NOW

    def __init__(self, task: Task, _tell: object) -> None:
        self.task = task
        self.step = ""
        started.append(self)


started: list[Look] = []


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    started.clear()
    monkeypatch.setattr(module, "Run", Look)
    made = Service(HostRoot(tmp_path), "", "node", None)
    made._settings = Settings(serve=Serve(port=0), canary=Canary(interval_seconds=600))
    return made


def look(service: Service, ended: Result) -> Task | None:
    """Lets the daemon start a look if it wants one, and ends it."""
    before = len(started)
    service._start_if_due()
    if len(started) == before:
        return None
    service._hear(started[-1], "result", ended.as_json())  # type: ignore[arg-type]
    return started[-1].task


def test_a_look_that_is_due_for_a_canary_comes_before_its_time_and_only_once(service: Service) -> None:
    overdue = result(proved={CLH: NOW - 700})
    first = look(service, overdue)
    assert first is not None
    assert not first.renew, "what is in force is not known yet"
    second = look(service, result(proved={CLH: time.time()}))
    assert second is not None
    assert second.renew
    assert look(service, overdue) is None


def test_a_handler_that_is_not_ready_for_other_reasons_asks_for_no_canary(service: Service) -> None:
    look(service, result(proved={QEMU: NOW - 700}))
    assert look(service, result()) is None


def test_a_doubt_is_not_settled_by_the_look_that_follows_at_once(service: Service) -> None:
    look(service, result(proved={CLH: time.time()}, doubts={CLH: time.time()}))
    service._pace.wanted()
    second = look(service, result(proved={CLH: time.time()}, doubts={CLH: time.time()}))
    assert second is not None
    assert not second.renew


def test_a_look_that_renewed_and_waits_for_its_turn_is_not_taken_for_one_that_is_due(service: Service) -> None:
    look(service, result(proved={CLH: NOW - 700}))
    service._start_if_due()
    assert started[-1].task.renew
    assert not service._renews, "else it would lose its turn, and start canaries in a circle"
    service._hear(started[-1], "interim", result(proved={CLH: time.time()}).as_json())  # type: ignore[arg-type]
    service._renewal._clock = lambda: time.monotonic() + 300
    assert not service._renews
    service._renewal._clock = lambda: time.monotonic() + 700
    assert service._renews, "a wait of hours does not keep what is in force from being proved"


def test_a_pod_network_that_is_not_there_yet_is_waited_for_and_not_for_long(service: Service) -> None:
    handlers = [{"name": CLH, "ready": False, "reasons": ["NetworkPluginNotReady"]}]
    away = Result({**result().report, "handlers": handlers}, full=True)
    waits = []
    for _ in range(8):
        service._pace.due = 0.0
        look(service, away)
        waits.append(service._pace.due - time.monotonic())
    assert all(10 < wait <= 33 for wait in waits)
    service._pace.due = 0.0
    look(service, result())
    assert service._pace.due - time.monotonic() > 200


@pytest.mark.parametrize("word", ["disabled", "absent"])
def test_a_node_that_is_to_be_left_alone_is_left_alone(word: str, service: Service) -> None:
    look(service, result(proved={CLH: NOW - 700}))
    service._wish.learn(word)
    assert look(service, result()) is None


def test_a_worker_that_dies_of_its_canary_is_not_started_again_at_once(service: Service) -> None:
    look(service, result(proved={CLH: NOW - 700}))
    service._start_if_due()
    assert started[-1].task.renew
    service._hear(started[-1], "ended", -9)  # type: ignore[arg-type]
    assert look(service, result()) is None
