"""How many idle sandboxes of one handler run at once, within bounds that leave the node room."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.benching.choice import Chosen
from agent.benching.figures import Density, Failure
from agent.benching.interrupts import Interrupts
from agent.benching.limits import Limits, Until, headroom
from agent.benching.sandboxes import Sandboxes
from agent.errors import KatanodeError
from agent.probes.resources import meminfo
from agent.reasons import Reason
from agent.sandboxes.processes import PROC

Tell = Callable[[str], None]

_STEP = 0.2
_CALM = 0.01
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Gauge:
    """Reads how much memory is available."""

    proc: Path = PROC

    def available(self) -> int:
        """Bytes that can be had without swapping (MemAvailable of proc_meminfo(5))."""
        return self._read("MemAvailable")

    def total(self) -> int:
        """Bytes of memory."""
        return self._read("MemTotal")

    def settled(self) -> int:
        """Bytes available once that stays the same for a moment, or after 5 s."""
        deadline = time.monotonic() + _PATIENCE
        last = self.available()
        while time.monotonic() < deadline:
            time.sleep(_STEP)
            now = self.available()
            if abs(now - last) <= last * _CALM / 10:
                return now
            last = now
        return last

    def _read(self, field: str) -> int:
        return meminfo((self.proc / "meminfo").read_text("ascii", "replace"))[field]


def measure(
    sandboxes: Sandboxes,
    chosen: Chosen,
    limits: Limits,
    guess: int,
    interrupts: Interrupts,
    tell: Tell,
    gauge: Gauge | None = None,
) -> tuple[Density, Failure | None]:
    """Starts sandboxes through a handler until a bound is reached; removes them all.

    Args:
        sandboxes: where they are started.
        chosen: the handler.
        limits: the bounds.
        guess: bytes that the first one is expected to use.
        interrupts: ends it.
        tell: told of each start.
        gauge: where the node's memory is read.

    Returns:
        The density, and what failed if that ended it.
    """
    gauge = gauge or Gauge()
    before, total = gauge.settled(), gauge.total()
    budget = limits.budget(before, total)
    begin = time.monotonic()
    started: set[str] = set()
    used = 0
    failure: Failure | None = None
    until: Until | None = None
    while until is None:
        expected = max(guess, used // len(started)) if started else guess
        until = limits.reached(len(started), used, expected, budget, time.monotonic() - begin)
        if interrupts.caught:
            until = Until.INTERRUPTED
        if until is not None:
            break
        tell(f"{chosen.name}: {len(started) + 1} at once, {used >> 20} of {budget >> 20} MiB")
        try:
            started.add(sandboxes.start(chosen.handler).id)
            gone = started - sandboxes.ready()
        except KatanodeError as error:
            until, failure = Until.FAILURE, Failure.of(error)
            break
        if gone:
            until = Until.STOPPED
            started -= gone
            failure = _stopped(len(gone))
            break
        used = max(0, before - gauge.available())
    seconds = time.monotonic() - begin
    used = max(0, before - gauge.settled()) if started else 0
    sandboxes.clear()
    return Density(len(started), until, seconds, before, used, headroom(total)), failure


def _stopped(count: int) -> Failure:
    return Failure.of(
        KatanodeError(
            Reason.BENCH_DISTURBED,
            f"somebody else stopped {count} of the sandboxes while others were started",
        )
    )
