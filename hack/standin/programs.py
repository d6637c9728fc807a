"""The stand-in programs, compiled from ``src/``."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from hack.standin.errors import StandinError

Arch = Literal["amd64", "arm64"]
Program = Literal["shim", "shim-rs", "runtime", "vmm", "virtiofsd"]

SOURCES = Path(__file__).with_name("src")
_UNITS: dict[Program, tuple[str, ...]] = {
    "shim": ("shim", "proxy", "protocol", "sandbox", "config", "util"),
    "shim-rs": ("shim", "proxy", "protocol", "sandbox", "config", "util"),
    "runtime": ("runtime", "config", "util"),
    "vmm": ("vmm", "util"),
    "virtiofsd": ("virtiofsd",),
}
# A build id and a path in the file would differ from machine to machine.
_FLAGS = ("-std=c11", "-static", "-O2", "-s", "-Wall", "-Wextra", "-Werror", "-Wl,--build-id=none")
_MACHINES: dict[Arch, str] = {"amd64": "x86_64", "arm64": "aarch64"}


@functools.cache
def compile_all(version: str, arch: Arch) -> dict[Program, bytes]:
    """Every program, statically linked (about 2 s; once in a process).

    Args:
        version: what they say to ``--version``, before STAND-IN.
        arch: for which machine.

    Raises:
        StandinError: there is no compiler for `arch`, or it complains.
    """
    compiler = _compiler(arch)
    with tempfile.TemporaryDirectory(prefix="katanode-standin-") as folder:
        running = {program: _start(compiler, program, version, Path(folder)) for program in _UNITS}
        for program, process in running.items():
            said = process.communicate()[0]
            if process.returncode != 0:
                for other in running.values():
                    other.kill()
                    other.wait()
                raise StandinError(f"{compiler} cannot build {program}:\n{said[-2000:]}", remedy=_remedy(arch))
        return {program: Path(folder, program).read_bytes() for program in _UNITS}


def _start(compiler: str, program: Program, version: str, folder: Path) -> subprocess.Popen[str]:
    """Start compiling `program` into `folder`."""
    argv = [compiler, *_FLAGS, f'-DSTANDIN_VERSION="{version}"', "-o", str(folder / program)]
    argv += ["-DSTANDIN_RUNTIME_RS"] if program == "shim-rs" else []
    argv += [f"{unit}.c" for unit in _UNITS[program]]
    return subprocess.Popen(argv, cwd=SOURCES, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _compiler(arch: Arch) -> str:
    """The C compiler that makes programs for `arch`: ``CC`` if it is set, whatever it makes."""
    machine = _MACHINES[arch]
    candidates = [f"{machine}-linux-gnu-gcc"]
    if platform.machine() == machine:
        candidates = ["cc", "gcc", *candidates]
    if chosen := os.environ.get("CC"):
        candidates = [chosen]
    for candidate in candidates:
        if shutil.which(candidate):
            return candidate
    raise StandinError(f"no C compiler for {arch}: looked for {', '.join(candidates)}", remedy=_remedy(arch))


def _remedy(arch: Arch) -> str:
    """How to get a compiler."""
    if platform.machine() == _MACHINES[arch]:
        return "apt-get install gcc libc6-dev linux-libc-dev"
    return f"apt-get install crossbuild-essential-{arch}, or set CC"
