"""The daemon's eye on the sandboxes: the census at each scrape, and what is costly at its own slow pace beside it."""

import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from agent import logs
from agent.cri.listing import Listing, Pod
from agent.host.root import HostRoot
from agent.report import Finding
from agent.sandboxes import guest, leftovers, measure
from agent.sandboxes.census import WITHOUT_SANDBOX, WITHOUT_SHIM, Census, Sandbox
from agent.sandboxes.findings import CGROUPS, RUN, Overhead, findings
from agent.sandboxes.leftovers import CGROUP, STATE_FOLDER, Leftover
from agent.sandboxes.measure import Memory, Network
from agent.sandboxes.naming import OWN_NAMESPACES
from agent.service.sandbox_metrics import Family, Labels, Row, Text, labels_of
from agent.settings import Sandboxes as Settings

ROUND = 60.0
"""Seconds between two rounds of the slow reader, which looks for orphans also where nobody scrapes."""
_PAUSE = 0.02
"""Seconds between two costly reads, so that hundreds of them are no burst."""
_COUNT = Family("katanode_sandboxes", "gauge", "Sandboxes that run on this node.")
_ORPHANS = Family(
    "katanode_sandbox_orphans", "gauge", "What sandboxes left: processes without shim or pod, state, cgroups; by kind."
)
_DROPPED = Family("katanode_sandbox_series_dropped", "counter", "Series that were cut by sandboxes.series_limit.")
_SECONDS = Family("katanode_sandbox_scrape_seconds", "gauge", "How long it took to find and read the sandboxes.")


class Sandboxes:
    """What the daemon knows of the sandboxes; used by the server's threads and by its own.

    Args:
        root: the host's root.
        proc: the host's processes: with hostPID the pod's own /proc.
    """

    def __init__(self, root: HostRoot, proc: Path = Path("/proc")) -> None:
        self._root = root
        self._proc = proc
        self._settings = Settings()
        self._lock = threading.Lock()
        self._listing: Listing | None = None
        self._census = Census(proc, self._pods)
        self._seen: Sequence[Sandbox] = ()
        self._left: Sequence[Leftover] = ()
        self._memory: dict[str, tuple[float, Memory]] = {}
        self._allowed: dict[str, int] = {}
        self._dropped = 0
        self._wake = threading.Event()
        self._ended = False
        self._findings: Sequence[Finding] = ()

    @property
    def findings(self) -> Sequence[Finding]:
        """What the last round found, good or bad; nothing before the first."""
        return self._findings

    def configure(self, wish: Settings, socket: str) -> None:
        """Takes over the settings, and where CRI is served ("" while that is not known)."""
        self._settings = wish
        path = Path(socket) if socket else None
        if path is not None and (self._listing is None or self._listing.socket != path):
            with self._lock:
                self._listing = Listing(path)
                self._census = Census(self._proc, self._pods)
            self._wake.set()

    def start(self) -> None:
        """Starts the slow reader."""
        threading.Thread(target=self._rounds, name="sandboxes", daemon=True).start()

    def close(self) -> None:
        """Ends it, after the read under way."""
        self._ended = True
        self._wake.set()

    def scrape(self, *, openmetrics: bool) -> str:
        """The series of all sandboxes, as they are now."""
        if not self._settings.metrics:
            return ""
        with self._lock:
            begin = time.monotonic()
            text = Text(self._settings.series_limit, openmetrics=openmetrics)
            try:
                sandboxes = self._update()
            except OSError:
                return ""  # no /proc: the slow reader says so in the log
            for sandbox in _speaking(sandboxes):
                # One that is cut is not read: it counts as if it had a tap.
                text.add(self._cut(sandbox) if text.is_full else self._row(sandbox))
            self._dropped += text.dropped
            return "".join(
                (
                    text.own(_COUNT, _counted(self._seen)),
                    text.families(),
                    text.own(_ORPHANS, self._orphans()),
                    text.own(_DROPPED, {(): self._dropped}),
                    text.own(_SECONDS, {(): round(time.monotonic() - begin, 6)}),
                )
            )

    def guest(self, sandbox_id: str) -> guest.Said:
        """What the guest of a sandbox says of itself."""
        with self._lock:
            known = next((each for each in self._update() if each.id == sandbox_id), None)
        if known is None:
            return guest.Said(404, b"no sandbox with this id runs here: /metrics/guest?sandbox=ID")
        run = self._root(RUN)
        return guest.metrics(run, sandbox_id) if guest.survives(run, known) else guest.DEADLY

    def _pods(self) -> Mapping[str, Pod] | None:
        return self._listing.pods() if self._listing is not None else None

    def _update(self) -> Sequence[Sandbox]:
        self._seen = self._census.update()
        return self._seen

    def _row(self, sandbox: Sandbox) -> Row:
        io, network = measure.io(self._proc, sandbox), measure.network(self._proc, sandbox)
        return Row(sandbox, io, network, self._memory_of(sandbox), self._allowed.get(sandbox.id))

    def _cut(self, sandbox: Sandbox) -> Row:
        nothing = measure.IO(0, 0), Network(0, 0, 0, 0)
        return Row(sandbox, *nothing, self._memory_of(sandbox), self._allowed.get(sandbox.id))

    def _memory_of(self, sandbox: Sandbox) -> Memory | None:
        known = self._memory.get(sandbox.id)
        return known[1] if known else None

    def _orphans(self) -> dict[Labels, float]:
        kinds = Counter(each.orphan for each in self._seen) + Counter(each.kind for each in self._left)
        return {(("kind", kind),): kinds[kind] for kind in (WITHOUT_SHIM, WITHOUT_SANDBOX, STATE_FOLDER, CGROUP)}

    def _rounds(self) -> None:
        """The slow reader: what it cannot do is said in the log, once for each cause, and tried again."""
        said = ""
        while not self._ended:
            self._wake.wait(min(ROUND, self._settings.memory_interval_seconds))
            self._wake.clear()
            try:
                self.look()
                said = ""
            except Exception as error:  # noqa: BLE001 - one fault must not end the watch for ever
                if said != repr(error):
                    logs.warning("the sandboxes cannot be looked at", evidence=traceback.format_exc(limit=-4))
                said = repr(error)

    def look(self) -> None:
        """One round: orphans and leftovers, memory of those whose turn it is, and what follows from it."""
        with self._lock:
            seen = self._update()
        alive = {each.id for each in seen}
        self._left = leftovers.find(self._root(RUN), self._root(CGROUPS), alive)
        for ended in self._memory.keys() - alive:
            del self._memory[ended]
        for ended in self._allowed.keys() - alive:
            del self._allowed[ended]
        for sandbox in seen:
            if self._ended:
                return
            self._measure(sandbox)
        overheads = {
            sandbox_id: Overhead(made.beyond_guest, self._allowed[sandbox_id])
            for sandbox_id, (_, made) in self._memory.items()
            if sandbox_id in self._allowed
        }
        self._findings = findings(self._root, seen, self._left, overheads)

    def _measure(self, sandbox: Sandbox) -> None:
        """The costly reads of one sandbox, when it is its turn."""
        now = time.monotonic()
        if sandbox.id in self._memory and now - self._memory[sandbox.id][0] < self._settings.memory_interval_seconds:
            return
        made = measure.memory(self._proc, sandbox)
        if made is not None:
            self._memory[sandbox.id] = (now, made)
        if sandbox.id not in self._allowed and sandbox.handler and self._listing is not None:
            allowed = self._listing.overhead(sandbox.id)
            if allowed is not None:
                self._allowed[sandbox.id] = allowed
        time.sleep(_PAUSE)


def _speaking(sandboxes: Iterable[Sandbox]) -> Sequence[Sandbox]:
    """Those whose series are said: of two sandboxes with the same labels, a pod that was made anew, the newer one.

    A sum would fall when the older one ends, and a counter must not.
    """
    newest = {labels_of(each): each for each in sandboxes if each.namespace not in OWN_NAMESPACES}
    return sorted(newest.values(), key=lambda each: (each.started, each.id))


def _counted(sandboxes: Iterable[Sandbox]) -> dict[Labels, float]:
    kinds = Counter((each.handler, each.hypervisor) for each in sandboxes if each.namespace not in OWN_NAMESPACES)
    return {(("handler", handler), ("hypervisor", hypervisor)): count for (handler, hypervisor), count in kinds.items()}
