"""What the cluster is to be told, and what of it differs from what a Node object says: pure, so that it can be tested.

A readiness label is withdrawn only while no sandbox of its handler runs: the kubelet rejects running pods whose node
selector no longer fits when it restarts (measured on a real kubelet), a taint hurts nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agent.cluster import names

Node = Mapping[str, Any]

GOOD = frozenset({"Ready", "Degraded"})
"""Reasons of the condition when nothing stands in the way."""

_MESSAGE_LIMIT = 1000
"""Characters of a condition's message; the API takes 32768, people read fewer."""


@dataclass(frozen=True, slots=True)
class Saying:
    """What is true of the node.

    Attributes:
        handlers: handler to whether sandboxes start through it; of every handler that is wanted.
        state: `ready`, `degraded`, `installing`, `blocked` or `absent`.
        version: of Kata; "" without one.
        status: of the condition.
        reason: of the condition, CamelCase.
        message: of the condition, one sentence with the remedy.
        running: handler to the number of its sandboxes that run; None when that is not known.
    """

    handlers: Mapping[str, bool]
    state: str
    version: str
    status: Literal["True", "False"]
    reason: str
    message: str
    running: Mapping[str, int] | None

    @property
    def ready(self) -> bool:
        """Whether pods may be sent here: sandboxes start through at least one handler."""
        return any(self.handlers.values())

    def busy(self, handler: str) -> bool:
        """Whether sandboxes of a handler run, or may run."""
        return self.running is None or self.running.get(handler, 0) > 0


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels to be owned, and those among them that say `true` only because sandboxes run."""

    wanted: Mapping[str, str]
    kept: tuple[str, ...]


def labels(saying: Saying, node: Node) -> Labels:
    """The labels that the node is to have."""
    now = labels_of(node)
    known = {key.removeprefix(names.HANDLER_PREFIX) for key in now if key.startswith(names.HANDLER_PREFIX)}
    wanted: dict[str, str] = {}
    kept = []
    for handler in sorted({*saying.handlers, *known}):
        key = names.HANDLER_PREFIX + handler
        good = saying.handlers.get(handler)
        if not good and now.get(key) == "true" and saying.busy(handler):
            wanted[key] = "true"
            kept.append(key)
        elif good is not None:
            wanted[key] = _word(good)
    busy = saying.running is None or any(saying.running.values())
    wanted[names.GATE] = _word(saying.ready)
    if not saying.ready and now.get(names.GATE) == "true" and busy:
        wanted[names.GATE] = "true"
        kept.append(names.GATE)
    wanted[names.STATE] = saying.state
    if saying.version:
        wanted[names.VERSION] = saying.version
    return Labels(wanted, tuple(kept))


def taints(saying: Saying, node: Node, kept: tuple[str, ...]) -> list[dict[str, Any]] | None:
    """The taints that the node is to have; None when they are right.

    Ours is set while a label says more than is true, and lifted when it does not any more. A startup taint, which
    somebody else gave the node so that no pod comes before Kata does, goes when the node is ready.
    """
    now = taints_of(node)
    others = [taint for taint in now if not _is_ours(taint)]
    mine = [taint for taint in now if _is_ours(taint)]
    if kept:
        if mine:
            return None
        return [*others, {"key": names.TAINT, "value": names.TAINT_WITHDRAWN, "effect": names.TAINT_EFFECT}]
    going = [t for t in mine if saying.ready or t.get("value") == names.TAINT_WITHDRAWN]
    return [taint for taint in now if taint not in going] if going else None


def condition(saying: Saying, node: Node, now: str) -> dict[str, str]:
    """The condition that the node is to have.

    Args:
        saying: what is true.
        node: the Node as it is.
        now: this moment, in RFC 3339.
    """
    before = condition_of(node)
    same = before.get("status") == saying.status
    return {
        "type": names.CONDITION,
        "status": saying.status,
        "reason": saying.reason,
        "message": saying.message[:_MESSAGE_LIMIT],
        "lastHeartbeatTime": now,
        "lastTransitionTime": before.get("lastTransitionTime", now) if same else now,
    }


def is_said(saying: Saying, node: Node) -> bool:
    """Whether the node's condition says this already, whenever that was."""
    return words(condition_of(node)) == words(condition(saying, node, ""))


def words(condition: Mapping[str, str]) -> dict[str, str]:
    """What a condition says, without when."""
    return {key: condition.get(key, "") for key in ("status", "reason", "message")}


def wish(node: Node) -> str:
    """What the operator wants of this node by its label: `disabled`, `absent`, or "" for what the settings say."""
    value = labels_of(node).get(names.INSTALL, "")
    return value if value in {"disabled", "absent"} else ""


def takes_no_pods_yet(node: Node) -> bool:
    """Whether the node is a new one that a startup taint keeps free: its runtime's restart disturbs nobody."""
    startup = any(_is_ours(t) and t.get("value") != names.TAINT_WITHDRAWN for t in taints_of(node))
    return startup and labels_of(node).get(names.GATE) != "true"


def labels_of(node: Node) -> dict[str, str]:
    """A Node's labels."""
    return dict((node.get("metadata") or {}).get("labels") or {})


def taints_of(node: Node) -> list[dict[str, Any]]:
    """A Node's taints."""
    return list((node.get("spec") or {}).get("taints") or ())


def condition_of(node: Node) -> dict[str, str]:
    """A Node's Kata condition; empty when it has none."""
    every = (node.get("status") or {}).get("conditions") or ()
    return next((dict(c) for c in every if c.get("type") == names.CONDITION), {})


def _is_ours(taint: Mapping[str, Any]) -> bool:
    return taint.get("key") == names.TAINT and taint.get("effect") == names.TAINT_EFFECT


def _word(value: bool) -> str:  # noqa: FBT001 - it is the value
    return "true" if value else "false"
