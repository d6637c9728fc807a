"""A simulated fleet, and what can be measured on it."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hack.apistandin import EVERYTHING, ApiStandin

if TYPE_CHECKING:
    from collections.abc import Sequence

_REPOSITORY = Path(__file__).resolve().parents[2]
_PROCESSES = 2


@dataclass(slots=True)
class Rollout:
    """What happened while nodes took turns.

    Attributes:
        at_once: the most nodes that held a slot at the same time.
        handovers: seconds from a slot's return until the next node had one, each.
        turns: nodes that had theirs.
    """

    at_once: int = 0
    handovers: list[float] = field(default_factory=list)
    turns: int = 0


class Fleet:
    """Many agents' cluster sides in a few processes, against one API server stand-in; a context manager.

    Args:
        nodes: how many.
        slots: restart slots.
        lease_seconds: of a slot.
        restart_seconds: how long a restart takes.
        vanishing: numbers of the nodes that vanish with their slot.
    """

    def __init__(
        self,
        nodes: int,
        *,
        slots: int = 1,
        lease_seconds: int = 60,
        restart_seconds: float = 0.1,
        vanishing: Sequence[int] = (),
    ) -> None:
        self.names = [f"node-{number:04}" for number in range(nodes)]
        self.standin = ApiStandin()
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._order = {
            "slots": slots,
            "lease_seconds": lease_seconds,
            "restart_seconds": restart_seconds,
            "vanishing": [self.names[number] for number in vanishing],
            "token": "fleet",
        }
        self._processes: list[subprocess.Popen[str]] = []
        self.slots = slots

    def __enter__(self) -> Self:
        self.standin.__enter__()
        self.standin.add_token("fleet", "system:serviceaccount:katanode:katanode", node="", rules=[EVERYTHING])
        for name in self.names:
            self.standin.add_node(name)
        for number in range(_PROCESSES):
            process = subprocess.Popen(
                [sys.executable, "-m", "hack.fleetsim.agents"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=_REPOSITORY,
            )
            self._processes.append(process)
            self._tell(process, {**self._order, "url": self.standin.url, "nodes": self.names[number::_PROCESSES]})
            threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self.standin.__exit__(None, None, None)

    def until_published(self, timeout: float = 300) -> float:
        """Waits until every node says what it has to say; gives the seconds."""
        begin = time.monotonic()
        done = 0
        while done < len(self._processes):
            left = begin + timeout - time.monotonic()
            done += "published" in self._events.get(timeout=max(0.1, left))
        return time.monotonic() - begin

    def writes_within(self, seconds: float) -> dict[str, int]:
        """Writes of each node in so many seconds from now, nodes without any included."""
        self.standin.journal.reset()
        time.sleep(seconds)
        return dict.fromkeys(self.names, 0) | dict(self.standin.journal.writes_per_node())

    def roll_out(self, turns: int, timeout: float) -> Rollout:
        """Lets all nodes ask for a slot at once, until so many had theirs."""
        for process in self._processes:
            self._tell(process, "rollout")
        made = Rollout()
        holding: set[str] = set()
        given: list[float] = []
        deadline = time.monotonic() + timeout
        while made.turns < turns:
            event = self._events.get(timeout=max(0.1, deadline - time.monotonic()))
            if "got" in event:
                holding.add(event["node"])
                made.at_once = max(made.at_once, len(holding))
                if given:
                    made.handovers.append(event["got"] - given.pop(0))
            elif "gave" in event:
                holding.discard(event["node"])
                given.append(event["gave"])
                made.turns += 1
            elif "vanished" in event:
                holding.discard(event["node"])
                given.append(event["vanished"])
        return made

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._events.put(json.loads(line))

    @staticmethod
    def _tell(process: subprocess.Popen[str], what: object) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(what) + "\n")
            process.stdin.flush()
