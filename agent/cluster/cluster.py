"""The cluster side of the daemon: watches the Node, publishes in the background, keeps trying."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.cluster import events, names, saying
from agent.cluster.api import Api, ApiError, is_older
from agent.cluster.publisher import HEARTBEAT, Publisher
from agent.cluster.saying import Saying
from agent.cluster.slots import Policy, Slots, halt_words
from agent.cluster.watch import NodeWatch
from agent.reasons import CATALOGUE, Reason, Severity
from agent.report import Finding, bad, from_error

Node = Mapping[str, Any]

_HALT_INTERVAL = 300.0
"""Seconds between two looks at whether the rollout is halted, for nodes that want no slot."""
_BACKOFF = 30.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this agent is: its node, its namespace, and its pod's name."""

    node: str
    namespace: str
    instance: str


class Cluster:
    """Tells the cluster what is true of this node.

    Args:
        api: the API.
        identity: who this agent is.
        changed: called, from another thread, when something of the cluster's concerns the daemon: the node's label with
            the operator's wish, or a problem of publishing that came or went.
        heartbeat: seconds after which a condition that still holds is written again.
    """

    def __init__(self, api: Api, identity: Identity, changed: Callable[[], None], heartbeat: float = HEARTBEAT) -> None:
        self._api = api
        self._identity = identity
        self._changed = changed
        self._publisher = Publisher(api, identity.node, heartbeat=heartbeat)
        self._watch = NodeWatch(api, identity.node, self._seen)
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._node: Node | None = None
        self._is_gone = False
        self._saying: Saying | None = None
        self._policy: Policy | None = None
        self._error: ApiError | None = None
        self._halt: Finding | None = None
        self._told: tuple[str, str] | None = None
        self._contests: set[tuple[str, bool]] = set()
        self.published_at: float | None = None
        self.slots = Slots(api, identity.namespace, identity.node)

    def start(self) -> None:
        """Begins watching and publishing, in threads of their own."""
        self._watch.start()
        threading.Thread(target=self._run, name="publisher", daemon=True).start()

    def stop(self) -> None:
        """Ends; what is under way is not waited for."""
        self._stop.set()
        self._watch.stop()
        self._wake.set()

    def tell(self, wish: Saying, policy: Policy) -> None:
        """Gives what is true now; it is published as soon as that can be."""
        with self._lock:
            self._saying = wish
            self._policy = policy
        self._wake.set()

    @property
    def reached(self) -> bool:
        """Whether the API answered the last time that it was asked."""
        return self._watch.reached and (self._error is None or self._error.status > 0)

    @property
    def node_known(self) -> bool:
        """Whether the API has said what it knows of this node: also that there is no such Node."""
        return self._node is not None or self._is_gone

    @property
    def is_new(self) -> bool:
        """Whether nobody says of this node that it is ready."""
        node = self._node
        return node is not None and saying.labels_of(node).get(names.GATE) != "true"

    @property
    def wish(self) -> str:
        """The operator's wish by the node's label; "" for none."""
        node = self._node
        return saying.wish(node) if node is not None else ""

    @property
    def takes_no_pods_yet(self) -> bool:
        """Whether this is a new node that a startup taint keeps free of pods."""
        node = self._node
        return node is not None and saying.takes_no_pods_yet(node)

    def findings(self) -> tuple[Finding, ...]:
        """What is not well between this node and the cluster."""
        found = []
        check = "the cluster knows what is true of this node"
        error = self._error or self._watch.error
        if self._is_gone:
            found.append(bad(check, Reason.NODE_OBJECT_MISSING, f"there is no Node {self._identity.node}"))
        elif error is not None:
            found.append(from_error(check, error.as_error()))
        for contest in self._publisher.truce.contests:
            what = f"{contest.who or 'somebody'} wrote {contest.what}; it was taken back once"
            found.append(
                bad(check, Reason.PUBLICATION_CONTESTED, what + (" and written again" if contest.lost else ""))
            )
        return (*found, *([self._halt] if self._halt else []))

    def _seen(self, node: Mapping[str, Any] | None) -> None:
        before = (self.wish, self._is_gone, self.node_known)
        if node is None:
            self._node, self._is_gone = None, True
        else:
            self._take(node)
        self._wake.set()
        if before != (self.wish, self._is_gone, self.node_known):
            self._changed()

    def _take(self, node: Node) -> None:
        """Keeps a Node unless a newer state of it is known: a watch may tell of it later than a write's answer did."""
        with self._lock:
            if self._node is None or not is_older(node, self._node):
                self._node, self._is_gone = node, False

    def _run(self) -> None:
        failures = 0
        look = time.monotonic() + random.uniform(0, _HALT_INTERVAL)  # noqa: S311 - jitter
        while not self._stop.is_set():
            self._wake.wait(self._pause(look))
            self._wake.clear()
            before = self.findings()
            try:
                self._publish()
                if time.monotonic() >= look:
                    look = time.monotonic() + _HALT_INTERVAL * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
                    self._look_for_halt()
                self._error = None
                failures = 0
            except ApiError as error:
                # A write that met another one is no problem: the watch brings what is there, and it is tried again.
                failures += 1
                self._error = None if error.status in {409, 422} and failures < 5 else error
                wait = max(error.retry_after, min(_BACKOFF, 0.25 * 2.0 ** min(failures, 10)))
                self._stop.wait(wait * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
                self._refresh()
                self._wake.set()
            if self.findings() != before:
                self._changed()

    def _pause(self, look: float) -> float:
        due = look if self._saying is None or self._node is None else min(look, max(self._publisher.next_beat, 0.0))
        return max(0.05, due - time.monotonic())

    def _publish(self) -> None:
        with self._lock:
            wish = self._saying
        node = self._node
        if wish is None or node is None:
            return
        self._take(self._publisher.publish(wish, node))
        self.published_at = time.time()
        told = (wish.status, wish.reason)
        if told != self._told:
            if self._told is not None or saying.condition_of(node).get("reason") != wish.reason:
                self._event(node, warning=_is_bad(wish.reason), reason=wish.reason, note=wish.message)
            self._told = told
        self._tell_of_contests(node)

    def _tell_of_contests(self, node: Node) -> None:
        """An event for each fight, and another when it is lost."""
        contests = {(c.what, c.lost) for c in self._publisher.truce.contests}
        for what, lost in sorted(contests - self._contests):
            then = "written again, and is left" if lost else "taken back"
            note = f"{what} was written by somebody else and {then}. {CATALOGUE[Reason.PUBLICATION_CONTESTED].remedy}"
            self._event(node, warning=True, reason=str(Reason.PUBLICATION_CONTESTED), note=note)
        self._contests = contests

    def _event(self, node: Node, *, warning: bool, reason: str, note: str) -> None:
        """An event that cannot be created is not tried again: the condition says the same."""
        with contextlib.suppress(ApiError):
            events.report(self._api, node, self._identity.instance, warning=warning, reason=reason, note=note)

    def _refresh(self) -> None:
        with contextlib.suppress(ApiError):
            self._take(self._api.get(f"/api/v1/nodes/{self._identity.node}"))

    def _look_for_halt(self) -> None:
        with self._lock:
            policy = self._policy
        if policy is None:
            return
        bad_nodes = self.slots.halted(policy)
        self._halt = halt_finding(halt_words(bad_nodes)) if bad_nodes else None


def _is_bad(reason: str) -> bool:
    """Whether a condition's reason is more than news."""
    known = {str(r) for r in Reason}
    return reason in known and CATALOGUE[Reason(reason)].severity.rank > Severity.INFO.rank


def halt_finding(words: str) -> Finding:
    """The finding that the rollout is halted."""
    return bad("the rollout goes on", Reason.ROLLOUT_HALTED, words, remedy=CATALOGUE[Reason.ROLLOUT_HALTED].remedy)
