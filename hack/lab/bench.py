"""The project's figures, times against a yardstick in the same run where there is one: machines are noisy."""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cri.client import Client, CRIError
from agent.host.root import HostRoot
from agent.probes import kvm
from hack.fleetsim import bench as fleetsim
from hack.lab import bench_daemon, bench_image, bench_sandboxes
from hack.lab.containerd import RESTART, PrivateContainerd
from hack.lab.figures import Figure, spread, timed, write_settings
from hack.lab.lab import Lab
from hack.lab.running import KATANODE
from hack.standin.build import build_release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hack.standin.archive import Archive

_SIZE = 2_000_000_000  # half of it compresses away: the archive has 1 GB
_RUNS = 3
_GROUPS = ("node", "daemon", "sandboxes", "image", "fleet")
_POLL = 0.002


def main() -> int:
    """Measures what is asked for, everything by default; 1 when a bound is missed."""
    parser = argparse.ArgumentParser(prog="hack/bench", description=__doc__)
    parser.add_argument("--long", action="store_true", help="watch the simulated fleet for 330 s, with real heartbeats")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(_GROUPS)}; all of them")
    options = parser.parse_args()
    unknown = set(options.groups) - set(_GROUPS)
    if unknown:
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    rows: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="katanode-bench-") as scratch:
        groups: dict[str, Callable[[], Iterable[Figure]]] = {
            "node": lambda: _node(Path(scratch)),
            "daemon": lambda: bench_daemon.figures(Path(scratch) / "daemon"),
            "sandboxes": lambda: bench_sandboxes.figures(Path(scratch) / "sandboxes"),
            "image": bench_image.figures,
            "fleet": lambda: fleetsim.figures(long=options.long),
        }
        for name in options.groups or _GROUPS:
            print(f"measuring the {name} ...", flush=True)
            for figure in groups[name]():
                print(f"  {figure.what}: {figure.measured}", flush=True)
                rows.append(figure)
    width, wide = (max(len(text) for text in column) for column in zip(*(row[:2] for row in rows), strict=True))
    print(f"\n{'what':{width}}  {'measured':{wide}}  bound")
    for what, measured, bound, good in rows:
        print(f"{what:{width}}  {measured:{wide}}  {bound}{'' if good else '  MISSED'}")
    return 0 if all(row.good for row in rows) else 1


def _node(folder: Path) -> Iterator[Figure]:
    """What is done to a node, and how long it takes."""
    large = build_release(folder / "large", "4.0.0", size=_SIZE)["kata-static"]
    small = build_release(folder / "small", "3.2.0")["kata-static"]
    with Lab(keep=(folder,)) as lab, PrivateContainerd(lab, "2.1") as containerd:
        yield _fresh_apply(lab, large)
        yield _outage(lab, containerd, small)
        yield _bounded("katanode check", 1.5, lambda: lab.run([KATANODE, "check"], check=False))
    yield _bounded("KVM probe, its child included", 0.020, lambda: kvm.run_guest(HostRoot()))
    start = _median(lambda: _python("pass"))
    imports = "import agent.reconcile, agent.undo, agent.inspect, agent.probes"
    yield _bounded("import of what a worker needs", 0.5, lambda: _python(imports), less=start)


def _fresh_apply(lab: Lab, archive: Archive) -> Figure:
    """A whole `katanode apply` of a large release, against unpacking the same archive with zstd and tar."""
    write_settings(lab, archive, "4.0.0", ["kata-clh"])
    ours, theirs = [], []
    unpack = f"mkdir /opt/bench && zstd -dcq {archive.path} | tar -x -C /opt/bench && sync"
    for _ in range(_RUNS):
        lab.run(["sync"])
        theirs.append(timed(lambda: lab.run(["sh", "-c", unpack], timeout=300)))
        lab.run(["rm", "-rf", "/opt/bench"])
        lab.run(["sync"])
        ours.append(timed(lambda: lab.run([KATANODE, "apply"], timeout=300)))
        lab.run([KATANODE, "uninstall"], timeout=60)
    ratio = statistics.median(ours) / statistics.median(theirs)
    measured = f"{spread(ours)} / {spread(theirs)} = {ratio:.2f}"
    return Figure("fresh apply of 1 GB / zstd | tar, sync", measured, "1.2", ratio <= 1.2)


def _outage(lab: Lab, containerd: PrivateContainerd, archive: Archive) -> Figure:
    """How long CRI does not answer while a change is activated, against a bare restart of the same daemon."""
    ours, theirs = [], []
    write_settings(lab, archive, "3.2.0", ["kata-clh"])
    lab.run([KATANODE, "apply"])
    for number in range(2 * _RUNS):
        write_settings(lab, archive, "3.2.0", ["kata-clh", "kata-qemu"] if number % 2 == 0 else ["kata-clh"])
        ours.append(_gap(containerd, lambda: lab.run([KATANODE, "apply"])))
        theirs.append(_gap(containerd, lambda: lab.run([RESTART])))
    ratio = statistics.median(ours) / statistics.median(theirs)
    measured = f"{spread(ours)} / {spread(theirs)} = {ratio:.2f}"
    return Figure("CRI outage, activation / bare restart", measured, "1.1", ratio <= 1.1)


def _gap(containerd: PrivateContainerd, action: Callable[[], object]) -> float:
    """The longest time between two answers of CRI while `action` runs."""
    answers: list[float] = []
    over = threading.Event()

    def poll() -> None:
        with Client(containerd.socket) as client:
            while not over.is_set():
                try:
                    client.version(timeout=0.2)
                    answers.append(time.monotonic())
                except CRIError:
                    pass
                time.sleep(_POLL)

    poller = threading.Thread(target=poll)
    poller.start()
    action()
    containerd.wait_ready()
    time.sleep(0.3)  # the last answers after the restart
    over.set()
    poller.join()
    return max(later - earlier for earlier, later in itertools.pairwise(answers))


def _bounded(what: str, bound: float, action: Callable[[], object], *, less: float = 0.0) -> Figure:
    action()
    times = [timed(action) - less for _ in range(3 * _RUNS)]
    return Figure(what, spread(times), f"{bound:g} s", statistics.median(times) <= bound)


def _python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def _median(action: Callable[[], object]) -> float:
    return statistics.median(timed(action) for _ in range(3 * _RUNS))


if __name__ == "__main__":
    sys.exit(main())
