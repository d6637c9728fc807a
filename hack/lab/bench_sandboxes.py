"""What watching sandboxes costs: of a made-up /proc with hundreds of them, and of the daemon beside fifty real ones."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hack.lab import cri
from hack.lab.containerd import PrivateContainerd
from hack.lab.fakeproc import node
from hack.lab.figures import Figure, until, write_settings
from hack.lab.lab import Lab
from hack.lab.running import KATANODE, PORT, Running
from hack.standin.build import build_release

if TYPE_CHECKING:
    from collections.abc import Iterator

_VERSION = "3.2.0"
_HANDLERS = ("kata-clh", "kata-qemu")
_MANY = 50
_SCRAPES = 40
_MIB = 1 << 20
_MS = 1000
_FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=9).read().decode())"
_SCRAPE = """
import json, re, sys, time
from pathlib import Path
from agent.host.root import HostRoot
from agent.service.sandboxes import Sandboxes
from agent.settings import Sandboxes as Settings

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

root = Path(sys.argv[1])
made = Sandboxes(HostRoot(root), root / "proc")
made.configure(Settings(series_limit=int(sys.argv[2])), "")
idle, cpu, wall, most = resident(), [], [], 0
for _ in range(10):
    begin, at = time.process_time(), time.monotonic()
    text = made.scrape(openmetrics=False)
    cpu.append(time.process_time() - begin)
    wall.append(time.monotonic() - at)
    most = max(most, resident())
lines = text.count("\\n")
print(json.dumps({"first": cpu[0], "cpu": cpu[1:], "wall": wall[1:], "memory": most - idle, "lines": lines}))
"""


class Cost(NamedTuple):
    """What scrapes cost in a process of their own.

    Attributes:
        first: seconds of CPU of the first, which has everything to find out.
        cpu: of those after it.
        wall: seconds that those took.
        memory: bytes above those before the first.
        lines: of the last.
    """

    first: float
    cpu: list[float]
    wall: list[float]
    memory: int
    lines: int


def cost(root: Path, sandboxes: int, processes: int, *, limit: int = 10**9) -> Cost:
    """Scrapes a made-up node ten times.

    Args:
        root: a folder for it.
        sandboxes: how many, of three processes each.
        processes: in all.
        limit: of series; by default all are said.
    """
    node(root / "proc", sandboxes, processes)
    argv = [sys.executable, "-c", _SCRAPE, str(root), str(limit)]
    return Cost(**json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout))


def figures(folder: Path) -> Iterator[Figure]:
    """Measures them.

    Args:
        folder: for temporary files.
    """
    # In memory, as the real /proc is.
    with tempfile.TemporaryDirectory(prefix="katanode-bench-", dir="/dev/shm") as scratch:
        small = cost(Path(scratch) / "small", 500, 5_000)
        yield _bounded("scrape of 500 sandboxes, 5,000 processes", small)
        memory = f"{small.memory / 1e6:.1f} MB"
        yield Figure("memory of it above idle", memory, "30 MB", small.memory <= 30e6)
        cut = cost(Path(scratch) / "cut", 500, 5_000, limit=5_000)
        yield Figure("the same within 5,000 series, the default", _spread(cut.cpu), "")
        large = cost(Path(scratch) / "large", 2_000, 20_000)
        ratio = statistics.median(large.cpu) / statistics.median(small.cpu)
        measured = f"{ratio:.2f} times: {_spread(large.cpu)}, {large.memory / 1e6:.1f} MB"
        yield Figure("scrape of 2,000 in 20,000, to that of 500", measured, "5: linear", ratio <= 5)
    yield from _daemon(folder)


def _bounded(what: str, made: Cost) -> Figure:
    measured = f"{_spread(made.cpu)}; {_spread(made.wall, 'by the clock')}; the first {made.first * _MS:.0f} ms"
    return Figure(what, measured, "100 ms of CPU", statistics.median(made.cpu) <= 0.1)


def _spread(times: list[float], what: str = "of CPU") -> str:
    low, middle, high = (each * _MS for each in (min(times), statistics.median(times), max(times)))
    return f"{middle:.0f} ms {what} ({low:.0f}-{high:.0f})"


def _daemon(folder: Path) -> Iterator[Figure]:
    """The daemon beside fifty sandboxes: how large it is, and what a scrape and a slow round cost it."""
    archive = build_release(folder / "release", _VERSION)["kata-static"]
    settings = f'[serve]\naddress = "127.0.0.1"\nport = {PORT}\n[sandboxes]\nmemory_interval_seconds = 10\n'
    with Lab(keep=(folder,)) as lab, PrivateContainerd(lab, "2.1") as containerd:
        write_settings(lab, archive, _VERSION, _HANDLERS, settings)
        env = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
        lab.run([KATANODE, "apply"], env=env)

        def told() -> str:
            url = f"http://127.0.0.1:{PORT}/metrics"
            return lab.run([sys.executable, "-S", "-c", _FETCH, url], check=False).stdout

        with Running(lab, env) as daemon:
            daemon.until_looked(1)
            alone = daemon.rss
            for number in range(_MANY):
                cri.run_pod_sandbox(containerd.socket, f"pod-{number}", handler=_HANDLERS[number % len(_HANDLERS)])
            until(lambda: told().count("katanode_sandbox_overhead_memory_bytes{") == _MANY, 120)
            before = daemon.cpu.own
            for _ in range(_SCRAPES):
                assert told().count("katanode_sandbox_holds_vm{") == _MANY
            per_scrape = (daemon.cpu.own - before) / _SCRAPES
            size = daemon.rss
        measured = f"{size / _MIB:.1f} MiB, {alone / _MIB:.1f} MiB before they came"
        yield Figure(f"daemon's RSS with {_MANY} sandboxes", measured, "80 MiB", size <= 80 * _MIB)
        share = f"{per_scrape * _MS:.1f} ms of CPU, {per_scrape / 30:.3%} of a core at one in 30 s"
        yield Figure(f"the daemon's scrape with {_MANY} sandboxes", share, "")
