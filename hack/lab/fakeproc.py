"""A made-up /proc in a folder: as many sandboxes and other processes as wanted, each file in the kernel's own form."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

UPTIME = 100_000.0
"""Seconds that the machine has been up, unless said otherwise."""
TICKS = 100
RELEASE = "/opt/katanode/releases/4.1.0-3dc6b69c"
_MIB = 1 << 20


def sandbox_id(number: int) -> str:
    """A sandbox's id as containerd makes them: 64 hexadecimal digits, here with the number at both ends."""
    return f"{number:08x}" + "ab" * 24 + f"{number:08x}"


class Use(NamedTuple):
    """What a process has used.

    Attributes:
        cpu: clock ticks.
        pages: in RAM.
        threads: how many.
        read: bytes from block devices.
        written: bytes to them.
    """

    cpu: int = 250
    pages: int = 2_000
    threads: int = 3
    read: int = 4096
    written: int = 8192


USUAL = Use()


class FakeProc:
    """A /proc of one's own making.

    Args:
        folder: where it goes; a name of a process is a folder with its files in it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.path.mkdir(parents=True, exist_ok=True)
        self.uptime(UPTIME)
        self.process(1, ["/sbin/init"], exe="/usr/lib/systemd/systemd", start=1)

    def uptime(self, seconds: float) -> None:
        """Sets the time since the boot."""
        (self.path / "uptime").write_text(f"{seconds:.2f} 0.00\n")

    def process(
        self,
        pid: int,
        argv: Iterable[str | bytes],
        *,
        exe: str = "",
        name: str = "",
        parent: int = 1,
        start: int = 5_000,
        use: Use = USUAL,
        pid_namespace: int = 4026531836,
    ) -> Path:
        """Makes a process, in place of what had the number before.

        Args:
            pid: its number.
            argv: its arguments.
            exe: its program; the first argument if not given.
            name: as the kernel has it; the program's if not given.
            parent: its parent.
            start: clock ticks after the boot.
            use: what it has used.
            pid_namespace: the number of its pid namespace.
        """
        words = [word.encode() if isinstance(word, str) else word for word in argv]
        program = exe or (words[0].decode() if words else "")
        folder = self.path / str(pid)
        if folder.exists():
            # Moved away first: the new folder must not get the old one's inode, as it does not in a real /proc.
            folder.rename(self.path / f".gone-{time.monotonic_ns()}")
        (folder / "ns").mkdir(parents=True)
        (folder / "fd").mkdir()
        (folder / "cmdline").write_bytes(b"".join(word + b"\0" for word in words))
        called = (name or program.rpartition("/")[2])[:15]
        fields = ["S", parent, pid, pid, 0, -1, 4194304, 0, 0, 0, 0, use.cpu // 2, use.cpu - use.cpu // 2]
        fields += [0, 0, 20, 0, use.threads, 0, start, 64 * _MIB, use.pages, *([0] * 28)]
        (folder / "stat").write_text(f"{pid} ({called}) {' '.join(map(str, fields))}\n")
        (folder / "io").write_text(
            f"rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: {use.read}\nwrite_bytes: {use.written}\n"
            "cancelled_write_bytes: 0\n"
        )
        (folder / "exe").symlink_to(program or "/nothing")
        (folder / "ns/pid").symlink_to(f"pid:[{pid_namespace}]")
        return folder

    def end(self, pid: int) -> None:
        """Ends a process."""
        shutil.rmtree(self.path / str(pid))

    def holds(self, pid: int, vcpus: int) -> None:
        """Gives a process a virtual machine among its descriptors."""
        folder = self.path / str(pid) / "fd"
        for number in range(3):
            (folder / str(number)).symlink_to("/dev/null")
        (folder / "10").symlink_to("anon_inode:kvm-vm")
        for vcpu in range(vcpus):
            (folder / str(11 + vcpu)).symlink_to(f"anon_inode:kvm-vcpu:{vcpu}")
            (folder / str(100 + vcpu)).symlink_to("anon_inode:[eventfd]")

    def taps(self, pid: int, taps: Mapping[str, tuple[int, int, int, int]]) -> None:
        """Gives a process a network namespace with taps: bytes in, drops in, bytes out, drops out, of the host."""
        net = self.path / str(pid) / "net"
        net.mkdir(exist_ok=True)
        lines = [
            "Inter-|   Receive  |  Transmit",
            " face |bytes packets errs drop fifo frame compressed multicast|bytes",
        ]
        known = {"lo": (1, 0, 1, 0), "eth0": (999, 9, 999, 9), **taps}
        lines += [f"{name}: {a} 1 0 {b} 0 0 0 0 {c} 1 0 {d} 0 0 0 0" for name, (a, b, c, d) in known.items()]
        (net / "dev").write_text("\n".join(lines) + "\n")

    def mappings(self, pid: int, *mappings: tuple[str, int, int]) -> None:
        """Gives a process memory: name of the mapping, its size in KiB, its proportional share in KiB."""
        text, at = "", 0x7F0000000000
        for name, size, share in mappings:
            text += f"{at:x}-{at + (size << 10):x} rw-p 00000000 00:00 0 {name}\n"
            text += f"Size: {size} kB\nKernelPageSize: 4 kB\nRss: {share} kB\nPss: {share} kB\nPss_Dirty: {share} kB\n"
            text += f"Pss_Anon: {share} kB\nVmFlags: rd wr mr mw me ac sd\n"
            at += (size << 10) + 4096
        (self.path / str(pid) / "smaps").write_text(text)

    def sandbox(self, number: int, pid: int, *, pod: str = "", vcpus: int = 1, namespace: str = "") -> str:
        """Makes a sandbox of Cloud Hypervisor under the Go runtime; gives its id.

        Args:
            number: the sandbox's.
            pid: the shim's; the VMM and virtiofsd have the next two.
            pod: the pod's name.
            vcpus: of the machine.
            namespace: the pod's.
        """
        made = sandbox_id(number)
        start = 5_000 + number
        shim = f"{RELEASE}/bin/containerd-shim-kata-v2"
        argv = [shim, "-namespace", "k8s.io", "-address", "/run/containerd/containerd.sock", "-id", made]
        self.process(pid, argv, start=start)
        self.process(
            pid + 1,
            [f"{RELEASE}/bin/cloud-hypervisor", "--api-socket", f"/run/vc/vm/{made}/clh-api.sock"],
            parent=pid,
            start=start + 2,
            use=Use(pages=60_000),
        )
        shared = f"--shared-dir=/run/kata-containers/shared/sandboxes/{made}/shared"
        self.process(pid + 2, [f"{RELEASE}/libexec/virtiofsd", "--syslog", shared], parent=pid, start=start + 1)
        self.holds(pid + 1, vcpus)
        self.taps(pid + 1, {"tap0_kata": (1000 + number, 1, 2000 + number, 2)})
        self.bundle(pid, namespace or f"team-{number % 20}", pod or f"pod-{number}", f"uid-{number}")
        return made

    def bundle(self, shim: int, namespace: str, pod: str, uid: str) -> None:
        """Gives a shim its bundle as working folder."""
        annotations = {"sandbox-namespace": namespace, "sandbox-name": pod, "sandbox-uid": uid}
        spec = {
            "ociVersion": "1.2.0",
            "mounts": [{"destination": f"/mount/{number}", "source": "x" * 60} for number in range(40)],
            "annotations": {f"io.kubernetes.cri.{key}": value for key, value in annotations.items()},
        }
        folder = self.path / str(shim) / "cwd"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(spec))

    def crowd(self, first: int, count: int) -> None:
        """Makes processes that have nothing to do with Kata."""
        for pid in range(first, first + count):
            self.process(pid, [f"/usr/bin/program-{pid % 40}", "--flag", "x" * (pid % 200)])


def node(folder: Path, sandboxes: int, processes: int) -> FakeProc:
    """A /proc with many sandboxes, of three processes each, among other processes.

    Args:
        folder: where.
        sandboxes: how many.
        processes: in all.
    """
    made = FakeProc(folder)
    for number in range(sandboxes):
        made.sandbox(number, 10_000 + 10 * number)
    made.crowd(200_000, processes - 3 * sandboxes - 1)
    return made
