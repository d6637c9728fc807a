"""Puts together what the image adds to its base, for any architecture, by unpacking alone. Runs in the build stage."""

# ruff: noqa: INP001 - a script beside its modules, no package

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import debian
import seal
import trim
import wheels


@dataclass(frozen=True, slots=True)
class Target:
    """What the image is for.

    Attributes:
        arch: as images and Debian name it.
        triplet: of its folder of libraries.
        machine: as wheels name it.
        elf: its number in ELF headers.
    """

    arch: str
    triplet: str
    machine: str
    elf: int


TARGETS = {
    "amd64": Target("amd64", "x86_64-linux-gnu", "x86_64", 62),
    "arm64": Target("arm64", "aarch64-linux-gnu", "aarch64", 183),
}

LAUNCHER = """#!/usr/bin/{python} -sP
import sys

from agent.cli import main

sys.exit(main())
"""


def assemble(target: Target, base_status: Path, source: Path, out: Path, epoch: int) -> None:
    """Fills `out` with what goes above the base.

    Args:
        target: the architecture.
        base_status: dpkg's status file of the base.
        source: a folder with katanode's source and `image`.
        out: an empty folder, or none.
        epoch: the time of every file, seconds since 1970.

    Raises:
        SystemExit: saying what does not fit.
    """
    # The build stage is of the base's suite: its Python is the one that the base's architecture gets.
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    places = {
        "site": f"usr/local/lib/{python}/dist-packages",
        "stdlib": f"usr/lib/{python}",
        "python": python,
        "libraries": f"usr/lib/{target.triplet}",
    }
    rules = tomllib.loads((source / "image/trim.toml").read_text())
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    packages = (f"{python}-minimal", f"lib{python}-stdlib")
    debian.install(target.arch, base_status, packages, rules["debian"], places, out)
    site = out / places["site"]
    wheels.install_locked(target.machine, source / "image/requirements.lock", rules["distributions"], site)
    wheels.install_project(source, source / "image/build.lock", site)
    launcher = out / "usr/local/bin/katanode"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(LAUNCHER.format(python=python))
    launcher.chmod(0o755)

    trim.leave_out(out, rules["files"], places)
    trim.leave_out_unnamed(out, rules["generated"], places, site / "agent")
    seal.compile_all(out, (places["stdlib"], places["site"]), trim.matches(out, rules["bytecode"]["without"], places))
    seal.check(out, target.elf)
    seal.set_times(out, epoch)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", choices=sorted(TARGETS), required=True)
    parser.add_argument("--base-status", type=Path, required=True)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    os.umask(0o022)
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or 0)
    assemble(TARGETS[options.arch], options.base_status, options.source, options.out, epoch)


if __name__ == "__main__":
    main()
