"""The figures of one handler: time, memory, density, or what failed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median_low
from typing import Self

from agent.benching.limits import Until
from agent.benching.memory import COMPONENTS, Footprint
from agent.benching.percentiles import Samples
from agent.errors import KatanodeError
from agent.reasons import Reason

_TOLD = 100
_GUESSED = 10
"""What a sandbox takes is told when all took a hundredth of the memory; how many would fit, when they took a tenth."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What ended the measurements of a handler.

    Attributes:
        reason: the catalogue's code.
        message: what failed.
        evidence: the runtime's words.
        remedy: what to do about it.
    """

    reason: Reason
    message: str
    evidence: str
    remedy: str

    @classmethod
    def of(cls, error: KatanodeError) -> Self:
        """The failure that an error is."""
        return cls(error.reason, error.message, error.evidence, error.remedy)

    def as_json(self) -> dict[str, object]:
        """The failure for machines."""
        return {
            "reason": str(self.reason),
            "message": self.message,
            "evidence": self.evidence,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of one idle sandbox of a handler, in bytes: the medians over its sandboxes, component by component.

    Attributes:
        components: component to bytes, as `Footprint.components`.
        resident: the same by RSS.
        proportional: whether `components` is PSS.
        count: sandboxes that were looked at.
        lowest: the smallest total of one sandbox.
        highest: the largest.
    """

    components: Mapping[str, int]
    resident: Mapping[str, int]
    proportional: bool
    count: int
    lowest: int
    highest: int

    @property
    def total(self) -> int:
        """All components together."""
        return sum(self.components.values())

    @classmethod
    def of(cls, footprints: list[Footprint]) -> Self | None:
        """The medians; None without footprints."""
        if not footprints:
            return None
        names = [name for name in COMPONENTS if any(name in f.components for f in footprints)]
        totals = [f.total for f in footprints]
        return cls(
            {name: median_low([f.components.get(name, 0) for f in footprints]) for name in names},
            {name: median_low([f.resident.get(name, 0) for f in footprints]) for name in names},
            all(f.proportional for f in footprints),
            len(footprints),
            min(totals),
            max(totals),
        )

    def as_json(self) -> dict[str, object]:
        """The memory for machines."""
        return {
            "kind": "PSS" if self.proportional else "RSS",
            "count": self.count,
            "total_bytes": self.total,
            "lowest_bytes": self.lowest,
            "highest_bytes": self.highest,
            "component_bytes": dict(self.components),
            "component_resident_bytes": dict(self.resident),
        }


@dataclass(frozen=True, slots=True)
class Density:
    """How many idle sandboxes ran at once.

    Attributes:
        count: how many; at least so many fit.
        until: what ended it.
        seconds: how long they took to start.
        available: bytes that were available before.
        used: bytes less that were available at the end: the kernel's own part of a sandbox is in it.
        headroom: bytes that are to stay available.
    """

    count: int
    until: Until
    seconds: float
    available: int
    used: int
    headroom: int

    @property
    def each(self) -> int | None:
        """Bytes for each sandbox; None where too little was used to tell it from what else goes on."""
        told = self.used * _TOLD >= self.available and self.until is not Until.STOPPED
        return self.used // self.count if told and self.count else None

    @property
    def fit(self) -> int | None:
        """How many would fit at that cost beside the headroom; None where that would be mere guesswork."""
        if not self.each or self.used * _GUESSED < self.available:
            return None
        return max(0, self.available - self.headroom) // self.each

    def as_json(self) -> dict[str, object]:
        """The density for machines."""
        return {
            "count": self.count,
            "until": str(self.until),
            "seconds": round(self.seconds, 3),
            "available_bytes": self.available,
            "used_bytes": self.used,
            "headroom_bytes": self.headroom,
            "bytes_each": self.each,
            "would_fit": self.fit,
        }


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one handler.

    Attributes:
        name: the handler; `default` for the runtime's own.
        hypervisor: the program that held the virtual machine; "" when none did.
        first: seconds of the first start, which is not among `starts`: it fetches and warms what later ones share.
        starts: seconds of the others.
        removals: seconds of their removals.
        memory: of one idle sandbox.
        cut_short: sandboxes that somebody else stopped while they were looked at.
        density: how many ran at once, if that was asked for.
        failure: what ended its measurements, if something did.
    """

    name: str
    hypervisor: str = ""
    first: float | None = None
    starts: Samples | None = None
    removals: Samples | None = None
    memory: Memory | None = None
    cut_short: int = 0
    density: Density | None = None
    failure: Failure | None = None

    def with_density(self, density: Density | None, failure: Failure | None) -> Self:
        """The same with its density."""
        return replace(self, density=density, failure=failure or self.failure)

    def as_json(self) -> dict[str, object]:
        """The handler for machines."""
        return {
            "name": self.name,
            "hypervisor": self.hypervisor or None,
            "first_start_seconds": None if self.first is None else round(self.first, 4),
            "start_seconds": self.starts and self.starts.as_json(),
            "removal_seconds": self.removals and self.removals.as_json(),
            "memory": self.memory and self.memory.as_json(),
            "cut_short": self.cut_short,
            "density": self.density and self.density.as_json(),
            "failure": self.failure and self.failure.as_json(),
        }
