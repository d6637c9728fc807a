"""What is kept of the objects that the fleet is made of: pure, so that a large cluster leaves little in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.cluster import names

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What is kept of a Node that katanode speaks on.

    Attributes:
        name: the node.
        state: the label's word; "" without one.
        version: of Kata, from the label.
        status: of the condition, "" without one.
        reason: of the condition.
        message: of the condition.
        since: when its status last changed, in Unix seconds.
        heard: its last heartbeat, in Unix seconds.
        handlers: handler to whether pods may name it here, from the labels.
        wish: the operator's own label: `disabled` or `absent`.
    """

    name: str
    state: str
    version: str
    status: str
    reason: str
    message: str
    since: float | None
    heard: float | None
    handlers: tuple[tuple[str, bool], ...]
    wish: str


@dataclass(frozen=True, slots=True)
class OtherNode:
    """A node that katanode does not speak on."""

    name: str


@dataclass(frozen=True, slots=True)
class RunningPod:
    """A running pod that names a RuntimeClass."""

    node: str
    runtime_class: str


@dataclass(frozen=True, slots=True)
class HandlerOf:
    """A RuntimeClass and its handler."""

    runtime_class: str
    handler: str


def keep_node(node: Json) -> NodeFacts | OtherNode:
    """What is kept of a Node."""
    about = node["metadata"]
    labels: Mapping[str, str] = about.get("labels") or {}
    conditions = (node.get("status") or {}).get("conditions") or ()
    condition: Json = next((c for c in conditions if c.get("type") == names.CONDITION), {})
    handlers = {key: value for key, value in labels.items() if key.startswith(names.HANDLER_PREFIX)}
    # The gate label alone says nothing: other installers of Kata write it too.
    if not condition and not handlers and not labels.keys() & {names.STATE, names.VERSION, names.INSTALL}:
        return OtherNode(about["name"])
    return NodeFacts(
        name=about["name"],
        state=labels.get(names.STATE, ""),
        version=labels.get(names.VERSION, ""),
        status=str(condition.get("status", "")),
        reason=str(condition.get("reason", "")),
        message=str(condition.get("message", "")),
        since=_moment(condition.get("lastTransitionTime")),
        heard=_moment(condition.get("lastHeartbeatTime")),
        handlers=tuple(sorted((k.removeprefix(names.HANDLER_PREFIX), v == "true") for k, v in handlers.items())),
        wish=labels.get(names.INSTALL, ""),
    )


def keep_pod(pod: Json) -> RunningPod | None:
    """What is kept of a Pod: its node and RuntimeClass, if it runs and names one."""
    spec = pod.get("spec") or {}
    running = (pod.get("status") or {}).get("phase") == "Running"
    if not running or not spec.get("runtimeClassName") or not spec.get("nodeName"):
        return None
    return RunningPod(spec["nodeName"], spec["runtimeClassName"])


def keep_class(runtime_class: Json) -> HandlerOf:
    """What is kept of a RuntimeClass."""
    return HandlerOf(runtime_class["metadata"]["name"], str(runtime_class.get("handler", "")))


def _moment(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None
