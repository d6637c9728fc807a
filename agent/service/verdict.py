"""What follows from a result: what the cluster is told, what the metrics show and what the page says; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.reasons import CATALOGUE, Reason, Severity
from agent.report import Finding, State
from agent.service.messages import Problem, Result

_IN_FORCE = frozenset({Reason.ROLLOUT_HALTED})
"""Reasons from the cluster that the condition carries although the node itself is well."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said.

    Attributes:
        report: the report with what the daemon itself found.
        handlers: handler to whether pods may be sent to it.
        state: the node's.
        status: of the condition.
        reason: of the condition.
        message: of the condition.
        reasons: everything that is not well, to its severity.
    """

    report: Mapping[str, Any]
    handlers: Mapping[str, bool]
    state: str
    status: bool
    reason: str
    message: str
    reasons: Mapping[str, str]


def of(result: Result, own: Sequence[Finding], *, leaving: bool) -> Verdict:
    """The verdict on a node.

    Args:
        result: the last look's.
        own: what the daemon found besides: the cluster, the server.
        leaving: the operator wants Kata off this node: no more pods are to come.
    """
    findings = [*result.report["findings"], *(f.as_json() for f in own)]
    report = {**result.report, "findings": findings}
    handlers = {h["name"]: bool(h["ready"]) and not leaving for h in report["handlers"]}
    ready = any(handlers.values())
    reason, message = _words(report, handlers, result.problem, own, leaving=leaving)
    reasons: dict[str, str] = {}
    for finding in findings:
        if finding["reason"]:
            worst = max(Severity(finding["severity"]), Severity(reasons.get(finding["reason"], "ok")), key=_rank)
            reasons[finding["reason"]] = str(worst)
    if result.problem is not None:
        reasons.setdefault(result.problem.reason, str(CATALOGUE[Reason(result.problem.reason)].severity))
    return Verdict(report, handlers, str(report["state"]), ready, reason, message, reasons)


def merged(result: Result, earlier: Result) -> Result:
    """A quick look's result with what only a full one finds, as the last full one found it.

    What is not well is seen by quick looks, so that nothing but good news is carried over.
    """
    seen = {f["check"] for f in result.report["findings"]}
    older = [f for f in earlier.report["findings"] if f["check"] not in seen and f["severity"] in {"ok", "info"}]
    report = {**result.report, "findings": [*result.report["findings"], *older]}
    return replace(result, report=report)


def is_well(result: Result) -> bool:
    """Whether the next look may be a quick one: whatever is not well is seen by quick looks too."""
    return result.problem is None and {f["check"] for f in _bad(result)} <= set(result.quick)


def awaited(result: Result) -> str:
    """A reason that is no problem of katanode's and keeps handlers from being proved; "" when there is none.

    A node that boots gets its pod network some time after katanode came, and is not to wait for the next look then.
    """
    unready = {reason for handler in result.report["handlers"] for reason in handler["reasons"]}
    network = str(Reason.NETWORK_PLUGIN_NOT_READY)
    return network if network in unready else ""


def is_news(result: Result, before: Result | None) -> bool:
    """Whether a quick look found what the one before did not, so that everything is to be looked at."""
    known = {f["reason"] for f in _bad(before)} if before is not None else set()
    return not {f["reason"] for f in _bad(result)} <= known


def _bad(result: Result) -> list[Mapping[str, Any]]:
    return [f for f in result.report["findings"] if f["severity"] not in {"ok", "info"}]


def _words(
    report: Mapping[str, Any],
    handlers: Mapping[str, bool],
    problem: Problem | None,
    own: Sequence[Finding],
    *,
    leaving: bool,
) -> tuple[str, str]:
    if problem is not None:
        return problem.reason, f"{problem.message}. {problem.remedy}"
    if leaving or report["state"] == State.ABSENT:
        return str(Reason.NOT_INSTALLED), "Kata Containers is not installed on this node."
    good = [name for name, ready in handlers.items() if ready]
    bad = [name for name, ready in handlers.items() if not ready]
    for finding in own:
        if good and finding.reason in _IN_FORCE:
            return str(finding.reason), f"{finding.evidence}. {finding.remedy}"
    version = f" (Kata Containers {report['kata_version']})" if report["kata_version"] else ""
    told = f"Sandboxes start through {', '.join(good)}{version}." if good else ""
    if not bad:
        return "Ready", told
    worst = _obstacle(report, bad[0])
    why = f"{bad[0]}: {worst['title']} [{worst['reason']}]. {worst['remedy']}" if worst else f"{bad[0]} is not ready."
    return ("Degraded" if good else str(worst["reason"] if worst else Reason.CANARY_NOT_RUN)), f"{told} {why}".strip()


def _obstacle(report: Mapping[str, Any], handler: str) -> Mapping[str, Any] | None:
    reasons: list[str] = next((h["reasons"] for h in report["handlers"] if h["name"] == handler), [])
    return next((f for f in report["findings"] if f["reason"] in reasons), None)


def _rank(severity: Severity) -> int:
    return severity.rank
