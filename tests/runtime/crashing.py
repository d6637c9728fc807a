"""Runs katanode and kills it with SIGKILL, or lets something else happen, before one of its steps.

Steps are what leaves a trace: every directory entry made, replaced, removed or opened for writing, every mode and
owner, modules, the restart of the runtime (before it, and while it runs), its verification, and each call that makes or
removes a canary. They are seen by Python's audit events, so katanode's own code has no part in it. SIGKILL loses
nothing that a system call did, so the moment after a step is the moment before the next one; the end is a step too.

    crashing.py N FILE ARGS…    kills before step N; with N = 0 runs through and writes the steps' names to FILE
    crashing.py                 the same for a `Crasher`: a warm interpreter that forks for each run
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Machine

PATIENCE = 120
"""Seconds after which a run is taken for hung."""

_ENTRIES = {
    "os.rename": 1,
    "os.remove": 0,
    "os.mkdir": 0,
    "os.rmdir": 0,
    "os.symlink": 1,
    "os.link": 1,
    "os.chmod": 0,
    "os.chown": 0,
    "os.truncate": 0,
}
"""Audit event to the place of the path that names the step."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_NOISE = re.compile(r"^/dev/|pycache|\.pyc|^/run/steps|^/tmp/|^\d+$")
_COMMANDS = ("modprobe", "restart-containerd")


class Steps:
    """The steps of this process from now on.

    Args:
        fatal: the number of the step that something happens before, the first being 1, or an expression that its name
            matches; 0 for none.
        report: the file that is told that step's name.
        happens: what happens then, once.
    """

    def __init__(self, fatal: int | str, report: str, happens: Callable[[], object]) -> None:
        self._report = report
        self.names: list[str] = []
        self._fatal = fatal
        self._happens = happens
        self._over = False
        sys.addaudithook(self._audit)

    def step(self, name: str) -> None:
        if self._over:
            return
        self.names.append(name)
        if re.search(self._fatal, name) if isinstance(self._fatal, str) else len(self.names) == self._fatal:
            self._over = True
            with open(self._report, "w", encoding="utf-8") as file:
                file.write(name)
            self._happens()
            self._over, self._fatal = False, 0

    def stop(self) -> None:
        self._over = True

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event in _ENTRIES:
            self._path(event.removeprefix("os."), args[_ENTRIES[event]])
        elif event == "open" and isinstance(args[2], int) and args[2] & _WRITES:
            self._path("open", args[0])
        elif event == "ctypes.dlsym" and args[1] in {"renameat2", "syncfs"}:
            self.step(args[1])
        elif event == "subprocess.Popen" and any(command in str(args[1]) for command in _COMMANDS):
            self.step(f"run {args[1][-1]}")

    def _path(self, what: str, path: object) -> None:
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else str(path)
        if not _NOISE.search(text):
            self.step(f"{what} {text}")

    def counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """A function that counts as a step before it does what it did."""

        @functools.wraps(real)
        def step(*args: Any, **kwargs: Any) -> Any:
            self.step(name)
            return real(*args, **kwargs)

        return step

    def watch(self) -> None:
        """Counts also the steps that are no audit events."""
        from agent.cri import activation  # noqa: PLC0415 - loaded where katanode runs, not where tests are
        from agent.cri.client import Client  # noqa: PLC0415

        activation.wait_ready = self.counted("verify", activation.wait_ready)  # type: ignore[attr-defined]
        for call in ("run_sandbox", "stop_sandbox", "remove_sandbox"):
            setattr(Client, call, self.counted(f"canary {call}", getattr(Client, call)))
        communicate = subprocess.Popen.communicate

        def waited(process: subprocess.Popen[bytes], *args: Any, **kwargs: Any) -> Any:
            if "restart-containerd" in str(process.args):
                self.step("restart under way")
            return communicate(process, *args, **kwargs)

        subprocess.Popen.communicate = waited  # type: ignore[method-assign,assignment]


def run(fatal: int | str, report: str, command: list[str], shell: str) -> int:
    """Runs katanode in this process; writes the names of its steps if it comes to its end."""
    from agent import cli  # noqa: PLC0415

    def happens() -> None:
        if shell:
            subprocess.run(["sh", "-c", shell], check=True)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    steps = Steps(fatal, report, happens)
    steps.watch()
    status = cli.main(command)
    steps.step("the end")
    steps.stop()
    with open(report, "w", encoding="utf-8") as file:
        file.write("\n".join(steps.names))
    return status


def serve() -> None:
    """Reads orders from the standard input, a line of JSON each, and answers with the run's outcome."""
    import grpc  # noqa: F401, PLC0415 - what takes long to load is loaded once

    from agent import cli, inspect, reconcile, show, undo  # noqa: F401, PLC0415

    for line in sys.stdin:
        order = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if child == 0:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                status = 70
                try:
                    status = run(order["fatal"], order["report"], order["command"], order["shell"])
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(status)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        print(json.dumps([status, *texts]), flush=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    status: int
    stdout: str
    stderr: str

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL

    def __str__(self) -> str:
        return f"exit status {self.status}\n{self.stdout}\n{self.stderr}"


class Crasher:
    """Runs katanode in a machine, as often as is wanted, in forks of one warm interpreter; a context manager."""

    REPORT = "/run/steps"

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __enter__(self) -> Self:
        self._server = self._machine.lab.popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**self._machine.environment, "PYTHONPATH": os.path.abspath(f"{__file__}/../../..")},
        )
        return self

    def __exit__(self, *exc: object) -> None:
        with self._server:
            with contextlib.suppress(BrokenPipeError):
                self._server.stdin.close()  # type: ignore[union-attr]
            self._server.wait(PATIENCE)

    def __call__(self, *command: str, fatal: int | str = 0, shell: str = "") -> Outcome:
        """Runs katanode.

        Args:
            command: its arguments.
            fatal: the step before which it is killed: its number from 1, or an expression for its name; 0 for none.
            shell: a command that runs then instead, and katanode goes on.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        order = {"fatal": fatal, "report": self.REPORT, "command": command, "shell": shell}
        self._server.stdin.write(json.dumps(order).encode() + b"\n")
        self._server.stdin.flush()
        return Outcome(*json.loads(self._server.stdout.readline()))

    @property
    def last(self) -> str:
        """The step before which the last run was killed."""
        return self.steps()[-1]

    def steps(self) -> list[str]:
        """The steps of the last run; of one that was killed, the fatal one alone."""
        return self._machine.path(self.REPORT).read_text().splitlines()


def distinct(names: list[str]) -> list[int]:
    """The numbers of the steps without those that are like both of their neighbours: of many files, first and last."""
    kinds = [_kind(name) for name in names]
    return [
        number
        for number, kind in enumerate(kinds, 1)
        if not (1 < number < len(kinds) and kinds[number - 2] == kind == kinds[number])
    ]


def _kind(name: str) -> str:
    """A step's name without what differs between the files of one folder."""
    what, _, path = name.partition(" ")
    if ".staging-" in path:
        return re.sub(r"(\.staging-[^/]*)/.*", r"\1/…", path)
    return f"{what} {path}" if path.startswith("/") else what


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(run(int(sys.argv[1]), sys.argv[2], sys.argv[3:], ""))
    serve()
