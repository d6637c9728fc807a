"""Faults on demand: what happens to which requests, how often or how long."""

from __future__ import annotations

import itertools
import random
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class What(StrEnum):
    """What happens to a request."""

    STATUS = "status"  # answered with an error, not worked on
    RESET = "reset"  # the connection is reset, the request not worked on
    LOST = "lost"  # worked on, then the connection is reset: the answer is lost
    SLOW = "slow"  # worked on after a delay
    STALL = "stall"  # a watch that stays open and says nothing


@dataclass(slots=True)
class Fault:
    """One fault; it ends after `count` requests or `seconds`, whichever comes first, else with `Faults.clear`.

    Attributes:
        what: happens.
        count: of requests that it hits; None for all.
        seconds: that it lasts from now; None for ever.
        rate: the part of the requests that it hits, 0 to 1.
        verbs: get, list, watch, create, update, patch, apply, delete; empty for all. apply is also a patch.
        resources: plural, or plural/subresource; empty for all.
        users: names; empty for all.
        nodes: of tokens; empty for all.
        names: of objects; empty for all.
        code: the status of `What.STATUS`.
        retry_after: the Retry-After of a 429 or 503, in seconds; None sends none (a 429 always has one).
        delay: of `What.SLOW`, in seconds.
    """

    what: What
    count: int | None = None
    seconds: float | None = None
    rate: float = 1.0
    verbs: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    code: int = 503
    retry_after: int | None = None
    delay: float = 0.0
    hits: int = 0
    _end: float = field(default=float("inf"), repr=False)

    def __post_init__(self) -> None:
        self.what = What(self.what)
        for name in ("verbs", "resources", "users", "nodes", "names"):
            setattr(self, name, frozenset(getattr(self, name)))
        if self.seconds is not None:
            self._end = time.monotonic() + self.seconds

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return time.monotonic() >= self._end or (self.count is not None and self.hits >= self.count)

    def meant_for(self, request: Asking) -> bool:
        """Whether it is about such a request."""
        return (
            (not self.verbs or bool(self.verbs & request.verbs))
            and (not self.resources or request.resource in self.resources)
            and (not self.users or request.user in self.users)
            and (not self.nodes or request.node in self.nodes)
            and (not self.names or request.name in self.names)
        )


@dataclass(frozen=True, slots=True)
class Asking:
    """What faults are chosen by."""

    verbs: frozenset[str]
    resource: str
    user: str
    node: str
    name: str


class Faults:
    """The faults in force. Any thread may add and clear.

    Args:
        seed: of the rates' chance.
    """

    def __init__(self, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._faults: dict[int, Fault] = {}
        self._chance = random.Random(seed)

    def add(self, fault: Fault) -> int:
        """Put a fault in force; its number comes back."""
        with self._lock:
            number = next(self._numbers)
            self._faults[number] = fault
            return number

    def clear(self, number: int | None = None) -> None:
        """End one fault, or all."""
        with self._lock:
            if number is None:
                self._faults.clear()
            else:
                self._faults.pop(number, None)

    def hit(self, request: Asking, *kinds: What) -> Fault | None:
        """The first fault of these kinds that this request meets; it counts as a hit."""
        with self._lock:
            for number, fault in list(self._faults.items()):
                if fault.over:
                    del self._faults[number]
                elif fault.what in kinds and fault.meant_for(request) and self._chance.random() < fault.rate:
                    fault.hits += 1
                    return fault
        return None

    def standing_now(self) -> dict[int, Fault]:
        """All that have not ended, by number."""
        with self._lock:
            return {number: fault for number, fault in self._faults.items() if not fault.over}

    def standing(self, request: Asking, what: What) -> bool:
        """Whether a fault of this kind is about such a request now; that is no hit."""
        if not self._faults:
            return False
        with self._lock:
            return any(f.what is what and not f.over and f.meant_for(request) for f in self._faults.values())

    def throttle(
        self, *, count: int | None = None, seconds: float | None = None, retry_after: int = 1, **to: Any
    ) -> int:
        """429 with Retry-After; `to` are the fields of `Fault` that choose requests."""
        return self.add(Fault(What.STATUS, count, seconds, code=429, retry_after=retry_after, **to))

    def storm(
        self, *, code: int = 503, rate: float = 1.0, count: int | None = None, seconds: float | None = None, **to: Any
    ) -> int:
        """Server errors."""
        return self.add(Fault(What.STATUS, count, seconds, rate, code=code, **to))

    def reset(
        self, *, after_write: bool = False, count: int | None = None, seconds: float | None = None, **to: Any
    ) -> int:
        """Connections reset before the work is done, or `after_write` when it was."""
        return self.add(Fault(What.LOST if after_write else What.RESET, count, seconds, **to))

    def slow(self, delay: float, *, count: int | None = None, seconds: float | None = None, **to: Any) -> int:
        """Answers that take `delay` seconds longer."""
        return self.add(Fault(What.SLOW, count, seconds, delay=delay, **to))

    def stall(self, *, count: int | None = None, seconds: float | None = None, **to: Any) -> int:
        """Watches that say nothing as long as this lasts; what they missed comes after it."""
        return self.add(Fault(What.STALL, count, seconds, **to))
