"""No fights: what somebody else took is taken back once, reported, and then left to them for a while."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

TRUCE = 3600.0
"""Seconds in which a field that somebody else took is taken back once and no more."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Somebody else wrote what katanode owns.

    Attributes:
        what: the label, the condition or the taint.
        who: the other field manager, if the API named it.
        at: monotonic seconds of when it was taken back.
        lost: it was taken again since; it is left to them until the truce ends.
    """

    what: str
    who: str
    at: float
    lost: bool = False


class Truce:
    """The contests of one node.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._contests: dict[str, Contest] = {}

    @property
    def contests(self) -> tuple[Contest, ...]:
        """Those of the truce that runs."""
        return tuple(c for c in self._contests.values() if self._runs(c))

    def may_take_back(self, what: str, who: str = "") -> bool:
        """Notes that somebody took a field; says whether it is taken back, which is done once in a truce."""
        before = self._contests.get(what)
        if before is not None and self._runs(before):
            self._contests[what] = replace(before, lost=True, who=who or before.who)
            return False
        self._contests[what] = Contest(what, who, self._clock())
        return True

    def is_lost(self, what: str) -> bool:
        """Whether a field is left to somebody else for now."""
        contest = self._contests.get(what)
        return contest is not None and contest.lost and self._runs(contest)

    def name(self, what: str, who: str) -> None:
        """Learns who it was."""
        if what in self._contests:
            self._contests[what] = replace(self._contests[what], who=who)

    def _runs(self, contest: Contest) -> bool:
        return self._clock() - contest.at < TRUCE
