"""Made-up series of everything that monitoring may ask for: a fleet of two nodes of which one is not well."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NODES = ("n1", "n2")

_VALUES = {
    "alertname": ("KatanodeNodeNotReady",),
    "alertstate": ("firing",),
    "component": ("vmm", "virtiofsd", "shim"),
    "handler": ("kata-clh", "kata-qemu"),
    "hypervisor": ("clh",),
    "kind": ("without-sandbox", "state-folder"),
    "le": ("1", "5", "+Inf"),
    "namespace": ("tenant-a", "tenant-b"),
    "outcome": ("ok", "undone", "failed"),
    "pod": ("shop-0", ""),
    "reason": ("WaitingForRestartSlot", "CanaryFailed", "RolloutHalted"),
    "release": ("4.1.0-3dc6b69c",),
    "severity": ("error",),
    "version": ("4.1.0",),
}
_FIRST_ONLY = (1.0, 0.0)
_OTHER = {
    "katanode_canary_start_seconds": (9.0, 9.0),
    "katanode_reason": (1.0, 1.0),
    "katanode_sandbox_orphans": (60.0, 0.0),
    "katanode_sandbox_overhead_memory_bytes": (9.0, 9.0),
}
"""What is not 1 on the first node and 0 on the second."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series.

    Attributes:
        name: the metric's.
        node: where it is from.
        labels: its own.
        value: what it stands at; None for a counter, which goes up by one each time.
    """

    name: str
    node: str
    labels: Mapping[str, str]
    value: float | None


def fleet(known: Mapping[str, frozenset[str]]) -> Iterator[Series]:
    """Series of each metric of `known`, name to labels, with all values that its labels take here."""
    for name, labels in known.items():
        counts = name.endswith(("_total", "_bucket", "_count", "_sum"))
        own = sorted(labels & _VALUES.keys())
        for node, value in zip(NODES, _OTHER.get(name, _FIRST_ONLY), strict=True):
            for words in itertools.product(*(_VALUES[label] for label in own)):
                yield Series(name, node, dict(zip(own, words, strict=True)), None if counts else value)
