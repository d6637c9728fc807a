"""A node that has everything but katanode on it: pause image, the agent's image, a release to install, settings."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from hack.lab import pause
from hack.lab.containerd import PrivateContainerd, sandbox_images
from hack.lab.lab import Lab
from hack.nodes.disk import furnished
from hack.nodes.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hack.lab.packages import Generation
    from hack.nodes.disk import Disk
    from hack.nodes.machine import Node
    from hack.standin.archive import Archive

SETTINGS, ACCOUNT, RELEASES = "/srv/settings", "/srv/account", "/srv/kata"
"""Folders of the node: what stands for the ConfigMap and for the Secret, and where releases are fetched from."""


def settings(archive: Archive, version: str, *, more: str = "") -> bytes:
    """Settings that install a stand-in release out of the node's own folder.

    Args:
        archive: the release.
        version: its.
        more: further tables.
    """
    pins = f'{{ "{archive.path.name}" = "{archive.sha256}" }}'
    return (
        f'[kata]\nversion = "{version}"\nsource = "{RELEASES}"\nsha256 = {pins}\n'
        # A processor in software needs some seconds for what takes a tenth of one elsewhere.
        f"[run]\ninterval_seconds = 20\n[canary]\ntimeout_seconds = 120\n{more}\n"
    ).encode()


def prepare(
    generation: Generation, folder: Path, image: Path, releases: Mapping[str, Archive], account: Mapping[str, bytes]
) -> Disk:
    """A disk on which the agent may be started; some ten seconds.

    Images are imported by the same containerd on this machine, which has a faster processor.

    Args:
        generation: containerd's.
        folder: for the disk; it must stay as long as the disk is used.
        image: the agent's, as `hack/image` writes it.
        releases: version to archive; the first is what the settings name.
        account: the service account's files.

    Raises:
        LabError: Debian's packages cannot be had, or containerd refuses an image.
    """
    first = next(iter(releases))

    def furnish(root: Path) -> None:
        _import(generation, image, root / "var/lib/containerd")
        for name in (SETTINGS, ACCOUNT, RELEASES):
            (root / name.strip("/")).mkdir()
        for archive in releases.values():
            shutil.copy(archive.path, root / RELEASES.strip("/"))
        (root / SETTINGS.strip("/") / "katanode.toml").write_bytes(settings(releases[first], first))
        for name, content in account.items():
            (root / ACCOUNT.strip("/") / name).write_bytes(content)

    return furnished(generation, folder / "disk.qcow2", furnish)


def _import(generation: Generation, image: Path, target: Path) -> None:
    """Makes containerd's store with the agent's image, and the pause image by the name that its defaults have."""
    with Lab() as lab, PrivateContainerd(lab, generation) as containerd:
        names = sandbox_images(lab.run(["containerd", "config", "default"]).stdout)
        containerd.import_image(pause.archive(names))
        containerd.import_image(image, timeout=120)
        containerd.stop()
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "-a", lab.path("/var/lib/containerd"), target], check=True)


def without_kvm(node: Node) -> None:
    """Unloads KVM, as on a node whose kernel did not load it by itself.

    Raises:
        NodeError: something holds it.
    """
    deadline = time.monotonic() + 20
    while node.run("modprobe", "-r", "kvm_amd", "kvm", check=False).returncode != 0:  # udev may be looking at it
        if time.monotonic() > deadline:
            raise NodeError("kvm_amd cannot be unloaded", evidence=node.shell("lsmod | grep kvm", check=False))
        time.sleep(0.2)
