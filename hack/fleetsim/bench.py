"""The figures of a simulated fleet of 1,000 nodes."""

from __future__ import annotations

import itertools
import statistics
import time
from typing import TYPE_CHECKING

from agent.cluster.publisher import HEARTBEAT
from hack.fleetsim.fleet import Fleet
from hack.lab.figures import Figure, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

_NODES = 1000
_SLOTS = 2
_TURNS = 40
_RESTART = 2.0
_LEASE = 15
_LATE = 0.05
"""Part of a heartbeat by which a busy server may see one write late, as a fleet's first ones, and the next in time."""


def figures(*, long: bool) -> Iterator[Figure]:
    """Measures them.

    Args:
        long: whether heartbeats are as they are in reality, and not a tenth of that.
    """
    heartbeat = HEARTBEAT if long else HEARTBEAT / 10
    with Fleet(_NODES, slots=_SLOTS, restart_seconds=_RESTART, heartbeat=heartbeat) as fleet:
        fleet.until_published()
        yield _steady(fleet, heartbeat)
        made = fleet.roll_out(_TURNS, 300)
    of = f"{len(made.turns)} turns of {_RESTART:g} s among {_NODES} nodes"
    yield Figure(
        f"nodes with a slot at once, of {_SLOTS} slots", f"{made.at_once}, {of}", str(_SLOTS), made.at_once <= _SLOTS
    )
    waits = made.handovers
    yield Figure("from one node to the next", f"{spread(waits)}", "2 s", statistics.median(waits) <= 2)
    with Fleet(_NODES, lease_seconds=_LEASE, vanishing=range(_NODES)) as fleet:
        fleet.until_published()
        waits = fleet.roll_out(3, 300).recoveries
    # Whoever waits sees the lease run out by its own clock, and then is handed the slot like any other.
    measured = f"{max(waits):.1f} s at most of {len(waits)}, with a lease of {_LEASE} s"
    yield Figure("delay by a holder that vanished", measured, f"{_LEASE} s + 2 s", max(waits) <= _LEASE + 2)


def _steady(fleet: Fleet, heartbeat: float) -> Figure:
    """How often a node writes when nothing happens."""
    begin = time.monotonic()
    seconds = 1.1 * heartbeat if heartbeat == HEARTBEAT else 2.2 * heartbeat
    time.sleep(seconds)
    times = fleet.writes().values()
    # The writes before are those with which each node began: the first heartbeat is to be as far from them.
    gaps = [b - a for of_node in times for a, b in itertools.pairwise(of_node) if b >= begin]
    writes = sum(at >= begin for of_node in times for at in of_node)
    mean = writes / _NODES * heartbeat / seconds
    scale = "" if heartbeat == HEARTBEAT else f" (heartbeat {heartbeat:g} s instead of {HEARTBEAT:g} s)"
    shortest = min(gaps, default=0.0)
    measured = f"{mean:.2f} in {seconds:.0f} s, two of a node at least {shortest:.1f} s apart{scale}"
    return Figure("a node's writes in a heartbeat", measured, "1", bool(gaps) and shortest >= (1 - _LATE) * heartbeat)
