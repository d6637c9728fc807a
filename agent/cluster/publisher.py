"""Bringing what is true to the Node object: only what differs, under one field manager, and without a fight."""

import datetime as dt
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from agent.cluster import names, saying
from agent.cluster.api import Api, ApiError
from agent.cluster.saying import Labels, Saying
from agent.cluster.truce import Truce
from agent.reasons import CATALOGUE, Reason

Node = Mapping[str, Any]

HEARTBEAT = 300.0
"""Seconds after which a condition that still holds is written again, with up to a tenth of jitter."""

_CONDITION = f"condition {names.CONDITION}"
_TAINT = f"taint {names.TAINT}"


class Publisher:
    """Writes one Node's labels, condition and taint.

    Args:
        api: the API.
        name: the Node's name.
        clock: monotonic seconds.
        heartbeat: seconds after which a condition that still holds is written again, with up to a tenth of jitter.
    """

    def __init__(
        self, api: Api, name: str, clock: Callable[[], float] = time.monotonic, heartbeat: float = HEARTBEAT
    ) -> None:
        self._api = api
        self._path = f"/api/v1/nodes/{name}"
        self._clock = clock
        self._heartbeat = heartbeat
        self._uid = ""
        self._labelled: Mapping[str, str] = {}
        self._conditioned: Mapping[str, str] = {}
        self._tainted = False
        self.truce = Truce(clock)
        self.next_beat = 0.0
        """When the condition is due again, in monotonic seconds."""

    def publish(self, wish: Saying, node: Node) -> Node:
        """Brings a Node to what is true.

        The taint comes first when readiness is withdrawn and last when it is given: never is a node open too early.

        Args:
            wish: what is true.
            node: the Node as the API last showed it.

        Returns:
            The Node as it is then.

        Raises:
            ApiError: the first write that failed; those before it hold.
        """
        if node["metadata"]["uid"] != self._uid:
            self._uid = node["metadata"]["uid"]
            self._labelled, self._conditioned, self._tainted, self.next_beat = {}, {}, False, 0.0
        wanted = saying.labels(wish, node)
        kept = self._kept(wanted, node)
        closing = bool(kept) or not wish.ready
        if closing:
            node = self._taint(wish, node, kept)
        node = self._label(wanted.wanted, node)
        if closing:
            node = self._taint(wish, node, self._kept(wanted, node))  # somebody may have turned out to hold one
        node = self._condition(self._with_contests(wish), node)
        return node if closing else self._taint(wish, node, ())

    def _kept(self, wanted: Labels, node: Node) -> tuple[str, ...]:
        """The labels that say more than is true: those kept for running sandboxes, and those left to somebody else."""
        now = saying.labels_of(node)
        left = (k for k, v in wanted.wanted.items() if v == "false" and now.get(k) == "true" and self.truce.is_lost(k))
        return (*wanted.kept, *left)

    def _label(self, wanted: Mapping[str, str], node: Node) -> Node:
        now = {key: value for key, value in saying.labels_of(node).items() if names.ours(key)}
        taken = {key for key, value in self._labelled.items() if wanted.get(key) == value and now.get(key) != value}
        back = {key for key in taken if not self.truce.is_lost(key) and self.truce.may_take_back(key)}
        left = {key for key in wanted if self.truce.is_lost(key)}
        applied = {key: value for key, value in wanted.items() if key not in left}
        right = now.items() >= applied.items()
        # Labels of our kind besides are to go. If they still stand after these were applied, they are somebody else's.
        if not right or (len(now) > len(applied) + len(left & now.keys()) and applied != self._labelled):
            node = self._apply_labels(applied, back, node)
        self._labelled = applied
        return node

    def _apply_labels(self, applied: dict[str, str], back: set[str], node: Node) -> Node:
        """Applies labels; those that another manager holds by force, if they are to be taken back."""
        try:
            return self._api.apply(self._path, _body(node, labels=applied), manager=names.FIELD_MANAGER)
        except ApiError as error:
            holders = _holders(error)
            if not holders:
                raise
        for field, manager in holders.items():
            # A field is named .metadata.labels.KEY, and a key has dots of its own.
            key = field.removeprefix(".metadata.labels.")
            if key in back:
                self.truce.name(key, manager)
            elif not self.truce.may_take_back(key, manager):
                applied.pop(key, None)
        return self._api.apply(self._path, _body(node, labels=applied), manager=names.FIELD_MANAGER, force=True)

    def _condition(self, wish: Saying, node: Node) -> Node:
        now = self._clock()
        if saying.is_said(wish, node) and now < self.next_beat:
            return node
        there = saying.words(saying.condition_of(node))
        if self._conditioned and there != self._conditioned and not self.truce.may_take_back(_CONDITION):
            self.next_beat = now + self._heartbeat
            return node
        made = saying.condition(wish, node, _timestamp())
        body = _body(node) | {"status": {"conditions": [made]}}
        path = f"{self._path}/status"
        try:
            node = self._api.apply(path, body, manager=names.FIELD_MANAGER)
        except ApiError as error:
            holders = _holders(error)
            if not holders:
                raise
            self.truce.may_take_back(_CONDITION, ", ".join(sorted(set(holders.values()))))
            node = self._api.apply(path, body, manager=names.FIELD_MANAGER, force=True)
        self._conditioned = saying.words(made)
        self.next_beat = now + self._heartbeat * random.uniform(1.0, 1.1)  # noqa: S311 - jitter
        return node

    def _taint(self, wish: Saying, node: Node, kept: tuple[str, ...]) -> Node:
        wanted = saying.taints(wish, node, kept)
        if wanted is None:
            return node
        now = saying.taints_of(node)
        setting = len(wanted) > len(now)
        if setting and self._tainted and not self.truce.may_take_back(_TAINT):
            return node
        # The list is atomic: whoever changed it meanwhile makes the test fail, and nothing of theirs is lost. Without
        # any taint there is no path to test, so the whole object's version is.
        guard = {"op": "test", "path": "/spec/taints", "value": now} if now else _version(node)
        change: dict[str, Any] = {"op": "add", "path": "/spec/taints", "value": wanted}
        if not wanted:
            change = {"op": "remove", "path": "/spec/taints"}
        made = self._api.json_patch(self._path, [guard, change], manager=names.FIELD_MANAGER)
        self._tainted = setting
        return made

    def _with_contests(self, wish: Saying) -> Saying:
        """What is true, with a word on a fight when nothing worse is to be said."""
        lost = [contest for contest in self.truce.contests if contest.lost]
        if not lost or wish.reason not in saying.GOOD:
            return wish
        words = "; ".join(f"{c.what} is written by {c.who or 'somebody else'} too" for c in lost)
        remedy = CATALOGUE[Reason.PUBLICATION_CONTESTED].remedy
        return replace(wish, reason=str(Reason.PUBLICATION_CONTESTED), message=f"{words}. {remedy}")


def _body(node: Node, **metadata: Any) -> dict[str, Any]:
    """An apply configuration; the uid lets it fail, not create, when that Node is gone."""
    known = node["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": known["name"], "uid": known["uid"], **metadata},
    }


def _version(node: Node) -> dict[str, Any]:
    return {"op": "test", "path": "/metadata/resourceVersion", "value": node["metadata"]["resourceVersion"]}


def _holders(error: ApiError) -> dict[str, str]:
    """Field to the manager that holds it, of an apply conflict; empty for other errors.

    The API says it in words only: `conflict with "kubectl-label" using v1`.
    """
    if error.status != 409:
        return {}
    return {field: message.split('"')[1] for field, message in error.causes if message.count('"') > 1}


def _timestamp() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
