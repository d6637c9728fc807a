"""Process 1 of a lab: makes the private view of the machine, then reaps, until it is told to go.

Started by `keeper.py` in new namespaces; not to be imported. Its argument is a JSON object (`order.Order`).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hack.lab import cgroups

if TYPE_CHECKING:
    from hack.lab.order import Order

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384

# What a lab may write. Below these the machine's own files are seen until they are written.
PRIVATE = ("/etc", "/opt", "/usr/local", "/var", "/root", "/srv", "/home")

# What another containerd or Kata may have left on the machine: a lab begins as a plain node.
FORGET = ("/etc/containerd", "/etc/cni", "/etc/kata-containers", "/opt/cni", "/opt/kata", "/opt/katanode")

# Folders that carry overlays and mounts of their own. Measured: Linux 6.18 takes an overlay's upper side on
# an overlay, so the snapshotter would work there too; older kernels refuse, and copies are slower.
PLAIN = ("/var/lib/containerd", "/var/lib/cni", "/var/lib/kubelet", "/var/tmp")

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """Make one mount, as the system call does, with the reason of a failure."""
    kind, extra = fstype.encode() or None, data.encode() or None
    if _libc.mount(source.encode(), target.encode(), kind, flags, extra) != 0:
        number = ctypes.get_errno()
        tried = f"mount -t {fstype or 'bind'} {source} -o {data or flags}"
        raise OSError(number, f"{os.strerror(number)} ({tried})", target)


def overlay(folder: str, upper: Path) -> None:
    """Make `folder` private: reads come from the machine, writes go to `upper`."""
    (upper / "up").mkdir(parents=True)
    (upper / "work").mkdir()
    # The top folder's own mode and owner come from the upper one.
    shutil.copystat(folder, upper / "up")
    mount("overlay", folder, "overlay", 0, f"lowerdir={folder},upperdir={upper}/up,workdir={upper}/work")


def private_folders(work: Path, keep: list[str]) -> None:
    """Cover the folders of `PRIVATE`, with the paths in `keep` shining through as they are."""
    # Held by descriptors of the real ones, as the overlays will hide their paths.
    held = {path: os.open(path, os.O_PATH) for path in keep if Path(path).is_dir()}
    for folder in PRIVATE:
        if Path(folder).is_dir() and not Path(folder).is_symlink():
            overlay(folder, work / folder.strip("/").replace("/", "-"))
    for folder in FORGET:
        if Path(folder).is_dir():
            shutil.rmtree(folder)
    for path, descriptor in held.items():
        if any(Path(path).is_relative_to(folder) for folder in PRIVATE):
            mount(f"/proc/self/fd/{descriptor}", path, "", MS_BIND | MS_REC)
        os.close(descriptor)
    for folder in PLAIN:
        plain = work / "plain" / folder.strip("/").replace("/", "-")
        plain.mkdir(parents=True)
        Path(folder).mkdir(parents=True, exist_ok=True)
        mount(str(plain), folder, "", MS_BIND)
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    Path("/run/lock").mkdir(mode=0o1777)
    Path("/run/lab").mkdir()


def own_sysfs(found: list[cgroups.Hierarchy]) -> None:
    """A /sys that shows this network namespace, and cgroup hierarchies whose top is the lab's own group."""
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if any(h.mount != Path("/sys/fs/cgroup") for h in found):
        mount("tmpfs", "/sys/fs/cgroup", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755")
    for hierarchy in found:
        hierarchy.mount.mkdir(parents=True, exist_ok=True)
        flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
        mount("cgroup", str(hierarchy.mount), hierarchy.fstype, flags, hierarchy.options)


def loopback_up() -> None:
    """Bring ``lo`` up (SIOCGIFFLAGS, SIOCSIFFLAGS of netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = fcntl.ioctl(sock, 0x8913, struct.pack("16sH22x", b"lo", 0))
        flags = struct.unpack_from("16sH", request)[1]
        fcntl.ioctl(sock, 0x8914, struct.pack("16sH22x", b"lo", flags | 0x1))


def name_files() -> None:
    """Give containerd the two files that it copies into every pod: it fails without them."""
    # systemd-resolved's resolv.conf is a link into /run, which is empty here.
    texts = {"/etc/resolv.conf": "nameserver 127.0.0.1\n", "/etc/hosts": "127.0.0.1 localhost\n"}
    for path, text in texts.items():
        if not Path(path).exists():
            Path(path).unlink(missing_ok=True)
            Path(path).write_text(text)


def main() -> None:
    """Set up, say so on standard output, and reap children until the keeper goes or asks for the end."""
    order: Order = json.loads(sys.argv[1])
    # The old /proc is still mounted here, so this is the process's number as the machine sees it.
    seen_as = os.readlink("/proc/self")
    found = cgroups.hierarchies()
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    work = Path(order["work"])
    if order["tmpfs"]:
        mount("tmpfs", str(work), "tmpfs", 0, "mode=700")
    private_folders(work, order["keep"])
    own_sysfs([h for h in found if str(h.mount) in order["hierarchies"]])
    loopback_up()
    name_files()
    socket.sethostname("lab")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.write(1, f"ready {seen_as}\n".encode())
    # Daemons and shims whose parents have gone come to process 1; unreaped they would count as running.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue


if __name__ == "__main__":
    main()
