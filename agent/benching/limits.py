"""How far a bench may go: the bounds of its density, and what ends it. Pure."""

from dataclasses import dataclass
from enum import StrEnum

HEADROOM_BYTES = 512 << 20
HEADROOM_SHARE = 10
"""What stays available whatever is asked for: this many bytes, or one part in this many of all memory, if more."""


class Until(StrEnum):
    """What ended a density run."""

    MEMORY = "memory"
    SANDBOXES = "sandboxes"
    TIME = "time"
    FAILURE = "failure"
    STOPPED = "stopped by others"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a density run; the first that is reached ends it.

    Attributes:
        percent: how much of the memory that is available at its start it may use.
        sandboxes: how many it starts at most; 110 is also what a kubelet runs unless told otherwise.
        seconds: how long it goes on starting them.
    """

    percent: int = 50
    sandboxes: int = 110
    seconds: float = 600.0

    def budget(self, available: int, total: int) -> int:
        """Bytes that may be used: the share that was asked for, less where the headroom would be touched.

        Args:
            available: bytes available at the start (MemAvailable of proc_meminfo(5)).
            total: bytes in all (MemTotal).
        """
        return max(0, min(available * self.percent // 100, available - headroom(total)))

    def reached(self, count: int, used: int, expected: int, budget: int, seconds: float) -> Until | None:
        """What forbids one sandbox more; None when nothing does.

        Args:
            count: sandboxes that run.
            used: bytes that they use together.
            expected: what one more is expected to use, in bytes.
            budget: bytes that may be used.
            seconds: since the start.
        """
        if used + expected > budget:
            return Until.MEMORY
        if count >= self.sandboxes:
            return Until.SANDBOXES
        return Until.TIME if seconds >= self.seconds else None


def headroom(total: int) -> int:
    """Bytes that stay available on a node with so much memory."""
    return max(HEADROOM_BYTES, total // HEADROOM_SHARE)
