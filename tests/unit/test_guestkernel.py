"""Whether a guest has a kernel of its own: told by what its kernel counts, and never claimed without that.

The shims here are stand-ins: a socket that answers as Kata's shims do, or does not.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from agent.sandboxes import guestkernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SID = "5" * 64
FAULTS = 1_000_000
CLH, QEMU = "/opt/katanode/releases/x/bin/cloud-hypervisor", "/opt/katanode/releases/x/bin/qemu-system-x86_64"
METRICS = """HTTP/1.0 200 OK\r
Content-Type: text/plain; version=0.0.4\r
\r
# TYPE kata_guest_vm_stat gauge
kata_guest_vm_stat{{item="pgalloc_dma"}} 1
kata_guest_vm_stat{{item="pgfault"}} {}
kata_guest_vm_stat{{item="pgmajfault"}} 3
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "vmstat").write_text(f"nr_free_pages 7\npgfault {FAULTS}\npgmajfault 9\n")
    return folder


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Starts a stand-in for a shim's socket below a folder of /run; gives that /run."""
    run = tmp_path / ("run" + "-" * 60)  # with the rest longer than a socket's path may be
    stop: list[socket.socket] = []

    def start(folder: str, answer: str, *, hang: bool = False) -> Path:
        place = run / folder / SID
        place.mkdir(parents=True)
        listener = socket.socket(socket.AF_UNIX)
        with contextlib.chdir(place):
            listener.bind("shim-monitor.sock")
        listener.listen()
        stop.append(listener)

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                stop.append(connection)
                connection.recv(1 << 12)
                connection.sendall(answer.encode())
                if not hang:
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        return run

    yield start
    for one in stop:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@pytest.mark.parametrize("folder", ["vc/sbs", "kata"])
def test_a_guest_that_counts_for_itself_has_a_kernel_of_its_own(
    folder: str, shim: Callable[..., Path], proc: Path
) -> None:
    assert guestkernel.look(SID, CLH, shim(folder, METRICS.format("48213")), proc) == "own"


def test_a_number_as_go_prints_it_is_understood(shim: Callable[..., Path], proc: Path) -> None:
    assert guestkernel.look(SID, QEMU, shim("vc/sbs", METRICS.format("4.8213e+06")), proc) == "own"


def test_a_guest_that_counts_what_the_host_counts_has_the_hosts_kernel(shim: Callable[..., Path], proc: Path) -> None:
    assert guestkernel.look(SID, CLH, shim("vc/sbs", METRICS.format(FAULTS)), proc) == "host"


@pytest.mark.parametrize(
    "answer",
    ["HTTP/1.0 500 Internal Server Error\r\n\r\n", "", METRICS.format("many"), "kata_shim_threads 12\n"],
)
def test_what_is_not_told_is_not_claimed(answer: str, shim: Callable[..., Path], proc: Path) -> None:
    assert guestkernel.look(SID, CLH, shim("vc/sbs", answer), proc) == ""


def test_a_shim_that_hangs_or_a_number_cut_off_tells_nothing(
    shim: Callable[..., Path], proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guestkernel, "TIMEOUT", 0.2)
    answer = METRICS.format("12\n").partition("\n\n")[0]
    assert guestkernel.look(SID, CLH, shim("vc/sbs", answer + "\n", hang=True), proc) == ""


def test_a_sandbox_without_a_socket_tells_nothing(tmp_path: Path, proc: Path) -> None:
    assert guestkernel.look(SID, CLH, tmp_path, proc) == ""


def test_a_host_that_counts_nothing_is_compared_with_nothing(shim: Callable[..., Path], tmp_path: Path) -> None:
    assert guestkernel.look(SID, CLH, shim("vc/sbs", METRICS.format("5")), tmp_path) == ""


def test_runtime_rs_is_not_asked_for_hypervisors_where_asking_ends_the_sandbox(
    shim: Callable[..., Path], proc: Path
) -> None:
    run = shim("kata", METRICS.format("48213"))
    assert guestkernel.look(SID, QEMU, run, proc) == ""
    assert guestkernel.look(SID, CLH, run, proc) == "own", "nobody had asked before"
