"""What was asked and what was written: counters that can be reset, and a journal of all writes."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from hack.apistandin.kinds import Object

JOURNAL_LIMIT = 200_000


class Asked(NamedTuple):
    """What requests are counted by; status 0 is an answer that was never given."""

    verb: str
    resource: str
    user: str
    status: int


@dataclass(frozen=True, slots=True)
class Write:
    """One write that was asked for and not refused.

    Attributes:
        at: seconds of the monotonic clock (`time.monotonic`, the same in all processes of a machine).
        user: who wrote.
        node: of the writer's token; "" without one.
        verb: create, update, patch, apply, delete.
        resource: plural, with the subresource after a slash.
        namespace: "" for cluster scope.
        name: of the object.
        manager: the field manager.
        revision: the object's after it.
        changed: whether it changed anything.
        object: the object after it, as stored; of a deletion the last one.
    """

    at: float
    user: str
    node: str
    verb: str
    resource: str
    namespace: str
    name: str
    manager: str
    revision: int
    changed: bool
    object: Object

    def as_json(self, *, whole: bool = False) -> dict[str, Any]:
        """For machines; `whole` with the object."""
        text = asdict(self)
        if not whole:
            del text["object"]
        return text


class Journal:
    """Counters and writes since the last reset. Reading from another thread gives a copy."""

    def __init__(self) -> None:
        self._asked: Counter[Asked] = Counter()
        self._writes: deque[Write] = deque(maxlen=JOURNAL_LIMIT)
        self._since = time.monotonic()

    def count(self, asked: Asked) -> None:
        """Count a request."""
        self._asked[asked] += 1

    def note(self, write: Write) -> None:
        """Note a write."""
        self._writes.append(write)

    def reset(self) -> None:
        """Forget all of it."""
        self._asked.clear()
        self._writes.clear()
        self._since = time.monotonic()

    def requests(self, **where: str | int) -> int:
        """How many requests have these values in the fields of `Asked`."""
        return sum(
            number
            for asked, number in self._asked.copy().items()
            if all(getattr(asked, name) == value for name, value in where.items())
        )

    def table(self) -> list[dict[str, Any]]:
        """All counters."""
        return [{**asked._asdict(), "count": number} for asked, number in sorted(self._asked.copy().items())]

    def writes(self, **where: object) -> list[Write]:
        """The writes with these values in the fields of `Write`, oldest first."""
        return [
            write
            for write in tuple(self._writes)
            if all(getattr(write, name) == value for name, value in where.items())
        ]

    def writes_per_node(self) -> dict[str, int]:
        """How many writes came with a token of each node, and those to its Node by anyone without one."""
        found: Counter[str] = Counter()
        for write in tuple(self._writes):
            node = write.node or (write.name if write.resource.startswith("nodes") else "")
            if node:
                found[node] += 1
        return dict(found)

    @property
    def seconds(self) -> float:
        """Since the last reset."""
        return time.monotonic() - self._since
