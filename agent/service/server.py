"""Serving metrics, health and the page: read-only, one thread a connection, none of which can hold it up."""

import contextlib
import os
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY, SHUT_RDWR, SO_REUSEADDR, SOL_SOCKET, socket
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from agent import __version__
from agent.errors import KatanodeError
from agent.page import HEADERS
from agent.reasons import Reason
from agent.sandboxes.guest import Said
from agent.service.prints import Prints, prints
from agent.service.sandboxes import Sandboxes
from agent.settings import Serve

_TIMEOUT = 10.0
"""Seconds that a client may take to send its request or to take a part of its answer."""
_CONNECTIONS = 32
"""Connections at once; Prometheus and the kubelet need three."""

_END = b"# EOF\n"
"""Where OpenMetrics' text ends."""

Answer = tuple[int, str]
"""Status and text."""


class Server:
    """Listens until it is closed.

    Args:
        wish: where, and with which certificate.
        registry: the metrics.
        page: makes the page.
        healthy: says whether the daemon works.
        ready: says whether it has something to say.
        sandboxes: has the series of the running sandboxes, and asks their guests.

    Raises:
        KatanodeError: `LISTEN_FAILED`.
    """

    def __init__(
        self,
        wish: Serve,
        registry: CollectorRegistry,
        page: Callable[[], str],
        healthy: Callable[[], Answer],
        ready: Callable[[], Answer],
        sandboxes: Sandboxes | None = None,
    ) -> None:
        self.wish = wish
        self._certificate = _stamps(wish)
        try:
            self._server = _Listener(wish)
        except (OSError, ssl.SSLError) as error:
            where = f"{wish.address} port {wish.port}" + (f", {wish.tls_cert_file}" if wish.tls_cert_file else "")
            raise KatanodeError(Reason.LISTEN_FAILED, f"cannot serve on {where}", evidence=str(error)) from error
        self._server.answers = {
            "/": lambda _accept, _query: (200, HEADERS, page().encode()),
            "/healthz": lambda _accept, _query: _plain(healthy()),
            "/readyz": lambda _accept, _query: _plain(ready()),
            "/metrics": lambda accept, _query: _metrics(registry, sandboxes, accept),
            "/metrics/guest": lambda _accept, query: _guest(sandboxes, query),
        }
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(1.0,), name="http", daemon=True).start()

    def renew(self) -> bool:
        """Takes over a certificate that was renewed in its place; says whether it did.

        Raises:
            KatanodeError: `LISTEN_FAILED`: the files do not fit; the old certificate is served on.
        """
        now = _stamps(self.wish)
        if self._server.context is None or now == self._certificate:
            return False
        self._certificate = now
        try:
            self._server.context.load_cert_chain(self.wish.tls_cert_file, self.wish.tls_key_file)
        except (OSError, ssl.SSLError) as error:
            raise KatanodeError(
                Reason.LISTEN_FAILED, f"{self.wish.tls_cert_file} was renewed and cannot be used", evidence=str(error)
            ) from error
        return True

    def close(self) -> None:
        """Stops listening; answers under way go out."""
        self._server.shutdown()
        self._server.server_close()


_Made = tuple[int, Iterable[tuple[str, str]], bytes]


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, wish: Serve) -> None:
        if ":" in wish.address:
            self.address_family = AF_INET6
        self.answers: dict[str, Callable[[str, str], _Made]] = {}
        self._open: dict[int, socket] = {}
        self._lock = threading.Lock()
        self.context = _context(wish) if wish.tls_cert_file else None
        super().__init__((wish.address, wish.port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == AF_INET6:
            self.socket.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0)  # :: serves IPv4 too, whatever the node's sysctl says
        # The connections of the agent before this one still linger; it is the same address.
        self.socket.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            # Somebody who holds all of them, a byte at a time, is not to keep the kubelet out: the oldest goes.
            oldest = list(self._open.values())[: max(0, len(self._open) - _CONNECTIONS + 1)]
            for connection in oldest:
                with contextlib.suppress(OSError):
                    connection.shutdown(SHUT_RDWR)
                self._open.pop(connection.fileno(), None)
            self._open[request.fileno()] = request
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        number = request.fileno()
        try:
            request.settimeout(_TIMEOUT)
            if self.context is not None:
                # Here, in the connection's own thread: a client that does not shake hands holds up nobody.
                request = self.context.wrap_socket(request, server_side=True)
                with self._lock:
                    if number in self._open:
                        self._open[number] = request  # the descriptor is the wrapped one's now
            super().process_request_thread(request, client_address)
        except OSError:
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection."""
        with self._lock:
            number = request.fileno()
            if self._open.get(number) is request:
                del self._open[number]
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    protocol_version = "HTTP/1.1"
    server_version = f"katanode/{__version__}"
    sys_version = ""
    timeout = _TIMEOUT

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path, _, query = self.path.partition("?")
        answer = self.server.answers.get(path)
        if answer is None:
            status, headers, data = _plain((404, "there are /, /metrics, /metrics/guest, /healthz and /readyz"))
        else:
            status, headers, data = answer(self.headers.get("Accept", ""), query)
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Scrapes and probes are no news."""


def _plain(answer: Answer) -> _Made:
    headers = (("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff"))
    return answer[0], headers, f"{answer[1]}\n".encode()


def _metrics(registry: CollectorRegistry, sandboxes: Sandboxes | None, accept: str) -> _Made:
    encoder, content_type = choose_encoder(accept)
    data = encoder(registry)
    if sandboxes is not None:
        openmetrics = content_type.startswith("application/openmetrics-text")
        more = sandboxes.scrape(openmetrics=openmetrics).encode()
        data = data.removesuffix(_END) + more + _END if openmetrics else data + more
    return 200, (("Content-Type", content_type),), data


def _guest(sandboxes: Sandboxes | None, query: str) -> _Made:
    wanted = urllib.parse.parse_qs(query).get("sandbox", [""])[0]
    said = sandboxes.guest(wanted) if sandboxes is not None else Said(404, b"no sandboxes are watched")
    # What a guest says is foreign: whoever opens it in a browser sees text.
    headers = (("Content-Type", "text/plain; version=0.0.4; charset=utf-8"), ("X-Content-Type-Options", "nosniff"))
    return said.status, headers, said.text


def _stamps(wish: Serve) -> Prints:
    # What a link leads to, too: a mounted Secret's files are links to links.
    return prints(os.path.realpath(path) for path in (wish.tls_cert_file, wish.tls_key_file) if path)


def _context(wish: Serve) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(wish.tls_cert_file, wish.tls_key_file)
    return context
