"""docker, podman and buildah: what differs between them."""

from __future__ import annotations

import platform
import resource
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hack.imaging.errors import ImageError
from hack.imaging.project import CONTAINERFILE
from hack.imaging.run import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Name = Literal["docker", "podman", "buildah"]
NAMES: tuple[Name, ...] = ("docker", "podman", "buildah")
OF_DEBIAN = ("buildah", "mmdebstrap")
"""What --install-tools installs: programs and packages of one name."""

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Order:
    """One build.

    Attributes:
        context: the folder with the sources.
        name: the image's.
        arch: as images name it.
        epoch: the time of its files, seconds since 1970.
        arguments: the Containerfile's.
        labels: the image's.
        secrets: files that the build may read.
        fresh: nothing of an earlier build is used again.
    """

    context: Path
    name: str
    arch: str
    epoch: int
    arguments: Mapping[str, str]
    labels: Mapping[str, str]
    secrets: Mapping[str, Path]
    fresh: bool


def own_architecture() -> str:
    """This machine's architecture as images name it."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def find(wanted: str | None, *, install: bool) -> Name:
    """The tool to build with.

    Args:
        wanted: one by name; the first that is there and works if not given.
        install: install one where none is.

    Raises:
        ImageError: there is none.
    """
    why = {}
    for name in NAMES:
        if wanted in {None, name}:
            why[name] = _lacks(name)
            if not why[name]:
                return name
    if install and wanted in {None, "buildah"}:
        install_missing()
        return "buildah"
    raise ImageError(
        f"{wanted or 'nothing here'} can build no image",
        evidence="\n".join(f"{name}: {reason}" for name, reason in why.items()),
        remedy="apt-get install buildah, or hack/image --install-tools",
    )


def install_missing() -> None:
    """Installs what of `OF_DEBIAN` is not here; no container runtime comes with it.

    Raises:
        ImageError: this is no Debian or Ubuntu, not root, or no mirror answers.
    """
    missing = [name for name in OF_DEBIAN if shutil.which(name) is None]
    if missing:
        run(["apt-get", "update", "-qq"], what="apt's lists cannot be renewed")
        run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
            env={"DEBIAN_FRONTEND": "noninteractive"},
            what=f"{' and '.join(missing)} cannot be installed",
        )


def _lacks(name: Name) -> str:
    """Why a tool cannot be used; empty when it can."""
    if shutil.which(name) is None:
        return "is not installed"
    # A client without its daemon, or without BuildKit, builds nothing.
    for check in (["docker", "version"], ["docker", "buildx", "version"]) if name == "docker" else ([name, "info"],):
        done = subprocess.run(check, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            return f"`{' '.join(check)}` says: {done.stderr.strip()[-300:]}"
    return ""


def pull(tool: Name, image: str, arch: str) -> bool:
    """Whether a base can be had from its registry or is here already."""
    argv = [tool, "pull", "--quiet", "--platform", f"linux/{arch}", image]
    return subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=600).returncode == 0


def load_base(tool: Name, root: Path, name: str, arch: str, epoch: int) -> None:
    """Makes an image of one layer out of a root file system.

    Args:
        tool: whose image it becomes.
        root: a tar archive.
        name: the image's.
        arch: as images name it.
        epoch: its time, seconds since 1970.
    """
    if tool == "buildah":
        container = run(["buildah", "from", "scratch"]).strip()
        try:
            run(["buildah", "add", "--quiet", container, root, "/"])
            run(["buildah", "config", "--os", "linux", "--arch", arch, container])
            run(["buildah", "commit", "--quiet", "--timestamp", str(epoch), container, name])
        finally:
            run(["buildah", "rm", container])
        return
    own = ["--os", "linux", "--arch", arch] if tool == "podman" else ["--platform", f"linux/{arch}"]
    run([tool, "import", *own, root, name])


def build(tool: Name, order: Order, archive: Path) -> None:
    """Builds an image, and writes it as an OCI archive.

    Raises:
        ImageError: the tool's own words.
    """
    common = ["--file", order.context / CONTAINERFILE.relative_to(CONTAINERFILE.parents[1]), "--tag", order.name]
    common += ["--platform", f"linux/{order.arch}", "--network", "host"]
    arguments = {
        **order.arguments,
        "SOURCE_DATE_EPOCH": str(order.epoch),
        # buildah does not set these before the first stage.
        "BUILDPLATFORM": f"linux/{own_architecture()}",
        "TARGETPLATFORM": f"linux/{order.arch}",
    }
    common += [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    common += [word for key, value in order.labels.items() for word in ("--label", f"{key}={value}")]
    common += [word for key, path in order.secrets.items() for word in ("--secret", f"id={key},src={path}")]
    common += ["--no-cache"] if order.fresh else []
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)
    if tool == "docker":
        # Into the daemon's store and out of it: its ordinary driver writes no archive while it builds.
        run(["docker", "buildx", "build", "--provenance=false", "--load", *common, order.context])
        run(["docker", "save", "--output", archive, order.name])
        return
    # chroot, since it needs no container runtime here: what the build stage runs is Debian's and this repository's. The
    # limits are at most this process's own: newer ones raise them otherwise, which root in a container may not, and
    # buildah 1.28 has lowered its own number of processes to the one here by then.
    own = ["--isolation", "chroot", "--timestamp", str(order.epoch)]
    for kind, number, most in (("nofile", resource.RLIMIT_NOFILE, 20000), ("nproc", resource.RLIMIT_NPROC, 32768)):
        least = min([most, *(limit for limit in resource.getrlimit(number) if limit != resource.RLIM_INFINITY)])
        own += ["--ulimit", f"{kind}={least}:{least}"]
    run([tool, "build", *own, *common, order.context])
    target = f"oci-archive:{archive}:{order.name}"
    run(["buildah", "push", "--quiet", order.name, target] if tool == "buildah" else _podman_save(order.name, archive))


def _podman_save(name: str, archive: Path) -> list[str]:
    return ["podman", "save", "--quiet", "--format", "oci-archive", "--output", str(archive), name]
