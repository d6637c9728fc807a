"""A run of the worker, seen from the daemon."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from agent.service.messages import Problem, Task, line, parsed

Tell = Callable[["Run", str, Any], None]
"""Told of each message, and of the end as `ended` with the exit status; from another thread."""


class Run:
    """A worker at work.

    Args:
        task: what it is to do.
        tell: told what it says.

    Attributes:
        began: when, in Unix seconds.
        heard: when it last said something, in monotonic seconds.
        step: what it last said.
    """

    def __init__(self, task: Task, tell: Tell) -> None:
        self.task = task
        self.began = time.time()
        self.heard = time.monotonic()
        self.step = ""
        self._tell = tell
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "agent.service.worker", json.dumps(asdict(task))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        threading.Thread(target=self._listen, name="worker", daemon=True).start()

    def grant(self) -> None:
        """Lets it restart the runtime."""
        self._answer(line("granted"))

    def refuse(self, problem: Problem) -> None:
        """Lets it end without a restart."""
        self._answer(line("refused", asdict(problem)))

    def end(self, grace: float) -> None:
        """Ends it: after `grace` seconds by force, which it may meet at any instruction."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # in uninterruptible sleep it does not die now
            self._process.wait(0.5)

    def _answer(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is gone, which its end will tell
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for data in self._process.stdout:
            try:
                kind, value = parsed(data)
            except ValueError:
                continue  # cut off in the middle: the end follows
            self.heard = time.monotonic()
            self._tell(self, kind, value)
        self._tell(self, "ended", self._process.wait())
