"""The metrics of a sandbox's guest, passed through from the shim's socket: whole and soon, or with a reason why not."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from agent.sandboxes import guest
from agent.sandboxes.census import Sandbox
from hack.lab.fakeproc import sandbox_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Speak = Callable[[socket.socket], object]

ID = sandbox_id(1)
METRICS = b'kata_guest_load{item="load1"} 0.5\nkata_shim_threads 12\n'


@contextlib.contextmanager
def shim(run: Path, speak: Speak, folder: str = "vc/sbs") -> Iterator[Path]:
    """A socket where Kata's shim has its own, and who answers there."""
    place = run / folder / ID
    place.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(place, os.O_PATH)
        server.bind(f"/proc/self/fd/{here}/shim-monitor.sock")
        os.close(here)
        server.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(4096)
                    speak(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield run
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join()


def says(*parts: bytes, pause: float = 0.0) -> Speak:
    def speak(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)

    return speak


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


@pytest.mark.parametrize("folder", ["vc/sbs", "kata"], ids=["Go", "Rust"])
def test_the_shims_metrics_are_passed_through_as_they_are(tmp_path: Path, folder: str) -> None:
    answer = OK + b"Content-Length: %d\r\n\r\n" % len(METRICS) + METRICS
    with shim(tmp_path, says(answer), folder) as run:
        assert guest.metrics(run, ID) == (200, METRICS)


@pytest.mark.parametrize("hypervisor", ["clh", "dragonball", "openvmm", "qemu", "fc", "stratovirt", ""])
@pytest.mark.parametrize("folder", ["vc/sbs", "kata"], ids=["Go", "Rust"])
def test_who_would_not_survive_the_question_is_known(tmp_path: Path, folder: str, hypervisor: str) -> None:
    (tmp_path / folder / ID).mkdir(parents=True)
    sandbox = Sandbox(ID, {}, hypervisor, "", "", "", "", "", 0.0, holds_vm=True, vcpus=1)
    expected = folder == "vc/sbs" or hypervisor in {"clh", "dragonball", "openvmm"}
    assert guest.survives(tmp_path, sandbox) is expected


def test_an_answer_in_chunks_is_put_together(tmp_path: Path) -> None:
    chunks = [b"%x\r\n%s\r\n" % (len(METRICS), METRICS)] * 3
    with shim(tmp_path, says(OK + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n")) as run:
        assert guest.metrics(run, ID) == (200, METRICS * 3)


def test_the_path_of_a_socket_may_be_longer_than_an_address(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    with shim(deep, says(OK + b"\r\n" + METRICS)) as run:
        assert guest.metrics(run, ID) == (200, METRICS)


def test_a_sandbox_without_a_socket_is_404(tmp_path: Path) -> None:
    assert guest.metrics(tmp_path, ID).status == 404
    (tmp_path / "kata" / ID).mkdir(parents=True)
    assert guest.metrics(tmp_path, ID).status == 404


def test_a_socket_on_which_nobody_listens_is_502(tmp_path: Path) -> None:
    with shim(tmp_path, says()):
        pass
    assert guest.metrics(tmp_path, ID).status == 502


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 500 Internal Server Error\r\n\r\nagent is gone",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\ncut off",
        b"\xff\xfe\x00" * 50,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=["nothing", "an error", "cut off", "rubbish", "no chunks", "a long header"],
)
def test_no_good_answer_is_502(tmp_path: Path, answer: bytes) -> None:
    with shim(tmp_path, says(answer)) as run:
        said = guest.metrics(run, ID)
    assert said.status == 502
    assert said.text.startswith(b"the shim ")


def test_more_than_any_guest_says_is_502(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "_LIMIT", 10_000)
    with shim(tmp_path, says(OK + b"\r\n", *[b"x" * 5000] * 10)) as run:
        assert guest.metrics(run, ID).status == 502


def test_a_shim_that_hangs_is_504_in_time(tmp_path: Path) -> None:
    over = threading.Event()
    with shim(tmp_path, lambda _: over.wait(10)) as run:
        begin = time.monotonic()
        assert guest.metrics(run, ID, timeout=0.3).status == 504
        assert time.monotonic() - begin < 2
        over.set()


def test_a_drop_at_a_time_is_504_in_time(tmp_path: Path) -> None:
    answer = OK + b"\r\n" + METRICS
    with shim(tmp_path, says(*(answer[i : i + 1] for i in range(len(answer))), pause=0.1)) as run:
        begin = time.monotonic()
        assert guest.metrics(run, ID, timeout=0.5).status == 504
        assert time.monotonic() - begin < 2
