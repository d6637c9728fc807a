"""Reading the sandboxes for the table: the census, CPU between two looks, and memory at a pace that it can afford."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent.listing.row import Row
from agent.sandboxes import measure
from agent.sandboxes.census import Census, Sandbox

MEMORY_AGE = 10.0
"""Seconds for which a sandbox's memory counts as current: to measure it, the kernel walks all page tables."""
BUDGET = 5.0
"""Seconds that a look spends on memory at most. Those whose turn has not come keep their last figure, or are shown with
their resident memory and have it next time."""
WATCH_BUDGET = 0.5
"""The same for looks that come one after the other."""
YOUNG = 10.0
"""Seconds of age below which it is no wonder that a sandbox holds no virtual machine yet."""


class Gathering:
    """Looks again and again.

    Args:
        proc: the /proc to look at.
        census: over that /proc.
        clock: monotonic seconds.
        budget: seconds a look may spend on memory.
    """

    def __init__(
        self,
        proc: Path,
        census: Census,
        *,
        clock: Callable[[], float] = time.monotonic,
        budget: float = BUDGET,
    ) -> None:
        self._proc = proc
        self._census = census
        self._clock = clock
        self._budget = budget
        self._at = 0.0
        self._cpu: Mapping[tuple[int, int], float] = {}
        self._memory: dict[str, tuple[float, measure.Memory]] = {}
        self.interval = 0.0
        """Seconds between the last two looks, over which CPU was measured; 0 before the second."""

    @property
    def answered(self) -> bool:
        """Whether the runtime listed its pods."""
        return self._census.pods is not None

    def look(self) -> Sequence[Row]:
        """Looks; gives a row for each sandbox, the oldest first.

        Raises:
            OSError: there is no such /proc.
        """
        sandboxes = self._census.update()
        now, before = self._clock(), self._at
        self.interval = now - before if before else 0.0
        spent = {(p.pid, p.start): p.cpu_seconds for s in sandboxes for group in s.processes.values() for p in group}
        rows = [self._row(sandbox, spent) for sandbox in sandboxes]
        self._at, self._cpu = now, spent
        return rows

    def measure(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows with memory; those that wait longest are measured first."""
        begin = self._clock()
        self._memory = {row.sandbox.id: self._memory[row.sandbox.id] for row in rows if row.sandbox.id in self._memory}
        for row in sorted(rows, key=lambda row: self._measured_at(row.sandbox)):
            now = self._clock()
            if now - self._measured_at(row.sandbox) < MEMORY_AGE or now - begin > self._budget:
                break
            made = measure.memory(self._proc, row.sandbox)
            if made is not None:
                self._memory[row.sandbox.id] = (now, made)
        return [row.with_memory(self._shares(row.sandbox)) for row in rows]

    def _measured_at(self, sandbox: Sandbox) -> float:
        return self._memory[sandbox.id][0] if sandbox.id in self._memory else float("-inf")

    def _shares(self, sandbox: Sandbox) -> Mapping[str, int]:
        return self._memory[sandbox.id][1].proportional if sandbox.id in self._memory else {}

    def _row(self, sandbox: Sandbox, spent: Mapping[tuple[int, int], float]) -> Row:
        own = [(p.pid, p.start) for group in sandbox.processes.values() for p in group]
        known = [key for key in own if key in self._cpu]
        cores = sum(spent[key] - self._cpu[key] for key in known) / self.interval if self.interval and known else None
        young = time.time() - sandbox.started < YOUNG
        return Row(sandbox, cores, without_vm=not (sandbox.holds_vm or sandbox.orphan or young))
