"""The one way to run a program on the node: with a time limit, in the host's namespaces, leaving no child behind."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.errors import KatanodeError
from agent.reasons import Reason

OUTPUT_LIMIT = 8 << 20
"""Bytes of a program's output that are kept; `containerd config dump` prints about 20 kB."""

NSENTER = ("nsenter", "--target", "1", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--")
"""Into the host's namespaces from the agent's pod. Not --pid: the pod has hostPID, and --pid would fork."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def words(self) -> str:
        """What it said, stderr first, for evidence."""
        text = "\n".join(t.decode("utf-8", "replace").strip() for t in (self.stderr, self.stdout) if t.strip())
        return f"$ {' '.join(self.argv)}\nexit status {self.returncode}\n{text}".strip()


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs programs on the node.

    Args:
        prefix: what is put before each command: nothing on a bare machine, `NSENTER` in a pod.
    """

    prefix: tuple[str, ...] = ()

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        reason: Reason = Reason.COMMAND_FAILED,
    ) -> Completed:
        """Runs a program to its end.

        Args:
            argv: the program and its arguments; never a shell string.
            timeout: seconds after which it and all that it started in its session are killed.
            check: raise when its exit status is not 0.
            env: its whole environment; this process's own when None.
            reason: the reason that a failure carries.

        Raises:
            KatanodeError: `reason`, when it cannot be started, fails (with `check`) or takes longer than `timeout`.
        """
        full = (*self.prefix, *argv)
        try:
            process = subprocess.Popen(
                full,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=None if env is None else dict(env),
                # A session of its own: the whole of it can be killed, and a signal that kills the agent spares it.
                start_new_session=True,
            )
        except OSError as error:
            raise KatanodeError(
                reason, f"{argv[0]} cannot be started", evidence=f"$ {' '.join(argv)}\n{error.strerror}"
            ) from error
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill_session(process)
            raise KatanodeError(
                reason, f"{argv[0]} did not end within {timeout:g} s", evidence=f"$ {' '.join(argv)}"
            ) from None
        except BaseException:
            _kill_session(process)
            raise
        done = Completed(tuple(argv), process.returncode, stdout[:OUTPUT_LIMIT], stderr[:OUTPUT_LIMIT])
        if check and done.returncode != 0:
            raise KatanodeError(reason, f"{argv[0]} failed", evidence=done.words)
        return done


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A process in uninterruptible sleep does not die: it is not waited for longer than this.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=2)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
