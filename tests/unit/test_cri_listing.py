"""Asking CRI without gRPC's library, by a server that is made with it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from concurrent import futures
from typing import TYPE_CHECKING

import grpc
import pytest

from agent.cri import cri_pb2 as pb
from agent.cri.listing import Listing, Pod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any


@contextlib.contextmanager
def served(path: Path, **methods: Callable[[Any, grpc.ServicerContext], Any]) -> Iterator[Listing]:
    requests = {"ListPodSandbox": pb.ListPodSandboxRequest, "PodSandboxStatus": pb.PodSandboxStatusRequest}
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            method,
            request_deserializer=requests[name].FromString,
            response_serializer=lambda answer: answer if isinstance(answer, bytes) else answer.SerializeToString(),
        )
        for name, method in methods.items()
    }
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.max_send_message_length", 64 << 20)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("runtime.v1.RuntimeService", handlers),))
    server.add_insecure_port(f"unix://{path}")
    server.start()
    try:
        yield Listing(path, timeout=5.0)
    finally:
        server.stop(0).wait()


@contextlib.contextmanager
def answering(path: Path, answer: bytes, *, drip: float = 0.0) -> Iterator[Listing]:
    """A server that says these bytes to whoever comes, and then nothing more."""
    over = threading.Event()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    for byte in (answer[i : i + 1] for i in range(len(answer))) if drip else (answer,):
                        connection.sendall(byte)
                        if over.wait(drip):
                            return
                    if drip:
                        over.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Listing(path, timeout=0.5)
        finally:
            over.set()
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join()


def listed(*items: pb.PodSandbox) -> Callable[[Any, Any], Any]:
    return lambda _request, _context: pb.ListPodSandboxResponse(items=items)


def sandbox(number: int, state: int = pb.SANDBOX_READY, handler: str = "kata-clh", padding: str = "") -> pb.PodSandbox:
    metadata = pb.PodSandboxMetadata(name=f"web-{number}", namespace="shop", uid=f"u{number}")
    return pb.PodSandbox(
        id=f"id-{number}", metadata=metadata, state=state, runtime_handler=handler, annotations={"x": padding}
    )


def test_pods_are_listed_by_their_ids(tmp_path: Path) -> None:
    items = (sandbox(0), sandbox(1, pb.SANDBOX_NOTREADY, ""))
    with served(tmp_path / "cri.sock", ListPodSandbox=listed(*items)) as listing:
        assert listing.pods() == {
            "id-0": Pod("shop", "web-0", "u0", "kata-clh", ready=True),
            "id-1": Pod("shop", "web-1", "u1", "", ready=False),
        }
        assert listing.pods() == listing.pods()


def test_an_empty_list_is_an_answer(tmp_path: Path) -> None:
    with served(tmp_path / "cri.sock", ListPodSandbox=listed()) as listing:
        assert listing.pods() == {}


def test_a_list_larger_than_every_window_of_http2_comes_whole(tmp_path: Path) -> None:
    items = [sandbox(number, padding="x" * 5000) for number in range(1000)]
    with served(tmp_path / "cri.sock", ListPodSandbox=listed(*items)) as listing:
        found = listing.pods()
        assert found is not None
        assert len(found) == 1000


def test_an_error_is_no_answer(tmp_path: Path) -> None:
    def fail(_request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")

    with served(tmp_path / "cri.sock", ListPodSandbox=fail) as listing:
        assert listing.pods() is None
        assert listing.overhead("id-0") is None  # not served at all


def test_a_message_that_is_none_is_no_answer(tmp_path: Path) -> None:
    with served(tmp_path / "cri.sock", ListPodSandbox=lambda *_: b"\xff\xff\xff") as listing:
        assert listing.pods() is None


def test_nobody_is_no_answer(tmp_path: Path) -> None:
    assert Listing(tmp_path / "cri.sock").pods() is None
    (tmp_path / "cri.sock").write_text("")
    assert Listing(tmp_path / "cri.sock").pods() is None


def test_a_server_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "cri.sock"))
        server.listen()
        begin = time.monotonic()
        assert Listing(tmp_path / "cri.sock", timeout=0.3).pods() is None
        assert time.monotonic() - begin < 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00" * 100,
        b"\xff" * 100,
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",  # settings, and the end
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + b"\x00" * 8,  # and go away
    ],
    ids=["nothing", "HTTP/1.1", "zeros", "rubbish", "cut off", "sent away"],
)
def test_rubbish_is_no_answer(tmp_path: Path, answer: bytes) -> None:
    with answering(tmp_path / "cri.sock", answer) as listing:
        assert listing.pods() is None


def test_an_answer_a_drop_at_a_time_is_not_waited_for(tmp_path: Path) -> None:
    frames = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 100
    with answering(tmp_path / "cri.sock", frames, drip=0.1) as listing:
        begin = time.monotonic()
        assert listing.pods() is None
        assert time.monotonic() - begin < 2


@pytest.mark.parametrize(
    ("info", "bytes_granted"),
    [
        ({"config": {"linux": {"overhead": {"memory_limit_in_bytes": 136314880}}}}, 136314880),
        ({"config": {"linux": {"overhead": {"cpu_period": 100000}}}}, 0),
        ({"config": {"linux": {}}}, 0),
        ({"config": {"linux": None}}, 0),
        ({"config": {}}, 0),
        ({}, None),
        ([], None),
        ({"config": {"linux": []}}, 0),
        ({"config": {"linux": {"overhead": {"memory_limit_in_bytes": "much"}}}}, None),
    ],
)
def test_the_overhead_stands_in_the_verbose_status(tmp_path: Path, info: object, bytes_granted: int | None) -> None:
    def status(request: Any, _context: Any) -> Any:
        assert (request.pod_sandbox_id, request.verbose) == ("id-0", True)
        return pb.PodSandboxStatusResponse(info={"info": json.dumps(info)})

    with served(tmp_path / "cri.sock", PodSandboxStatus=status) as listing:
        assert listing.overhead("id-0") == bytes_granted
