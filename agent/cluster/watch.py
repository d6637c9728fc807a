"""The node's own Node object, watched."""

import random
import threading
from collections.abc import Callable
from typing import Any

from agent.cluster.api import Api, ApiError

Node = dict[str, Any]


class NodeWatch:
    """Keeps the Node as the API last showed it.

    The Node is read by name and watched from that version on, so that no right to list nodes is needed.

    Args:
        api: the API.
        name: the Node's name.
        changed: told of each state, None when there is no such Node; called from the watch's thread.
        backoff: the longest wait in seconds between two attempts.
    """

    def __init__(self, api: Api, name: str, changed: Callable[[Node | None], None], backoff: float = 30.0) -> None:
        self._api = api
        self._name = name
        self._changed = changed
        self._backoff = backoff
        self._stop = threading.Event()
        self.error: ApiError | None = None
        self.reached = False

    def start(self) -> None:
        """Begins watching, in a thread of its own."""
        threading.Thread(target=self._run, name="node-watch", daemon=True).start()

    def stop(self) -> None:
        """Ends; a request under way is not waited for."""
        self._stop.set()

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                self._once()
                failures = 0
            except ApiError as error:
                failures += 1
                self.reached = error.status > 0
                self.error = error
                if error.status == 404:
                    self._changed(None)
                wait = max(error.retry_after, min(self._backoff, 0.5 * 2.0 ** min(failures, 10)))
                self._stop.wait(wait * random.uniform(0.75, 1.25))  # noqa: S311 - jitter

    def _once(self) -> None:
        """Reads, then watches until the watch ends or its version is gone."""
        node = self._api.get(f"/api/v1/nodes/{self._name}")
        self._seen(node)
        version = str(node["metadata"]["resourceVersion"])
        while not self._stop.is_set():
            try:
                with self._api.watch("/api/v1/nodes", version, fieldSelector=f"metadata.name={self._name}") as events:
                    version, many = self._follow(events, version)
            except ApiError as error:
                if error.status == 410:
                    return
                raise
            if not many:
                # A server that ends every watch at once must not be asked without pause.
                self._stop.wait(random.uniform(1.0, 2.0))  # noqa: S311 - jitter

    def _follow(self, events: Any, version: str) -> tuple[str, int]:
        many = 0
        for kind, item in events:
            many += 1
            version = str((item.get("metadata") or {}).get("resourceVersion") or version)
            if self._stop.is_set():
                break
            if kind == "DELETED":
                self._changed(None)
            elif kind in {"ADDED", "MODIFIED"}:
                self._seen(item)
        return version, many

    def _seen(self, node: Node) -> None:
        self.error = None
        self.reached = True
        self._changed(node)
