"""CRI's lists for the daemon, which is to stay small: gRPC's one unary call over HTTP/2, without gRPC's library.

h2 and the messages take 3 MiB of memory, grpc takes 10 and threads of its own (measured). Each call has a connection to
itself, so that nothing is kept up while nothing is asked.
"""

import json
import socket as sockets
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError

from agent.cri import cri_pb2 as pb

LIMIT = 64 << 20
"""Bytes of an answer: as many as the client over gRPC takes."""
_CHUNK = 1 << 16


class Pod(NamedTuple):
    """A pod sandbox as CRI lists it.

    Attributes:
        namespace: the pod's.
        name: the pod's.
        uid: the pod's.
        handler: the runtime handler; "" for the default one.
        ready: its task has not ended.
    """

    namespace: str
    name: str
    uid: str
    handler: str
    ready: bool


class Listing:
    """Asks the runtime behind a socket; each answer is None when there is none in time.

    Args:
        socket: the CRI socket as this process sees it.
        timeout: seconds for a call.

    Attributes:
        socket: as given.
    """

    def __init__(self, socket: Path, timeout: float = 2.0) -> None:
        self.socket = socket
        self._timeout = timeout

    def pods(self) -> Mapping[str, Pod] | None:
        """The pod sandboxes that the runtime knows, ready or not, by their ids."""
        answer = self._call("ListPodSandbox", pb.ListPodSandboxRequest(), pb.ListPodSandboxResponse.FromString)
        if answer is None:
            return None
        return {
            item.id: Pod(
                item.metadata.namespace,
                item.metadata.name,
                item.metadata.uid,
                item.runtime_handler,
                item.state == pb.SANDBOX_READY,
            )
            for item in answer.items
        }

    def overhead(self, sandbox_id: str) -> int | None:
        """Bytes of memory that the pod's RuntimeClass grants for what is not the pod's own; 0 when it grants none.

        The kubelet gives them in `PodSandboxConfig.linux.overhead`; containerd keeps that and shows it in the verbose
        status.
        """
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
        answer = self._call("PodSandboxStatus", request, pb.PodSandboxStatusResponse.FromString)
        if answer is None:
            return None
        try:
            linux = json.loads(answer.info["info"])["config"].get("linux") or {}
            return int((linux.get("overhead") or {}).get("memory_limit_in_bytes", 0))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _call(self, method: str, request: Any, parse: Callable[[bytes], Any]) -> Any:
        try:
            return parse(_exchange(self.socket, method, request.SerializeToString(), self._timeout))
        except (OSError, ProtocolError, DecodeError, _RefusedError):
            return None


class _RefusedError(Exception):
    """The runtime answered with an error, or with something that is no answer."""


def _exchange(socket: Path, method: str, message: bytes, timeout: float) -> bytes:
    """One unary call (gRPC over HTTP/2, PROTOCOL-HTTP2.md): a length and the message each way, the status behind it."""
    deadline = time.monotonic() + timeout
    connection = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    connection.initiate_connection()
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"/runtime.v1.RuntimeService/{method}"),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("grpc-timeout", f"{max(1, int(timeout * 1000))}m"),
    ]
    connection.send_headers(1, headers)
    connection.send_data(1, struct.pack(">BI", 0, len(message)) + message, end_stream=True)
    answer = _Answer()
    with sockets.socket(sockets.AF_UNIX) as stream:
        stream.settimeout(timeout)
        stream.connect(str(socket))
        while not answer.over:
            stream.sendall(connection.data_to_send())
            stream.settimeout(max(0.001, deadline - time.monotonic()))
            data = stream.recv(_CHUNK)
            if not data:
                raise _RefusedError("closed in the middle")
            for event in connection.receive_data(data):
                answer.take(connection, event)
            if time.monotonic() > deadline:
                raise TimeoutError
    return answer.message()


class _Answer:
    """What came back so far."""

    def __init__(self) -> None:
        self.over = False
        self._status = b""
        self._data = bytearray()

    def take(self, connection: H2Connection, event: object) -> None:
        """Takes over an event."""
        match event:
            case ResponseReceived() | TrailersReceived():
                self._status = dict(event.headers or ()).get(b"grpc-status", self._status)
            case DataReceived():
                self._data += event.data or b""
                connection.acknowledge_received_data(event.flow_controlled_length or 0, 1)
                if len(self._data) > LIMIT:
                    raise _RefusedError("too long")
            case StreamEnded() | StreamReset() | ConnectionTerminated():
                self.over = True

    def message(self) -> bytes:
        """The message.

        Raises:
            _RefusedError: there is none.
        """
        if self._status != b"0" or len(self._data) < 5 or self._data[0] != 0:
            raise _RefusedError(f"status {self._status!r}")
        (size,) = struct.unpack_from(">I", self._data, 1)
        if len(self._data) != 5 + size:
            raise _RefusedError("cut off")
        return bytes(self._data[5:])
