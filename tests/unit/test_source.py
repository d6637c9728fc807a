"""Where archives come from: against a real https server of the test's own, its real certificates and a real proxy."""

import contextlib
import http.server
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.errors import KatanodeError
from agent.host.root import HostRoot
from agent.kata import source
from agent.reasons import Reason
from agent.settings import Kata

NAME = "kata-static-9.9.9-amd64.tar.zst"
DATA = os.urandom(5 << 20)


@dataclass
class Server:
    """An https server whose answers a test writes.

    Attributes:
        cuts: after how many bytes the connections end, one connection each; then none ends early.
        answers: status codes for the next requests in place of the file.
        location: where redirects lead.
        stalls: after how many bytes the connections fall silent, one connection each; then none does.
        over: set at the end: who is silent may go.
        seen: the `Range` of each request.
    """

    folder: Path
    port: int = 0
    data: bytes = DATA
    tag: str = '"one"'
    cuts: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    location: str = ""
    stalls: list[int] = field(default_factory=list)
    chunked: bool = False
    seen: list[str | None] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/releases/{{version}}"

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.seen.append(handler.headers["Range"])
        if self.answers:
            code = self.answers.pop(0)
            if code == 0:
                handler.wfile.write(b"complete nonsense\r\n\r\n")
                return
            handler.send_response(code)
            handler.send_header("Location", self.location)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = 0
        if handler.headers["Range"] and handler.headers["If-Range"] == self.tag:
            start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}")
        else:
            handler.send_response(200)
        if self.tag:
            handler.send_header("ETag", self.tag)
        body = self.data[start:]
        sent = body[: self.cuts.pop(0)] if self.cuts else body
        silent = bool(self.stalls)
        sent = body[: self.stalls.pop(0)] if silent else sent
        if self.chunked:
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.wfile.write(b"%x\r\n" % len(body) + sent)
            if sent == body:
                handler.wfile.write(b"\r\n0\r\n\r\n")
        else:
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(sent)
            if silent:
                self.over.wait(10)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority of one's own, `ca.pem`, and a certificate for localhost by it."""
    if shutil.which("openssl") is None:
        pytest.skip(reason="openssl, which makes the certificates, is not here")
    folder = tmp_path_factory.mktemp("authority")
    new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    for argv in (
        f"req -x509 {new} -days 2 -subj /CN=ours -keyout ca.key -out ca.pem",
        f"req {new} -subj /CN=localhost -keyout key.pem -out request.pem",
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem",
    ):
        (folder / "names").write_text("subjectAltName=DNS:localhost,DNS:kata.example\n")
        subprocess.run(["openssl", *argv.split()], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def server(authority: Path) -> Iterator[Server]:
    made = Server(authority)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                made.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "cert.pem", authority / "key.pem")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        http_server.socket = context.wrap_socket(http_server.socket, server_side=True)
        made.port = http_server.server_address[1]
        thread = threading.Thread(target=http_server.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.over.set()
        http_server.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch) -> HostRoot:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr("agent.kata.source.time.sleep", lambda _seconds: None)
    (tmp_path / "ca.pem").write_bytes((authority / "ca.pem").read_bytes())
    return HostRoot(tmp_path)


def fetch(root: HostRoot, url: str, **more: Any) -> bytes:
    kata = Kata(version="9.9.9", source=url, **{"ca_file": "/ca.pem", **more})
    archive, size = source.open_archive(root, kata, NAME, lambda _done, _total: None)
    with archive:
        data = archive.read()
    assert len(data) == size
    return data


def fails(root: HostRoot, url: str, **more: Any) -> KatanodeError:
    with pytest.raises(KatanodeError) as caught:
        fetch(root, url, **more)
    return caught.value


def downloads(root: HostRoot) -> list[str]:
    return sorted(path.name for path in root(source.DOWNLOADS).iterdir())


def test_a_download_comes_whole_and_says_how_far_it_is(root: HostRoot, server: Server) -> None:
    told: list[tuple[int, int | None]] = []
    kata = Kata(version="9.9.9", source=server.url, ca_file="/ca.pem")
    archive, size = source.open_archive(root, kata, NAME, lambda done, total: told.append((done, total)))
    archive.close()
    assert size == len(DATA)
    assert told[-1] == (len(DATA), len(DATA))
    assert told == sorted(told)
    assert downloads(root) == [NAME]
    source.discard(root, NAME)
    assert not root(source.DOWNLOADS).exists()


def test_what_was_fetched_is_not_fetched_again(root: HostRoot, server: Server) -> None:
    assert fetch(root, server.url) == fetch(root, server.url) == DATA
    assert server.seen == [None]


def test_an_unknown_authority_is_final(root: HostRoot, server: Server) -> None:
    error = fails(root, server.url, ca_file="")
    assert error.reason is Reason.RELEASE_UNREACHABLE
    assert "certificate" in error.evidence
    assert server.seen == []


def test_a_name_that_the_certificate_does_not_have_is_final(root: HostRoot, server: Server) -> None:
    error = fails(root, server.url.replace("localhost", "127.0.0.1"))
    assert "certificate" in error.evidence


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_bad_authority_file_is_named(root: HostRoot, server: Server, content: str | None) -> None:
    if content is not None:
        (root.path / "other.pem").write_text(content)
    error = fails(root, server.url, ca_file="/other.pem")
    assert error.reason is Reason.RELEASE_UNREACHABLE
    assert "/other.pem" in error.message


def test_a_cut_download_goes_on_where_it_was(root: HostRoot, server: Server) -> None:
    server.cuts = [3 << 20, 1 << 20]
    assert fetch(root, server.url) == DATA
    assert server.seen == [None, f"bytes={3 << 20}-", f"bytes={4 << 20}-"]


def test_a_line_that_breaks_often_but_goes_forward_is_borne(root: HostRoot, server: Server) -> None:
    server.data = os.urandom(20 << 20)
    server.cuts = [1 << 20] * 19
    assert fetch(root, server.url) == server.data


def test_a_line_that_brings_nothing_is_given_up_and_a_later_run_goes_on(root: HostRoot, server: Server) -> None:
    server.cuts = [2 << 20] + [0] * 50
    error = fails(root, server.url)
    assert error.reason is Reason.RELEASE_UNREACHABLE
    assert "ended early" in error.evidence
    assert len(server.seen) == 7
    server.cuts, server.seen = [], []
    assert fetch(root, server.url) == DATA
    assert server.seen == [f"bytes={2 << 20}-"]
    assert downloads(root) == [NAME]


def test_a_file_that_changed_meanwhile_comes_anew(root: HostRoot, server: Server) -> None:
    server.cuts = [2 << 20] + [0] * 50
    fails(root, server.url)
    server.cuts, server.tag, server.data = [], '"two"', os.urandom(3 << 20)
    assert fetch(root, server.url) == server.data


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_tag_that_stands_for_the_bytes_it_comes_anew(root: HostRoot, server: Server, tag: str) -> None:
    server.tag, server.cuts = tag, [2 << 20]
    assert fetch(root, server.url) == DATA
    assert server.seen == [None, None]


def test_a_server_that_cannot_resume_is_not_asked_for_ever(root: HostRoot, server: Server) -> None:
    server.tag, server.cuts = "", [2 << 20] * 50
    fails(root, server.url)
    assert len(server.seen) == 7


def test_a_run_killed_before_the_last_step_needs_no_server(root: HostRoot, server: Server) -> None:
    fetch(root, server.url)
    whole = root(f"{source.DOWNLOADS}/{NAME}")
    whole.rename(f"{whole}.part")
    root(f"{source.DOWNLOADS}/{NAME}.part.json").write_text(f'{{"tag": "\\"one\\"", "total": {len(DATA)}}}')
    assert fetch(root, server.url) == DATA
    assert len(server.seen) == 1


@pytest.mark.parametrize("note", ["", "no json", "[]", '{"tag": 7}'])
def test_a_part_with_a_damaged_note_comes_to_the_same_file(root: HostRoot, server: Server, note: str) -> None:
    root(source.DOWNLOADS).mkdir(parents=True)
    root(f"{source.DOWNLOADS}/{NAME}.part").write_bytes(b"what remained")
    root(f"{source.DOWNLOADS}/{NAME}.part.json").write_text(note)
    assert fetch(root, server.url) == DATA


def test_a_part_that_the_server_finds_too_long_comes_anew(root: HostRoot, server: Server) -> None:
    root(source.DOWNLOADS).mkdir(parents=True)
    root(f"{source.DOWNLOADS}/{NAME}.part").write_bytes(b"x")
    root(f"{source.DOWNLOADS}/{NAME}.part.json").write_text('{"tag": "\\"one\\"", "total": 2}')
    server.answers = [416]
    assert fetch(root, server.url) == DATA


def test_chunks_that_break_off_are_not_taken_for_the_whole(root: HostRoot, server: Server) -> None:
    server.chunked, server.cuts = True, [3 << 20]
    assert fetch(root, server.url) == DATA


def test_an_answer_that_is_no_http_is_tried_again(root: HostRoot, server: Server) -> None:
    server.answers = [0]
    assert fetch(root, server.url) == DATA
    server.answers = [0] * 20
    source.discard(root, NAME)
    assert "BadStatusLine" in fails(root, server.url).evidence


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(root: HostRoot, server: Server, code: int) -> None:
    server.answers = [code, code]
    assert fetch(root, server.url) == DATA


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_clear_no_is_final(root: HostRoot, server: Server, code: int) -> None:
    server.answers = [code]
    error = fails(root, server.url)
    assert error.reason is Reason.RELEASE_UNREACHABLE
    assert f"HTTP {code}" in error.evidence
    assert f"/releases/9.9.9/{NAME}" in error.message
    assert len(server.seen) == 1


@pytest.mark.parametrize("target", ["http://localhost/x", "file:///etc/passwd", "ftp://localhost/x"])
def test_redirects_leave_https_never(root: HostRoot, server: Server, target: str) -> None:
    server.answers, server.location = [302], target
    error = fails(root, server.url)
    assert "not https" in error.evidence or "not allowed" in error.evidence  # the latter are urllib's own words
    assert len(server.seen) == 1


def test_redirects_on_https_are_followed_with_the_range(root: HostRoot, server: Server) -> None:
    server.cuts = [1 << 20] + [0] * 50
    fails(root, server.url)
    server.answers, server.location = [302], f"https://localhost:{server.port}/elsewhere"
    server.cuts, server.seen = [], []
    assert fetch(root, server.url) == DATA
    assert server.seen == [f"bytes={1 << 20}-"] * 2


def test_a_circle_of_redirects_ends(root: HostRoot, server: Server) -> None:
    server.answers, server.location = [302] * 200, f"https://localhost:{server.port}/round"
    assert fails(root, server.url).reason is Reason.RELEASE_UNREACHABLE


def test_nobody_listening_is_said(root: HostRoot) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = fails(root, f"https://localhost:{taken.getsockname()[1]}")
    assert "refused" in error.evidence


@pytest.fixture
def proxy(server: Server) -> Iterator[tuple[str, list[str]]]:
    """A CONNECT proxy that leads every name to the server; its address and what it was asked."""
    asked: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                asked.append(client.recv(4096).decode().split("\r\n")[0])
                upstream = socket.create_connection(("127.0.0.1", server.port))
                client.sendall(b"HTTP/1.1 200 there you are\r\n\r\n")
                for pair in ((client, upstream), (upstream, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY"])
def test_the_environments_proxy_is_used(
    root: HostRoot, proxy: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    address, asked = proxy
    monkeypatch.setenv(name, address)
    assert fetch(root, "https://kata.example/{version}") == DATA
    assert asked == ["CONNECT kata.example:443 HTTP/1.0"]


def test_no_proxy_is_honoured(
    root: HostRoot, server: Server, proxy: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, asked = proxy
    monkeypatch.setenv("https_proxy", address)
    monkeypatch.setenv("no_proxy", "localhost")
    assert fetch(root, server.url) == DATA
    assert asked == []


def test_a_proxy_that_is_not_there_is_named(root: HostRoot, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    error = fails(root, server.url)
    assert "proxies in the environment: https" in error.evidence


def test_a_full_disk_is_not_the_networks_fault(root: HostRoot, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    plain_open = Path.open

    def full(path: Path, *arguments: Any, **more: Any) -> Any:
        return plain_open(Path("/dev/full") if path.name.endswith(".part") else path, *arguments, **more)

    monkeypatch.setattr(Path, "open", full)
    assert fails(root, server.url).reason is Reason.RELEASE_DISK_FULL
    assert len(server.seen) == 1


def test_a_folder_and_a_file_are_sources_too(root: HostRoot) -> None:
    folder = root.path / "media/9.9.9"
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(DATA)
    for place in ("/media/{version}", "/media/9.9.9/", f"/media/9.9.9/{NAME}"):
        assert fetch(root, place) == DATA


def test_a_folder_without_the_archive_and_a_wrong_file_are_named(root: HostRoot) -> None:
    (root.path / "media").mkdir()
    (root.path / "media/other.tar.zst").write_bytes(DATA)
    assert NAME in fails(root, "/media").message
    error = fails(root, "/media/other.tar.zst")
    assert NAME in error.message
    assert "folder" in error.remedy
    assert fails(root, "/nowhere").reason is Reason.RELEASE_UNREACHABLE


def test_links_of_the_host_are_followed_on_the_host(root: HostRoot) -> None:
    (root.path / "data").mkdir()
    (root.path / "data" / NAME).write_bytes(DATA)
    (root.path / "media").symlink_to("/data")
    assert fetch(root, "/media") == DATA


def test_a_line_that_falls_silent_is_given_up_and_taken_up_again(
    root: HostRoot, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_STALL", 0.3)
    server.stalls = [2 << 20, 1 << 20]
    assert fetch(root, server.url) == DATA
    assert server.seen == [None, f"bytes={2 << 20}-", f"bytes={3 << 20}-"]


def test_a_line_that_stays_silent_is_said_to(root: HostRoot, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_STALL", 0.1)
    server.stalls = [0] * 50
    error = fails(root, server.url)
    assert error.reason is Reason.RELEASE_UNREACHABLE
    assert "timed out" in error.evidence
    assert len(server.seen) == 6


def test_a_server_that_never_shakes_hands_is_given_up(root: HostRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_STALL", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        error = fails(root, f"https://localhost:{mute.getsockname()[1]}")
    assert error.reason is Reason.RELEASE_UNREACHABLE
    assert "timed out" in error.evidence


def test_the_waits_between_tries_grow_and_end(root: HostRoot, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("agent.kata.source.time.sleep", waits.append)
    server.answers = [503] * 50
    assert "HTTP 503" in fails(root, server.url).evidence
    assert waits == sorted(waits)
    assert 0 < sum(waits) < 60
    assert len(server.seen) == 6


def test_an_unfinished_download_leaves_no_whole_file(root: HostRoot, server: Server) -> None:
    server.cuts = [2 << 20] + [0] * 50
    fails(root, server.url)
    assert downloads(root) == [f"{NAME}.part", f"{NAME}.part.json"]
    assert root(f"{source.DOWNLOADS}/{NAME}.part").read_bytes() == DATA[: 2 << 20]


def test_another_authority_does_not_do(root: HostRoot, server: Server, tmp_path: Path) -> None:
    argv = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=x -keyout k -out other.pem"
    subprocess.run(["openssl", *argv.split()], cwd=tmp_path, check=True, capture_output=True)
    error = fails(root, server.url, ca_file="/other.pem")
    assert "certificate verify failed" in error.evidence
    assert server.seen == []


def test_a_proxy_that_refuses_is_quoted_without_its_password(root: HostRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    client.recv(4096)
                    client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                    client.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        monkeypatch.setenv("https_proxy", f"http://user:hunter2@127.0.0.1:{listener.getsockname()[1]}")
        error = fails(root, "https://kata.example")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert "407" in error.evidence
    assert "proxies in the environment: https" in error.evidence
    assert "hunter2" not in f"{error}{error.evidence}{error.remedy}"
