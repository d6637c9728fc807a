"""A simulated fleet: many agents' cluster sides take turns, and leave the API server in peace.

Small enough for every run; `hack/bench` measures the same on 1,000 agents. The machine may be busy: what is a promise
of the whole fleet is judged strictly, and what one late thread can spoil, generously.
"""

from __future__ import annotations

import gc
import socket
import statistics
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hack.fleetsim.fleet import Fleet

if TYPE_CHECKING:
    import pytest

AGENTS = 120
SLACK = 5.0
"""Seconds that a busy machine may take besides."""


def test_nodes_write_no_more_than_a_heartbeat_and_restart_no_more_than_have_a_slot() -> None:
    heartbeat, slots = 3.0, 6
    with Fleet(AGENTS, slots=slots, heartbeat=heartbeat) as fleet:
        fleet.until_published(60)
        begin = time.monotonic()
        time.sleep(2.5 * heartbeat)
        counts = [len(times) for times in fleet.writes(begin).values()]
        # Heartbeats are 1.0 to 1.1 of it apart: two or three of them, wherever the window begins.
        assert max(counts) <= 3
        assert min(counts) >= 1, "a node has fallen silent"
        assert statistics.mean(counts) <= 2.6
        made = fleet.roll_out(AGENTS, 120)
    assert 1 < made.at_once <= slots
    assert len({turn.node for turn in made.turns}) == AGENTS
    assert {turn.slot for turn in made.turns} == {f"katanode-restart-{number}" for number in range(slots)}


def test_the_next_node_begins_within_two_seconds_of_the_one_before() -> None:
    # So long that every waiter is at rest again when a slot becomes free.
    with Fleet(AGENTS, restart_seconds=1.3) as fleet:
        fleet.until_published(60)
        made = fleet.roll_out(5, 60)
    assert made.at_once == 1
    assert len(made.handovers) >= 4
    assert statistics.median(made.handovers) < 2.0
    assert max(made.handovers) < 2.0 + SLACK, made.handovers


def test_a_holder_that_vanishes_delays_the_rest_by_its_lease_and_is_not_robbed_before() -> None:
    lease = 5
    with Fleet(AGENTS, lease_seconds=lease, vanishing=range(AGENTS)) as fleet:
        fleet.until_published(60)
        made = fleet.roll_out(3, 60)
    assert made.at_once == 1
    assert len(made.recoveries) >= 2
    assert min(made.recoveries) > 0.75 * lease, made.recoveries
    assert max(made.recoveries) < lease + SLACK, made.recoveries


def test_a_fleet_leaves_nothing_behind(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    def children() -> set[str]:
        return {pid for of_task in Path("/proc/self/task").glob("*/children") for pid in of_task.read_text().split()}

    threads, processes = set(threading.enumerate()), children()
    with Fleet(10, restart_seconds=0.2) as fleet:
        fleet.until_published(60)
        fleet.roll_out(1, 60)  # ended in the middle of things
        addresses = [urlsplit(url) for url in (fleet.standin.url, fleet.standin.control_url)]
        assert len(children() - processes) == 2
    assert set(threading.enumerate()) <= threads
    assert children() <= processes
    for address in addresses:
        with socket.socket() as probe:
            assert probe.connect_ex((address.hostname, address.port)) != 0, address
    del fleet
    gc.collect()
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
