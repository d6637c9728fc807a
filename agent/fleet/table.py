"""The fleet as rows and as one line: pure."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.fleet.facts import HandlerOf, NodeFacts, OtherNode, RunningPod
from agent.reasons import CATALOGUE, Reason

SILENT_AFTER = 900.0
"""Seconds without a heartbeat after which a node's agent counts as gone: three heartbeats."""

STATES = ("ready", "degraded", "installing", "absent", "unknown", "silent", "blocked")
"""What the column STATE can say, in the order of the summary."""
_FINE = frozenset({"ready", "degraded", "absent"})
_BADNESS = ("blocked", "silent", "unknown", "installing", "degraded", "absent", "ready")
_GOOD = frozenset({"Ready", "Degraded"})  # the condition's reasons when nothing stands in the way
_KATA = "kata"  # handlers of Kata begin with it, other installers' too


@dataclass(frozen=True, slots=True)
class Row:
    """A node in the table.

    Attributes:
        facts: what the Node says.
        state: one of `STATES`: the label's, or `silent` when the agent is gone.
        words: why, in one code or a few words; "" when nothing is to be said.
        sandboxes: its running pods in Kata sandboxes; None when that could not be read.
    """

    facts: NodeFacts
    state: str
    words: str
    sandboxes: int | None

    @property
    def name(self) -> str:
        """The node's name."""
        return self.facts.name

    @property
    def code(self) -> str:
        """The condition's reason, or "" when it is a good one."""
        return "" if self.facts.reason in _GOOD else self.facts.reason

    def as_json(self) -> dict[str, object]:
        """The row for machines."""
        return {
            "node": self.name,
            "state": self.state,
            "said": self.facts.state,
            "reason": self.code or None,
            "message": self.facts.message,
            "kata_version": self.facts.version or None,
            "since": iso(self.facts.since),
            "heartbeat": iso(self.facts.heard),
            "sandboxes": self.sandboxes,
            "handlers": dict(self.facts.handlers),
            "install": self.facts.wish or None,
        }


@dataclass(frozen=True, slots=True)
class Fleet:
    """All nodes.

    Attributes:
        rows: those that katanode speaks on, by name.
        others: how many it does not speak on.
        notes: what could not be read, or is doubtful.
    """

    rows: tuple[Row, ...]
    others: int = 0
    notes: tuple[str, ...] = ()

    @property
    def fine(self) -> bool:
        """Whether there are nodes with katanode, and none needs anybody."""
        return bool(self.rows) and all(row.state in _FINE for row in self.rows)

    def reasons(self) -> Counter[str]:
        """The reasons that stand, each with the number of its nodes."""
        return Counter(row.code for row in self.rows if row.code)

    def summary(self) -> str:
        """One line: "46 ready, 2 blocked: KVMDisabledInFirmware"."""
        line = ""
        for state in sorted({row.state for row in self.rows}, key=_position(STATES)):
            those = [row for row in self.rows if row.state == state]
            codes = Counter(row.code for row in those if row.code and row.code != Reason.NOT_INSTALLED)
            part = f"{len(those)} {state}"
            if codes:
                counted = len(codes) > 1 or codes.total() < len(those)
                told = (f"{code} ({number})" if counted else code for code, number in codes.most_common())
                part += f": {', '.join(told)}"
            line += f"{_separator(line)}{part}"
        if self.others:
            line += f"{'; ' if line else ''}{self.others} node{'s' * (self.others != 1)} without katanode"
        return line or "the cluster has no nodes"

    def as_json(self, rows: Iterable[Row] | None = None) -> dict[str, object]:
        """The fleet for machines; with `rows` only these of its nodes, and the numbers of all."""
        return {
            "summary": self.summary(),
            "fine": self.fine,
            "states": dict(Counter(row.state for row in self.rows)),
            "reasons": dict(self.reasons().most_common()),
            "without_katanode": self.others,
            "notes": list(self.notes),
            "nodes": [row.as_json() for row in (self.rows if rows is None else rows)],
        }


def make(
    nodes: Iterable[NodeFacts | OtherNode],
    pods: Iterable[RunningPod] | None,
    classes: Iterable[HandlerOf],
    now: float,
) -> Fleet:
    """The fleet.

    Args:
        nodes: all nodes.
        pods: the running pods that name a RuntimeClass; None when they could not be read.
        classes: the RuntimeClasses; one that is not among them is taken for its handler's namesake.
        now: Unix seconds.
    """
    handler_of = {c.runtime_class: c.handler for c in classes}
    counted = (
        None if pods is None else Counter((p.node, handler_of.get(p.runtime_class, p.runtime_class)) for p in pods)
    )
    running: dict[str, list[tuple[str, int]]] = {}
    for (where, handler), number in (counted or {}).items():
        running.setdefault(where, []).append((handler, number))
    every = list(nodes)
    rows: list[Row] = []
    for node in every:
        if isinstance(node, NodeFacts):
            sandboxes = None if counted is None else _sandboxes(node, running.get(node.name, ()))
            rows.append(_row(node, sandboxes, now))
    rows.sort(key=lambda row: natural(row.name))
    return Fleet(tuple(rows), len(every) - len(rows), _doubts(rows, now))


def _sandboxes(node: NodeFacts, running: Iterable[tuple[str, int]]) -> int:
    known = {handler for handler, _ in node.handlers}
    return sum(number for handler, number in running if handler in known or handler.startswith(_KATA))


def _row(node: NodeFacts, sandboxes: int | None, now: float) -> Row:
    if not node.status:
        return Row(node, "unknown", "no condition KataReady", sandboxes)
    lacking = [handler for handler, ready in node.handlers if not ready]
    by_status = {"True": "degraded" if lacking else "ready", "False": "blocked"}
    state = node.state or by_status.get(node.status, "unknown")
    words = "" if node.reason in _GOOD else node.reason
    if state == "degraded" and not words and lacking:
        words = f"not ready: {', '.join(lacking)}"
    heard = node.heard if node.heard is not None else node.since
    # Where Kata was taken off, its agent may be gone for good reason.
    if state != "absent" and (heard is None or now - heard > SILENT_AFTER):
        when = f"{age(now - heard)} ago" if heard is not None else "ever"
        return Row(node, "silent", f"last word {when}: {state} {words}".rstrip(), sandboxes)
    return Row(node, state, words, sandboxes)


def _doubts(rows: Sequence[Row], now: float) -> tuple[str, ...]:
    if len(rows) < 2 or any(row.state != "silent" for row in rows):
        return ()
    return (f"Every agent seems silent. Is this machine's clock right? It says {iso(now)}.",)


def worst_first(rows: Iterable[Row]) -> list[Row]:
    """The rows with those in front that need somebody, nodes of one reason together."""
    by_name = sorted(rows, key=lambda row: (row.code, natural(row.name)))
    return sorted(by_name, key=lambda row: _position(_BADNESS)(row.state))


def worst_last(rows: Iterable[Row]) -> list[Row]:
    """The rows with those at the end that need somebody, nodes of one reason together."""
    by_name = sorted(rows, key=lambda row: (row.code, natural(row.name)))
    return sorted(by_name, key=lambda row: _position(_BADNESS)(row.state), reverse=True)


def common_domain(names: Sequence[str]) -> str:
    """The domain that all names end in, with its dot; "" without one."""
    heads = [name.partition(".") for name in names]
    shared = {dot + domain for _, dot, domain in heads}
    return shared.pop() if len(shared) == 1 else ""


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key by which node-2 comes before node-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def age(seconds: float) -> str:
    """A length of time as kubectl tells ages, in at most two units: "45s", "3m20s", "4d7h"."""
    whole = max(int(seconds), 0)
    for size, unit, lesser, its in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            many, rest = divmod(whole, size)
            part = rest // lesser
            return f"{many}{unit}{part}{its}" if part and many < 10 else f"{many}{unit}"
    return f"{whole}s"


def remedies(codes: Iterable[str]) -> list[tuple[str, str, str]]:
    """Code, title and remedy of those codes that the catalogue has."""
    known = [Reason(code) for code in codes if code in CATALOGUE]
    return [(str(reason), CATALOGUE[reason].title, CATALOGUE[reason].remedy) for reason in known]


def _position(order: Sequence[str]) -> Callable[[str], tuple[int, str]]:
    """A sort key: the place in an order; what is not in it comes after, by name."""
    return lambda word: (order.index(word), "") if word in order else (len(order), word)


def _separator(line: str) -> str:
    # After a list of reasons a comma would read as one more of them.
    return "" if not line else "; " if ":" in line else ", "


def iso(moment: float | None) -> str | None:
    """A moment in Unix seconds as UTC."""
    return None if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
