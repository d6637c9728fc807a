"""What is not well with the sandboxes of a node, in the words of the catalogue. Nothing is ended or removed."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from agent.cri.listing import Listing
from agent.host.root import HostRoot
from agent.reasons import Reason
from agent.report import Finding, bad, ok
from agent.sandboxes import leftovers, measure
from agent.sandboxes.census import WITHOUT_SANDBOX, WITHOUT_SHIM, Census, Sandbox
from agent.sandboxes.leftovers import Leftover
from agent.sandboxes.naming import OWN_NAMESPACES

RUN = "/run"
CGROUPS = "/sys/fs/cgroup"
_SECOND_LOOK = 2.0
"""Seconds after which what looks like an orphan is looked at again: a sandbox that ends looks so for a moment."""
_NAMED = 10
"""So many are named; the rest is counted."""
_MIB = 1 << 20
_WORDS = {WITHOUT_SHIM: "its shim is gone", WITHOUT_SANDBOX: "the container runtime does not know it"}


class Overhead(NamedTuple):
    """Bytes of memory beyond the guest's own: as measured, and as the RuntimeClass grants them (0: none)."""

    measured: int
    allowed: int


def findings(
    root: HostRoot, sandboxes: Sequence[Sandbox], left: Sequence[Leftover], overheads: Mapping[str, Overhead]
) -> tuple[Finding, ...]:
    """What there is to say, good or bad.

    Args:
        root: the host's root, for the names of paths.
        sandboxes: the census.
        left: what was left behind.
        overheads: of the sandboxes of which both figures are known, by their ids.
    """
    orphans = [f"{_name(each)}: {_WORDS[each.orphan]}, {_processes(each)} run on" for each in sandboxes if each.orphan]
    remains = [root.host_path(each.path) for each in left]
    exceeding = [
        f"{_name(each)}, {each.handler or 'handler unknown'}: {made.measured / _MIB:.0f} MiB beyond the guest's own, "
        f"{made.allowed / _MIB:.0f} MiB granted"
        for each in sandboxes
        if each.namespace not in OWN_NAMESPACES
        and (made := overheads.get(each.id)) is not None
        and 0 < made.allowed < made.measured
    ]
    return (
        _finding("every sandbox has a shim and a pod", Reason.SANDBOX_ORPHANED, orphans),
        _finding("ended sandboxes left nothing behind", Reason.SANDBOX_LEFTOVERS, remains),
        _finding("sandboxes keep to their RuntimeClass's overhead", Reason.SANDBOX_OVERHEAD_EXCEEDED, exceeding),
    )


def look(root: HostRoot, listing: Listing, proc: Path = Path("/proc")) -> tuple[Finding, ...]:
    """Looks at everything once: seconds when there is an orphan or some hundred sandboxes.

    Args:
        root: the host's root.
        listing: asks the runtime.
        proc: the host's processes.
    """
    census = Census(proc, listing.pods, patience=0.0)
    sandboxes = census.update()
    odd = {each.id for each in sandboxes if each.orphan}
    if odd:
        time.sleep(_SECOND_LOOK)
        sandboxes = census.update()
    left = leftovers.find(root(RUN), root(CGROUPS), {each.id for each in sandboxes})
    sandboxes = [each for each in sandboxes if not each.orphan or each.id in odd]
    overheads = {}
    # A runtime that did not answer once is not asked for each of them.
    for each in sandboxes if census.pods is not None else ():
        made, allowed = measure.memory(proc, each), listing.overhead(each.id) if each.handler else None
        if made is not None and allowed is not None:
            overheads[each.id] = Overhead(made.beyond_guest, allowed)
    return findings(root, sandboxes, left, overheads)


def _finding(check: str, reason: Reason, evidence: Sequence[str]) -> Finding:
    if not evidence:
        return ok(check)
    more = f"\nand {len(evidence) - _NAMED} more" if len(evidence) > _NAMED else ""
    return bad(check, reason, "\n".join(evidence[:_NAMED]) + more)


def _name(sandbox: Sandbox) -> str:
    pod = f"{sandbox.namespace}/{sandbox.pod}" if sandbox.pod else "a pod that is not known"
    return f"{pod} (sandbox {sandbox.id[:12]})"


def _processes(sandbox: Sandbox) -> str:
    return ", ".join(f"{name} {each.pid}" for name, group in sandbox.processes.items() for each in group)
