"""Percentiles that are honest about few samples.

By nearest rank: a percentile is a value that was measured, never one between two that nobody saw. The p99 of fewer than
100 samples is then their maximum, and the p90 of fewer than 10 too; that is told wherever one is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

METHOD = "nearest rank"
SHOWN = (50, 90, 99)
"""The percentiles that are told."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Measured values, in the order in which they came; at least one."""

    values: tuple[float, ...]

    def percentile(self, rank: int) -> float:
        """The smallest value that at least `rank` per cent of the values do not exceed.

        Args:
            rank: 1 to 100.
        """
        return sorted(self.values)[self._position(rank) - 1]

    def is_maximum(self, rank: int) -> bool:
        """Whether that percentile can be nothing but the maximum, because there are too few values for another."""
        return self._position(rank) == len(self.values)

    def _position(self, rank: int) -> int:
        return -(-rank * len(self.values) // 100)  # rounded up, in whole numbers: 0.9 * 10 is not 9 for a computer

    def as_json(self) -> dict[str, object]:
        """The samples for machines."""
        return {
            "count": len(self.values),
            "minimum": round(min(self.values), 4),
            **{f"p{rank}": round(self.percentile(rank), 4) for rank in SHOWN},
            "maximum": round(max(self.values), 4),
            "only_the_maximum": [f"p{rank}" for rank in SHOWN if self.is_maximum(rank)],
            "samples": [round(value, 4) for value in self.values],
        }


def samples(values: Sequence[float]) -> Samples | None:
    """The samples; None when there are none."""
    return Samples(tuple(values)) if values else None
