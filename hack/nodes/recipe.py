"""What a node's disk is made of: packages of Debian, and the few files that make them a node."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hack.lab import configs, cri, errors
from hack.lab.packages import GENERATIONS
from hack.nodes import inside

if TYPE_CHECKING:
    from hack.lab.packages import Generation

SUITES: dict[Generation, str] = {"1.6": "bookworm", "1.7": "trixie", "2.1": "trixie"}
"""containerd 2.1 is sid's, on a stable suite: the kernel and systemd of a node should not change from day to day."""

PACKAGES = (
    "systemd-sysv",
    "udev",
    "dbus",
    "kmod",
    "procps",
    "iproute2",
    "linux-image-cloud-amd64",  # KVM, vhost and tun are in it as modules, and it is a third of the ordinary one
    "initramfs-tools",
    "zstd",
    "containerd",
    "runc",
    "containernetworking-plugins",
    "python3",
    "qemu-guest-agent",
)

HELPER = "/usr/local/lib/katanode-node"
"""Where the guest's half of `hack/nodes` lies: it speaks CRI with nothing but Python."""

_LOGIN = "/etc/systemd/system/serial-getty@ttyS0.service.d/login.conf"

# What no node needs to serve, and a processor in software takes seconds for.
MASKED = ("e2scrub_reap.service", "systemd-logind.service", "getty@tty1.service", "apt-daily.timer", "fstrim.timer")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one generation's disk is made.

    Attributes:
        generation: containerd's.
        suite: Debian's.
        packages: their names.
        files: path to content, added at the end.
    """

    generation: Generation
    suite: str
    packages: tuple[str, ...]
    files: dict[str, str]

    @property
    def digest(self) -> str:
        """Eight digits that differ when the recipe does, or what is made of it."""
        code = [Path(__file__).with_name(name).read_text() for name in ("recipe.py", "disk.py")]
        text = json.dumps([self.generation, self.suite, self.packages, self.files, code])
        return hashlib.sha256(text.encode()).hexdigest()[:8]


# Only what finds the disk: the ordinary initramfs is ten times as large, and is unpacked in software.
SETUP = (
    'mkdir -p "$1/etc/initramfs-tools/conf.d"; '
    'printf "MODULES=list\\nCOMPRESS=zstd\\n" >"$1/etc/initramfs-tools/conf.d/node.conf"; '
    'printf "virtio_pci\\nvirtio_blk\\n" >"$1/etc/initramfs-tools/modules"'
)


def recipe(generation: Generation) -> Recipe:
    """The recipe of a generation's disk."""
    assert generation in GENERATIONS
    helper = {
        f"{HELPER}/hack/__init__.py": "",
        f"{HELPER}/hack/lab/__init__.py": "",
        f"{HELPER}/hack/nodes/__init__.py": "",
    }
    for module in (cri, errors, inside):
        path = Path(module.__file__ or "")
        helper[f"{HELPER}/hack/{path.parent.name}/{path.name}"] = path.read_text()
    return Recipe(
        generation=generation,
        suite=SUITES[generation],
        packages=PACKAGES,
        files={
            **helper,
            "/etc/hostname": "node\n",
            "/etc/hosts": "127.0.0.1 localhost node\n",
            # Without them systemd takes a first boot for an update, and makes caches anew for seconds.
            "/etc/.updated": "TIMESTAMP_NSEC=4102444800000000000\n",
            "/var/.updated": "TIMESTAMP_NSEC=4102444800000000000\n",
            "/etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
            "/etc/cni/net.d/10-node.conflist": configs.network().decode(),
            # The console is a developer's (`hack/node shell`), and no network leads to it.
            _LOGIN: "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear %I $TERM\n",
            # A log that survives a power cut is what one wants to read after it.
            "/etc/systemd/journald.conf.d/node.conf": "[Journal]\nStorage=persistent\nSyncIntervalSec=5s\n",
        },
    )
