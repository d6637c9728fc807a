"""The status page: the node's report for people, as one HTML page that needs nothing but itself.

Pure: a `View` in, text out. Whatever comes from the node (evidence above all) is foreign: it is bounded, has its
control and direction characters made visible, and is escaped (`page_parts`). The page's policy lets no script run and
nothing be fetched, should that ever fail.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.page_parts import absolute, code, duration, evidence, icon, moment, name, plural, prose, remedy
from agent.page_style import COLOURS, STYLE
from agent.reasons import CATALOGUE, Reason, Severity
from agent.report import State

_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_NOTHING_ELSE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; {_NOTHING_ELSE}",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
"""What the server sends with the page. The style is allowed by its digest: an injected one would have no effect."""

FINDINGS_LIMIT = 100
"""Findings that are shown at most of those that are not well, and of those that are; a node has some forty in all."""


@dataclass(frozen=True, slots=True)
class Look:
    """A look at the whole node that has ended.

    Attributes:
        began: when, in Unix seconds.
        seconds: how long it took.
        outcome: as the metric has it: unchanged, changed, failed or rolled_back.
    """

    began: float
    seconds: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Something that the agent waits for.

    Attributes:
        what: a phrase that follows "waiting for": "a restart slot", "the API server".
        since: Unix seconds.
        evidence: who has it, what the last attempt said.
    """

    what: str
    since: float
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """The last thing that the agent failed in; shown until a look succeeds.

    Attributes:
        at: Unix seconds.
        reason: its code.
        message: what failed, a sentence.
        evidence: what was seen.
        remedy: what to do about it; the catalogue's own when not given.
    """

    at: float
    reason: Reason
    message: str
    evidence: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What the page shows.

    Attributes:
        node: its name.
        version: katanode's.
        now: when the page is made, in Unix seconds; relative times are counted from it.
        report: `Report.as_json()` of the last look; None before the first has ended.
        release: name of the release in force, such as 4.1.0-3dc6b69c; "" without one.
        look: the last look that ended.
        working_since: since when a look is under way, in Unix seconds; None between two.
        step: what that look is at, a sentence.
        next_look: when the next one is due, in Unix seconds.
        waits: what the agent waits for.
        failure: the last failure, as long as it matters.
        published: when the cluster was last told, in Unix seconds; None if never, or without a cluster.
    """

    node: str
    version: str
    now: float
    report: Mapping[str, Any] | None = None
    release: str = ""
    look: Look | None = None
    working_since: float | None = None
    step: str = ""
    next_look: float | None = None
    waits: tuple[Wait, ...] = ()
    failure: Failure | None = None
    published: float | None = None


_STATES: dict[str, tuple[str, str]] = {
    State.READY: ("good", "Pods can run in Kata sandboxes here, through every handler."),
    State.DEGRADED: ("warning", "Some handlers are ready, others are not."),
    State.INSTALLING: ("info", "The node is being made ready."),
    State.BLOCKED: ("error", "No handler is ready."),
    State.ABSENT: ("none", "Nothing of katanode's is installed here."),
}
_MARKS: dict[str, tuple[str, str, str]] = {  # mark, tone, and the word for one of them
    Severity.ERROR: ("✗", "error", "problem"),
    Severity.WARNING: ("!", "warning", "warning"),
    Severity.INFO: ("i", "info", "note"),
    Severity.OK: ("✓", "good", "check passed"),
}
_OUTCOMES = {
    "unchanged": ("good", "all is as wanted, nothing was changed"),
    "changed": ("good", "the node was changed, and the change holds"),
    "failed": ("error", "failed"),
    "rolled_back": ("error", "a change failed and was undone"),
}


def page(view: View) -> str:
    """The page, a whole HTML document."""
    report = view.report or {}
    state = str(report["state"]) if "state" in report else "starting"
    tone, sentence = _STATES.get(state, ("none", "The first look at this node has not ended yet."))
    findings = sorted(report.get("findings", ()), key=_badness)
    amiss = [f for f in findings if f["severity"] != Severity.OK]
    return "".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<title>{name(state)}: {name(view.node)}</title>\n",
            f'<link rel="icon" href="{icon(COLOURS[tone])}">\n<style>{STYLE}</style>\n</head>\n<body>\n',
            f'<header class="{tone}">\n<h1>{name(view.node)}</h1>\n<p class="state">{name(state)}</p>\n',
            f"<p>{sentence}</p>\n{_release(report, view.release)}</header>\n<main>\n",
            _handlers(report.get("handlers", ()), amiss),
            _found(amiss, [f for f in findings if f["severity"] == Severity.OK], known=view.report is not None),
            _doing(view),
            f"</main>\n{_footer(view)}</body>\n</html>\n",
        )
    )


def _badness(finding: Mapping[str, Any]) -> int:
    return -Severity(finding["severity"]).rank


def _release(report: Mapping[str, Any], release: str) -> str:
    lines = []
    if version := report.get("kata_version"):
        named = f' <span class="dim">· release <code>{name(release)}</code></span>' if release else ""
        lines.append(f"<p>Kata Containers <strong>{name(version)}</strong>{named}</p>\n")
    if note := report.get("note"):
        lines.append(f"<p>{prose(note)}</p>\n")
    return "".join(lines)


def _handlers(handlers: Iterable[Mapping[str, Any]], amiss: Sequence[Mapping[str, Any]]) -> str:
    told = {f["reason"] for f in amiss[:FINDINGS_LIMIT]}
    rows = []
    for handler in handlers:
        mark, tone, verdict = ("✓", "good", "ready") if handler["ready"] else ("✗", "error", "not ready")
        reasons = "".join(f"<br>{code(reason, link=reason in told)}" for reason in dict.fromkeys(handler["reasons"]))
        rows.append(
            f'<li class="row {tone}"><span class="mark" aria-hidden="true">{mark}</span>'
            f'<span><strong>{name(handler["name"])}</strong> <span class="tone">{verdict}</span>{reasons}</span>'
            "</li>\n"
        )
    body = f'<ul class="card">\n{"".join(rows)}</ul>' if rows else '<p class="dim">None is known yet.</p>'
    return f'<section class="handlers">\n<h2>Handlers</h2>\n{body}\n</section>\n'


def _found(amiss: Sequence[Mapping[str, Any]], well: Sequence[Mapping[str, Any]], *, known: bool) -> str:
    heading = _counts(amiss) or ("Nothing stands in the way" if known else "Nothing was looked at yet")
    parts = [f'<section class="found">\n<h2>{heading}</h2>\n']
    seen: set[str] = set()
    for finding in amiss[:FINDINGS_LIMIT]:
        parts.append(_article(finding, first=finding["reason"] not in seen))
        seen.add(finding["reason"])
    left_out = max(len(amiss) - FINDINGS_LIMIT, 0) + max(len(well) - FINDINGS_LIMIT, 0)
    if well:
        rows = "".join(_passed(f) for f in well[:FINDINGS_LIMIT])
        heading = f"{plural(len(well), 'check')} passed"
        parts.append(f'<details class="card">\n<summary>{heading}</summary>\n<ul>\n{rows}</ul>\n</details>\n')
    if left_out:
        parts.append(
            f'<p class="dim">{left_out} more are left out here; <code>katanode status --json</code> has all.</p>'
        )
    return "".join((*parts, "</section>\n"))


def _counts(amiss: Sequence[Mapping[str, Any]]) -> str:
    """How many of each kind: "2 problems, 1 warning"."""
    numbers = [
        (sum(f["severity"] == severity for f in amiss), _MARKS[severity][2])
        for severity in (Severity.ERROR, Severity.WARNING, Severity.INFO)
    ]
    return ", ".join(plural(number, word) for number, word in numbers if number)


def _article(finding: Mapping[str, Any], *, first: bool) -> str:
    """One finding that is not well; the first of its reason can be linked to by the reason's code."""
    mark, tone, word = _MARKS[finding["severity"]]
    reason = finding["reason"]
    anchor = f' id="{reason}"' if first and reason in CATALOGUE else ""
    whose = f" · {name(', '.join(finding['handlers']))}" if finding["handlers"] else ""
    told = f"{code(reason)} · " if reason else ""
    return (
        f'<article class="card {tone}"{anchor}>\n'
        f'<h3><span class="tone" title="{word}">{mark}</span> {name(finding["title"] or finding["check"])}</h3>\n'
        f'<p class="small dim">{told}{name(finding["check"])}{whose}</p>\n'
        f"{evidence(finding['evidence'])}{remedy(finding['remedy'])}</article>\n"
    )


def _passed(finding: Mapping[str, Any]) -> str:
    seen = f' <span class="dim">{name(finding["evidence"])}</span>' if finding["evidence"] else ""
    return (
        '<li class="row good"><span class="mark" aria-hidden="true">✓</span>'
        f"<span>{name(finding['check'])}{seen}</span></li>\n"
    )


def _doing(view: View) -> str:
    """What the agent is at, and what it did last."""
    rows = "".join(f"<dt>{term}</dt>\n<dd>{description}</dd>\n" for term, description in _facts(view))
    body = f'<dl class="card">\n{rows}</dl>' if rows else '<p class="dim">It has just started.</p>'
    return f'<section class="doing">\n<h2>The agent</h2>\n{body}\n</section>\n'


def _facts(view: View) -> Iterator[tuple[str, str]]:
    for wait in view.waits:
        held = f"for {duration(view.now - wait.since)}, since {absolute(wait.since)}{evidence(wait.evidence)}"
        yield f'<strong class="warning tone">Waiting for {name(wait.what)}</strong>', held
    if view.working_since is not None:
        began = f"for {duration(view.now - view.working_since)}, since {absolute(view.working_since)}"
        yield "At work now", f"{prose(view.step)}<br>{began}" if view.step else began
    if view.failure is not None:
        yield '<strong class="error tone">Last failure</strong>', _failure(view.failure, view.now)
    if view.look is not None:
        tone, outcome = _OUTCOMES.get(view.look.outcome, ("none", name(view.look.outcome)))
        took = f'took {duration(view.look.seconds)}: <span class="{tone} tone">{outcome}</span>'
        yield "Last look at the node", f"{moment(view.look.began, view.now)}<br>{took}"
    if view.next_look is not None:
        overdue = '<br><span class="warning tone">overdue</span>' if _overdue(view) else ""
        yield "Next look", f"{moment(view.next_look, view.now)}{overdue}"
    if view.published is not None:
        yield "Last told to the cluster", moment(view.published, view.now)


def _overdue(view: View) -> bool:
    # A look that is under way or due this minute is none.
    return view.working_since is None and view.next_look is not None and view.next_look < view.now - 60


def _failure(failure: Failure, now: float) -> str:
    entry = CATALOGUE[failure.reason]
    return (
        f"{prose(failure.message)}<br>{code(failure.reason)} {moment(failure.at, now)}"
        f"{evidence(failure.evidence)}{remedy(failure.remedy or entry.remedy)}"
    )


def _footer(view: View) -> str:
    # Relative links: the page may be read through the API server's proxy, below a path.
    return (
        f'<footer class="small">katanode {name(view.version)} · as of {absolute(view.now)}, reload for newer · '
        '<a href="metrics">metrics</a> · <a href="healthz">healthz</a> · <a href="readyz">readyz</a></footer>\n'
    )
