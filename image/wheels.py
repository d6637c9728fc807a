"""Python's packages for the image: out of wheels of the target's architecture, each held to the digest in its lock."""

# ruff: noqa: INP001 - beside its script

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

AUTHORITIES = Path("/run/secrets/ca.pem")
"""Certificates of this machine's package index, when it has its own."""

NEWEST_GLIBC = 36
"""Minor version of bookworm's C library, the oldest that a base has: a wheel may need one up to it."""


def install_locked(machine: str, lock: Path, without: Iterable[str], site: Path) -> None:
    """Unpacks the wheels of a lock.

    Args:
        machine: the architecture as wheels name it.
        lock: a requirements file with versions and digests, for this Python.
        without: distributions of it that are not wanted.
        site: where to.

    Raises:
        SystemExit: the lock is for another Python, a distribution to be left out is not in it, or pip fails.
    """
    text = lock.read_text()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if f"# Python {version}\n" not in text:
        raise SystemExit(f"{lock.name} is not for Python {version}, which the base's suite has: hack/image --lock")
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(_without(text, without))
        _pip_install(wanted, site, *platforms(machine, version))
    # Programs that the packages bring are for developers.
    shutil.rmtree(site / "bin", ignore_errors=True)


def install_project(source: Path, lock: Path, site: Path) -> None:
    """Builds katanode's wheel with the locked build tools, and unpacks it.

    Args:
        source: its source.
        lock: the build tools' requirements file.
        site: where to.

    Raises:
        SystemExit: pip fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        tools, wheel = Path(folder, "tools"), Path(folder, "wheel")
        _pip_install(lock, tools)
        _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheel, source, PYTHONPATH=str(tools))
        (file,) = wheel.glob("*.whl")
        _pip("install", "--no-deps", "--no-index", "--no-compile", "--target", site, file)
    shutil.rmtree(site / "bin", ignore_errors=True)
    for name in ("direct_url.json", "REQUESTED", "INSTALLER"):
        for path in site.glob(f"*.dist-info/{name}"):
            path.unlink()


def platforms(machine: str, version: str) -> list[str]:
    """pip's arguments for a machine and a Python that are not its own: each tag that a wheel for them may have."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(NEWEST_GLIBC, 4, -1)]
    tags += [f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}"]
    return ["--implementation=cp", f"--python-version={version}", *(f"--platform={tag}" for tag in tags)]


def _without(text: str, names: Iterable[str]) -> str:
    """The lock less some distributions."""
    for name in names:
        text, found = re.subn(rf"^{re.escape(name)}==.*(\n    .*)*\n", "", text, flags=re.MULTILINE)
        if not found:
            raise SystemExit(f"trim.toml leaves out {name}, which is not in the lock")
    return text


def _pip_install(requirements: Path, site: Path, *more: str) -> None:
    _pip(
        *("install", "--require-hashes", "--no-deps", "--only-binary=:all:", "--no-compile"),
        *("--requirement", requirements, "--target", site, *more),
    )


def _pip(verb: str, *arguments: str | Path, **environment: str) -> None:
    if AUTHORITIES.exists() and AUTHORITIES.stat().st_size:
        environment["PIP_CERT"] = str(AUTHORITIES)
    argv = [sys.executable, "-m", "pip", verb, "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
    argv += ["--root-user-action=ignore"] if verb == "install" else []
    argv += map(str, arguments)
    done = subprocess.run(
        argv,
        env=os.environ | environment,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout[-2000:]}")
