"""An API server stand-in on this machine for the agent in a node: TLS and a service account, as in a cluster."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING

from hack.apistandin import ApiStandin
from hack.lab.apiserver import AGENT
from hack.nodes.machine import FORWARD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NODE = "node"
_TOKEN = "agent"


class Account:
    """What a node knows of its API server: an address, an authority and a token; the server may come and go.

    Args:
        folder: for the key and the certificate.

    Attributes:
        port: of the server on this machine's loopback.
        files: those that an agent finds in its pod, by their names.
    """

    def __init__(self, folder: Path) -> None:
        self._certificate, self._key = folder / "ca.crt", folder / "key"
        address = FORWARD.partition(":")[0]
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-subj", "/CN=kubernetes", "-addext", f"subjectAltName=IP:{address}", "-days", "30"),
                *("-out", self._certificate, "-keyout", self._key),
            ],
            check=True,
            capture_output=True,
        )
        self.files = {"token": _TOKEN.encode(), "ca.crt": self._certificate.read_bytes(), "namespace": b"katanode"}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @contextlib.contextmanager
    def serve(self, port: int | None = None) -> Iterator[ApiStandin]:
        """A new server that knows one Node, and lets its agent do what the manifests' RBAC does.

        Args:
            port: of this machine's loopback; `port` if not given, a free one if 0.
        """
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self._certificate, self._key)
        api = ApiStandin(port=self.port if port is None else port, tls=tls).start()
        try:
            api.add_node(NODE)
            api.add_token(_TOKEN, "system:serviceaccount:katanode:katanode", node=NODE, rules=AGENT)
            yield api
        finally:
            api.finish_watches()
            api.close()
