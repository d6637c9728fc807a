"""The sandboxes of a bench, and whose they are: what a killed run left is known by its owner being gone, and removed.

A sandbox of a bench bears its owner's process in a label. So whoever sweeps (the next bench, every canary) takes away
what nobody owns any more, and leaves a bench alone that is at work.
"""

import contextlib
import os
from pathlib import Path

from agent.cri.client import Client, CRIError, Sandbox
from agent.sandboxes import naming, procfs
from agent.sandboxes.processes import PROC

LABEL = "katanode.io/bench"
NAMESPACE = naming.BENCH_NAMESPACE


def owner(pid: int | None = None, proc: Path = PROC) -> str:
    """A process as a label names it: its number and its start, so that a number used again is another owner.

    Args:
        pid: its number; this process's own when None.
        proc: where processes are seen.

    Returns:
        For instance `4211-88123412`, the second number in clock ticks after the boot; "" when no such process lives.
    """
    number = os.getpid() if pid is None else pid
    seen = procfs.stat(str(proc), number)
    # A zombie has no memory any more: it owns nothing, even if nobody takes note of its end.
    return f"{number}-{seen.start}" if seen and seen.resident else ""


def is_bench(sandbox: Sandbox) -> bool:
    """Whether a sandbox is a bench's: a pod may bear the label, and is none for that."""
    return LABEL in sandbox.labels and sandbox.namespace == NAMESPACE


def of_bench(client: Client) -> tuple[Sandbox, ...]:
    """The sandboxes of all benches, also those that have ended.

    Raises:
        CRIError: the runtime does not answer.
    """
    # No label selector: its value would have to be known.
    return tuple(s for s in client.sandboxes() if is_bench(s))


def is_abandoned(sandbox: Sandbox, proc: Path = PROC) -> bool:
    """Whether a bench's sandbox has no owner any more."""
    name = sandbox.labels[LABEL]
    number = name.partition("-")[0]
    return not number.isdecimal() or owner(int(number), proc) != name


def sweep(client: Client, timeout: float, proc: Path = PROC) -> int:
    """Removes the sandboxes of benches that are gone; gives how many there were.

    Args:
        client: the CRI client.
        timeout: seconds for each call.
        proc: where processes are seen.
    """
    found = 0
    with contextlib.suppress(CRIError):
        for left in of_bench(client):
            if is_abandoned(left, proc):
                found += 1
                discard(client, left.id, timeout)
    return found


def discard(client: Client, sandbox_id: str, timeout: float) -> None:
    """Stops and removes a sandbox; what refuses to go is seen and removed by the next sweep."""
    with contextlib.suppress(CRIError):
        client.stop_sandbox(sandbox_id, timeout)
    with contextlib.suppress(CRIError):  # also where stopping failed: removing forces it
        client.remove_sandbox(sandbox_id, timeout)
