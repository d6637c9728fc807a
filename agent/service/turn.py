"""The daemon's dealings with restart slots, on behalf of its worker."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent import logs
from agent.cluster.api import ApiError
from agent.cluster.cluster import Cluster
from agent.cluster.slots import Cancelled, Policy, Slot, Waiting
from agent.reasons import CATALOGUE, Reason
from agent.service.messages import Problem
from agent.service.run import Run

AWAY = 60.0
"""Seconds without the API after which a repair, but no rollout, does without a restart slot."""

Put = Callable[[str, Any], None]
"""Brings an event to the daemon's loop."""


@dataclass(slots=True, eq=False)
class Asked:
    """A run that asked for a slot.

    Attributes:
        run: which.
        at: when, in monotonic seconds.
        repair: it repairs what was in force.
        cancelled: tells the thread that waits for the slot that nobody wants it any more.
        granted: the run may restart the runtime.
        held: the slot; None while there is none and for a run that needs none.
        waiting: why there is none yet.
    """

    run: Run
    at: float
    repair: bool
    cancelled: threading.Event
    granted: bool = False
    held: Slot | None = None
    waiting: Waiting | None = None


class Turn:
    """The restart slot of one node.

    Args:
        cluster: the cluster side; None on a machine without Kubernetes.
        put: brings `slot` events to the loop, which hands them to `got`.
        waited: told how many seconds a run waited.
    """

    def __init__(self, cluster: Cluster | None, put: Put, waited: Callable[[float], None]) -> None:
        self._cluster = cluster
        self._put = put
        self._waited = waited
        self._asked: Asked | None = None

    @property
    def waiting(self) -> Asked | None:
        """Who waits; None when nobody does."""
        return self._asked if self._asked is not None and not self._asked.granted else None

    @property
    def granted(self) -> bool:
        """Whether a run may be restarting the runtime now."""
        return self._asked is not None and self._asked.granted

    def ask(self, run: Run, policy: Policy, *, repair: bool, serves: bool) -> None:
        """A run asks for a slot.

        Args:
            run: which.
            policy: the rollout's.
            repair: it repairs what was in force.
            serves: whether the runtime serves at all; if not, its restart disturbs nobody.
        """
        asked = self._asked = Asked(run, time.monotonic(), repair, threading.Event())
        if self._cluster is None or not serves or self._cluster.takes_no_pods_yet:
            self._grant(asked)
            return
        slots = self._cluster.slots

        def acquire() -> None:
            try:
                got = slots.acquire(policy, asked.cancelled, lambda why: self._put("slot", (asked, why)))
            except Cancelled:
                return
            self._put("slot", (asked, got))

        threading.Thread(target=acquire, name="slot", daemon=True).start()

    def got(self, asked: Asked, what: Slot | Waiting) -> None:
        """A slot came, or word of why none does."""
        if isinstance(what, Waiting):
            asked.waiting = what
            logs.info(what.message, reason=str(what.reason))
        elif asked is self._asked and not asked.granted:
            asked.held = what
            self._grant(asked)
        else:
            _in_background(what, "")

    def look(self) -> None:
        """What was in force is repaired also when the API is away; a rollout waits."""
        asked = self.waiting
        if asked is None or not asked.repair or asked.waiting is None:
            return
        if asked.waiting.reason is Reason.CLUSTER_UNREACHABLE and time.monotonic() - asked.at > AWAY:
            logs.warning("repairing without a restart slot: the API cannot be reached")
            asked.cancelled.set()
            self._grant(asked)

    def give_back(self, failed: str) -> None:
        """The run is done with its slot.

        Args:
            failed: why its change was undone; "" when it held.
        """
        asked, self._asked = self._asked, None
        if asked is not None and asked.held is not None:
            _in_background(asked.held, failed)

    def cancel(self, why: str) -> None:
        """Whoever waits is to end and begin anew, since what is wanted has changed."""
        asked = self.waiting
        if asked is None:
            return
        self.drop()
        message = f"not waiting for a restart slot any more: {why}"
        remedy = CATALOGUE[Reason.WAITING_FOR_SLOT].remedy
        asked.run.refuse(Problem(str(Reason.WAITING_FOR_SLOT), message, "", remedy))

    def drop(self) -> None:
        """The run is gone. A slot that it held runs out by itself: its node may be in the middle of something."""
        if self._asked is not None:
            self._asked.cancelled.set()
        self._asked = None

    def _grant(self, asked: Asked) -> None:
        asked.granted = True
        asked.waiting = None
        self._waited(time.monotonic() - asked.at)
        asked.run.grant()


def _in_background(slot: Slot, failed: str) -> None:
    """Gives a slot back although the API may be away: for as long as it may count."""

    def work() -> None:
        for pause in (1, 2, 5, 10, 20, 40, 60):
            try:
                slot.give_back(failed)
            except ApiError:
                time.sleep(pause)
            else:
                return

    threading.Thread(target=work, name="slot-return", daemon=True).start()
