"""A node's disk: made once of Debian's packages, kept under the digest of its recipe, never written again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hack.lab.packages import cache_folder, debian_source, made_once, unpacked
from hack.nodes.errors import NodeError
from hack.nodes.recipe import MASKED, SETUP, Recipe, recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hack.lab.packages import Generation

SIZE = "32G"
"""What the node sees; the file is as large as what is in it."""
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "socat": "socat",
}
"""Program to package; `hack/tools node` installs them."""

# A node's packages without what is only read by people.
_LEAN = ("doc", "locale", "man", "info", "lintian")
_XATTRS = ("--xattrs", "--xattrs-include=*")
_OF_SID = ("containerd", "containerd-shim-runc-v2", "ctr")


@dataclass(frozen=True, slots=True)
class Disk:
    """One generation's disk, and what boots it.

    Attributes:
        generation: containerd's.
        image: to be written only through an overlay.
        kernel: Debian's.
        initrd: finds the disk.
        format: of the image, as QEMU names it.
    """

    generation: Generation
    image: Path
    kernel: Path
    initrd: Path
    format: str = "qcow2"


def missing() -> list[str]:
    """The programs that are not here."""
    return sorted(name for name in PROGRAMS if shutil.which(name) is None)


def disk(generation: Generation) -> Disk:
    """The disk of a generation; made on first use, in about a minute.

    Safe to be called by several processes at once.

    Raises:
        NodeError: not root, another architecture, a program is missing, or Debian's packages cannot be had.
    """
    folder = _system(generation)
    return Disk(generation, folder / "disk.qcow2", folder / "vmlinuz", folder / "initrd")


def furnished(generation: Generation, target: Path, furnish: Callable[[Path], None]) -> Disk:
    """A disk of a generation with more on it.

    Args:
        generation: containerd's.
        target: the image; it must stay as long as the disk is used.
        furnish: is given the folder that becomes the root file system.

    Raises:
        NodeError: as `disk`.
    """
    folder = _system(generation)
    with tempfile.TemporaryDirectory(prefix="katanode-node-", dir=target.parent) as scratch:
        root = Path(scratch) / "root"
        root.mkdir()
        _unpack(folder / "root.tar", root)
        furnish(root)
        _image(root, target)
    return Disk(generation, target, folder / "vmlinuz", folder / "initrd")


def _system(generation: Generation) -> Path:
    """The folder with a generation's system: its disk, what boots it, and the same as an archive."""
    if os.geteuid() != 0 or os.uname().machine != "x86_64":
        raise NodeError("a node's disk is made by root on x86_64, and nowhere else")
    if lacking := missing():
        raise NodeError(f"{', '.join(lacking)} not found", remedy="hack/tools node")
    wanted = recipe(generation)
    folder = cache_folder() / f"node-{generation}-{wanted.digest}"

    def make(staging: Path) -> Path:
        for old in folder.parent.glob(f"node-{generation}-*"):  # of earlier recipes
            shutil.rmtree(old, ignore_errors=True)
        _make(wanted, staging)
        return staging / "made"

    return made_once(folder, make)


def _make(wanted: Recipe, staging: Path) -> None:
    root, made = staging / "root", staging / "made"
    made.mkdir()
    root.mkdir()
    _install(wanted, staging / "installed.tar")
    _unpack(staging / "installed.tar", root)
    if wanted.generation == "2.1":
        for name in _OF_SID:
            shutil.copy2(unpacked("sid") / "usr/bin" / name, root / "usr/bin" / name)
    for path, content in wanted.files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    for unit in MASKED:
        link = root / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    # One each: a new disk has one kernel.
    for kind, name in (("vmlinuz", "vmlinuz"), ("initrd.img", "initrd")):
        (kernel,) = (root / "boot").glob(f"{kind}-*")
        shutil.copy(kernel, made / name)
        kernel.unlink()
    _run(["tar", *_XATTRS, "-cf", made / "root.tar", "-C", root, "."])
    _image(root, made / "disk.qcow2")


def _unpack(archive: Path, root: Path) -> None:
    _run(["tar", *_XATTRS, "-xf", archive, "-C", root])


def _image(root: Path, target: Path) -> None:
    """Makes a disk of a folder."""
    raw = target.with_suffix(".raw")
    try:
        _run(["truncate", "--size", SIZE, raw])
        _run(["mke2fs", "-q", "-t", "ext4", "-d", root, raw])
        _run(["qemu-img", "convert", "-O", "qcow2", raw, target])
    finally:
        raw.unlink(missing_ok=True)


def _install(wanted: Recipe, target: Path) -> None:
    """A tar of the suite's packages, installed and configured."""
    mirror, keyring = debian_source()
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEAN]
    options += ["--dpkgopt=force-confold", "--aptopt=Apt::Install-Recommends false", f"--setup-hook={SETUP}"]
    options += ['--customize-hook=chroot "$1" passwd --quiet --delete root', f"--include={','.join(wanted.packages)}"]
    source = f"deb [signed-by={keyring}] {mirror} {wanted.suite} main"
    words = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=tar"]
    _run([*words, *options, wanted.suite, target, source])


def _run(argv: Sequence[str | Path]) -> None:
    done = subprocess.run([str(word) for word in argv], check=False, capture_output=True, text=True, timeout=1200)
    if done.returncode != 0:
        raise NodeError(f"{argv[0]}: exit status {done.returncode}", evidence=done.stdout + done.stderr)
