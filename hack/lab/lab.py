"""A private view of this machine, in which a containerd may be installed, broken and removed.

Inside, ``/etc``, ``/opt``, ``/usr/local``, ``/var``, ``/root``, ``/srv`` and ``/home`` show the machine's
files and keep what is written to themselves, ``/run`` is empty, and network, processes, IPC, host name and
cgroups are the lab's own. ``/dev``, ``/tmp``, the kernel's modules and its global sysctls are the machine's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from hack.lab import cgroups
from hack.lab.errors import LabError
from hack.lab.packages import cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hack.lab.order import Order

REPO = Path(__file__).resolve().parents[2]

# Moves the entering process into the lab's own cgroups, by their names inside, before it becomes the command.
# On v2 a group whose controllers are handed down takes no processes: the leaf does.
_ENTER = """for group in /sys/fs/cgroup /sys/fs/cgroup/*; do
  if [ -e "$group/init/cgroup.procs" ]; then group=$group/init; fi
  echo $$ >"$group/cgroup.procs"
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then break; fi
done 2>/dev/null
exec "$@"
"""

# Whether the folder that it runs in can be the upper side of an overlay: one on another overlay, as in a
# container, cannot.
_PROBE = "mkdir l u w m && mount -t overlay none -o lowerdir=l,upperdir=u,workdir=w m"


class Lab:
    """A private view of this machine, alive from `start` to `close`; also a context manager.

    Args:
        keep: more folders that stay as they are at their usual paths. The repository, the Python environment
            that runs this and the package cache are kept anyway.
        scratch: where the lab's temporary folder is made; the default is Python's (``TMPDIR`` or ``/tmp``).
        tmpfs: whether what is written inside goes to memory; done anyway where the disk cannot carry an
            overlay.

    Attributes:
        holder: the process number, as seen from outside, of the lab's process 1.
    """

    holder: int

    def __init__(self, *, keep: Sequence[Path] = (), scratch: Path | None = None, tmpfs: bool = False) -> None:
        self._keep = [REPO, Path(sys.prefix), cache_folder(), *keep]
        self._scratch = scratch
        self._tmpfs = tmpfs
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self) -> Self:
        """Make the namespaces and wait until they are furnished (about 0.2 s).

        Raises:
            LabError: not root, or the machine refuses a namespace or a mount.
        """
        if os.geteuid() != 0:
            raise LabError("a lab needs root", remedy="run it as root: it makes namespaces, mounts and cgroups")
        self._work = work = Path(tempfile.mkdtemp(prefix="katanode-lab-", dir=self._scratch))
        order: Order = {
            "work": str(work),
            "keep": [str(path) for path in self._keep],
            "tmpfs": self._tmpfs or not _carries_overlay(work),
            "hierarchies": [],
        }
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the lab
        self._keeper = subprocess.Popen(
            [sys.executable, "-S", "-m", "hack.lab.keeper", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=os.environ | {"PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        word = self._keeper.stdout.readline().decode().split()
        if word[:1] != ["ready"]:
            self.close()
            raise LabError("the lab's process 1 went away before it was ready")
        self.holder = int(word[1])
        return self

    def close(self) -> None:
        """End every process inside, and remove mounts, namespaces, cgroups and the temporary folder.

        Raises:
            LabError: something could not be made or was left behind, in the keeper's own words.
        """
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        keeper.stdin.close()
        status = keeper.wait()
        keeper.stdout.close()
        with self._complaints as complaints:
            complaints.seek(0)
            said = complaints.read().decode(errors="replace")
        if status < 0:
            # It was killed, and its children with it, but what it kept is still there.
            cgroups.remove(cgroups.places(self._work.name))
            shutil.rmtree(self._work, ignore_errors=True)
        if status != 0:
            raise LabError(
                "the lab could not be made, or left something behind",
                evidence=said or f"the keeper's exit status was {status}",
                remedy="it needs CAP_SYS_ADMIN and CAP_NET_ADMIN, and mounts that no security profile forbids",
            )

    def path(self, inside: str | Path) -> Path:
        """Where a test outside finds what is `inside`: for reading, writing and connecting to sockets.

        A link inside with an absolute target leads to the machine's own file when it is followed from
        outside.
        """
        return Path(f"/proc/{self.holder}/root") / str(inside).lstrip("/")

    def host_pid(self, inside: int) -> int:
        """The number outside of the process that has the number `inside`; 0 if it is gone or a zombie."""
        namespace = os.readlink(f"/proc/{self.holder}/ns/pid")
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                fields = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines())
                if fields["NSpid"].split()[-1] != str(inside) or "Z" in fields["State"]:
                    continue
                if os.readlink(entry / "ns/pid") == namespace:
                    return int(entry.name)
            except (OSError, KeyError):
                # It ended while it was read.
                continue
        return 0

    def command(self, argv: Sequence[str | Path], *, cwd: str | Path = "/") -> list[str]:
        """The argument vector that runs `argv` inside, for those who start processes themselves."""
        enter = ["nsenter", "--target", str(self.holder)]
        enter += ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]
        return [*enter, "env", "-C", str(cwd), "sh", "-c", _ENTER, "sh", *map(str, argv)]

    def popen(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path = "/",
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        """Start `argv` inside, in a session of its own unless ``start_new_session=False``.

        Args:
            argv: the command, found by the `PATH` inside.
            env: added to this process's environment.
            cwd: the folder inside to run in.
            options: further ones of `subprocess.Popen`.
        """
        options.setdefault("start_new_session", True)
        return subprocess.Popen(self.command(argv, cwd=cwd), env=os.environ | (env or {}), **options)

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        input: bytes | str | None = None,  # noqa: A002 - the name that subprocess.run has
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str | Path = "/",
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` inside and wait for it; its output is captured as text.

        Args:
            argv: the command, found by the `PATH` inside.
            input: its standard input; none is an empty one.
            check: whether a non-zero exit is an error.
            env: added to this process's environment.
            cwd: the folder inside to run in.
            timeout: seconds after which it and its process group are killed.

        Raises:
            LabError: it failed and `check` is set, or it took too long.
        """
        data = input.encode() if isinstance(input, str) else input
        process = self.popen(
            argv, env=env, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with process:
            try:
                out, err = process.communicate(data or b"", timeout)
            except BaseException as error:
                # nsenter forks into the pid namespace: killing it alone would leave the command.
                _kill_group(process)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                said = _tail(error.stderr)
                raise LabError(f"{_words(argv)}: no end after {timeout:g} s", evidence=said) from None
        texts = [said.decode(errors="replace") for said in (out, err)]
        done = subprocess.CompletedProcess(list(map(str, argv)), process.returncode, *texts)
        if check and done.returncode != 0:
            said = done.stderr or done.stdout
            raise LabError(f"{_words(argv)}: exit status {done.returncode}", evidence=said)
        return done


def _carries_overlay(work: Path) -> bool:
    """Whether `work` can be the upper side of an overlay, found by mounting one in passing."""
    with tempfile.TemporaryDirectory(dir=work) as probe:
        argv = ["unshare", "--mount", "sh", "-c", _PROBE]
        tried = subprocess.run(argv, cwd=probe, capture_output=True, check=False)
    return tried.returncode == 0


def _kill_group(process: subprocess.Popen[Any]) -> None:
    """Kill `process`, which leads its process group, with the group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def _words(argv: Sequence[str | Path]) -> str:
    """`argv` as one would type it, cut to a bound."""
    return " ".join(map(str, argv))[:200]


def _tail(output: IO[bytes] | bytes | None) -> str:
    """What was said before a time limit, as text."""
    return output.decode(errors="replace") if isinstance(output, bytes) else ""
