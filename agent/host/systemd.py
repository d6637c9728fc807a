"""systemd units of the host: which one a process belongs to, and its restart."""

from pathlib import PurePosixPath

from agent.host.process import Completed, Runner
from agent.reasons import Reason


def unit_of(cgroups: str) -> str:
    """The service unit that a process belongs to.

    Args:
        cgroups: the text of `/proc/PID/cgroup`. On cgroup v2 its one line counts, on v1 the line of systemd's own
            hierarchy (cgroups(7)).

    Returns:
        A unit's name such as `containerd.service`, or "" when the process is in no service.
    """
    for line in cgroups.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (number == "0" and not controllers) or controllers == "name=systemd":
            # The innermost service: a nested systemd (a node in a container) has outer ones above it.
            units = [part for part in PurePosixPath(path).parts if part.endswith(".service")]
            if units:
                return units[-1]
    return ""


def restart(runner: Runner, unit: str, timeout: float) -> Completed:
    """Restarts a unit and waits until systemd calls it started.

    systemctl only asks: the job is systemd's, and goes on when this process is killed.

    Raises:
        KatanodeError: `RESTART_FAILED`.
    """
    return runner.run(("systemctl", "restart", unit), timeout=timeout, reason=Reason.RESTART_FAILED)


def log_lines(runner: Runner, unit: str, since: float, count: int = 15) -> str:
    """The last lines that a unit logged since a moment (seconds since 1970), for evidence; "" when there are none."""
    argv = ("journalctl", "--unit", unit, "--since", f"@{since:.0f}", "--lines", str(count), "--no-pager", "--quiet")
    done = runner.run(argv, timeout=10, check=False)
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
