"""The sandboxes that a bench starts, over CRI as a kubelet would, and their removal whatever happens."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from agent.cri.client import Client, CRIError, Sandbox
from agent.errors import KatanodeError
from agent.reasons import Reason
from agent.sandboxes import owned

_AT_ONCE = 4
"""Sandboxes that are removed at the same time, as a kubelet does when a node is drained."""
_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class Started:
    """A sandbox that was started.

    Attributes:
        id: its id.
        seconds: from the call until the runtime said that it is ready; the pod network is part of it.
    """

    id: str
    seconds: float


class Sandboxes:
    """The sandboxes of this bench; a context manager that removes them at the end.

    Args:
        client: the CRI client.
        timeout: seconds for a start, and for a removal.

    Attributes:
        left: how many could not be removed at the end.
    """

    def __init__(self, client: Client, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._owner = owned.owner()
        self._number = 0
        self._ids: set[str] = set()
        self.left = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if kind is KeyboardInterrupt:  # told twice to leave at once: the next sweep finds them
            self.left = len(self._ids)
        else:
            self.left = self.clear()

    def start(self, handler: str) -> Started:
        """Starts a sandbox without containers.

        Args:
            handler: the runtime handler; "" for the runtime's default.

        Raises:
            KatanodeError: `CANARY_FAILED`, with the runtime's words.
        """
        self._number += 1
        begin = time.monotonic()
        try:
            sandbox_id = self._client.run_sandbox(
                handler,
                name=f"bench-{self._number}",
                namespace=owned.NAMESPACE,
                uid=str(uuid.uuid4()),
                labels={owned.LABEL: self._owner},
                timeout=self._timeout,
            )
        except CRIError as error:
            raise KatanodeError(
                Reason.CANARY_FAILED,
                f"a sandbox does not start through {handler or 'the default handler'}",
                evidence=error.details or error.evidence,
            ) from error
        seconds = time.monotonic() - begin
        self._ids.add(sandbox_id)
        return Started(sandbox_id, seconds)

    def remove(self, sandbox_id: str) -> float:
        """Stops and removes a sandbox; gives the seconds that it took.

        Raises:
            CRIError: the runtime refuses, or does not answer.
        """
        begin = time.monotonic()
        self._client.stop_sandbox(sandbox_id, self._timeout)
        self._client.remove_sandbox(sandbox_id, self._timeout)
        self._ids.discard(sandbox_id)
        return time.monotonic() - begin

    def ready(self) -> frozenset[str]:
        """The ids of those that run.

        Raises:
            CRIError: the runtime does not answer.
        """
        return frozenset(s.id for s in self._mine() if s.ready)

    def clear(self) -> int:
        """Removes all of them; gives how many are left after `timeout` seconds of trying.

        The runtime may be restarting just now, and a start that timed out may still bring a sandbox: so it is asked
        until it answers that it has none.
        """
        deadline = time.monotonic() + self._timeout
        while True:
            left = self._sweep()
            if not left or time.monotonic() >= deadline:
                return left
            time.sleep(_PAUSE)

    def _sweep(self) -> int:
        try:
            mine = self._mine()
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(lambda s: owned.discard(self._client, s.id, self._timeout), mine))
            return len(self._mine()) if mine else 0
        except CRIError:
            return len(self._ids) or 1

    def _mine(self) -> tuple[Sandbox, ...]:
        found = self._client.sandboxes({owned.LABEL: self._owner})
        self._ids &= {sandbox.id for sandbox in found}
        return found
