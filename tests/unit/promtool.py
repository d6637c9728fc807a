"""Prometheus' promtool from Debian's package (20 MB)."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import debian_packages

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs promtool and gives back what it said, on whichever stream, as stdout."""
    return subprocess.run(
        [debian_packages.unpacked("prometheus") / "usr/bin/promtool", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
