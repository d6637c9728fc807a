"""What a bench measured: the one thing that the table, the JSON and the chart are made of."""

from dataclasses import dataclass

from agent.benching.figures import Measured
from agent.benching.limits import Limits
from agent.benching.percentiles import METHOD


@dataclass(frozen=True, slots=True)
class Facts:
    """Where it was measured.

    Attributes:
        node: its name.
        kernel: the kernel's release.
        machine: `bare metal`, or `virtual machine` and whose.
        cpus: processors online.
        memory: bytes of memory.
        runtime: the container runtime and its version.
        kata: the release of Kata Containers in force; "" without one.
    """

    node: str
    kernel: str
    machine: str
    cpus: int
    memory: int
    runtime: str
    kata: str

    def as_json(self) -> dict[str, object]:
        """The facts for machines."""
        return {
            "node": self.node,
            "kernel": self.kernel,
            "machine": self.machine,
            "cpus": self.cpus,
            "memory_bytes": self.memory,
            "runtime": self.runtime,
            "kata": self.kata or None,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """A bench.

    Attributes:
        facts: where it was measured.
        at: when it began, in UTC.
        starts: starts for each handler that were asked for.
        limits: of the density; None when it was not asked for.
        handlers: what was measured, in the order in which handlers were asked for.
        notes: what a reader has to know: load, sandboxes of others, handlers left out.
        caught: the signal that ended it before its time; 0 when none did.
        left: sandboxes that could not be removed.
    """

    facts: Facts
    at: str
    starts: int
    limits: Limits | None
    handlers: tuple[Measured, ...]
    notes: tuple[str, ...] = ()
    caught: int = 0
    left: int = 0

    @property
    def status(self) -> int:
        """The exit status: 0 when all that was asked for was measured."""
        if self.caught:
            return 128 + self.caught  # as shells have it
        return 1 if self.left or any(h.failure for h in self.handlers) else 0

    def as_json(self) -> dict[str, object]:
        """The bench for machines."""
        return {
            "node": self.facts.as_json(),
            "at": self.at,
            "starts": self.starts,
            "percentiles": METHOD,
            "density_limits": self.limits
            and {
                "memory_percent": self.limits.percent,
                "sandboxes": self.limits.sandboxes,
                "seconds": self.limits.seconds,
            },
            "handlers": [handler.as_json() for handler in self.handlers],
            "notes": list(self.notes),
            "interrupted": bool(self.caught),
            "not_removed": self.left,
        }
