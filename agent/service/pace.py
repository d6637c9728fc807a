"""When to look at the node again."""

import random
import time
from collections.abc import Callable

from agent.reasons import Reason

_FIRST = 15.0
"""Seconds after which a failed run is tried again; doubled each time that it fails for the same reason."""
_LONGEST = 1800.0
_GAP = 2.0
"""Seconds between two looks that changes ask for; doubled while they go on."""
_CALM = 120.0
"""Seconds without a change after which the gap is the first one again."""
_SOON = {Reason.SANDBOXES_RUNNING: 60.0, Reason.ANOTHER_RUN: 30.0, Reason.WAITING_FOR_SLOT: 30.0}
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
