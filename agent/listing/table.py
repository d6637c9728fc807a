"""All sandboxes with their sums, what is not well with them, and their JSON; pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.fleet.table import iso
from agent.kata import debug
from agent.listing.row import FOREIGN, WITHOUT_VM, Row, mark_words
from agent.reasons import CATALOGUE, Reason
from agent.sandboxes.naming import COMPONENTS

_NAMED = 10
"""So many of a kind are named below the table; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What the command shows.

    Attributes:
        rows: the sandboxes, in their order.
        now: Unix seconds.
        interval: seconds over which CPU was measured.
        release: id of the release in force; "" without one.
        handlers: the wanted handlers, to whether they are proved; only asked for when there is no row.
        debug: handlers whose debug output is on.
        runtime: why the container runtime does not say which pods there are; "" when it does.
    """

    rows: tuple[Row, ...]
    now: float
    interval: float = 0.0
    release: str = ""
    handlers: Mapping[str, bool] = field(default_factory=dict)
    debug: tuple[str, ...] = ()
    runtime: str = ""

    @property
    def cores(self) -> float | None:
        """CPU of all; None when nothing was seen twice."""
        known = [row.cores for row in self.rows if row.cores is not None]
        return sum(known) if known else None

    @property
    def memory(self) -> int:
        """Bytes of all."""
        return sum(row.memory for row in self.rows)

    @property
    def vcpus(self) -> int:
        """Virtual CPUs of all."""
        return sum(row.sandbox.vcpus for row in self.rows)

    @property
    def is_proportional(self) -> bool:
        """Whether all memory is PSS."""
        return all(row.is_proportional for row in self.rows)

    def part(self, component: str) -> int:
        """Bytes of one component in all sandboxes."""
        return sum(row.part(component) for row in self.rows)

    def summary(self) -> str:
        """How many there are, by handler: "3 sandboxes: 2 kata-clh, 1 kata-qemu"."""
        kinds = Counter(row.sandbox.handler or "of unknown handler" for row in self.rows)
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        return f"{len(self.rows)} sandbox{'' if len(self.rows) == 1 else 'es'}: {told}"

    def notes(self, *, by: int) -> list[tuple[str, str]]:
        """What is not well, and what to do about it ("" where the next one says that).

        Args:
            by: so many characters of an id tell one sandbox from the others.
        """
        told = []
        if self.runtime:
            told.append((f"the container runtime does not say which pods there are: {self.runtime}", ""))
        for reason, rows in (
            (Reason.SANDBOX_ORPHANED, [row for row in self.rows if row.sandbox.orphan]),
            (Reason.CANARY_WITHOUT_VM, [row for row in self.rows if row.mark == WITHOUT_VM]),
        ):
            lines = [f"{row.sandbox.id[:by]} {row.pod or 'pod not known'}: {_marked(row)}" for row in rows]
            lines[_NAMED:] = [f"and {len(lines) - _NAMED} more such"] if len(lines) > _NAMED else []
            told += [(line, "") for line in lines[:-1]] + [(line, CATALOGUE[reason].remedy) for line in lines[-1:]]
        if self.debug:
            entry = CATALOGUE[Reason.DEBUG_OUTPUT_ON]
            told.append((f"{', '.join(self.debug)}: {entry.title}", debug.remedy(*self.debug)))
        return told

    def hints(self) -> list[str]:
        """What is good to know and nothing to worry about."""
        older = Counter(r.sandbox.release for r in self.rows if r.sandbox.release not in {"", self.release})
        told = [f"{count} on release {name}: they keep it until they end" for name, count in sorted(older.items())]
        if any(not row.sandbox.release for row in self.rows):
            told.append(f"{FOREIGN}: of a Kata that katanode did not install")
        if self.rows and self.interval:
            told.append(f"CPU in thousandths of a core, over {self.interval:.1f} s")
        if not self.is_proportional:
            told.append("~ resident memory, which counts shared pages in each process")
        return told

    def as_json(self) -> dict[str, object]:
        """All of it for machines."""
        cores = self.cores
        return {
            "at": iso(self.now),
            "cpu_interval_seconds": round(self.interval, 3),
            "release": self.release or None,
            "runtime_answers": not self.runtime,
            "debug": list(self.debug),
            "sandboxes": [row.as_json(self.now) for row in self.rows],
            "total": {
                "sandboxes": len(self.rows),
                "vcpus": self.vcpus,
                "cpu_cores": None if cores is None else round(cores, 4),
                "memory_bytes": self.memory,
                "memory_by_component": {component: self.part(component) for component in COMPONENTS},
            },
        }


def _marked(row: Row) -> str:
    pids = ", ".join(f"{name} {each.pid}" for name, group in row.sandbox.processes.items() for each in group)
    return f"{mark_words(row.mark)} ({pids})"
