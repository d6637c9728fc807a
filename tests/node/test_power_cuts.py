"""Power cuts, systematic: a run is recorded write by write, and the disk that a cut leaves is booted, moment by moment.

A cut of power loses what no flush has made durable. So the states in which it can leave the disk are: everything up to
a flush, and of the writes between that flush and the next any part. For each flush while the change is under way the
first is booted or, every other time, one with a random half of the writes in flight. Then systemd must come up,
containerd serve, its configuration be the old or the new one whole, and the next agent make the node ready and leave
nothing.
"""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from nodes import PATIENCE, Case

from hack.nodes.blocklog import BlockLog
from hack.nodes.machine import Node
from hack.nodes.pods import Pods

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hack.lab.packages import Generation
    from hack.nodes.cluster import Account
    from hack.nodes.disk import Disk
    from hack.standin.archive import Archive

pytestmark = pytest.mark.node

GENERATION: Generation = "2.1"
"""With a drop-in and an import for it, it has all of the others' steps and more."""
CONFIG = ("/etc/containerd/config.toml", "/etc/containerd/katanode.d/katanode.toml")
STRIDE = int(os.environ.get("KATANODE_CUT_STRIDE", "10"))
"""Of the moments while the change is under way one in so many is tried; 1 takes all, which needs an hour."""
SIDE_BY_SIDE = 2
LEFTOVERS = """
find /etc /opt /var/lib/katanode -xdev -name '*.katanode-tmp-*' -o -name '*.staging-*' -o -name journal.json
"""


@dataclass(frozen=True, slots=True)
class Recording:
    """A run that was recorded.

    Attributes:
        disk: as it was before the node booted.
        log: every write since.
        flushes: the requests of the change: each makes all before it durable.
        old: the runtime's files before.
        new: and after.
    """

    disk: Disk
    log: BlockLog
    flushes: tuple[int, ...]
    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cut came to.

    Attributes:
        moment: the number of the flush among those of the change.
        kept: writes in flight that reached the disk all the same.
        found: which configuration the node booted with.
        journal: whether the change was under way.
        seconds: to boot, and to be ready again.
    """

    moment: int
    kept: int
    found: str
    journal: bool
    seconds: tuple[float, float]

    def __str__(self) -> str:
        under_way = "journal there" if self.journal else "no journal"
        boot, ready = self.seconds
        return (
            f"{self.moment:4}  {self.kept:3} in flight kept  {self.found:8}  {under_way:13}  "
            f"booted in {boot:.0f} s, ready after {ready:.0f} s"
        )


@pytest.fixture(scope="module")
def recording(
    prepared: Callable[[Generation], Disk],
    account: Account,
    node_releases: dict[str, Archive],
    tmp_path_factory: pytest.TempPathFactory,
) -> Recording:
    """A plain node made ready, with every write to its disk on record."""
    folder = tmp_path_factory.mktemp("recording")
    log = folder / "writes"
    log.touch()
    disk = prepared(GENERATION)
    with account.serve(0) as api, Node(disk, folder / "node", log=log, forward=api.port) as node:
        node.network_up()
        case = Case(node, Pods(node), account, node_releases)
        case.join(api)
        old = files(case)
        node.run("sync")
        begin = log.stat().st_size
        case.start_agent()
        case.until(lambda: "journal.json" in node.run("ls", "/var/lib/katanode", check=False).stdout)
        case.until(lambda: "journal.json" not in node.run("ls", "/var/lib/katanode").stdout)
        case.until_ready()
        node.run("sync")
        end, new = log.stat().st_size, files(case)
    assert old != new
    made = BlockLog(log)
    # The name of the journal, in a block of its folder, is what says on the disk that the change has begun.
    first = made.holding(b"journal.json", made.at(begin))[0]
    flushes = tuple(number for number in made.flushes() if first <= number <= made.at(end))
    return Recording(disk, made, flushes, old, new)


def files(case: Case) -> tuple[str, ...]:
    """The runtime's files, the missing as empty ones."""
    return tuple(case.file(path) for path in CONFIG)


class Cutter:
    """Boots disks as cuts leave them, one after the other.

    Args:
        recording: the run.
        folder: for one disk.
        account: the node's cluster.
        releases: those that the disk has.
    """

    def __init__(self, recording: Recording, folder: Path, account: Account, releases: dict[str, Archive]) -> None:
        self._recording = recording
        self._folder = folder
        self._account = account
        self._releases = releases
        self._raw = folder / "raw"
        self._done = 0
        folder.mkdir()
        words = ["qemu-img", "convert", "-O", "raw", recording.disk.image, self._raw]
        subprocess.run(words, check=True)

    def __call__(self, moments: list[int]) -> list[Outcome]:
        """Tries moments, in their order."""
        try:
            return [self._cut(moment) for moment in moments]
        finally:
            shutil.rmtree(self._folder)

    def _cut(self, moment: int) -> Outcome:
        log, flushes = self._recording.log, self._recording.flushes
        after = flushes[moment] + 1
        log.replay(range(self._done, after), self._raw)
        self._done = after
        state = self._folder / "state"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        cut = self._raw
        in_flight: list[int] = []
        if moment % 2 and moment + 1 < len(flushes):
            chance = random.Random(moment)
            in_flight = [number for number in range(after, flushes[moment + 1]) if chance.random() < 0.5]
            cut = state / "raw"
            subprocess.run(["cp", "--sparse=always", self._raw, cut], check=True)
            log.replay(in_flight, cut)
        disk = dataclasses.replace(self._recording.disk, image=cut, format="raw")
        try:
            return self._boot(moment, len(in_flight), disk, state)
        except AssertionError as error:
            error.add_note(
                f"power was cut at moment {moment} of {len(flushes)}, {len(in_flight)} writes in flight kept"
            )
            raise

    def _boot(self, moment: int, kept: int, disk: Disk, state: Path) -> Outcome:
        recording = self._recording
        begin = time.monotonic()
        with self._account.serve(0) as api, Node(disk, state / "node", forward=api.port) as node:
            booted = time.monotonic()
            node.network_up()
            case = Case(node, Pods(node), self._account, self._releases)
            case.join(api)
            case.pods.call("Version")
            now = files(case)
            pairs = zip(recording.old, recording.new, strict=True)
            assert all(text in pair for text, pair in zip(now, pairs, strict=True)), "each file is old or new, whole"
            journal = "journal.json" in node.run("ls", "/var/lib/katanode", check=False).stdout
            case.start_agent()
            case.until_ready()
            assert files(case) == recording.new
            left = node.shell(LEFTOVERS)
            assert not left, "nothing is left behind"
            found = "old" if now == recording.old else "new" if now == recording.new else "between"
            return Outcome(moment, kept, found, journal, (booted - begin, time.monotonic() - booted))


def test_a_power_cut_at_any_moment_of_a_change_leaves_a_node_that_boots_and_is_mended(
    recording: Recording,
    account: Account,
    node_releases: dict[str, Archive],
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    moments = list(range(len(recording.flushes)))[::STRIDE]
    folder = tmp_path_factory.mktemp("cuts")
    shares = [moments[number::SIDE_BY_SIDE] for number in range(SIDE_BY_SIDE)]
    cutters = [Cutter(recording, folder / str(number), account, node_releases) for number in range(SIDE_BY_SIDE)]
    begin = time.monotonic()
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        running = [pool.submit(cutter, share) for cutter, share in zip(cutters, shares, strict=True)]
        outcomes = [made for share in running for made in share.result()]
    assert len(outcomes) == len(moments)
    with capsys.disabled():
        print(
            f"\npower cut, containerd {GENERATION}: {len(recording.flushes)} moments of a change, {len(moments)} tried "
            f"(one in {STRIDE}), {time.monotonic() - begin:.0f} s"
        )
        for made in sorted(outcomes, key=lambda outcome: outcome.moment):
            print(made)
    assert {made.found for made in outcomes} >= {"old", "new"}, "cuts before and after the files were in place"
    assert all(made.seconds[0] < PATIENCE for made in outcomes)
