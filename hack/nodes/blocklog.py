"""A disk's writes in their order, as QEMU's blklogwrites records them, and the disk as a power cut would leave it.

The format is that of the kernel's dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst): a super
block, then for each request a header of one sector and its data. A flush is an entry of its own: what came before it is
on the disk for good, what came after it may be lost.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hack.nodes.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MAGIC = 0x6A736677736872
_SECTOR = 512
_FLUSH, _FUA, _DISCARD = 1, 2, 4
_SUPER, _ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the disk.

    Attributes:
        offset: where on the disk, in bytes.
        size: bytes.
        place: of its data in the log.
        flush: everything before it is durable once it is done.
        discard: the bytes are zero, or as they were; a file system relies on neither.
    """

    offset: int
    size: int
    place: int
    flush: bool
    discard: bool


class BlockLog:
    """A finished log.

    Args:
        path: the file; QEMU must have ended.

    Raises:
        NodeError: it is no such log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.requests: list[Request] = []
        end = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_SUPER.size)
            if len(head) < _SUPER.size or _SUPER.unpack(head)[0] != _MAGIC or _SUPER.unpack(head)[3] != _SECTOR:
                raise NodeError(f"{path} is no log of writes")
            count = _SUPER.unpack(head)[2]
            place = _SECTOR
            while place + _SECTOR <= end and len(self.requests) < count:
                file.seek(place)
                sector, sectors, flags, _ = _ENTRY.unpack(file.read(_ENTRY.size))
                size = sectors * _SECTOR
                bare = bool(flags & _DISCARD)
                self.requests.append(
                    Request(sector * _SECTOR, size, place + _SECTOR, bool(flags & (_FLUSH | _FUA)), bare)
                )
                place += _SECTOR + (0 if bare else size)

    def flushes(self) -> list[int]:
        """The numbers of the requests that make all before them durable."""
        return [number for number, request in enumerate(self.requests) if request.flush]

    def holding(self, text: bytes, begin: int = 0) -> list[int]:
        """The numbers of the writes from `begin` on whose data holds a text."""
        found = []
        with self._path.open("rb") as file:
            for number in range(begin, len(self.requests)):
                request = self.requests[number]
                if request.size and not request.discard:
                    file.seek(request.place)
                    if text in file.read(request.size):
                        found.append(number)
        return found

    def at(self, size: int) -> int:
        """How many requests the log had when its file had `size` bytes."""
        return sum(1 for request in self.requests if request.place <= size)

    def replay(self, numbers: Iterable[int], image: Path) -> None:
        """Does some of the requests, in the order given, to a raw image."""
        target = os.open(image, os.O_WRONLY)
        try:
            with self._path.open("rb") as file:
                for number in numbers:
                    request = self.requests[number]
                    if request.size and not request.discard:
                        file.seek(request.place)
                        os.pwrite(target, file.read(request.size), request.offset)
        finally:
            os.close(target)
