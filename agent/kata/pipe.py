"""A compressed file as a forward-only file of plain bytes: read and decompressed, and hashed, in threads of their own.

hashlib, zstandard and lzma release the interpreter's lock for buffers of this size, so they run beside the writes of
whoever reads. Buffers go round between the threads and are written from in place: copying them would cost more than
decompressing does (measured: half of the time of an installation).
"""

import hashlib
import io
import lzma
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from agent.errors import KatanodeError
from agent.reasons import Reason

_CHUNK = 1 << 20
_BUFFERS = 8
_MAX_WINDOW = 1 << 27
"""Bytes of memory that a frame may ask for: what `zstd -d` accepts without being told to take more."""

MAX_HEADER = 1 << 20
"""Bytes between two contents. tarfile reads all of them into memory: long names, extended headers, maps of holes."""


class Pipe:
    """The plain bytes of an archive.

    Args:
        archive: the compressed bytes; closed at the end.
        name: the archive's file name: its end tells the compression.
        tell: told of the compressed bytes read so far.

    Attributes:
        error: what went wrong with decompressing, if anything did.
        last: what `read` gave last; at the end of a whole archive a block of zeros.
    """

    def __init__(self, archive: BinaryIO, name: str, tell: Callable[[int], None]) -> None:
        self.error: Exception | None = None
        self.last = b""
        self._header = 0
        self._tap = _Tap(archive, tell)
        self._name = name
        self._free: queue.Queue[bytearray | None] = queue.Queue()
        self._full: queue.Queue[tuple[bytearray, int] | None] = queue.Queue()
        for _ in range(_BUFFERS):
            self._free.put(bytearray(_CHUNK))
        self._buffer, self._at, self._end = bytearray(1), 1, 1
        self._position = 0
        self._over = False
        self._thread = threading.Thread(target=self._expand, daemon=True)
        self._thread.start()

    @property
    def broken(self) -> OSError | None:
        """What kept the archive from being read, if anything did."""
        return self._tap.broken

    def tell(self) -> int:
        """How many plain bytes went by."""
        return self._position

    def seek(self, position: int, _whence: int = io.SEEK_SET) -> int:
        """Goes forward, or one byte back: tarfile looks at the last byte before a header to see that it is there."""
        if position == self._position - 1 and self._at > 0:
            self._at -= 1
            self._position -= 1
            return position
        if position < self._position:
            raise OSError(None, "a stream does not go back")
        while self._position < position and self._fill():
            self._step(min(position - self._position, self._end - self._at))
        return self._position

    def read(self, size: int) -> bytes:
        """So many bytes; fewer only at the end.

        Raises:
            KatanodeError: `RELEASE_UNSAFE` beyond `MAX_HEADER` bytes since `begin`.
        """
        self._header += size
        if self._header > MAX_HEADER:
            raise KatanodeError(Reason.RELEASE_UNSAFE, f"a member's headers have more than {MAX_HEADER} bytes")
        parts = []
        while size > 0 and self._fill():
            part = bytes(memoryview(self._buffer)[self._at : min(self._end, self._at + size)])
            self._step(len(part))
            size -= len(part)
            parts.append(part)
        self.last = b"".join(parts)
        return self.last

    def begin(self) -> None:
        """Says that what is read from here on counts anew."""
        self._header = 0

    def copy(self, fd: int, size: int) -> None:
        """Writes the next bytes to a file.

        Raises:
            EOFError: there are not so many.
            OSError: they cannot be written.
        """
        while size > 0:
            if not self._fill():
                raise EOFError("the archive ends in the middle of a file")
            written = os.write(fd, memoryview(self._buffer)[self._at : min(self._end, self._at + size)])
            self._step(written)
            size -= written

    def digest(self) -> str:
        """The sha256 of the whole archive, read to its end without expanding more of it."""
        self._stop()
        return self._tap.finish()

    def abandon(self) -> None:
        """Ends without reading on."""
        self._tap.cut()
        self._stop()
        self._tap.finish()

    def _stop(self) -> None:
        self._over = True
        self._free.put(None)
        self._thread.join()

    def _step(self, size: int) -> None:
        self._at += size
        self._position += size

    def _fill(self) -> bool:
        """Sees that bytes are at hand; False at the end."""
        if self._at < self._end:
            return True
        if self._over:
            return False
        item = self._full.get()
        if item is None:
            self._over = True
            return False
        # The old buffer's last byte stays readable for `seek`: it goes round only when the next one is fetched.
        self._free.put(self._buffer if len(self._buffer) == _CHUNK else None)
        self._buffer, self._end = item
        self._at = 0
        return True

    def _expand(self) -> None:
        try:
            reader = _reader(self._tap, self._name)
            while True:
                buffer = self._free.get()
                if self._over:
                    return
                if buffer is None:
                    continue
                size = reader.readinto(buffer)
                if not size:
                    return
                self._full.put((buffer, size))
        except Exception as error:  # noqa: BLE001 - lzma's and zstandard's errors share no class but this
            self.error = error
        finally:
            self._full.put(None)


class _Tap:
    """The compressed file; what is read of it is hashed on the way."""

    def __init__(self, archive: BinaryIO, tell: Callable[[int], None]) -> None:
        self._archive = archive
        self._tell = tell
        self._done = 0
        self.broken: OSError | None = None
        self._hash = hashlib.sha256()
        self._cut = False
        self._chunks: queue.Queue[bytes | None] = queue.Queue(_BUFFERS)
        self._thread = threading.Thread(target=self._digest, daemon=True)
        self._thread.start()

    def read(self, size: int = _CHUNK) -> bytes:
        """The next compressed bytes; none at the end and once a read failed, see `broken`."""
        if self._cut or self.broken is not None:
            return b""
        try:
            chunk = self._archive.read(max(size, _CHUNK)) or b""
        except OSError as error:
            self.broken = error
            return b""
        if chunk:
            self._chunks.put(chunk)
            self._done += len(chunk)
            self._tell(self._done)
        return chunk

    def cut(self) -> None:
        """Says that no more will be read."""
        self._cut = True

    def finish(self) -> str:
        """Reads to the end; gives the digest."""
        while self.read():
            pass
        self._chunks.put(None)
        self._thread.join()
        self._archive.close()
        return self._hash.hexdigest()

    def _digest(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            self._hash.update(chunk)


def _reader(tap: _Tap, name: str) -> Any:
    """A file of plain bytes with `readinto`, which gives no more than it is asked for: a bomb stays small in memory."""
    if name.endswith(".xz"):
        return _Unxz(tap)
    import zstandard  # noqa: PLC0415 - only an installation needs it

    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    source: Any = tap
    return decompressor.stream_reader(source, read_size=_CHUNK, read_across_frames=True)


class _Unxz:
    """lzma's decompressor over a tap."""

    def __init__(self, tap: _Tap) -> None:
        self._tap = tap
        self._lzma = lzma.LZMADecompressor(memlimit=512 << 20)

    def readinto(self, buffer: bytearray) -> int:
        """Fills a buffer, perhaps in part; 0 at the end.

        Raises:
            EOFError: the file ends before its end mark.
            lzma.LZMAError: it is damaged.
        """
        while not self._lzma.eof:
            chunk = self._tap.read() if self._lzma.needs_input else b""
            if not chunk and self._lzma.needs_input:
                raise EOFError("the compressed file ends too early")
            plain = self._lzma.decompress(chunk, max_length=len(buffer))
            if plain:
                buffer[: len(plain)] = plain
                return len(plain)
        return 0
