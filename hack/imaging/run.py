"""Programs that the image's making runs."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from hack.imaging.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 1800.0,
    what: str = "",
) -> str:
    """Runs a program to its end; gives what it printed.

    Args:
        argv: the program and its arguments.
        env: added to this process's environment.
        cwd: where it runs.
        timeout: seconds after which it is killed.
        what: the sentence of the error; the command when not given.

    Raises:
        ImageError: it cannot be started, fails or takes too long.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            env=os.environ | (env or {}),
            cwd=cwd,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(what or f"{words[0]} failed", evidence=str(error)) from error
    if done.returncode != 0:
        raise ImageError(
            what or f"{' '.join(words)[:200]}: exit status {done.returncode}", evidence=f"{done.stdout}\n{done.stderr}"
        )
    return done.stdout
