"""What virtual machines take from the host: disk, memory, huge pages, shared memory, time."""

import os
from pathlib import Path

from agent.errors import KatanodeError
from agent.host.root import HostRoot
from agent.probes.machine import text
from agent.reasons import Reason, Severity
from agent.report import Capability, Finding, bad, from_error, ok

RELEASES = "/opt/katanode"
GUEST_BYTES = 2 << 30
"""Kata's default_memory, 2048 MiB, in all of its base files."""

_SLOW_CLOCKS = {"hpet", "acpi_pm", "jiffies", "xen", "refined-jiffies"}
"""Clock sources that the vDSO cannot read: each reading is a system call, or a trap into the outer hypervisor."""


def probe_resources(root: HostRoot, space_needed: int) -> tuple[Finding, ...]:
    """All about the host's resources.

    Args:
        root: the host.
        space_needed: bytes that a release still takes; 0 when it is there already.
    """
    memory = meminfo(text(root, "/proc/meminfo"))
    return (
        disk_space(root, space_needed),
        judge_memory(memory),
        judge_huge_pages(memory),
        shared_memory(root),
        clock_source(root),
    )


def disk_space(root: HostRoot, needed: int) -> Finding:
    """Whether a release of `needed` bytes fits where releases live."""
    check = "disk space for a release"
    try:
        path = root(RELEASES)
        while not path.exists() and path != path.parent:
            path = path.parent
        free = _free(path)
    except KatanodeError as error:
        return from_error(check, error, Capability.HOST)
    if free < needed:
        evidence = f"{_gib(free)} free at {RELEASES}, {_gib(needed)} needed"
        return bad(check, Reason.DISK_SPACE_LOW, evidence, capability=Capability.HOST)
    # Without the free space itself: evidence that changes with each run would make publishers write for nothing.
    evidence = f"{_gib(needed)} needed at {RELEASES}, and free" if needed else f"{RELEASES}: nothing needed"
    return ok(check, evidence, Capability.HOST)


def _free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def meminfo(content: str) -> dict[str, int]:
    """The fields of /proc/meminfo, sizes in bytes, counts as they are."""
    fields = {}
    for line in content.splitlines():
        key, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            fields[key.strip()] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return fields


def judge_memory(memory: dict[str, int]) -> Finding:
    """Whether one guest of the default size fits beside the host."""
    check = "memory"
    total = memory.get("MemTotal")
    if total is None:
        return Finding(check, Severity.INFO, "/proc/meminfo does not say", capability=Capability.HOST)
    if total <= GUEST_BYTES:
        evidence = f"{_gib(total)} in all, a guest gets {_gib(GUEST_BYTES)} by default"
        return bad(check, Reason.MEMORY_LOW, evidence, capability=Capability.HOST)
    return ok(check, _gib(total), Capability.HOST)


def judge_huge_pages(memory: dict[str, int]) -> Finding:
    """Huge pages that are reserved; a handler uses them only with enable_hugepages."""
    count, size = memory.get("HugePages_Total", 0), memory.get("Hugepagesize", 0)
    evidence = f"{count} of {size >> 20} MiB reserved" if count else "none reserved"
    return Finding("huge pages", Severity.INFO, evidence, capability=Capability.HOST)


def shared_memory(root: HostRoot) -> Finding:
    """Whether /dev/shm holds one guest of the default size, as QEMU needs it with virtio-fs."""
    check = "/dev/shm"
    path = root("/dev/shm")
    if not path.is_dir():
        return bad(check, Reason.SHM_SMALL, "/dev/shm does not exist", capability=Capability.HOST)
    status = os.statvfs(path)
    size = status.f_blocks * status.f_frsize
    if size < GUEST_BYTES:
        evidence = f"{_gib(size)}, a guest gets {_gib(GUEST_BYTES)} by default"
        return bad(check, Reason.SHM_SMALL, evidence, capability=Capability.HOST)
    return ok(check, _gib(size), Capability.HOST)


def clock_source(root: HostRoot) -> Finding:
    """Whether the time is read without a system call."""
    name = text(root, "/sys/devices/system/clocksource/clocksource0/current_clocksource")
    if name in _SLOW_CLOCKS:
        return bad("clock source", Reason.CLOCKSOURCE_SLOW, name, capability=Capability.HOST)
    return ok("clock source", name or "not said", Capability.HOST)


def _gib(number: int) -> str:
    return f"{number / (1 << 30):.1f} GiB"
