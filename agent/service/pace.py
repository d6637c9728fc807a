"""When to look at the node again, and when to prove it again."""

import random
import time
from collections.abc import Callable, Mapping

from agent.reasons import Reason

_FIRST = 15.0
"""Seconds after which a failed run is tried again; doubled each time that it fails for the same reason."""
_LONGEST = 1800.0
_GAP = 2.0
"""Seconds between two looks that changes ask for; doubled while they go on."""
_CALM = 120.0
"""Seconds without a change after which the gap is the first one again."""
_SOON = {
    Reason.SANDBOXES_RUNNING: 60.0,
    Reason.ANOTHER_RUN: 30.0,
    Reason.WAITING_FOR_SLOT: 30.0,
    Reason.NETWORK_PLUGIN_NOT_READY: 30.0,
}
"""Reasons that end by themselves: they are not waited for longer than this."""


class Pace:
    """The time of the next look.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.due = clock()
        self._ended = float("-inf")
        self._failures: dict[str, int] = {}
        self._gap = _GAP
        self._touched = float("-inf")

    def ended(self, interval: float, reason: str) -> None:
        """A look has ended.

        Args:
            interval: seconds until the next one when all is well.
            reason: why what is wanted is not so; "" when it is.
        """
        self._ended = self._clock()
        if reason:
            self._failures = {reason: self._failures.get(reason, 0) + 1}
            wait = min(_SOON.get(Reason(reason), _LONGEST), _FIRST * 2.0 ** min(self._failures[reason] - 1, 10))
        else:
            self._failures = {}
            wait = interval
        self.due = self._ended + wait * random.uniform(0.9, 1.1)  # noqa: S311 - jitter

    def wanted(self) -> None:
        """Somebody wants something else: look at once."""
        self._failures = {}
        self.due = self._clock()

    def touch(self) -> None:
        """Something has changed: look soon, but not all the time when changes do not end."""
        now = self._clock()
        self._gap = _GAP if now - self._touched > _CALM else min(self._gap * 2.0, 60.0)
        self._touched = now
        self._failures = {}
        self.due = min(self.due, max(now, self._ended + self._gap))


CONFIRM = 30.0
"""Seconds after which a canary that failed for a passing cause is tried again: a runtime is back within some of them,
and a node that is still too busy then, after a canary's own time limit, is one that starts no sandboxes."""


class Renewal:
    """The time of the next periodic canary.

    It follows from when the proofs were made, which the node remembers: agents that are all restarted at once, as by
    their own upgrade, start no sandboxes for that.

    Args:
        clock: monotonic seconds.
        now: Unix seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._now = now
        self._basis: tuple[float, ...] | None = None
        self.due = float("inf")

    @property
    def is_due(self) -> bool:
        """Whether the next look is to prove the handlers again."""
        return self._clock() >= self.due

    def follow(self, interval: float, proved: Mapping[str, float], doubts: Mapping[str, float]) -> None:
        """A look has ended; jitter is drawn once for each state of the proofs.

        Args:
            interval: seconds between two canaries, with a tenth of jitter; 0 for none but those that settle a doubt.
            proved: when each handler that is ready was proved, in Unix seconds.
            doubts: when a canary failed although the proof still holds.
        """
        oldest, doubted = min(proved.values(), default=0.0), max(doubts.values(), default=0.0)
        basis = (interval, float(bool(proved)), oldest, doubted)
        if basis == self._basis:
            return
        self._basis, self.due = basis, float("inf")
        if proved and interval:
            self.due = self._in(oldest, interval * random.uniform(0.9, 1.1))  # noqa: S311 - jitter
        if doubts:
            self.due = min(self.due, self._in(doubted, min(CONFIRM, interval or CONFIRM)))

    def begun(self, interval: float) -> None:
        """A look renews: when that changes nothing, or ends nowhere, the next one is not at once."""
        self.due = self._clock() + max(interval / 10, CONFIRM)

    def _in(self, since: float, wait: float) -> float:
        """A moment `wait` seconds after `since`; wall clocks jump, so that it is never further away than that."""
        return self._clock() + min(max(0.0, since + wait - self._now()), wait)
