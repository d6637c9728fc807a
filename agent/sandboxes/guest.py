"""What a sandbox's guest says of itself: the metrics of the shim's own socket, passed through as they are.

Upstream's monitor asks the same socket. The text comes from inside the sandbox in part, so that it is bounded and never
mixed with katanode's own metrics.
"""

import http.client
import io
import os
import socket as sockets
import time
from pathlib import Path
from typing import NamedTuple

from agent.sandboxes.census import Sandbox

TIMEOUT = 3.0
"""Seconds for all of it; as long as upstream's monitor waits."""
_SOCKET = "shim-monitor.sock"
_GO, _RUST = "vc/sbs", "kata"
"""Below /run: where each runtime's shim has its socket, in a folder of each sandbox's own."""
_SAFE = frozenset({"clh", "dragonball", "openvmm"})
"""Hypervisors of runtime-rs whose metrics may be asked for. For QEMU and Firecracker the shim of Kata 4.1.0 has
`todo!()` there, and its panic hook aborts the process: to ask would end the sandbox (`qemu/inner.rs`,
`firecracker/inner_hypervisor.rs`, `shim/src/panic_hook.rs`)."""
_LIMIT = 8 << 20
"""Bytes that are passed through; upstream documents 144 kB."""
_PART = 1 << 16
_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\nConnection: close\r\n\r\n"


class Said(NamedTuple):
    """An answer for whoever asked: a status of HTTP, and the metrics or why there are none."""

    status: int
    text: bytes


DEADLY = Said(
    501,
    b"not asked: runtime-rs's shim ends itself and the sandbox when it is asked for metrics of this hypervisor",
)


def survives(run: Path, sandbox: Sandbox) -> bool:
    """Whether a sandbox survives being asked: to be known before `metrics` is called."""
    return may_be_asked(run, sandbox.id, sandbox.hypervisor)


def may_be_asked(run: Path, sandbox_id: str, hypervisor: str) -> bool:
    """As `survives`, of a sandbox that no census has seen.

    Args:
        run: the host's /run.
        sandbox_id: its id.
        hypervisor: Kata's name for its hypervisor.
    """
    return hypervisor in _SAFE or not (run / _RUST / sandbox_id).is_dir()


def metrics(run: Path, sandbox_id: str, timeout: float = TIMEOUT) -> Said:
    """Asks a sandbox that survives it.

    Args:
        run: the host's /run.
        sandbox_id: a sandbox that is known: nobody else's word for it becomes part of a path.
        timeout: seconds.
    """
    for folder in (_GO, _RUST):
        try:
            # Through a descriptor, since the address of a socket has 107 bytes at most (unix(7)).
            fd = os.open(run / folder / sandbox_id, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            address = f"/proc/self/fd/{fd}/{_SOCKET}"
            if os.path.lexists(address):
                return _ask(address, timeout)
        finally:
            os.close(fd)
    return Said(404, b"the sandbox has no socket for metrics (shim-monitor.sock)")


def _ask(address: str, timeout: float) -> Said:
    try:
        answer = http.client.HTTPResponse(_Received(_exchange(address, timeout)))  # type: ignore[arg-type]
        answer.begin()
        text = answer.read()
    except TimeoutError:
        return Said(504, f"the shim did not answer whole within {timeout:g} s".encode())
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Said(502, f"the shim gave no answer: {type(error).__name__} {error}".encode("utf-8", "replace"))
    if answer.status != http.HTTPStatus.OK:
        return Said(502, f"the shim answered with status {answer.status}".encode())
    return Said(200, text)


def _exchange(address: str, timeout: float) -> bytes:
    """The bytes of the answer, up to its end: read here, since a drop at a time would get round http.client's limit."""
    deadline = time.monotonic() + timeout
    received = bytearray()
    with sockets.socket(sockets.AF_UNIX) as stream:
        stream.settimeout(timeout)
        stream.connect(address)
        stream.sendall(_REQUEST)
        while (left := deadline - time.monotonic()) > 0:
            stream.settimeout(left)
            part = stream.recv(_PART)
            if not part:
                return bytes(received)
            received += part
            if len(received) > _LIMIT:
                raise ValueError(f"more than {_LIMIT} bytes")
    raise TimeoutError


class _Received:
    """What http.client reads an answer from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object) -> io.BytesIO:
        """The bytes as a file."""
        return io.BytesIO(self._data)
