"""Runs a probe's child program: bounded in time whatever it meets, and without fork in a process with threads."""

import contextlib
import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import bounded

CHILDREN = Path(__file__).with_name("children")

# An import, since Python compiles a file that it is given to run anew each time.
_START = "import sys; sys.path.append(sys.argv[1]); __import__(sys.argv[2]).program(*sys.argv[3:])"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a child program came to.

    Attributes:
        said: its line of JSON; empty when it hung or failed.
        hung: it did not answer in time.
        failure: how it ended without an answer ("killed by SIGSEGV", the last lines of its traceback).
        seconds: wall time.
    """

    said: Mapping[str, Any] = field(default_factory=dict)
    hung: bool = False
    failure: str = ""
    seconds: float = 0.0


def run_child(program: str, *arguments: str, timeout: float, packages: bool = False) -> Answer:
    """Runs `program` of `children/PROGRAM.py`.

    `subprocess` starts it with vfork, which is safe beside other threads and costs the same from a large process.

    Args:
        program: its name without `.py`.
        *arguments: its arguments; the seconds after which it shall end itself come last.
        timeout: seconds after which it is killed. One in uninterruptible sleep does not die; it is left to the kernel.
        packages: whether it needs installed packages; without them Python starts a third sooner.

    Raises:
        OSError: Python cannot be started.
    """
    began = time.monotonic()
    flags = ["-I"] if packages else ["-I", "-S"]
    process = subprocess.Popen(
        [sys.executable, *flags, "-c", _START, str(CHILDREN), program, *arguments, str(int(timeout) + 2)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _abandon(process)
        return Answer(hung=True, seconds=time.monotonic() - began)
    except BaseException:
        _abandon(process)
        raise
    seconds = time.monotonic() - began
    with contextlib.suppress(ValueError):
        said = json.loads(out)
        if isinstance(said, dict):
            return Answer(said, seconds=seconds)
    return Answer(failure=_end(process.returncode, err), seconds=seconds)


def error_name(number: int) -> str:
    """An error number's name as the kernel has it: Python calls EOPNOTSUPP by its other name, ENOTSUP."""
    return "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode.get(number, str(number))


def _abandon(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0.2)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _end(status: int, stderr: bytes) -> str:
    how = f"exit status {status}"
    if status < 0:
        with contextlib.suppress(ValueError):
            how = f"killed by {signal.Signals(-status).name}"
    return bounded(f"{how}\n{stderr.decode('utf-8', 'replace')}", 600)
