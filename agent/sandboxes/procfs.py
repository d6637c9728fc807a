"""Raw reads of a /proc: bounded, and with None as the answer of a process that has ended meanwhile.

psutil reads the same files. It takes eight times as long for what one read of stat gives (60 µs and 8 µs of CPU for
times, memory and threads, measured) and has one /proc for the whole program, where tests and labs have others.
"""

import os
import re
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
"""Clock ticks in a second: the unit of times in /proc/PID/stat."""
_ROLLUP = 1 << 16
_ENDED = frozenset((b"Z", b"X", b"x"))
_PAGE = os.sysconf("SC_PAGE_SIZE")
_VM = "anon_inode:kvm-vm"
"""What the kernel calls a descriptor of a KVM virtual machine, and below one of its vCPUs (virt/kvm/kvm_main.c)."""
_VCPU = "anon_inode:kvm-vcpu:"


class Stat(NamedTuple):
    """What is used of /proc/PID/stat (proc(5)).

    Attributes:
        name: the program's name as the kernel has it, 15 bytes at most; another after exec.
        parent: its parent's pid.
        cpu_seconds: in user and kernel mode, of all threads, those that have ended included.
        threads: how many it has.
        start: when it started, in clock ticks after the boot.
        resident: bytes of memory in RAM, shared ones included.
    """

    name: bytes
    parent: int
    cpu_seconds: float
    threads: int
    start: int
    resident: int


class Machine(NamedTuple):
    """What the descriptors of a process say of KVM: whether it holds a virtual machine, and how many vCPUs."""

    held: bool
    vcpus: int


NO_MACHINE = Machine(held=False, vcpus=0)


def read(path: str, limit: int = 4096) -> bytes | None:
    """The first `limit` bytes of a file; None when it cannot be read."""
    try:
        # O_NONBLOCK: whatever stands in a file's place, a FIFO for instance, holds up nobody.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return os.read(fd, limit)
    except OSError:
        return None
    finally:
        os.close(fd)


def read_whole(path: str, limit: int) -> bytes | None:
    """A file that may come in several parts; None when it cannot be read or has more than `limit` bytes."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    parts = []
    left = limit + 1
    try:
        while left > 0 and (part := os.read(fd, min(left, 1 << 16))):
            parts.append(part)
            left -= len(part)
    except OSError:
        return None
    finally:
        os.close(fd)
    return b"".join(parts) if left > 0 else None


def link(path: str) -> str:
    """Where a link leads to; "" when it cannot be read."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def processes(proc: str) -> dict[int, int]:
    """The processes of a /proc: pid to the number of its folder's inode.

    The kernel gives the folder of another process with the same pid another inode, so that a pid which was used again
    is seen without a read of anything; the inode of one process may change too, when the kernel forgets it.
    """
    with os.scandir(proc) as entries:
        return {int(entry.name): entry.inode() for entry in entries if entry.name.isdecimal()}


def stat(proc: str, pid: int) -> Stat | None:
    """The process as /proc/PID/stat has it; None also of one that has ended and was not waited for."""
    data = read(f"{proc}/{pid}/stat", 1024)
    if data is None:
        return None
    # The name may hold blanks and brackets of its own.
    begin, end = data.find(b"("), data.rfind(b")")
    fields = data[end + 1 :].split(None, 22)
    try:
        if fields[0] in _ENDED:
            return None
        return Stat(
            data[begin + 1 : end],
            int(fields[1]),
            (int(fields[11]) + int(fields[12])) / TICKS,
            int(fields[17]),
            int(fields[19]),
            int(fields[21]) * _PAGE,
        )
    except (ValueError, IndexError):
        return None


def machine(proc: str, pid: int) -> Machine:
    """What a process holds of KVM."""
    folder = f"{proc}/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return NO_MACHINE
    links = [link(f"{folder}/{name}") for name in names]
    return Machine(_VM in links, len({each for each in links if each.startswith(_VCPU)}))


def rollup(proc: str, pid: int) -> dict[str, int]:
    """Bytes by field of smaps_rollup (Linux 4.14 and later): costly; empty where it cannot be read."""
    lines = (read_whole(f"{proc}/{pid}/smaps_rollup", _ROLLUP) or b"").decode("ascii", "replace").splitlines()
    words = [line.split() for line in lines]
    return {w[0].removesuffix(":"): int(w[1]) << 10 for w in words if len(w) == 3 and w[2] == "kB"}


def uptime(proc: str) -> float:
    """Seconds since the boot, the time asleep included; 0 when it cannot be read."""
    found = re.match(rb"(\d+(?:\.\d+)?)", read(f"{proc}/uptime", 64) or b"")
    return float(found[1]) if found else 0.0
