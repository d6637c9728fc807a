"""What a sandbox takes of the node's memory, by component."""

from collections.abc import Iterable
from pathlib import Path

from agent.sandboxes import procfs
from agent.sandboxes.processes import PROC, Process


def memory(sandbox_id: str, found: Iterable[Process], proc: Path = PROC) -> dict[str, int]:
    """Component (`vmm`, `virtiofsd`, `shim`) to its proportional memory in bytes.

    `Pss` counts pages that several processes share in parts, so that the sum is what the sandbox costs
    (proc_pid_smaps(5)). What may not be read, or is gone, is left out.

    Args:
        sandbox_id: the sandbox.
        found: its processes.
        proc: where /proc is.
    """
    total: dict[str, int] = {}
    for process in found:
        part = component(sandbox_id, process, proc)
        size = procfs.rollup(str(proc), process.pid).get("Pss")
        if part and size is not None:
            total[part] = total.get(part, 0) + size
    return total


def component(sandbox_id: str, process: Process, proc: Path = PROC) -> str:
    """What a process is to the sandbox; "" for what is no part of it, as a program that shows its id.

    Dragonball has no process of its own: its virtual machine is the shim's (facts of Kata 4.1.0).
    """
    if process.is_shim_of(sandbox_id):
        return "shim"
    if process.argv[0].rpartition("/")[2] == "virtiofsd":
        return "virtiofsd"
    return "vmm" if process.holds_vm(proc) else ""
