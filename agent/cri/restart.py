"""Restarting the runtime, and knowing that it serves again."""

import time
from dataclasses import dataclass

from agent.cri.client import Client, CRIError, RuntimeStatus
from agent.cri.daemon import Daemon, peer
from agent.errors import KatanodeError
from agent.host import cgroups, systemd
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.reasons import Reason

_POLL = 0.05


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How the runtime is restarted.

    Attributes:
        command: the command that does it; empty means the systemd unit that the daemon belongs to.
        timeout: seconds for the command, and again for CRI to be ready after it.
        quiet_timeout: seconds that a restart waits for a moment without sandboxes being made.
    """

    command: tuple[str, ...] = ()
    timeout: float = 60.0
    quiet_timeout: float = 30.0

    def check(self, daemon: Daemon) -> None:
        """Sees that a restart is possible, before anything is changed.

        Raises:
            KatanodeError: `RESTART_UNKNOWN`.
        """
        if not self.command and not daemon.unit:
            raise KatanodeError(
                Reason.RESTART_UNKNOWN,
                f"process {daemon.pid} ({daemon.exe}) is in no systemd unit, and runtime.restart_command is not set",
                evidence=f"containerd {daemon.version} behind {daemon.socket}",
            )


def restart(runner: Runner, daemon: Daemon, policy: RestartPolicy) -> None:
    """Restarts the daemon.

    Raises:
        KatanodeError: `RESTART_FAILED`, `RESTART_UNKNOWN`.
    """
    policy.check(daemon)
    started = time.time()
    try:
        if policy.command:
            # The command may start the daemon itself: not among what dies with this process's pod or session.
            runner.run(cgroups.beside(daemon.pid, policy.command), timeout=policy.timeout, reason=Reason.RESTART_FAILED)
        else:
            systemd.restart(runner, daemon.unit, policy.timeout)
    except KatanodeError as error:
        raise _with_log(error, runner, daemon, started) from error


def wait_ready(root: HostRoot, runner: Runner, daemon: Daemon, timeout: float) -> RuntimeStatus:
    """Waits until CRI says RuntimeReady.

    Raises:
        KatanodeError: `RUNTIME_NOT_READY`, with the last answer and the unit's log.
    """
    started = time.time()
    deadline = time.monotonic() + timeout
    last = "no answer yet"
    with Client(root(daemon.socket)) as client:
        while True:
            try:
                status = client.status(timeout=max(0.1, min(5.0, deadline - time.monotonic())))
            except CRIError as error:
                last = error.evidence
            else:
                if status.ready:
                    return status
                last = "RuntimeReady is false"
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL)
    late = KatanodeError(
        Reason.RUNTIME_NOT_READY, f"{daemon.socket} is not ready {timeout:g} s after the restart", evidence=last
    )
    raise _with_log(late, runner, daemon, started - timeout)


def serving_pid(root: HostRoot, daemon: Daemon) -> int:
    """The process that serves the socket now; 0 when none does."""
    try:
        return peer(root(daemon.socket), timeout=1.0)
    except OSError:
        return 0


def _with_log(error: KatanodeError, runner: Runner, daemon: Daemon, since: float) -> KatanodeError:
    """The error with the daemon's own last words, where systemd keeps them."""
    lines = ""
    if daemon.unit:
        try:
            lines = systemd.log_lines(runner, daemon.unit, since)
        except KatanodeError as unavailable:
            lines = f"(its log cannot be read: {unavailable.message})"
    return KatanodeError(
        error.reason, error.message, evidence="\n".join(filter(None, (error.evidence, lines))), remedy=error.remedy
    )
