"""Saying what is true of the node wherever people and schedulers look: labels, condition, metrics, page, health."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from agent import __version__
from agent.cluster.saying import Saying
from agent.page import Failure, Look, View, Wait, page
from agent.report import Finding, State
from agent.service import verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.cluster.cluster import Cluster
    from agent.cluster.slots import Policy
    from agent.service.messages import Result
    from agent.service.metrics import Metrics
    from agent.service.run import Run
    from agent.service.server import Answer
    from agent.service.turn import Turn
    from agent.settings import Settings

SILENCE = 600.0
"""Seconds without a word from a worker after which it is taken for stuck; its longest step has a limit of 120."""
STANDSTILL = 60.0
"""Seconds without a turn of the loop after which the daemon is taken for stuck."""


class Outlook:
    """What is said of one node.

    Args:
        node: its name.
        cluster: the cluster side; None on a machine without Kubernetes.
        metrics: the metrics.
        turn: who waits for a restart slot.

    Attributes:
        result: the last look's.
        leaving: Kata was to go from this node when that look was made. A wish that is newer than the look waits for the
            next one: only a fresh count of sandboxes allows a label to be withdrawn.
        run: the look under way.
        look: the last look that ended.
        failure: what the last look failed in; None when it did not.
        trouble: what the daemon itself has trouble with.
        sandboxes: what there is to say of the running ones.
        next_look: when the next look is due, in monotonic seconds.
        ticked: when the loop last turned, in monotonic seconds.
    """

    def __init__(self, node: str, cluster: Cluster | None, metrics: Metrics, turn: Turn) -> None:
        self._node = node
        self._cluster = cluster
        self._metrics = metrics
        self._turn = turn
        self._verdict: verdict.Verdict | None = None
        self.result: Result | None = None
        self.leaving = False
        self.run: Run | None = None
        self.look: Look | None = None
        self.failure: Failure | None = None
        self.trouble: Finding | None = None
        self.sandboxes: Sequence[Finding] = ()
        self.next_look = 0.0
        self.ticked = time.monotonic()

    def publish(self, wish: Settings, policy: Policy) -> None:
        """Says what is known now.

        Args:
            wish: the settings.
            policy: the rollout's.
        """
        own = [
            *(self._cluster.findings() if self._cluster else ()),
            *([self.trouble] if self.trouble else ()),
            *self.sandboxes,
        ]
        self._metrics.reached.set(self._cluster is not None and self._cluster.reached)
        if self.result is None:
            self._say_that_it_begins(wish, policy)
            return
        made = self._verdict = verdict.of(self.result, own, leaving=self.leaving)
        self._metrics.show(made.report, self.result, made.reasons)
        if self._cluster is None:
            return
        installs = self.run is not None and not made.status and bool(self.run.step) and not self.result.release
        state = str(State.INSTALLING) if installs else made.state
        status: Literal["True", "False"] = "True" if made.status else "False"
        version = str(made.report["kata_version"])
        said = Saying(made.handlers, state, version, status, made.reason, made.message, self.result.sandboxes)
        self._cluster.tell(said, policy)

    def _say_that_it_begins(self, wish: Settings, policy: Policy) -> None:
        """Before the first look has ended: a new node is being installed, of an old one nothing new is known."""
        if self._cluster is None or self.run is None or not self._cluster.is_new:
            return
        step = (self.run.step or "looking at the node").partition(":")[0]
        handlers = dict.fromkeys(wish.kata.handlers, False)
        message = f"Kata Containers is being installed: {step}."
        self._cluster.tell(Saying(handlers, str(State.INSTALLING), "", "False", "Installing", message, None), policy)

    def page(self) -> str:
        """The page for people."""
        run, made, asked = self.run, self._verdict, self._turn.waiting
        now, monotonic = time.time(), time.monotonic()
        waits = []
        if asked is not None and asked.waiting is not None:
            waits.append(Wait("a restart slot", now - (monotonic - asked.at), asked.waiting.message))
        return page(
            View(
                node=self._node,
                version=__version__,
                now=now,
                report=made.report if made else None,
                release=self.result.release if self.result else "",
                look=self.look,
                working_since=run.began if run else None,
                step=run.step if run else "",
                next_look=None if run else now + self.next_look - monotonic,
                waits=tuple(waits),
                failure=self.failure,
                published=self._cluster.published_at if self._cluster else None,
            )
        )

    def healthy(self) -> Answer:
        """Whether the loop turns and the worker is not stuck."""
        now = time.monotonic()
        if now - self.ticked > STANDSTILL:
            return 503, f"the loop has not turned for {now - self.ticked:.0f} s"
        run = self.run
        if run is not None and self._turn.waiting is None and now - run.heard > SILENCE:
            return 503, f"the worker has said nothing for {now - run.heard:.0f} s; its last step: {run.step or 'none'}"
        return 200, "ok"

    def ready(self) -> Answer:
        """Whether a look has ended and the cluster can be told of it."""
        if self.result is None:
            return 503, "the first look at the node has not ended"
        if self._cluster is not None and not self._cluster.reached:
            return 503, "the Kubernetes API cannot be reached"
        return 200, "ok"
