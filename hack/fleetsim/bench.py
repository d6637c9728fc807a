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


def figures(*, long: bool) -> Iterator[Figure]:
    """Measures them.

    Args:
        long: whether heartbeats are as they are in reality, and not a fifth of that.
    """
    heartbeat = HEARTBEAT if long else HEARTBEAT / 5
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
    seconds = 1.1 * heartbeat  # with its jitter
    begin = time.monotonic()
    time.sleep(seconds)
    most = max(len(times) for times in fleet.writes(begin).values())
    # Told, not judged: a node's first writes met those of all others in a queue, and so are nearer to the next.
    gaps = [b - a for times in fleet.writes().values() for a, b in itertools.pairwise(times) if b >= begin]
    scale = "" if heartbeat == HEARTBEAT else f"; heartbeat {heartbeat:g} s instead of {HEARTBEAT:g} s"
    measured = f"{most} at most; from the last one {spread(gaps)}{scale}"
    return Figure(f"a node's writes in {seconds:.0f} s", measured, "1", bool(gaps) and most <= 1)
