"""The objects, their versions and their history.

One counter gives every write its resourceVersion, as etcd's revision does. Stored objects are never changed in place:
a write stores a new one, so that history, journal and watchers may keep what they saw.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hack.apistandin import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hack.apistandin.kinds import Kind, Object

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Event:
    """One change.

    Attributes:
        revision: of the change.
        type: as a watch says it.
        key: namespace and name.
        new: the object after it; of a deletion the last one, with the deletion's revision.
        old: the object before it; None for a creation.
    """

    revision: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    key: Key
    new: Object
    old: Object | None
    _wire: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)

    def wire(self, kind: Kind, *, old: bool = False) -> bytes:
        """The object as JSON in `kind`'s version; made once for all watchers.

        Args:
            kind: the version.
            old: the object before the change, with the change's revision, as a watch shows one that no longer
                matches its selector.
        """
        memo = f"{kind.version}{'-' if old else ''}"
        made = self._wire.get(memo)
        if made is None:
            shown = self.new
            if old and self.old is not None:
                shown = {**self.old, "metadata": {**self.old["metadata"], "resourceVersion": str(self.revision)}}
            made = self._wire[memo] = encode(kind, shown)
        return made


def encode(kind: Kind, stored: Object) -> bytes:
    """A stored object as JSON in `kind`'s version."""
    return json.dumps(wire_object(kind, stored), separators=(",", ":"), ensure_ascii=False).encode()


def wire_object(kind: Kind, stored: Object) -> Object:
    """A stored object in `kind`'s version, with apiVersion and kind."""
    return {"kind": kind.kind, "apiVersion": kind.version, **kind.from_hub(stored)}


@dataclass(slots=True)
class _Shelf:
    objects: dict[Key, Object] = field(default_factory=dict)
    history: deque[Event] = field(default_factory=deque)
    # Watches may start after this revision: what was before is forgotten.
    compacted: int = 0
    listeners: list[Callable[[Event], None]] = field(default_factory=list)


class Store:
    """All objects of the server.

    Args:
        history: how many changes of each kind are kept for watches that start in the past.

    Attributes:
        revision: of the last write.
    """

    def __init__(self, history: int = 5000) -> None:
        self.revision = 1
        self._limit = history
        self._shelves: dict[str, _Shelf] = {}

    def _shelf(self, kind: Kind) -> _Shelf:
        return self._shelves.setdefault(kind.storage, _Shelf())

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, or None."""
        return self._shelf(kind).objects.get((namespace, name))

    def put(self, kind: Kind, made: Object) -> Object:
        """Store an object under its own namespace and name, with a new revision; it comes back as stored."""
        shelf, key = self._shelf(kind), _key(made)
        old = shelf.objects.get(key)
        self.revision += 1
        made = {**made, "metadata": {**made["metadata"], "resourceVersion": str(self.revision)}}
        shelf.objects[key] = made
        self._tell(shelf, Event(self.revision, "MODIFIED" if old is not None else "ADDED", key, made, old))
        return made

    def delete(self, kind: Kind, namespace: str, name: str) -> Object:
        """Remove an object that is there; it comes back with the deletion's revision."""
        shelf, key = self._shelf(kind), (namespace, name)
        old = shelf.objects.pop(key)
        self.revision += 1
        gone = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.revision)}}
        self._tell(shelf, Event(self.revision, "DELETED", key, gone, old))
        return gone

    def _tell(self, shelf: _Shelf, event: Event) -> None:
        shelf.history.append(event)
        while len(shelf.history) > self._limit:
            shelf.compacted = shelf.history.popleft().revision
        for listener in list(shelf.listeners):
            listener(event)

    def list(self, kind: Kind, namespace: str = "", at: int | None = None) -> list[Object]:
        """The objects in a namespace ("" for all), by namespace and name.

        Args:
            kind: of the objects.
            namespace: "" for all.
            at: the revision to look at; None for now.

        Raises:
            ApiError: 410: that revision is forgotten.
        """
        shelf = self._shelf(kind)
        objects: dict[Key, Any] = shelf.objects
        if at is not None and at < self.revision:
            if at < shelf.compacted:
                raise errors.expired("The resourceVersion for the provided list is too old.")
            objects = dict(objects)
            for event in reversed(shelf.history):
                if event.revision <= at:
                    break
                if event.old is None:
                    objects.pop(event.key, None)
                else:
                    objects[event.key] = event.old
        return [objects[key] for key in sorted(objects) if not namespace or key[0] == namespace]

    def since(self, kind: Kind, revision: int) -> Iterator[Event]:
        """The changes after `revision`, oldest first.

        Raises:
            ApiError: 410 in the words of the watch cache (``cacher/watch_cache_history.go``): forgotten.
        """
        shelf = self._shelf(kind)
        if revision < shelf.compacted:
            raise errors.expired(f"too old resource version: {revision} ({shelf.compacted})")
        return iter([event for event in shelf.history if event.revision > revision])

    def compact(self, kind: Kind | None = None) -> None:
        """Forget the history of one kind or of all: watches can start from now on only."""
        for name, shelf in self._shelves.items():
            if kind is None or name == kind.storage:
                shelf.history.clear()
                shelf.compacted = self.revision

    def listen(self, kind: Kind, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` at each change of a kind until the function that comes back is called."""
        shelf = self._shelf(kind)
        shelf.listeners.append(listener)
        return lambda: shelf.listeners.remove(listener)


def _key(made: Object) -> Key:
    meta = made["metadata"]
    return meta.get("namespace", ""), meta["name"]
