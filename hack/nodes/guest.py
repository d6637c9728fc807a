"""The channel into a node: QEMU's guest agent, over a virtio-serial port, so that no network is needed.

The protocol is JSON, a line each way (QEMU's ``docs/interop/qemu-ga``, and the schema of its own commands).
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

from hack.nodes.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_CHUNK = 3 << 20
"""Bytes of a file in one message: the agent refuses messages above some megabytes."""
_ANSWER = 60.0
"""Seconds for one answer; commands are started and asked for, so none takes long."""


class Guest:
    """A connection to a node's guest agent; made anew whenever the node was reset.

    Args:
        path: the unix socket that QEMU connects to the port.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._buffer = b""

    def close(self) -> None:
        """Forgets the connection; the next call makes another."""
        if self._socket:
            self._socket.close()
        self._socket = None

    def wait(self, seconds: float) -> None:
        """Waits until the agent answers, which it does once systemd has started it.

        Raises:
            NodeError: not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise NodeError(f"the node's agent does not answer after {seconds:g} s")
            try:
                self._sync(min(left, 2.0))
            except OSError:
                self.close()
                time.sleep(0.05)
            else:
                return

    def _sync(self, seconds: float) -> None:
        """Drops what an earlier boot or an earlier caller left in the channel."""
        self._connect()
        assert self._socket
        self._socket.settimeout(seconds)
        token = secrets.randbelow(1 << 31)
        # The byte 0xFF has the agent's parser begin anew, and precedes the answer.
        order = {"execute": "guest-sync-delimited", "arguments": {"id": token}}
        self._socket.sendall(b"\xff" + json.dumps(order).encode() + b"\n")
        while True:
            line = self._line()
            with contextlib.suppress(ValueError, AttributeError):
                if json.loads(line.rpartition(b"\xff")[2]).get("return") == token:
                    return

    def _connect(self) -> None:
        if self._socket is None:
            self._buffer = b""
            made = socket.socket(socket.AF_UNIX)
            try:
                made.connect(str(self._path))
            except OSError:
                made.close()
                raise
            self._socket = made

    def _line(self) -> bytes:
        assert self._socket
        while b"\n" not in self._buffer:
            part = self._socket.recv(1 << 16)
            if not part:
                raise ConnectionResetError("QEMU closed the channel")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def call(self, command: str, **arguments: Any) -> Any:
        """One command of the agent's.

        Raises:
            NodeError: it answers with an error, or not at all.
        """
        try:
            if self._socket is None:
                self._sync(_ANSWER)
            assert self._socket
            self._socket.settimeout(_ANSWER)
            self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            answer = json.loads(self._line())
        except (OSError, ValueError) as error:
            self.close()
            raise NodeError(f"the node's agent gives no answer to {command}", evidence=str(error)) from error
        if "error" in answer:
            raise NodeError(f"the node's agent refuses {command}", evidence=json.dumps(answer["error"]))
        return answer["return"]

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; its output is captured, up to 16 MB.

        Args:
            argv: the command, found by the agent's PATH.
            stdin: its input.
            timeout: seconds; the command is killed after them.

        Raises:
            NodeError: it cannot be started or does not end.
        """
        order: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
        if stdin:
            order["input-data"] = base64.b64encode(stdin).decode()
        pid = self.call("guest-exec", **order)["pid"]
        deadline, pause = time.monotonic() + timeout, 0.01
        while not (state := self.call("guest-exec-status", pid=pid))["exited"]:
            if time.monotonic() > deadline:
                self.call("guest-exec", path="/bin/kill", arg=["-9", str(pid)])
                raise NodeError(f"{' '.join(argv)[:200]}: no end after {timeout:g} s in the node")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)
        out, err = (base64.b64decode(state.get(name, "")).decode(errors="replace") for name in ("out-data", "err-data"))
        return subprocess.CompletedProcess(list(argv), state.get("exitcode", -state.get("signal", 0)), out, err)

    def write(self, path: str, content: bytes) -> None:
        """Writes a file of the node; its folder must be there."""
        handle = self.call("guest-file-open", path=path, mode="w")
        try:
            for begin in range(0, len(content), _CHUNK):
                data = base64.b64encode(content[begin : begin + _CHUNK]).decode()
                self.call("guest-file-write", handle=handle, **{"buf-b64": data})
            self.call("guest-file-flush", handle=handle)
        finally:
            self.call("guest-file-close", handle=handle)

    def read(self, path: str) -> bytes:
        """A file of the node.

        Raises:
            NodeError: it is not there.
        """
        handle = self.call("guest-file-open", path=path, mode="r")
        content = b""
        try:
            while True:
                got = self.call("guest-file-read", handle=handle, count=_CHUNK)
                content += base64.b64decode(got["buf-b64"])
                if got["eof"] or not got["count"]:
                    return content
        finally:
            self.call("guest-file-close", handle=handle)
