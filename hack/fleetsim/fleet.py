"""A simulated fleet, and what can be measured on it."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from agent.cluster.publisher import HEARTBEAT
from hack.apistandin import EVERYTHING, ApiStandin
from hack.fleetsim.rollout import Rollout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_REPOSITORY = Path(__file__).resolve().parents[2]
_PROCESSES = 2
_USER = "system:serviceaccount:katanode:katanode"


class Fleet:
    """Many agents' cluster sides in a few processes, against one API server stand-in; a context manager.

    Args:
        nodes: how many.
        slots: restart slots.
        lease_seconds: of a slot.
        restart_seconds: how long a restart takes.
        vanishing: numbers of the nodes that vanish with their slot.
        heartbeat: seconds after which an agent writes a condition that still holds again.
    """

    def __init__(
        self,
        nodes: int,
        *,
        slots: int = 1,
        lease_seconds: int = 60,
        restart_seconds: float = 0.1,
        vanishing: Iterable[int] = (),
        heartbeat: float = HEARTBEAT,
    ) -> None:
        self.names = [f"node-{number:04}" for number in range(nodes)]
        self.standin = ApiStandin()
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._order = {
            "slots": slots,
            "lease_seconds": lease_seconds,
            "restart_seconds": restart_seconds,
            "vanishing": [self.names[number] for number in vanishing],
            "heartbeat": heartbeat,
        }
        self._stack = contextlib.ExitStack()
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.standin)
            for name in self.names:
                self.standin.add_token(name, _USER, node=name, rules=[EVERYTHING])
                self.standin.add_node(name)
            for number in range(_PROCESSES):
                process = stack.enter_context(self._agents())
                self._processes.append(process)
                self._tell(process, {**self._order, "url": self.standin.url, "nodes": self.names[number::_PROCESSES]})
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def until_published(self, timeout: float = 300) -> float:
        """Waits until every node has said what it has to say, its event too; gives the seconds.

        Raises:
            RuntimeError: a process of agents ended.
            TimeoutError: it takes longer than `timeout` seconds.
        """
        begin = time.monotonic()
        done = 0
        while done < len(self._processes):
            done += "published" in self._next(begin + timeout)
        while len(self.standin.journal.writes(resource="events")) < len(self.names):
            if time.monotonic() > begin + timeout:
                raise TimeoutError("some agents have not created their event")
            time.sleep(0.05)
        return time.monotonic() - begin

    def writes(self, since: float = 0.0) -> dict[str, list[float]]:
        """When each node's agent wrote anything, nodes whose did not included.

        Args:
            since: monotonic seconds; what was earlier is left out.
        """
        found: dict[str, list[float]] = {name: [] for name in self.names}
        for write in self.standin.journal.writes():
            if write.at >= since and write.node:
                found[write.node].append(write.at)
        return found

    def roll_out(self, turns: int, timeout: float) -> Rollout:
        """Lets all nodes ask for a slot at once, until so many had their turn.

        Raises:
            RuntimeError: a process of agents ended.
            TimeoutError: it takes longer than `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        for process in self._processes:
            self._tell(process, "rollout")
        made = Rollout()
        while made.ended < turns:
            event = self._next(deadline)
            if "node" in event:
                made.hear(event)
        return made

    def _next(self, deadline: float) -> dict[str, Any]:
        try:
            event = self._events.get(timeout=max(0.1, deadline - time.monotonic()))
        except queue.Empty:
            raise TimeoutError("the agents say nothing any more") from None
        if "ended" in event:
            raise RuntimeError("a process of agents ended")
        return event

    @contextlib.contextmanager
    def _agents(self) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "hack.fleetsim.agents"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_REPOSITORY,
        )
        listener = threading.Thread(target=self._listen, args=(process,), name="fleet", daemon=True)
        listener.start()
        try:
            yield process
        finally:
            process.kill()
            listener.join()
            with contextlib.suppress(BrokenPipeError):  # what was not told it yet, it needs not hear any more
                process.__exit__(None, None, None)

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):  # cut off by its end
                self._events.put(json.loads(line))
        self._events.put({"ended": process.pid})

    @staticmethod
    def _tell(process: subprocess.Popen[str], what: object) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(what) + "\n")
            process.stdin.flush()
