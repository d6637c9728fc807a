"""Events on the Node: on transitions only."""

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Any

from agent.cluster import names
from agent.cluster.api import Api

_NOTE_LIMIT = 1000
"""Characters of an event's note; the API refuses more than 1024 bytes."""


def report(api: Api, node: Mapping[str, Any], instance: str, *, warning: bool, reason: str, note: str) -> None:
    """Creates an event about a node.

    Args:
        api: the API.
        node: the Node.
        instance: which agent says it: its pod's name.
        warning: whether it is one.
        reason: CamelCase, the condition's.
        note: a sentence.

    Raises:
        ApiError: it was not created.
    """
    known = node["metadata"]
    body = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{known['name'][:200]}.{uuid.uuid4().hex[:16]}", "namespace": names.EVENT_NAMESPACE},
        "eventTime": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "action": "Reconcile",
        "note": note.encode()[:_NOTE_LIMIT].decode("utf-8", "ignore"),
        "regarding": {"apiVersion": "v1", "kind": "Node", "name": known["name"], "uid": known["uid"]},
        "reportingController": names.CONTROLLER,
        "reportingInstance": instance[:128],
    }
    api.create(f"/apis/events.k8s.io/v1/namespaces/{names.EVENT_NAMESPACE}/events", body)
