"""The project's figures, each against its yardstick in the same run: machines are too noisy for absolute times."""

from __future__ import annotations

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
from hack.lab.containerd import RESTART, PrivateContainerd
from hack.lab.lab import Lab
from hack.standin.build import build_release

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hack.standin.archive import Archive

KATANODE = Path(sys.executable).with_name("katanode")
_SIZE = 2_000_000_000  # half of it compresses away: the archive has 1 GB
_RUNS = 3
_POLL = 0.002


def main() -> int:
    """Measure everything; 1 when a bound is missed."""
    rows: list[tuple[str, str, str, bool]] = []
    with tempfile.TemporaryDirectory(prefix="katanode-bench-") as scratch:
        folder = Path(scratch)
        print("building a 1 GB stand-in release …", flush=True)
        large = build_release(folder / "large", "4.0.0", size=_SIZE)["kata-static"]
        small = build_release(folder / "small", "3.2.0")["kata-static"]
        with Lab(keep=(folder,)) as lab, PrivateContainerd(lab, "2.1") as containerd:
            rows.append(_fresh_apply(lab, large))
            rows.append(_outage(lab, containerd, small))
            rows.append(_bounded("katanode check", 1.5, lambda: lab.run([KATANODE, "check"], check=False)))
    rows.append(_bounded("KVM probe, its child included", 0.020, lambda: kvm.run_guest(HostRoot())))
    start = _median(lambda: _python("pass"))
    imports = "import agent.reconcile, agent.undo, agent.inspect, agent.probes"
    rows.append(_bounded("import of what the daemon needs", 0.5, lambda: _python(imports), less=start))
    width = max(len(what) for what, _, _, _ in rows)
    print(f"\n{'what':{width}}  {'measured':44}  bound")
    for what, measured, bound, good in rows:
        print(f"{what:{width}}  {measured:44}  {bound}{'' if good else '  MISSED'}")
    return 0 if all(good for *_, good in rows) else 1


def _fresh_apply(lab: Lab, archive: Archive) -> tuple[str, str, str, bool]:
    """A whole `katanode apply` of a large release, against unpacking the same archive with zstd and tar."""
    _settings(lab, archive, "4.0.0", ["kata-clh"])
    ours, theirs = [], []
    unpack = f"mkdir /opt/bench && zstd -dcq {archive.path} | tar -x -C /opt/bench && sync"
    for _ in range(_RUNS):
        lab.run(["sync"])
        theirs.append(_time(lambda: lab.run(["sh", "-c", unpack], timeout=300)))
        lab.run(["rm", "-rf", "/opt/bench"])
        lab.run(["sync"])
        ours.append(_time(lambda: lab.run([KATANODE, "apply"], timeout=300)))
        lab.run([KATANODE, "uninstall"], timeout=60)
    ratio = statistics.median(ours) / statistics.median(theirs)
    measured = f"{_seconds(ours)} / {_seconds(theirs)} = {ratio:.2f}"
    return "fresh apply of 1 GB / zstd | tar, sync", measured, "1.2", ratio <= 1.2


def _outage(lab: Lab, containerd: PrivateContainerd, archive: Archive) -> tuple[str, str, str, bool]:
    """How long CRI does not answer while a change is activated, against a bare restart of the same daemon."""
    ours, theirs = [], []
    _settings(lab, archive, "3.2.0", ["kata-clh"])
    lab.run([KATANODE, "apply"])
    for number in range(2 * _RUNS):
        _settings(lab, archive, "3.2.0", ["kata-clh", "kata-qemu"] if number % 2 == 0 else ["kata-clh"])
        ours.append(_gap(containerd, lambda: lab.run([KATANODE, "apply"])))
        theirs.append(_gap(containerd, lambda: lab.run([RESTART])))
    ratio = statistics.median(ours) / statistics.median(theirs)
    measured = f"{_seconds(ours)} / {_seconds(theirs)} = {ratio:.2f}"
    return "CRI outage, activation / bare restart", measured, "1.1", ratio <= 1.1


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


def _settings(lab: Lab, archive: Archive, version: str, handlers: Sequence[str]) -> None:
    names = ", ".join(f'"{name}"' for name in handlers)
    path = lab.path("/etc/katanode/katanode.toml")
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f'[kata]\nversion = "{version}"\nsource = "{archive.path.parent}"\nhandlers = [{names}]\n'
        f'sha256 = {{ "{archive.path.name}" = "{archive.sha256}" }}\n'
        f'[runtime]\nrestart_command = ["{RESTART}"]\n[node]\nsysctls = false\n'
    )


def _bounded(what: str, bound: float, action: Callable[[], object], *, less: float = 0.0) -> tuple[str, str, str, bool]:
    action()
    times = [_time(action) - less for _ in range(3 * _RUNS)]
    return what, _seconds(times), f"{bound:g} s", statistics.median(times) <= bound


def _python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def _median(action: Callable[[], object]) -> float:
    return statistics.median(_time(action) for _ in range(3 * _RUNS))


def _time(action: Callable[[], object]) -> float:
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def _seconds(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.3f} s ({min(times):.3f}-{max(times):.3f})"


if __name__ == "__main__":
    sys.exit(main())
