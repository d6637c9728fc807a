"""What follows from a look: the condition's words, the reasons, and whether the next look may be a quick one."""

from __future__ import annotations

from typing import Any

from agent.reasons import Reason
from agent.report import HandlerReport, Report, State, bad, ok
from agent.service import verdict
from agent.service.messages import Problem, Result, line, parsed

VHOST = bad("vhost-net", Reason.VHOST_NET_MISSING, "no device", handlers=("kata-qemu",))
KVM = ok("KVM runs guest instructions")


def result(report: Report, **more: Any) -> Result:
    return Result(report.as_json(), **more)


def ready(*findings: Any) -> Report:
    return Report((KVM, *findings), (HandlerReport("kata-clh", ready=True),), State.READY, "4.1.0")


def degraded() -> Report:
    handlers = (HandlerReport("kata-clh", ready=True), HandlerReport("kata-qemu", ready=False, obstacles=(VHOST,)))
    return Report((KVM, VHOST), handlers, State.DEGRADED, "4.1.0")


def test_a_ready_node_says_through_what() -> None:
    made = verdict.of(result(ready()), (), leaving=False)
    assert (made.status, made.reason) == (True, "Ready")
    assert made.message == "Sandboxes start through kata-clh (Kata Containers 4.1.0)."


def test_a_degraded_node_says_what_its_other_handler_lacks_and_what_to_do() -> None:
    made = verdict.of(result(degraded()), (), leaving=False)
    assert (made.status, made.reason) == (True, "Degraded")
    assert "kata-qemu: /dev/vhost-net does not exist [VhostNetMissing]. Load the module" in made.message
    assert made.reasons == {"VhostNetMissing": "error"}


def test_a_problem_gives_the_condition_its_words_and_takes_nothing_from_what_is_true() -> None:
    problem = Problem("SettingsInvalid", "kata.verson is unknown", "", "Correct the key.")
    made = verdict.of(result(ready(), problem=problem), (), leaving=False)
    assert (made.status, made.reason, made.message) == (
        True,
        "SettingsInvalid",
        "kata.verson is unknown. Correct the key.",
    )
    assert made.reasons == {"SettingsInvalid": "error"}


def test_a_node_that_kata_is_to_leave_takes_no_more_pods() -> None:
    made = verdict.of(result(ready()), (), leaving=True)
    assert (made.status, made.handlers) == (False, {"kata-clh": False})


def test_a_halted_rollout_is_everybodys_reason_and_nobodys_fault() -> None:
    halt = bad("the rollout goes on", Reason.ROLLOUT_HALTED, "a, b and c failed")
    made = verdict.of(result(ready()), (halt,), leaving=False)
    assert (made.status, made.reason) == (True, "RolloutHalted")
    assert "a, b and c failed" in made.message


def test_a_quick_look_is_enough_while_it_sees_all_that_is_not_well() -> None:
    assert verdict.is_well(result(ready()))
    assert verdict.is_well(result(degraded(), quick=("vhost-net",)))
    assert not verdict.is_well(result(degraded(), quick=()))
    assert not verdict.is_well(result(ready(), problem=Problem("AnotherRunInProgress", "", "", "")))


def test_a_new_reason_is_news_and_an_old_one_is_none() -> None:
    assert verdict.is_news(result(degraded()), result(ready()))
    assert not verdict.is_news(result(degraded()), result(degraded()))
    assert not verdict.is_news(result(ready()), None)


def test_a_quick_look_keeps_the_good_news_of_the_last_full_one_and_no_bad() -> None:
    full = result(ready(ok("shared memory"), bad("clock", Reason.CLOCKSOURCE_SLOW), VHOST))
    made = verdict.merged(result(Report((KVM,), (), State.READY)), full)
    assert [f["check"] for f in made.report["findings"]] == [KVM.check, "shared memory", "clock"]


def test_a_result_survives_the_pipe() -> None:
    sent = result(
        degraded(), problem=Problem("RolledBack", "m", "e", "r"), sandboxes={"kata-clh": 2}, watch=("/dev/kvm",)
    )
    kind, value = parsed(line("result", sent.as_json()))
    received = Result.from_json(value)
    assert (kind, received.problem, received.sandboxes) == ("result", sent.problem, {"kata-clh": 2})
    assert verdict.of(received, (), leaving=False) == verdict.of(sent, (), leaving=False)
