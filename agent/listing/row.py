"""A sandbox as a row of the table, and the order of rows; pure."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.fleet.table import iso
from agent.sandboxes.census import WITHOUT_SANDBOX, WITHOUT_SHIM, Sandbox

FOREIGN = "foreign"
"""Shown for the release of a sandbox whose programs katanode did not install."""
WITHOUT_VM = "without-vm"
_MARKS = {
    WITHOUT_SHIM: "its shim is gone, the rest of it runs on",
    WITHOUT_SANDBOX: "the container runtime does not know it",
    WITHOUT_VM: "no process of it holds a KVM virtual machine",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A sandbox in the table.

    Attributes:
        sandbox: as the census has it.
        cores: CPU in cores between two looks; None when it was seen only once.
        shares: component to bytes of memory, pages that others map too divided among them (PSS); empty when not read.
        without_vm: it is old enough to hold a virtual machine and does not.
    """

    sandbox: Sandbox
    cores: float | None = None
    shares: Mapping[str, int] = field(default_factory=dict)
    without_vm: bool = False

    @property
    def pod(self) -> str:
        """`namespace/name`; "" when it is not known."""
        return f"{self.sandbox.namespace}/{self.sandbox.pod}" if self.sandbox.pod else ""

    @property
    def mark(self) -> str:
        """What is wrong with it, in one word; "" when nothing is."""
        return self.sandbox.orphan or (WITHOUT_VM if self.without_vm else "")

    @property
    def is_proportional(self) -> bool:
        """Whether the memory of all its components is PSS: resident memory counts shared pages in each of them."""
        return self.sandbox.processes.keys() <= self.shares.keys()

    @property
    def memory(self) -> int:
        """Bytes of all components."""
        return sum(self.part(component) for component in self.sandbox.processes)

    def part(self, component: str) -> int:
        """Bytes of one component: its proportional share, or its resident memory where that was not read."""
        resident = sum(process.resident for process in self.sandbox.processes.get(component, ()))
        return self.shares.get(component, resident)

    def with_memory(self, shares: Mapping[str, int]) -> "Row":
        """The row with what was measured."""
        return replace(self, shares=shares)

    def as_json(self, now: float) -> dict[str, object]:
        """The row for machines."""
        own = self.sandbox
        return {
            "id": own.id,
            "namespace": own.namespace or None,
            "pod": own.pod or None,
            "uid": own.uid or None,
            "handler": own.handler or None,
            "hypervisor": own.hypervisor or None,
            "release": own.release or None,
            "started": iso(own.started),
            "age_seconds": round(now - own.started, 1),
            "holds_vm": own.holds_vm,
            "vcpus": own.vcpus,
            "cpu_cores": None if self.cores is None else round(self.cores, 4),
            "memory_bytes": self.memory,
            "memory_by_component": {component: self.part(component) for component in own.processes},
            "memory_is": "proportional" if self.is_proportional else "resident",
            "processes": {name: [process.pid for process in group] for name, group in own.processes.items()},
            "mark": self.mark or None,
        }


def mark_words(mark: str) -> str:
    """What a mark means."""
    return _MARKS[mark]


def ordered(rows: Sequence[Row], order: str) -> tuple[Row, ...]:
    """The rows by one of `ORDERS`, what is marked last: it stands just above the sums, where the eye is.

    By name, or what there is most of first; pods without a name after those with one.
    """
    return tuple(
        sorted(rows, key=lambda row: (bool(row.mark), _place(row, order), row.sandbox.started, row.sandbox.id))
    )


def _place(row: Row, order: str) -> tuple[bool | float, str, str]:
    match order:
        case "cpu":
            return -(row.cores or 0.0), "", ""
        case "memory":
            return -row.memory, "", ""
        case "age":
            return row.sandbox.started, "", ""
        case _:
            return not row.pod, row.sandbox.namespace, row.sandbox.pod


def distinct(ids: Sequence[str], least: int = 8) -> int:
    """So many characters, at least `least`, tell each of these ids from all others."""
    for one, other in itertools.pairwise(sorted(set(ids))):
        while one[:least] == other[:least]:
            least += 1
    return least


def generation(release: str, all_releases: Sequence[str]) -> str:
    """A release as the table has it: its version, and the digest too where two of them have the same version."""
    version = release.rpartition("-")[0]
    same = {other for other in all_releases if other.rpartition("-")[0] == version}
    return (version if len(same) < 2 else release) or FOREIGN
