"""A node that runs: QEMU with a processor in software, an overlay over the disk, and the ways in."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from hack.nodes.errors import NodeError
from hack.nodes.guest import Guest

if TYPE_CHECKING:
    from hack.nodes.disk import Disk

BOOT = 180.0
"""Seconds for a boot: it takes 13 on an idle machine."""
# svm, and not vmx: KVM in a processor in software exists for AMD's alone. The clock is the host's.
_CPU = ("-accel", "tcg,thread=multi", "-cpu", "max,+svm")
FORWARD = "10.0.2.100:8001"
"""Where the node finds the one port of this machine that is forwarded."""
_OWN_ADDRESS = "10.0.2.15/24"
_COMMAND_LINE = "root=/dev/vda ro console=ttyS0 quiet systemd.show_status=0"


class Node:
    """A machine in QEMU; also a context manager, which starts it, waits for the system, and ends it.

    Args:
        disk: what it boots.
        folder: its own, for the overlay, sockets and the console's log; made if need be.
        overlay: the file with all that it writes; an earlier one is gone on with, `folder`/disk.qcow2 if not given.
        forward: a TCP port of this machine's loopback that the node reaches as `FORWARD`, and nothing else; 0 for
            no network at all.
        log: where every write to the disk is recorded with its flushes (`blocklog`); snapshots do not work with it.
        cpus: how many. With two, QEMU 7.2 stood still now and then while a guest ran in the node; with one it did not
            in forty sandboxes.
        kernel: further words for the kernel's command line.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        *,
        overlay: Path | None = None,
        forward: int = 0,
        log: Path | None = None,
        cpus: int = 1,
        kernel: str = "",
    ) -> None:
        self.disk = disk
        self.folder = folder
        self.overlay = overlay or folder / "disk.qcow2"
        self._forward = forward
        self._log = log
        self._cpus = cpus
        self._kernel = kernel
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: QEMUMonitorProtocol | None = None
        self.guest = Guest(folder / "guest.sock")

    def __enter__(self) -> Self:
        self.start()
        self.wait()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # the machine

    def start(self, snapshot: str = "", *, detached: bool = False) -> None:
        """Switches it on.

        Args:
            snapshot: it goes on from there, instead of booting.
            detached: it outlives this process; else it dies with it, however that ends.

        Raises:
            NodeError: QEMU does not start.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.overlay.exists():
            base = ["-F", self.disk.format, "-b", str(self.disk.image)]
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *base, str(self.overlay)], check=True)
        argv = self.command() + (["-loadvm", snapshot] if snapshot else [])
        with (self.folder / "qemu.log").open("wb") as said:
            # The kernel sends the signal, so that not even SIGKILL of this process leaves a machine behind.
            tied = [] if detached else ["setpriv", "--pdeathsig", "KILL", "--"]
            self._process = subprocess.Popen(
                [*tied, *argv], stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
        (self.folder / "pid").write_text(str(self._process.pid))
        deadline = time.monotonic() + 20
        while not (self.folder / "qmp.sock").exists() or not (self.folder / "guest.sock").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise NodeError("QEMU does not start", evidence=(self.folder / "qemu.log").read_text(errors="replace"))
            time.sleep(0.01)

    def command(self) -> list[str]:
        """QEMU's command line."""
        drive = f"driver=qcow2,node-name=store,file.driver=file,file.filename={self.overlay}"
        drives, top = ["-blockdev", drive], "store"
        if self._log:
            drives += ["-blockdev", f"driver=file,node-name=logfile,filename={self._log}"]
            drives += ["-blockdev", "driver=blklogwrites,node-name=logged,file=store,log=logfile,log-sector-size=512"]
            top = "logged"
        network = ["-nic", "none"]
        if self._forward:
            # A process for each connection: QEMU itself would forward one and no more.
            relay = f"guestfwd=tcp:{FORWARD}-cmd:socat - TCP:127.0.0.1:{self._forward}"
            network = ["-netdev", f"user,id=net,restrict=on,{relay}", "-device", "virtio-net-pci,netdev=net"]
        return [
            *("qemu-system-x86_64", *_CPU, "-smp", str(self._cpus), "-m", "2048"),
            *("-nodefaults", "-no-user-config", "-display", "none"),
            *network,
            *("-kernel", str(self.disk.kernel), "-initrd", str(self.disk.initrd)),
            *("-append", f"{_COMMAND_LINE} {self._kernel}".strip()),
            *drives,
            *("-device", f"virtio-blk-pci,drive={top},write-cache=on"),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=guest,path={self.folder}/guest.sock,server=on,wait=off"),
            *("-device", "virtserialport,chardev=guest,name=org.qemu.guest_agent.0"),
            *("-chardev", f"socket,id=tty,path={self.folder}/console.sock,server=on,wait=off"),
            *("-serial", "chardev:tty", "-qmp", f"unix:{self.folder}/qmp.sock,server=on,wait=off"),
        ]

    def wait(self, seconds: float = BOOT) -> None:
        """Waits until the system is up: systemd has nothing more to start, containerd's unit included.

        Raises:
            NodeError: not within `seconds`, or units have failed.
        """
        deadline = time.monotonic() + seconds
        self.guest.wait(seconds)
        said = ""
        while time.monotonic() < deadline:
            said = self.run("systemctl", "is-system-running", check=False).stdout.strip()
            if said in {"running", "degraded"}:
                break
            time.sleep(0.1)
        if said != "running":
            failed = self.run("systemctl", "--failed", "--no-legend", check=False).stdout
            raise NodeError(f"the node's system is {said or 'silent'}", evidence=f"{failed}\n{self.evidence()}")

    def attach(self) -> Self:
        """Takes over a machine that was started detached.

        Raises:
            NodeError: it does not run.
        """
        if not self.pid:
            raise NodeError(f"no node runs in {self.folder}", remedy="hack/node start")
        return self

    @property
    def pid(self) -> int:
        """QEMU's process number; 0 if it does not run."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.folder / "pid").read_text())
            if str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return 0

    def close(self) -> None:
        """Pulls the plug, and waits until QEMU is gone; the overlay stays."""
        self.guest.close()
        if self._monitor:
            with contextlib.suppress(QMPError, OSError):
                self._monitor.close()
            self._monitor = None
        pid = self.pid
        if pid:
            os.kill(pid, signal.SIGKILL)
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
        while self.pid:
            time.sleep(0.01)
        for name in ("pid", "qmp.sock", "guest.sock", "console.sock"):
            (self.folder / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """As `close`, and removes its folder with all that it wrote."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def monitor(self, command: str, **arguments: Any) -> Any:
        """One command of QEMU's own protocol.

        Raises:
            NodeError: it is refused.
        """
        try:
            if self._monitor is None:
                self._monitor = QEMUMonitorProtocol(str(self.folder / "qmp.sock"))
                self._monitor.connect(negotiate=True)
            return self._monitor.cmd(command, **arguments)
        except (QMPError, OSError) as error:
            raise NodeError(f"QEMU refuses {command}", evidence=str(error)) from error

    def _human(self, line: str) -> None:
        """A command that QEMU has only for people; it says nothing when all is well."""
        said = self.monitor("human-monitor-command", **{"command-line": line})
        if said.strip():
            raise NodeError(f"QEMU refuses {line}", evidence=said)

    def snapshot(self, name: str) -> None:
        """Keeps memory and disk as they are now under a name."""
        self.guest.close()
        self._human(f"savevm {name}")

    def restore(self, name: str) -> None:
        """Goes back to a snapshot; whatever ran then runs on."""
        self.guest.close()
        self._human(f"loadvm {name}")
        self.guest.wait(30)

    def reset(self) -> None:
        """The reset button: memory is gone, nothing is written, and the machine boots again."""
        self.guest.close()
        self.monitor("system_reset")

    # in the system

    def run(
        self, *argv: str, check: bool = True, stdin: bytes = b"", timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the node as root.

        Raises:
            NodeError: it fails and `check` is set, or does not end within `timeout` seconds.
        """
        done = self.guest.run(argv, stdin=stdin, timeout=timeout)
        if check and done.returncode != 0:
            said = f"{done.stdout}\n{done.stderr}"
            raise NodeError(f"{' '.join(argv)[:300]}: exit status {done.returncode} in the node", evidence=said)
        return done

    def shell(self, script: str, *, check: bool = True, timeout: float = 120.0) -> str:
        """Runs a shell script in the node; gives what it printed."""
        return self.run("sh", "-c", script, check=check, timeout=timeout).stdout

    def reboot(self) -> None:
        """Reboots as an administrator does, and waits until the system is up again."""
        before = self.boot_id()
        with contextlib.suppress(NodeError):  # it may be down before it answers
            self.run("systemctl", "reboot", "--no-block")
        deadline = time.monotonic() + BOOT
        while time.monotonic() < deadline:
            self.guest.close()
            with contextlib.suppress(NodeError):
                self.guest.wait(5)
                if self.boot_id() != before:
                    return self.wait()
            time.sleep(0.1)
        raise NodeError("the node does not come back from its reboot", evidence=self.console())

    def network_up(self) -> None:
        """Gives the node's card its address: nothing in the node does, as most nodes here have no card."""
        # Its driver may still be at work when the system says that it is up, and udev gives it another name then.
        there = 'until set -- /sys/class/net/e* && [ -e "$1" ]; do sleep 0.1; done'
        named = "udevadm settle --timeout=30; set -- /sys/class/net/e*; card=${1##*/}"
        self.shell(f'{there}; {named}; ip link set "$card" up; ip addr add {_OWN_ADDRESS} dev "$card"', timeout=60)

    def power_off(self) -> None:
        """Shuts down as an administrator does, and waits until QEMU has ended; everything is on the disk.

        Raises:
            NodeError: not within a minute.
        """
        with contextlib.suppress(NodeError):  # it may be gone before it answers
            self.run("systemctl", "poweroff", "--no-block")
        deadline = time.monotonic() + 60
        while self.pid:
            if self._process:
                self._process.poll()
            if time.monotonic() > deadline:
                raise NodeError("the node does not shut down", evidence=self.console())
            time.sleep(0.05)
        self.close()

    def boot_id(self) -> str:
        """What differs from boot to boot."""
        return self.guest.read("/proc/sys/kernel/random/boot_id").decode().strip()

    def evidence(self) -> str:
        """The journal's lines that matter after a failure: containerd's, katanode's and the kernel's last."""
        with contextlib.suppress(NodeError):
            said = self.shell(
                "journalctl -b --no-pager -q -p warning -n 25; "
                "journalctl -b --no-pager -q -u containerd -n 40; tail -n 40 /var/log/pods/*/*.log 2>/dev/null",
                check=False,
                timeout=30,
            )
            return said[-8000:]
        return self.console()

    def console(self) -> str:
        """What QEMU itself said; where the node does not answer there is nothing else."""
        with contextlib.suppress(OSError):
            return (self.folder / "qemu.log").read_text(errors="replace")[-2000:]
        return ""
