"""A collection of the cluster's objects as it is now: listed page by page, then watched."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from agent.cluster.api import Api, ApiError

T = TypeVar("T")
Json = Mapping[str, Any]

_PAGE = 500
"""Objects a request: kubectl's own number; a server holds no more of them at once for one client."""
_WATCH_SECONDS = 120  # a laptop's connections die unnoticed, when it sleeps for instance
_TRIES = 4
_LONGEST_WAIT = 10.0  # seconds that a person is made to wait by one Retry-After


class Mirror(Generic[T]):
    """What is kept of each object of a collection.

    Args:
        api: the connection.
        path: of the collection.
        keep: what to keep of an object; None when it does not belong here.
        fields: a field selector; "" for all objects.
        backoff: the longest wait in seconds between two attempts to watch.
    """

    def __init__(
        self, api: Api, path: str, keep: Callable[[Json], T | None], *, fields: str = "", backoff: float = 30.0
    ) -> None:
        self._api = api
        self._path = path
        self._keep = keep
        self._query: dict[str, Any] = {"fieldSelector": fields} if fields else {}
        self._backoff = backoff
        self._items: dict[str, T] = {}
        self._version = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.error: ApiError | None = None
        self.away_since = 0.0
        """Since when the error stands, in Unix seconds."""

    @property
    def items(self) -> list[T]:
        """What is kept now, in no order."""
        with self._lock:
            return list(self._items.values())

    def fill(self) -> None:
        """Reads the whole collection.

        Raises:
            ApiError: it could not be read.
        """
        for tries in range(1, _TRIES + 1):
            try:
                return self._fill()
            except ApiError as error:
                # 410: the pages' common version has gone while they were read; from the first page on, then.
                patient = error.status in {410, 429} or error.status >= 500
                if not patient or tries == _TRIES:
                    raise
                self._stop.wait(min(error.retry_after or 0.25 * 2.0**tries, _LONGEST_WAIT))
        return None

    def _fill(self) -> None:
        items: dict[str, T] = {}
        following: str | None = ""
        while following is not None:
            query = self._query | ({"continue": following} if following else {})
            page = self._api.get(self._path, limit=_PAGE, **query)
            for item in page.get("items") or ():
                kept = self._keep(item)
                if kept is not None:
                    items[_key(item)] = kept
            about = page.get("metadata") or {}
            following = about.get("continue") or None
        with self._lock:
            self._items, self._version = items, str(about.get("resourceVersion") or "")

    def start(self, changed: Callable[[], None]) -> None:
        """Keeps it as it is from now on, in a thread of its own; to be called after `fill`.

        Args:
            changed: called from that thread whenever something is different.
        """
        threading.Thread(target=self._run, args=(changed,), name=f"watch {self._path}", daemon=True).start()

    def stop(self) -> None:
        """Ends; a request under way is not waited for."""
        self._stop.set()

    def _run(self, changed: Callable[[], None]) -> None:
        failures = 0
        while not self._stop.is_set():
            wait = 1.0
            try:
                if self._follow(changed):
                    failures, wait = 0, 0.0
            except ApiError as error:
                failures += 1
                wait = max(error.retry_after, min(self._backoff, 0.25 * 2.0 ** min(failures, 10)))
                if error.status == 410:
                    # Normal after a break: the version is too old to go on from. It is read anew, at first at once.
                    wait = 0.0 if failures == 1 else wait
                else:
                    self._away(error, changed)
            self._stop.wait(wait * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
            if failures:
                self._refill(changed)

    def _refill(self, changed: Callable[[], None]) -> None:
        # Reading anew after a failure finds what a break hid, and serves who may list but not watch.
        try:
            self.fill()
        except ApiError as error:
            self._away(error, changed)
            return
        if self.error is not None and self.error.status != 403:
            self.error = None
        changed()

    def _follow(self, changed: Callable[[], None]) -> int:
        """Watches until the watch ends; gives the number of its events."""
        many = 0
        with self._api.watch(self._path, self._version, seconds=_WATCH_SECONDS, **self._query) as events:
            if self.error is not None:
                self.error = None
                changed()
            for kind, item in events:
                many += 1
                if self._stop.is_set():
                    break
                self._version = str((item.get("metadata") or {}).get("resourceVersion") or self._version)
                if kind != "BOOKMARK" and self._put(kind, item):
                    changed()
        return many

    def _put(self, kind: str, item: Json) -> bool:
        key = _key(item)
        kept = None if kind == "DELETED" else self._keep(item)
        with self._lock:
            if self._items.get(key) == kept:
                return False
            if kept is None:
                self._items.pop(key, None)
            else:
                self._items[key] = kept
        return True

    def _away(self, error: ApiError, changed: Callable[[], None]) -> None:
        if self.error is None:
            self.away_since = time.time()
        self.error = error
        changed()


def _key(item: Json) -> str:
    about = item["metadata"]
    return f"{about.get('namespace', '')}/{about['name']}"
