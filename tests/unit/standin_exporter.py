"""A stand-in for the agents of two nodes: what Prometheus scrapes from it is made up, with the agents' own names."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from fleet_series import NODES, fleet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def serving(known: Mapping[str, frozenset[str]]) -> Iterator[int]:
    """Serves `/NODE/metrics` on the loopback; gives the port.

    Args:
        known: the metrics, name to labels.
    """
    asked = dict.fromkeys(NODES, 0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            node = self.path.split("/")[1]
            if node not in asked:
                self.send_error(404)
                return
            asked[node] += 1
            lines = []
            for one in fleet(known):
                if one.node == node:
                    labels = ",".join(f'{label}="{word}"' for label, word in one.labels.items())
                    lines.append(f"{one.name}{{{labels}}} {asked[node] if one.value is None else one.value}\n")
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write("".join(lines).encode())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
