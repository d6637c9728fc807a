"""What a sandbox costs: I/O, the guest's network, and memory of which nothing counts twice."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.sandboxes import measure
from agent.sandboxes.census import Census, Sandbox
from agent.sandboxes.members import Process
from hack.lab.fakeproc import RELEASE, FakeProc, Use, sandbox_id

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


def only(proc: FakeProc) -> Sandbox:
    (found,) = Census(proc.path).update()
    return found


def test_io_is_that_of_the_vmm_and_of_virtiofsd(proc: FakeProc) -> None:
    made = proc.sandbox(1, 100)
    for pid, use in ((100, Use(read=1, written=2)), (101, Use(read=10, written=20)), (102, Use(read=100, written=200))):
        argv = (proc.path / f"{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        proc.process(pid, argv, use=use)
    assert made
    assert measure.io(proc.path, only(proc)) == (110, 220)


def test_of_dragonball_it_is_the_shims(proc: FakeProc) -> None:
    shim = f"{RELEASE}/runtime-rs/bin/containerd-shim-kata-v2"
    proc.process(100, [shim, "-id", sandbox_id(1), "-namespace", "k8s.io"], use=Use(read=5, written=6))
    proc.holds(100, 1)
    assert measure.io(proc.path, only(proc)) == (5, 6)


def test_what_a_tap_sends_the_sandbox_receives(proc: FakeProc) -> None:
    proc.sandbox(1, 100)
    proc.taps(101, {"tap0_kata": (1, 2, 30, 40), "tap1_kata": (100, 200, 3000, 4000), "tapestry": (7, 7, 7, 7)})
    found = measure.network(proc.path, only(proc))
    assert found == measure.Network(received=3030, transmitted=101, receive_drops=4040, transmit_drops=202)


def test_a_sandbox_without_a_tap_has_no_counters(proc: FakeProc) -> None:
    proc.sandbox(1, 100)
    proc.taps(101, {})
    assert measure.network(proc.path, only(proc)) is None
    (proc.path / "101/net/dev").write_bytes(b"tap0_kata: 1 2 3\n\xff\xfe")
    assert measure.network(proc.path, only(proc)) is None
    (proc.path / "101/net/dev").unlink()
    assert measure.network(proc.path, only(proc)) is None


def test_dragonballs_tap_is_in_the_namespace_of_one_of_its_threads(proc: FakeProc) -> None:
    shim = f"{RELEASE}/runtime-rs/bin/containerd-shim-kata-v2"
    proc.process(100, [shim, "-id", sandbox_id(1), "-namespace", "k8s.io"])
    proc.holds(100, 1)
    proc.taps(100, {"tap0_kata": (1, 1, 1, 1)})  # somebody else's, in the node's namespace
    for thread, namespace in ((100, 1), (105, 1), (107, 2)):
        ns = proc.path / f"100/task/{thread}/ns"
        ns.mkdir(parents=True)
        (ns / "net").symlink_to(f"net:[{namespace}]")
    (proc.path / "100/task/107/net").mkdir()
    (proc.path / "100/task/107/net/dev").write_text("tap0_kata: 5 1 0 6 0 0 0 0 7 1 0 8 0 0 0 0\n")
    assert measure.network(proc.path, only(proc)) == (7, 5, 8, 6)


@pytest.mark.parametrize(
    "name",
    [
        "/memfd:ch_ram (deleted)",
        "/memfd:memory-backend-memfd (deleted)",
        "/dev/shm/qemu_back_mem.dimm1.Xy12Z3 (deleted)",
        "/dev/hugepages/x",
        "/anon_hugepage (deleted)",
        "/dev/zero (deleted)",
        "",
    ],
)
def test_the_guests_memory_is_left_out_of_the_overhead_and_nothing_counts_twice(proc: FakeProc, name: str) -> None:
    proc.sandbox(1, 100)
    # The guest has touched 300 MiB, which the VMM and virtiofsd map both: each has half of it as its share.
    guest = (name, 2 << 20, 150 << 10)
    proc.mappings(101, guest, ("/opt/kata/bin/cloud-hypervisor", 4000, 900), ("[heap]", 900, 700), ("", 8192, 40))
    proc.mappings(102, guest, ("/opt/kata/libexec/virtiofsd", 4000, 500))
    proc.mappings(100, ("/opt/kata/bin/containerd-shim-kata-v2", 40_000, 9_000), ("[stack]", 132, 60))
    found = measure.memory(proc.path, only(proc))
    assert found is not None
    assert found.proportional == {
        "vmm": (150 * KIB + 900 + 700 + 40) * KIB,
        "virtiofsd": (150 * KIB + 500) * KIB,
        "shim": 9_060 * KIB,
    }
    assert found.beyond_guest == (900 + 700 + 40 + 500 + 9_060) * KIB


def test_memory_of_a_sandbox_that_ended_is_not_known_and_of_one_that_ends_in_part(proc: FakeProc) -> None:
    proc.sandbox(1, 100)
    sandbox = only(proc)
    assert measure.memory(proc.path, sandbox) is None
    proc.mappings(100, ("[heap]", 100, 10))
    (proc.path / "101/smaps").write_bytes(b"")
    found = measure.memory(proc.path, sandbox)
    assert found == measure.Memory({"shim": 10 * KIB}, 10 * KIB)


def test_the_kernels_own_smaps_add_up_to_its_own_rollup() -> None:
    block = bytearray(os.urandom(96 * MIB))
    rollup = Path("/proc/self/smaps_rollup").read_text()
    here = Process(os.getpid(), 0, 0.0, 0, 1)
    sandbox = Sandbox("x", {"shim": (here,)}, "", "", "", "", "", "", time.time(), holds_vm=False, vcpus=0)
    found = measure.memory(Path("/proc"), sandbox)
    assert found is not None
    pss = re.search(r"^Pss:\s+(\d+) kB$", rollup, re.MULTILINE)
    assert pss
    whole = int(pss[1]) * KIB
    assert found.proportional["shim"] == pytest.approx(whole, rel=0.05)
    # A large private mapping is what a guest's memory looks like.
    assert found.beyond_guest < whole - 90 * MIB
    assert len(block) == 96 * MIB


@pytest.fixture
def namespace() -> Iterator[str]:
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.skip(reason="a tap in a network namespace needs root and /dev/net/tun")
    netns = pytest.importorskip("pyroute2").netns
    name = f"katanode-measure-{os.getpid()}"
    netns.create(name)
    yield name
    netns.remove(name)


def test_the_counters_of_a_real_tap_are_read(namespace: str) -> None:
    pyroute2 = pytest.importorskip("pyroute2")
    with pyroute2.NetNS(namespace) as inside:
        inside.link("add", ifname="tap0_kata", kind="tuntap", mode="tap")
        argv = ["nsenter", f"--net=/run/netns/{namespace}", "sh", "-c", "echo ready; exec sleep 60"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            here = Process(process.pid, 0, 0.0, 0, 1)
            sandbox = Sandbox("x", {"vmm": (here,)}, "", "", "", "", "", "", time.time(), holds_vm=True, vcpus=1)
            found = measure.network(Path("/proc"), sandbox)
            process.kill()
        assert found == (0, 0, 0, 0)
