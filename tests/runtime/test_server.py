"""The daemon's HTTP server on real sockets: what it answers, and to whom it does not listen for ever."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, Gauge

from agent.errors import KatanodeError
from agent.page import HEADERS
from agent.reasons import Reason
from agent.service.server import Server
from agent.settings import Serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HERE = "127.0.0.1"


@contextlib.contextmanager
def serving(wish: Serve) -> Iterator[Server]:
    registry = CollectorRegistry()
    Gauge("katanode_ready", "Ready.", registry=registry).set(1)
    server = Server(wish, registry, lambda: "<p>page", lambda: (503, "stuck"), lambda: (200, "ok"))
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Serve(HERE, 0)) as made:
        yield made


def ask(server: Server, path: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
    request = urllib.request.Request(f"http://{HERE}:{server.port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    cert, key = folder / "tls.crt", folder / "tls.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "1", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


def name_served(port: int) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((HERE, port), timeout=5) as plain,
        context.wrap_socket(plain) as secure,
    ):
        der = secure.getpeercert(binary_form=True)
    assert der is not None
    done = subprocess.run(
        ["openssl", "x509", "-inform", "der", "-noout", "-subject"], input=der, capture_output=True, check=True
    )
    return done.stdout.decode().strip().rpartition("=")[2].strip()


def test_it_answers_what_it_is_asked(server: Server) -> None:
    status, headers, text = ask(server, "/metrics")
    assert (status, "katanode_ready 1.0" in text) == (200, True)
    assert headers["Content-Type"].startswith("text/plain")
    assert ask(server, "/healthz")[::2] == (503, "stuck\n")
    assert ask(server, "/readyz")[::2] == (200, "ok\n")
    assert ask(server, "/?x=1")[::2] == (200, "<p>page")
    assert ask(server, "/../etc/passwd")[0] == 404


def test_the_page_is_sent_with_its_headers(server: Server) -> None:
    headers = ask(server, "/")[1]
    assert {name: headers[name] for name, _ in HEADERS} == dict(HEADERS)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(server: Server, method: str) -> None:
    assert ask(server, "/", method)[0] == 501


def test_a_head_request_has_no_body(server: Server) -> None:
    status, headers, text = ask(server, "/", "HEAD")
    assert (status, text, headers["Content-Length"]) == (200, "", "7")


def test_openmetrics_is_spoken_to_those_who_ask_for_it(server: Server) -> None:
    request = urllib.request.Request(
        f"http://{HERE}:{server.port}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.read().endswith(b"# EOF\n")


def test_connections_that_are_held_keep_nobody_out(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection((HERE, server.port), timeout=5)) for _ in range(100)]
        for number in range(10):
            for connection in held:
                with contextlib.suppress(OSError):
                    connection.sendall(b"GET / HTTP/1.1\r\n"[number : number + 1])  # a byte at a time
            begin = time.monotonic()
            assert ask(server, "/readyz")[0] == 200
            assert time.monotonic() - begin < 2


@pytest.mark.parametrize("rubbish", [b"\x16\x03\x01" * 50, b"GET " + b"/" * 70000, b"\r\n" * 40, b"A: B\r\n\r\n"])
def test_rubbish_is_survived(server: Server, rubbish: bytes) -> None:
    with socket.create_connection((HERE, server.port), timeout=5) as connection, contextlib.suppress(OSError):
        connection.sendall(rubbish)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1000)
    assert ask(server, "/readyz")[0] == 200


def test_a_place_that_is_taken_is_an_error_that_names_it(server: Server) -> None:
    with pytest.raises(KatanodeError, match=f"{HERE} port {server.port}") as caught, serving(Serve(HERE, server.port)):
        pass
    assert caught.value.reason is Reason.LISTEN_FAILED


def test_a_place_that_was_left_a_moment_ago_can_be_had(server: Server) -> None:
    with socket.create_connection((HERE, server.port), timeout=5) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nConnection: close\r\n\r\n")
        while connection.recv(1000):
            pass  # the server closes first: the connection lingers on its side
    server.close()
    with serving(Serve(HERE, server.port)) as made:
        assert ask(made, "/readyz")[0] == 200


def test_both_families_are_served_on_the_unspecified_address() -> None:
    if not socket.has_ipv6:
        pytest.skip(reason="this machine has no IPv6")
    with serving(Serve("::", 0)) as made:
        assert ask(made, "/readyz")[0] == 200


def test_tls_is_served_from_files_and_a_renewed_certificate_is_taken_over(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "old.example")
    with serving(Serve(HERE, 0, str(cert), str(key))) as made:
        assert name_served(made.port) == "old.example"
        assert not made.renew()
        certificate(tmp_path, "new.example")
        assert made.renew()
        assert name_served(made.port) == "new.example"
        key.write_text("no key")
        with pytest.raises(KatanodeError, match=r"tls\.crt was renewed and cannot be used"):
            made.renew()
        assert name_served(made.port) == "new.example"


def test_tls_files_that_are_not_there_are_named() -> None:
    with (
        pytest.raises(KatanodeError, match=r"/nowhere/tls\.crt"),
        serving(Serve(HERE, 0, "/nowhere/tls.crt", "/nowhere/k")),
    ):
        pass
