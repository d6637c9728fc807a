"""What happened while the nodes of a simulated fleet took turns."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(slots=True)
class Turn:
    """One node's turn; all times are of the machine's monotonic clock, the same in all its processes.

    Attributes:
        node: whose.
        slot: name of the slot's Lease.
        got: when it had the slot.
        ended: when it began to give it back, or vanished; infinite while it has it.
        vanished: it gave nothing back.
    """

    node: str
    slot: str
    got: float
    ended: float = math.inf
    vanished: bool = False


@dataclass(slots=True)
class Rollout:
    """The turns of some nodes.

    Attributes:
        turns: in the order in which they were heard of, which is not that of their times: agents are in several
            processes.
    """

    turns: list[Turn] = field(default_factory=list)

    def hear(self, event: Mapping[str, Any]) -> None:
        """Takes an event of an agent."""
        if "got" in event:
            self.turns.append(Turn(event["node"], event["slot"], event["got"]))
            return
        turn = next(turn for turn in self.turns if turn.node == event["node"])
        turn.vanished = "vanished" in event
        turn.ended = event["vanished"] if turn.vanished else event["gave"]

    @property
    def ended(self) -> int:
        """Turns that are over."""
        return sum(turn.ended < math.inf for turn in self.turns)

    @property
    def at_once(self) -> int:
        """The most nodes that had a slot, and so may have restarted their runtime, at the same time."""
        edges = sorted([(t.got, 1) for t in self.turns] + [(t.ended, -1) for t in self.turns])
        return max(itertools.accumulate(change for _, change in edges), default=0)

    @property
    def handovers(self) -> list[float]:
        """Seconds from the moment that a node was done with its slot until another one had the same, each."""
        return [later.got - before.ended for before, later in self._successions() if not before.vanished]

    @property
    def recoveries(self) -> list[float]:
        """Seconds from the moment that a node vanished until another one had its slot, each."""
        return [later.got - before.ended for before, later in self._successions() if before.vanished]

    def _successions(self) -> Iterator[tuple[Turn, Turn]]:
        turns = sorted(self.turns, key=attrgetter("slot", "got"))
        return ((before, later) for before, later in itertools.pairwise(turns) if before.slot == later.slot)
