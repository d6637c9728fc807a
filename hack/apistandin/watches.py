"""Watches: the changes of a kind as they come, on a connection that stays open.

From ``k8s.io/apiserver/pkg/endpoints/handlers/watch.go`` and ``pkg/storage/cacher/cacher.go`` (v1.36): a
resourceVersion that is too old is no HTTP error but the one ERROR event of a stream that is answered 200.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from hack.apistandin import errors, reads, selectors
from hack.apistandin.decoding import decode
from hack.apistandin.faults import What
from hack.apistandin.store import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hack.apistandin.faults import Asking, Faults
    from hack.apistandin.kinds import Kind, Object, Target
    from hack.apistandin.selectors import Selector
    from hack.apistandin.store import Event, Store

# min-request-timeout: a watch without a timeout of its own gets this to twice this, in seconds.
MINIMAL_TIMEOUT = 1800
BOOKMARK_SECONDS = 60.0
_STALL_LOOK = 0.25
_INITIAL_END = {"k8s.io/initial-events-end": "true"}


@dataclass(slots=True)
class Watch:
    """One open watch.

    Attributes:
        asking: what faults and `Watches` choose it by.
        queue: lines to send; None ends the stream.
        revision: of the last change that it has seen.
    """

    kind: Kind
    namespace: str
    selector: Selector
    asking: Asking
    queue: asyncio.Queue[bytes | None]
    revision: int
    request: web.Request | None = None

    def offer(self, event: Event) -> None:
        """Queue a change if it is meant for this watch."""
        if event.revision <= self.revision:
            return
        self.revision = event.revision
        if self.namespace and event.key[0] != self.namespace:
            return
        now = event.type != "DELETED" and self.selector.matches(self.kind, event.new)
        before = event.old is not None and self.selector.matches(self.kind, event.old)
        if now:
            self.queue.put_nowait(line("MODIFIED" if before else "ADDED", event.wire(self.kind)))
        elif before:
            # An object that no longer matches is gone as far as this watch can see: shown as it last was.
            self.queue.put_nowait(line("DELETED", event.wire(self.kind, old=True)))


def line(kind: str, wire: bytes) -> bytes:
    """One event on the wire."""
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), wire)


class Watches:
    """All open watches, by kind and, where the selector names one object, by its name.

    Args:
        store: whose changes are told.
        faults: may stall them.
    """

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults
        self._named: dict[tuple[str, str], set[int]] = {}
        self._broad: dict[str, set[int]] = {}
        self._open: dict[int, Watch] = {}
        self._listening: set[str] = set()

    def __len__(self) -> int:
        return len(self._open)

    async def serve(
        self, request: web.Request, target: Target, query: Mapping[str, str], asking: Asking
    ) -> web.StreamResponse:
        """Answer a watch until it ends.

        Raises:
            ApiError: before the stream began.
        """
        kind = target.kind
        selector = selectors.parse(kind, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        watch = Watch(kind, target.namespace, selector, asking, asyncio.Queue(), 0, request)
        timeout = float(query.get("timeoutSeconds") or 0) or MINIMAL_TIMEOUT * (1 + random.random())
        bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        start = reads.revision(query.get("resourceVersion", ""))
        initial = query.get("sendInitialEvents") in ("true", "1")
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        response.enable_chunked_encoding()
        self._add(watch)
        try:
            self._begin(watch, start, initial=initial, bookmark=bookmarks)
            await response.prepare(request)
            await self._stream(watch, response, timeout, bookmarks=bookmarks)
        except (ConnectionError, asyncio.CancelledError):
            # The client has gone, or the server goes.
            pass
        finally:
            self._remove(watch)
        return response

    def _begin(self, watch: Watch, start: int, *, initial: bool, bookmark: bool) -> None:
        """Queue what there is, or what changed since `start`.

        A watch from nowhere in particular begins with a list too, whose end a bookmark marks where these are allowed
        (``SetListOptionsDefaults``).
        """
        if start and not initial:
            watch.revision = start
            try:
                for event in self._store.since(watch.kind, start):
                    watch.offer(event)
            except errors.ApiError as error:
                self._end(watch, error.status)
                return
            watch.revision = max(start, self._store.revision)
            return
        for stored in self._store.list(watch.kind, watch.namespace):
            if watch.selector.matches(watch.kind, stored):
                watch.queue.put_nowait(line("ADDED", encode(watch.kind, stored)))
        watch.revision = self._store.revision
        if bookmark:
            watch.queue.put_nowait(self._bookmark(watch, _INITIAL_END))

    async def _stream(self, watch: Watch, response: web.StreamResponse, seconds: float, *, bookmarks: bool) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        # A real server spreads its bookmarks and sends a last one shortly before the timeout.
        bookmark_at = loop.time() + min(BOOKMARK_SECONDS * (0.75 + random.random() / 2), max(seconds - 2, 0.5))
        while (left := end - loop.time()) > 0:
            wait = min(left, max(bookmark_at - loop.time(), 0)) if bookmarks else left
            try:
                chunk = await asyncio.wait_for(watch.queue.get(), max(wait, 0.001))
            except TimeoutError:
                if not bookmarks or loop.time() < bookmark_at:
                    continue
                bookmark_at = loop.time() + BOOKMARK_SECONDS
                chunk = self._bookmark(watch, {})
            await self._stalled(watch)
            if chunk is None:
                return
            lines, over = [chunk], False
            while not watch.queue.empty() and not over:
                more = watch.queue.get_nowait()
                over = more is None
                lines += [more] if more is not None else []
            await response.write(b"".join(lines))
            if over:
                return

    async def _stalled(self, watch: Watch) -> None:
        """Wait until no fault stalls this watch; faults end by the clock, so they are looked at again and again."""
        while self._faults.standing(watch.asking, What.STALL):  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(_STALL_LOOK)

    def _bookmark(self, watch: Watch, annotations: dict[str, str]) -> bytes:
        meta: Object = {"resourceVersion": str(self._store.revision)}
        if annotations:
            meta["annotations"] = annotations
        empty = decode({"metadata": meta}, watch.kind.type, "", [])
        shown = {"kind": watch.kind.kind, "apiVersion": watch.kind.version, **empty}
        return line("BOOKMARK", json.dumps(shown, separators=(",", ":")).encode())

    def _end(self, watch: Watch, status: Object) -> None:
        watch.queue.put_nowait(line("ERROR", json.dumps(status, separators=(",", ":")).encode()))
        watch.queue.put_nowait(None)

    def _add(self, watch: Watch) -> None:
        number, kind = id(watch), watch.kind.storage
        self._open[number] = watch
        if watch.selector.name:
            self._named.setdefault((kind, watch.selector.name), set()).add(number)
        else:
            self._broad.setdefault(kind, set()).add(number)
        if kind not in self._listening:
            self._listening.add(kind)
            self._store.listen(watch.kind, lambda event: self._tell(kind, event))

    def _remove(self, watch: Watch) -> None:
        number, kind = id(watch), watch.kind.storage
        self._open.pop(number, None)
        self._named.get((kind, watch.selector.name), set()).discard(number)
        self._broad.get(kind, set()).discard(number)

    def _tell(self, kind: str, event: Event) -> None:
        for number in (*self._named.get((kind, event.key[1]), ()), *self._broad.get(kind, ())):
            self._open[number].offer(event)

    def chosen(self, resource: str = "", user: str = "", node: str = "") -> list[Watch]:
        """The open watches of a resource, a user, a node's token; "" is any."""
        return [
            watch
            for watch in list(self._open.values())
            if resource in ("", watch.asking.resource)
            and user in ("", watch.asking.user)
            and node in ("", watch.asking.node)
        ]

    def expire(self, chosen: list[Watch]) -> None:
        """End watches with an ERROR event 410, as a server does whose history they fell out of."""
        for watch in chosen:
            self._end(watch, errors.expired("The resourceVersion for the provided watch is too old.").status)

    def finish(self, chosen: list[Watch]) -> None:
        """End watches as a timeout does: the answer is complete."""
        for watch in chosen:
            watch.queue.put_nowait(None)
