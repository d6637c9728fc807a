"""Just enough of CRI, over bare HTTP/2 frames, to know that a daemon serves and that a pod sandbox starts.

The lab may not need a package, and ``ctr`` does not speak CRI. Requests are a few hundred bytes; an error's
text stays in the daemon's log, since a reply's headers are not decoded here. The agent has a real client
(``agent/cri``).
"""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING

from hack.lab.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4


def call(path: Path, method: str, request: bytes = b"", *, timeout: float = 30.0) -> bytes:
    """Call one method of ``runtime.v1.RuntimeService`` on the socket at `path`.

    Args:
        path: the daemon's socket.
        method: the method's name, as ``RunPodSandbox``.
        request: the request message, encoded (`field`).
        timeout: seconds for the whole call.

    Returns:
        The reply message, encoded.

    Raises:
        LabError: nobody listens, or the daemon answered with an error.
    """
    deadline = time.monotonic() + timeout
    try:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(timeout)
            stream.connect(str(path))
            headers = b"\x83\x86" + b"\x04" + _text(f"/runtime.v1.RuntimeService/{method}")
            headers += b"\x01" + _text("localhost") + b"\x0f\x10" + _text("application/grpc")
            headers += b"\x00" + _text("te") + _text("trailers")
            stream.sendall(
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                + _frame(_SETTINGS, 0, 0, b"")
                + _frame(_HEADERS, _END_HEADERS, 1, headers)
                + _frame(_DATA, _END_STREAM, 1, struct.pack(">BI", 0, len(request)) + request)
            )
            reply = _reply(stream, deadline)
    except OSError as error:
        raise LabError(f"CRI {method}: no answer", evidence=str(error)) from error
    if len(reply) < 5:
        raise LabError(f"CRI {method}: refused", remedy="the reason stands in the daemon's log")
    return reply[5:]


def _reply(stream: socket.socket, deadline: float) -> bytes:
    """The data of the reply on stream 1."""
    reply = b""
    while True:
        stream.settimeout(max(0.01, deadline - time.monotonic()))
        head = _exactly(stream, 9)
        kind, flags = head[3], head[4]
        payload = _exactly(stream, int.from_bytes(head[:3], "big"))
        match kind:
            case _ if kind == _DATA:
                reply += payload
            case _ if kind in (_SETTINGS, _PING) and not flags & _ACK:
                stream.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
            case _ if kind in (_RST_STREAM, _GOAWAY):
                return b""
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            return reply


def _exactly(stream: socket.socket, size: int) -> bytes:
    """`size` bytes off `stream`."""
    data = b""
    while len(data) < size:
        part = stream.recv(size - len(data))
        if not part:
            raise ConnectionResetError("closed by the daemon")
        data += part
    return data


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def _text(value: str) -> bytes:
    """A string of HPACK, without Huffman coding."""
    return bytes((len(value),)) + value.encode()


def field(number: int, value: bytes | str | int) -> bytes:
    """One field of a protobuf message; strings and numbers that are protobuf's default are left out."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value) if value else b""
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data if data else b""


def _varint(value: int) -> bytes:
    """A protobuf varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def serves(path: Path) -> bool:
    """Whether CRI on the socket at `path` answers `Status`, which it does once it is initialized."""
    try:
        return bool(call(path, "Status", timeout=5.0))
    except LabError:
        return False


def run_pod_sandbox(path: Path, name: str, *, handler: str = "", host_network: bool = False) -> str:
    """Start a pod sandbox and return its id.

    Args:
        path: the daemon's socket.
        name: the pod's name and uid; its namespace is ``default``.
        handler: the runtime handler; the default one if empty.
        host_network: whether it goes without CNI.
    """
    metadata = field(1, name) + field(2, name) + field(3, "default")
    # The network of a NamespaceOption; 2 means the node's.
    linux = field(2, field(1, field(1, 2))) if host_network else b""
    config = field(1, metadata) + field(2, name) + field(3, f"/var/log/pods/{name}") + field(8, linux)
    reply = call(path, "RunPodSandbox", field(1, config) + field(2, handler))
    # Its only field is the id, which is shorter than 128 bytes.
    return reply[2:].decode()


def remove_pod_sandbox(path: Path, identity: str) -> None:
    """Stop and remove the pod sandbox `identity`."""
    call(path, "StopPodSandbox", field(1, identity))
    call(path, "RemovePodSandbox", field(1, identity))
