"""Containerd, runc and the CNI plugins out of Debian's packages: unpacked into a cache, never installed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hack.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Generation = Literal["1.6", "1.7", "2.1"]
GENERATIONS: tuple[Generation, ...] = ("1.6", "1.7", "2.1")

# sid's runc needs a newer C library than a stable machine has; bookworm's serves every containerd.
BASE = "bookworm"
SUITES: dict[Generation, str] = {"1.6": BASE, "1.7": "trixie", "2.1": "sid"}
PACKAGES = {BASE: ("containerd", "runc", "containernetworking-plugins")}

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR_VARIABLE = "KATANODE_LAB_DEBIAN_MIRROR"

_DEBIAN_SUITE = re.compile(
    r"(buster|bullseye|bookworm|trixie|forky|duke|sid|oldstable|stable|testing|unstable)(-updates)?$"
)
_LINE = re.compile(r"\s*deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+.*\bmain\b")


@dataclass(frozen=True, slots=True)
class Binaries:
    """One generation's programs.

    Attributes:
        containerd: the daemon.
        ctr: its debugging client.
        shim_dir: the folder with ``containerd-shim-runc-v2``.
        runc: the OCI runtime.
        cni_bin: the folder with the CNI plugins.
        version: the daemon's full version, as ``1.7.24``.
    """

    containerd: Path
    ctr: Path
    shim_dir: Path
    runc: Path
    cni_bin: Path
    version: str


def cache_folder() -> Path:
    """Where packages are unpacked: ``KATANODE_LAB_CACHE``, or ``~/.cache/katanode-lab``; made if need be."""
    chosen = os.environ.get("KATANODE_LAB_CACHE")
    folder = Path(chosen) if chosen else Path.home() / ".cache" / "katanode-lab"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def binaries(generation: Generation) -> Binaries:
    """The programs of one containerd generation, downloaded on first use (about 100 MB for all three).

    Safe to be called by several processes at once.

    Raises:
        LabError: they are not in the cache and cannot be downloaded.
    """
    base, suite = unpacked(BASE), unpacked(SUITES[generation])
    daemon = suite / "usr/bin/containerd"
    said = subprocess.run([daemon, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r" v?(\d+\.\d+\.\d+)", said.stdout)
    if match is None or not match[1].startswith(f"{generation}."):
        raise LabError(
            f"{SUITES[generation]}'s containerd is not {generation}",
            evidence=said.stdout + said.stderr,
            remedy=f"remove {suite}; if the suite has moved on, change SUITES in {__file__}",
        )
    return Binaries(
        containerd=daemon,
        ctr=suite / "usr/bin/ctr",
        shim_dir=suite / "usr/bin",
        runc=base / "usr/sbin/runc",
        cni_bin=base / "usr/lib/cni",
        version=match[1],
    )


def unpacked(suite: str) -> Path:
    """The folder with the unpacked packages of `suite`; downloads them if they are not there."""

    def make(staging: Path) -> Path:
        _download(suite, staging)
        return staging / "root"

    return made_once(cache_folder() / f"{suite}-{_architecture()}", make)


def made_once(folder: Path, make: Callable[[Path], Path]) -> Path:
    """A folder of the cache, made whole when it is not there; safe to be called by several processes at once.

    Args:
        folder: the folder.
        make: is given a folder for its work, which is removed afterwards; gives the one in it that becomes `folder`.
    """
    if folder.is_dir():
        return folder
    with _locked(folder.with_name(f".{folder.name}.lock")):
        # Another process may have done it while this one waited.
        if not folder.is_dir():
            staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                make(staging).rename(folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold `path` locked; the kernel lets go when this process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _architecture() -> str:
    """Debian's name of this machine's architecture."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _download(suite: str, folder: Path) -> None:
    """Fetch the packages of `suite` with apt's own verification and unpack them into `folder`/root."""
    uri, signed_by = debian_source()
    for name in ("state/lists/partial", "cache/archives/partial", "debs", "root"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text(f"deb [signed-by={signed_by}] {uri} {suite} main\n")
    options = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State": folder / "state",
        "Dir::State::Lists": folder / "state/lists",
        "Dir::Cache": folder / "cache",
        # apt's own user may not enter root's cache folder.
        "APT::Sandbox::User": "root",
        "APT::Update::Post-Invoke-Success": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    apt = ["apt-get", "-q", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]
    _run([*apt, "update", "--error-on=any"], suite)
    _run([*apt, "download", *PACKAGES.get(suite, ("containerd",))], suite, cwd=folder / "debs")
    for package in sorted((folder / "debs").glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(folder / "root")], suite)


def _run(argv: list[str], suite: str, cwd: Path | None = None) -> None:
    """Run one step of a download."""
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"Debian's packages of {suite} could not be had", evidence=str(error)) from error
    if done.returncode != 0:
        raise LabError(
            f"Debian's packages of {suite} could not be had",
            evidence=f"{argv[0]}: {done.stderr or done.stdout}",
            remedy=f"check the network and apt's sources, name a mirror in {MIRROR_VARIABLE}, or copy a "
            f"filled cache to {cache_folder()}",
        )


def debian_source() -> tuple[str, str]:
    """The mirror and the keyring that this machine's apt uses for Debian.

    Raises:
        LabError: its sources name none, as on Ubuntu, and ``KATANODE_LAB_DEBIAN_MIRROR`` is not set.
    """
    chosen = os.environ.get(MIRROR_VARIABLE)
    if chosen:
        return chosen, str(KEYRING)
    parts = Path("/etc/apt/sources.list.d")
    for file in sorted(parts.glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text()):
            if found := _from_stanza(stanza):
                return found
    for file in (Path("/etc/apt/sources.list"), *sorted(parts.glob("*.list"))):
        for line in file.read_text().splitlines() if file.exists() else ():
            if found := _from_line(line):
                return found
    raise LabError(
        "no Debian mirror is known here",
        evidence="apt's sources name no Debian suite",
        remedy=f"install debian-archive-keyring and set {MIRROR_VARIABLE} to a Debian mirror's address",
    )


def _from_stanza(text: str) -> tuple[str, str] | None:
    """Mirror and keyring out of one deb822 stanza, if it is Debian's main archive."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and not line.startswith(("#", " ", "\t")):
            fields[key.strip().lower()] = value.strip()
    usable = fields.get("enabled", "yes").lower() != "no" and "deb" in fields.get("types", "").split()
    if not usable or not any(map(_DEBIAN_SUITE.match, fields.get("suites", "").split())):
        return None
    uris = fields.get("uris", "").split()
    # An inline key is none that a one-line source can name.
    signed = fields.get("signed-by", "")
    return (uris[0], signed if signed.startswith("/") else str(KEYRING)) if uris else None


def _from_line(line: str) -> tuple[str, str] | None:
    """Mirror and keyring out of one line of a sources.list, if it is Debian's main archive."""
    match = _LINE.match(line)
    if match is None or not _DEBIAN_SUITE.match(match["suite"]):
        return None
    signed = re.search(r"signed-by=(\S+)", match["options"] or "")
    return match["uri"], signed[1] if signed else str(KEYRING)
