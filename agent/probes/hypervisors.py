"""The hypervisors that run, and whether their threads have more than one CPU to run on.

What the field does by hand with `ps -eLo psr,comm | grep cloud-hypervisor`.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from agent.host.root import HostRoot
from agent.probes.machine import text
from agent.reasons import Reason, Severity
from agent.report import Finding, bad, ok

CHECK = "hypervisors' threads have several CPUs"

_NAMES = ("cloud-hypervisor", "firecracker", "qemu-system-", "stratovirt")
_COMM_BYTES = 15  # TASK_COMM_LEN less its NUL (linux/sched.h): cloud-hypervisor is cut to cloud-hyperviso


@dataclass(frozen=True, slots=True)
class Vmm:
    """One hypervisor process.

    Attributes:
        pid: as its /proc knows it.
        name: of its program.
        threads: how many it has.
        may_run_on: CPUs that any of its threads is allowed on (Cpus_allowed_list of proc_pid_status(5)).
        ran_on: CPUs that its threads ran on last (field 39 of proc_pid_stat(5)).
    """

    pid: int
    name: str
    threads: int
    may_run_on: frozenset[int]
    ran_on: frozenset[int]


def probe_hypervisors(root: HostRoot) -> tuple[Finding, ...]:
    """Looks at the hypervisors that run."""
    return judge(running_vmms(root), cpu_list(text(root, "/sys/devices/system/cpu/online")))


def judge(vmms: tuple[Vmm, ...], online: frozenset[int]) -> tuple[Finding, ...]:
    """A warning for each hypervisor that is confined to one CPU, or one line on all; pure.

    Args:
        vmms: the hypervisors that run.
        online: the machine's CPUs.
    """
    pinned = [vmm for vmm in vmms if len(online) > 1 and len(vmm.may_run_on & online) == 1]
    if pinned:
        return tuple(
            bad(
                CHECK,
                Reason.VMM_PINNED,
                f"{vmm.name} (process {vmm.pid}): {vmm.threads} threads, all on CPU {ranges(vmm.may_run_on & online)} "
                f"of {ranges(online)}",
            )
            for vmm in pinned
        )
    if not vmms:
        return (Finding(CHECK, Severity.INFO, "no hypervisor runs"),)
    threads = sum(vmm.threads for vmm in vmms)
    allowed = ranges(frozenset().union(*(vmm.may_run_on for vmm in vmms)) & online)
    return (ok(CHECK, f"{len(vmms)} running, {threads} threads in all, allowed on CPUs {allowed}"),)


def running_vmms(root: HostRoot) -> tuple[Vmm, ...]:
    """The hypervisor processes, by their program's name; one that ends meanwhile is left out."""
    found = []
    proc = root("/proc")
    with contextlib.suppress(OSError):
        for name in os.listdir(proc):
            if name.isdigit() and (program := _program(proc / name)):
                vmm = _survey(proc / name, int(name), program)
                if vmm is not None:
                    found.append(vmm)
    return tuple(sorted(found, key=lambda vmm: vmm.pid))


def _program(process: Path) -> str:
    """The hypervisor's name if it is one, else empty."""
    with contextlib.suppress(OSError):
        comm = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
        if not comm.startswith(tuple(name[:_COMM_BYTES] for name in _NAMES)):
            return ""
        with contextlib.suppress(OSError):
            return Path(os.readlink(process / "exe")).name.removesuffix(" (deleted)")
        return comm
    return ""


def _survey(process: Path, pid: int, name: str) -> Vmm | None:
    allowed: set[int] = set()
    ran: set[int] = set()
    threads = 0
    with contextlib.suppress(OSError):
        for thread in (process / "task").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                status = (thread / "status").read_text(encoding="utf-8", errors="replace")
                line = next((line for line in status.splitlines() if line.startswith("Cpus_allowed_list:")), "")
                # The name in parentheses may hold spaces and parentheses itself: fields are counted behind it.
                stat = (thread / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                ran.add(int(stat[39 - 3]))
                allowed |= cpu_list(line.partition(":")[2])
                threads += 1
    return Vmm(pid, name, threads, frozenset(allowed), frozenset(ran)) if threads else None


def cpu_list(words: str) -> frozenset[int]:
    """CPUs of a list such as `0-3,8`, the kernel's own notation."""
    found: set[int] = set()
    for part in words.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def ranges(cpus: frozenset[int]) -> str:
    """The reverse of `cpu_list`."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and parts[-1][1] == cpu - 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
