"""Running a command in a daemon's cgroups instead of this process's own.

What a command starts stays in the cgroups that it was started in. In a pod those are the pod's: a container runtime
that was restarted from there, and not by systemd, would be killed with the pod (seen on a real kubelet).
"""

from collections.abc import Sequence
from typing import Final

REFUSED: Final = 97
"""Exit status of the command's place when it cannot be had: nothing was run then."""

# One line of /proc/PID/cgroup is NUMBER:CONTROLLERS:PATH (cgroups(7)); CONTROLLERS is empty for version 2, which a
# hybrid machine has at `unified`. The shell enters every hierarchy that is mounted, and becomes the command.
_SCRIPT = f"""
pid=$1; shift
[ -r "/proc/$pid/cgroup" ] || pid=1
while IFS=: read -r number names path; do
    case "$names" in
        "") top=/sys/fs/cgroup; [ -d "$top/unified" ] && top=$top/unified ;;
        name=*) top=/sys/fs/cgroup/${{names#name=}} ;;
        *) top=/sys/fs/cgroup/$names ;;
    esac
    procs=$top${{path%/}}/cgroup.procs
    [ -e "$procs" ] || continue
    echo $$ > "$procs" || exit {REFUSED}
done < "/proc/$pid/cgroup"
exec "$@"
"""


def beside(pid: int, command: Sequence[str]) -> tuple[str, ...]:
    """The command as it runs in the cgroups of a process, or of the machine's first one where that is gone.

    Args:
        pid: the process.
        command: a program of the host and its arguments.
    """
    return ("sh", "-c", _SCRIPT, "sh", str(pid), *command)
