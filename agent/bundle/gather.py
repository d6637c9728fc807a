"""Parts are had from processes of their own, each with a time limit: on a broken node any of them may hang.

They are forked, since starting Python anew for each would take longer than all of them. This is safe only as long as
the process that calls `gather` has no other thread; gRPC starts its own in the children.
"""

import contextlib
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import NoReturn

from agent.bundle.piece import Failure, Piece
from agent.errors import KatanodeError, bounded

_GRACE = 1.0
"""Seconds between the request to end and the kill: a program that runs just now is ended with its part."""
_DONE = b"done"
"""What a child writes last."""
_GONE = 0.5
"""Seconds to wait for one that was killed; in uninterruptible sleep it is left to the kernel."""


@dataclass(frozen=True, slots=True)
class Part:
    """What brings one piece or several.

    Attributes:
        name: of its file, or what its files have in common.
        bring: makes the pieces; what it raises is its failure, what it brought before stays.
        seconds: its time limit.
    """

    name: str
    bring: Callable[[], Iterator[Piece | Failure]]
    seconds: float = 30.0


@dataclass(slots=True)
class _Child:
    part: Part
    pid: int
    pipe: int
    deadline: float
    got: bytearray = field(default_factory=bytearray)
    hung: bool = False


def gather(parts: Sequence[Part], *, at_once: int, seconds: float) -> list[Piece | Failure]:
    """Has all parts, in their order.

    Args:
        parts: what is to be had.
        at_once: how many at a time.
        seconds: bound for all of them together; a part that would begin later is a failure.

    Returns:
        The pieces and the failures of each part, those of the first part first.
    """
    end = time.monotonic() + seconds
    waiting = list(parts)[::-1]
    running: list[_Child] = []
    had: dict[str, list[Piece | Failure]] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < at_once and time.monotonic() < end:
                    running.append(_start(waiting.pop(), end))
                    selector.register(running[-1].pipe, selectors.EVENT_READ, running[-1])
                if not running:
                    break
                soonest = min(child.deadline for child in running) - time.monotonic()
                for key, _ in selector.select(max(0.0, soonest)):
                    if not _read(key.data):
                        key.data.deadline = 0.0
                now = time.monotonic()
                for child in [child for child in running if child.deadline <= now]:
                    child.hung = child.deadline != 0.0
                    selector.unregister(child.pipe)
                    running.remove(child)
                    had[child.part.name] = _end(child)
        finally:
            for child in running:
                _end(child)
    for part in waiting:
        had[part.name] = [Failure(part.name, f"not tried: the parts before it took {seconds:g} s")]
    return [item for part in parts for item in had[part.name]]


def _start(part: Part, end: float) -> _Child:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _bring(part, writer)
    os.close(writer)
    os.set_blocking(reader, False)
    return _Child(part, pid, reader, min(end, time.monotonic() + part.seconds))


def _bring(part: Part, writer: int) -> NoReturn:
    """In the child: what the part brings, a line of JSON each, and the failure that ended it."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        with open(writer, "wb") as pipe:
            try:
                for item in part.bring():
                    _tell(pipe.write, item)
                    pipe.flush()
            except KatanodeError as error:
                _tell(pipe.write, Failure(part.name, words(error)))
            except Exception as error:  # noqa: BLE001 - one part's fault must not cost the others
                _tell(pipe.write, Failure(part.name, f"katanode's own fault: {error!r}"))
            pipe.write(_DONE + b"\n")
        status = 0
    finally:
        # Nothing of the parent's is to be done twice: no buffers flushed, no handlers run.
        os._exit(status)


def _tell(write: Callable[[bytes], object], item: Piece | Failure) -> None:
    kind = "piece" if isinstance(item, Piece) else "failure"
    write(json.dumps({kind: asdict(item)}).encode() + b"\n")


def _read(child: _Child) -> bool:
    """Takes what the child wrote; False once it has written everything."""
    with contextlib.suppress(BlockingIOError):
        while data := os.read(child.pipe, 1 << 16):
            child.got += data
        return False
    return True


def _end(child: _Child) -> list[Piece | Failure]:
    """Ends the child, if it goes on; gives what it brought."""
    _read(child)
    os.close(child.pipe)
    gone = _reap(child.pid, 0.0 if child.hung else _GONE)
    for sign, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GONE)):
        if not gone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, sign)
            gone = _reap(child.pid, patience)
    items: list[Piece | Failure] = []
    lines = bytes(child.got).split(b"\n")[:-1]  # a line without its end was not written whole
    done = lines[-1:] == [_DONE]
    for line in lines[:-1] if done else lines:
        said = json.loads(line)
        if "piece" in said:
            items.append(Piece(**{**said["piece"], "secrets": tuple(said["piece"]["secrets"])}))
        else:
            items.append(Failure(**said["failure"]))
    name = child.part.name
    if child.hung:
        items.append(Failure(name, f"it did not end within {child.part.seconds:g} s"))
    elif not done:
        items.append(Failure(name, "its process ended without an answer"))
    return items


def _reap(pid: int, seconds: float) -> bool:
    """Whether a child has ended within so many seconds."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                return True
            if time.monotonic() < end:
                time.sleep(0.01)
                continue
            return False
        return True


def words(error: KatanodeError) -> str:
    """An error in few lines."""
    return bounded(f"{error.message} [{error.reason}]" + (f"\n{error.evidence}" if error.evidence else ""), 1000)
