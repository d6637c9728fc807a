"""Finding sandboxes: both runtimes, every hypervisor, and what a /proc does to those who read it."""

from __future__ import annotations

import itertools
import os
import threading
from typing import TYPE_CHECKING

import pytest

from agent.cri.listing import Pod
from agent.sandboxes import canary, naming, owned, procfs
from agent.sandboxes.census import CREATION, Census
from hack.lab.fakeproc import RELEASE, TICKS, UPTIME, FakeProc, Use, sandbox_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.sandboxes.census import Sandbox

ID = sandbox_id(7)
GO = f"{RELEASE}/bin/containerd-shim-kata-v2"
RUST = f"{RELEASE}/runtime-rs/bin/containerd-shim-kata-v2"
GO_SHIM = [GO, "-namespace", "k8s.io", "-address", "/run/c.sock", "-publish-binary", "/usr/bin/containerd", "-id", ID]
RUST_SHIM = [RUST, "-id", ID, "-namespace", "k8s.io", "-address", "/run/c.sock", "-publish-binary", "/b", "-debug"]
ROOT_HASH = "root_hash=" + "cd" * 32


class Clock:
    """Monotonic seconds that go on when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class CRI:
    """What CRI lists, and how often it was asked."""

    def __init__(self, pods: Mapping[str, Pod] | None) -> None:
        self.pods = pods
        self.asked = 0

    def __call__(self) -> Mapping[str, Pod] | None:
        self.asked += 1
        return self.pods


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pod(name: str = "web-0", handler: str = "kata-clh") -> Pod:
    return Pod("shop", name, "uid-1", handler, ready=True)


def only(census: Census) -> Sandbox:
    (found,) = census.update()
    return found


def pids(sandbox: Sandbox) -> dict[str, list[int]]:
    return {name: [each.pid for each in group] for name, group in sandbox.processes.items()}


@pytest.mark.parametrize(
    ("shim", "vmm", "hypervisor"),
    [
        (GO_SHIM, ["/opt/kata/bin/cloud-hypervisor", "--api-socket", f"/run/vc/vm/{ID}/clh-api.sock", "-v"], "clh"),
        (RUST_SHIM, ["/opt/kata/bin/cloud-hypervisor", "--api-socket", f"/run/kata/{ID}/ch-api.sock"], "clh"),
        (
            GO_SHIM,
            ["/opt/kata/bin/qemu-system-x86_64", "-name", f"sandbox-{ID}", "-uuid", "x", "-append", ROOT_HASH],
            "qemu",
        ),
        (RUST_SHIM, ["/usr/libexec/qemu-kvm", "-name", f"sandbox-{ID},debug-threads=on", "-m", "2048M"], "qemu"),
        (
            GO_SHIM,
            ["/opt/kata/bin/firecracker", "--api-sock", f"/run/vc/firecracker/{ID[:32]}/root/run/firecracker.socket"],
            "fc",
        ),
        (GO_SHIM, ["firecracker", "--id", ID[:32], "--start-time-us", "1", "--config-file", "/fcConfig.json"], "fc"),
        (GO_SHIM, ["/opt/kata/bin/jailer", "--id", ID[:32], "--exec-file", "/opt/kata/bin/firecracker"], "fc"),
        (RUST_SHIM, ["/opt/kata/bin/firecracker", "--api-sock", f"/run/kata/{ID}/run/fc.sock"], "fc"),
        (RUST_SHIM, ["firecracker", "--id", ID, "--api-sock", "/run/fc.sock"], "fc"),
        (GO_SHIM, ["/opt/kata/bin/stratovirt", "-name", f"sandbox-{ID}", "-qmp", "x"], "stratovirt"),
        (RUST_SHIM, ["/opt/kata/bin/openvmm", "--ttrpc", f"/run/kata/{ID}/openvmm.sock"], "openvmm"),
        (
            RUST_SHIM,
            ["/opt/kata/bin/cloud-hypervisor", "--api-socket", f"/run/user/1000/run/kata/{ID}/ch-api.sock"],
            "clh",
        ),
    ],
)
def test_a_vmm_belongs_to_its_sandbox_whatever_it_is(
    proc: FakeProc, shim: list[str], vmm: list[str], hypervisor: str
) -> None:
    proc.process(100, shim)
    proc.process(101, vmm, parent=100)
    proc.holds(101, 2)
    found = only(Census(proc.path))
    assert (found.id, found.hypervisor, pids(found)) == (ID, hypervisor, {"vmm": [101], "shim": [100]})
    assert (found.holds_vm, found.vcpus) == (True, 2)


def test_dragonball_has_no_process_of_its_own(proc: FakeProc) -> None:
    proc.process(100, RUST_SHIM)
    proc.holds(100, 3)
    found = only(Census(proc.path))
    assert (found.hypervisor, pids(found), found.holds_vm, found.vcpus) == ("dragonball", {"shim": [100]}, True, 3)


@pytest.mark.parametrize(
    "argv",
    [
        ["/opt/kata/libexec/virtiofsd", "--syslog", f"--shared-dir=/run/kata-containers/shared/sandboxes/{ID}/shared"],
        ["virtiofsd", "--socket-path", f"/run/kata/{ID}/root/virtiofsd.sock", "--shared-dir", "/x"],
    ],
)
def test_virtiofsd_is_found_with_its_child_in_a_namespace_of_its_own(proc: FakeProc, argv: list[str]) -> None:
    proc.process(100, GO_SHIM)
    proc.process(101, argv, parent=100)
    proc.process(102, argv, parent=101, pid_namespace=4026532999)
    assert pids(only(Census(proc.path))) == {"virtiofsd": [101, 102], "shim": [100]}


def test_who_only_pretends_inside_a_container_is_not_counted(proc: FakeProc) -> None:
    proc.process(100, GO_SHIM)
    argv = ["/opt/kata/bin/cloud-hypervisor", "--api-socket", f"/run/vc/vm/{ID}/clh-api.sock"]
    proc.process(500, argv, pid_namespace=4026532111)
    proc.holds(500, 64)
    found = only(Census(proc.path))
    assert (pids(found), found.holds_vm) == ({"shim": [100]}, False)


def test_shims_of_others_and_containerds_messengers_are_none_of_katas(proc: FakeProc) -> None:
    proc.process(100, ["/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", ID])
    proc.process(101, [*GO_SHIM, "start"])
    proc.process(102, [*RUST_SHIM, "delete"])
    proc.process(103, ["/usr/bin/vim", f"/run/vc/vm/{ID}/notes"])
    proc.process(104, ["/usr/bin/virtiofsd", "--shared-dir", "/home"])
    proc.process(105, ["/usr/bin/qemu-system-x86_64", "-name", "my-own-machine"])
    assert list(Census(proc.path).update()) == []


def test_the_messenger_that_becomes_the_shim_is_seen_at_the_next_look(proc: FakeProc) -> None:
    proc.process(101, [*GO_SHIM, "start"], start=1000)
    census = Census(proc.path)
    assert list(census.update()) == []
    (proc.path / "101/cmdline").write_bytes("\0".join(GO_SHIM).encode() + b"\0")
    assert pids(only(census)) == {"shim": [101]}


def test_a_process_between_fork_and_exec_is_looked_at_again(proc: FakeProc) -> None:
    young = int((UPTIME - 0.5) * TICKS)
    proc.process(100, ["/usr/bin/containerd"], start=young)
    census = Census(proc.path)
    assert list(census.update()) == []
    # exec: the same process, and the same folder in /proc.
    folder = proc.path / "100"
    (folder / "exe").unlink()
    (folder / "exe").symlink_to(GO)
    (folder / "cmdline").write_bytes("\0".join(GO_SHIM).encode())
    stat = (folder / "stat").read_text()
    (folder / "stat").write_text(stat.replace("(containerd)", "(containerd-shim)"))
    assert pids(only(census)) == {"shim": [100]}


def test_a_child_of_the_shim_becomes_the_vmm_when_it_has_its_own_name(proc: FakeProc) -> None:
    proc.process(100, GO_SHIM)
    proc.process(101, GO_SHIM, parent=100)
    census = Census(proc.path)
    assert pids(only(census)) == {"shim": [100, 101]}
    folder = proc.path / "101"
    (folder / "exe").unlink()
    (folder / "exe").symlink_to("/opt/kata/bin/cloud-hypervisor")
    argv = ["/opt/kata/bin/cloud-hypervisor", "--api-socket", f"/run/vc/vm/{ID}/clh-api.sock"]
    (folder / "cmdline").write_bytes("\0".join(argv).encode())
    stat = (folder / "stat").read_text()
    (folder / "stat").write_text(stat.replace("(containerd-shim)", "(cloud-hyperviso)"))
    assert pids(only(census)) == {"vmm": [101], "shim": [100]}


def test_a_number_that_was_used_again_is_another_process(proc: FakeProc) -> None:
    first = proc.sandbox(1, 100)
    proc.process(300, ["/usr/bin/sleep", "1"])
    census = Census(proc.path)
    assert only(census).id == first
    # The VMM's number goes to a stranger, the stranger's to another sandbox's shim, the shim's to a shim of that too.
    proc.process(101, ["/usr/bin/sleep", "2"], start=9_000)
    other = sandbox_id(2)
    proc.process(300, [GO, "-namespace", "k8s.io", "-id", other], start=9_001)
    found = {each.id: each for each in census.update()}
    assert pids(found[first]) == {"virtiofsd": [102], "shim": [100]}
    assert not found[first].holds_vm
    assert pids(found[other]) == {"shim": [300]}
    proc.process(100, [GO, "-namespace", "k8s.io", "-id", other], start=9_002)
    found = {each.id: each for each in census.update()}
    assert pids(found[first]) == {"virtiofsd": [102]}
    assert sorted(pids(found[other])["shim"]) == [100, 300]


def test_a_number_used_again_by_the_same_program_does_not_inherit_anything(proc: FakeProc) -> None:
    proc.sandbox(1, 100)
    census = Census(proc.path)
    before = only(census)
    argv = ["/opt/kata/bin/cloud-hypervisor", "--api-socket", f"/run/vc/vm/{sandbox_id(1)}/clh-api.sock"]
    proc.process(101, argv, parent=100, start=9_000, use=Use(cpu=1))
    after = only(census)
    assert after.holds_vm is False
    assert after.vcpus == 0
    assert (before.processes["vmm"][0].start, after.processes["vmm"][0].start) == (5_003, 9_000)
    assert after.processes["vmm"][0].cpu_seconds < before.processes["vmm"][0].cpu_seconds


def test_a_vmm_that_was_killed_is_missed_at_the_next_look_and_a_sandbox_that_ended_too(proc: FakeProc) -> None:
    proc.sandbox(1, 100)
    census = Census(proc.path)
    assert only(census).holds_vm
    proc.end(101)
    found = only(census)
    assert (found.holds_vm, found.vcpus, "vmm" in found.processes, found.hypervisor) == (False, 0, False, "clh")
    proc.end(100)
    proc.end(102)
    assert list(census.update()) == []


def test_what_is_known_of_a_sandbox_is_said_of_it(proc: FakeProc) -> None:
    made = proc.sandbox(3, 100, pod="web-0", namespace="shop", vcpus=4)
    cri = CRI({made: Pod("shop", "web-0", "uid-3", "kata-clh", ready=True)})
    found = only(Census(proc.path, cri))
    assert (found.namespace, found.pod, found.uid, found.handler) == ("shop", "web-0", "uid-3", "kata-clh")
    assert (found.release, found.vcpus, found.orphan) == ("4.1.0-3dc6b69c", 4, "")
    vmm = found.processes["vmm"][0]
    assert (vmm.cpu_seconds, vmm.threads, vmm.resident) == (2.5, 3, 60_000 * os.sysconf("SC_PAGE_SIZE"))


def test_a_sandbox_that_cri_does_not_list_is_known_by_its_bundle(proc: FakeProc) -> None:
    proc.sandbox(3, 100, pod="web-0", namespace="shop")
    for cri in (None, CRI({}), CRI(None)):
        found = only(Census(proc.path, cri))
        assert (found.namespace, found.pod, found.uid, found.handler) == ("shop", "web-0", "uid-3", "")


def test_cri_is_asked_when_there_is_a_new_sandbox_and_else_once_a_minute(proc: FakeProc, clock: Clock) -> None:
    first, second = proc.sandbox(1, 100), sandbox_id(2)
    cri = CRI({first: pod(), second: pod("web-1")})
    census = Census(proc.path, cri, clock=clock)
    census.update()
    census.update()
    assert cri.asked == 1
    proc.sandbox(2, 200)
    assert {each.pod for each in census.update()} == {"web-0", "web-1"}
    assert cri.asked == 2
    clock.now += 61
    census.update()
    assert cri.asked == 3


def test_a_runtime_that_does_not_answer_is_left_alone_for_a_while(proc: FakeProc, clock: Clock) -> None:
    made = proc.sandbox(1, 100)
    cri = CRI(None)
    census = Census(proc.path, cri, clock=clock)
    for _ in range(5):
        census.update()
    assert cri.asked == 1
    cri.pods = {made: pod()}
    clock.now += 11
    assert only(census).handler == "kata-clh"
    cri.pods = None
    clock.now += 61
    assert only(census).handler == "kata-clh"


def test_vcpus_that_were_plugged_in_are_counted_in_time(proc: FakeProc, clock: Clock) -> None:
    proc.sandbox(1, 100)
    census = Census(proc.path, clock=clock)
    assert only(census).vcpus == 1
    (proc.path / "101/fd/77").symlink_to("anon_inode:kvm-vcpu:1")
    assert only(census).vcpus == 1
    clock.now += 301
    assert only(census).vcpus == 2


def test_without_a_shim_a_sandbox_is_an_orphan_after_a_while(proc: FakeProc, clock: Clock) -> None:
    made = proc.sandbox(1, 100)
    census = Census(proc.path, CRI({made: pod()}), clock=clock)
    census.update()
    proc.end(100)
    assert only(census).orphan == ""
    clock.now += 11
    found = only(census)
    assert (found.orphan, found.pod, found.handler) == ("without-shim", "web-0", "kata-clh")


def test_a_sandbox_that_cri_does_not_know_is_an_orphan_unless_it_is_young(proc: FakeProc, clock: Clock) -> None:
    proc.sandbox(1, 100)
    census = Census(proc.path, CRI({}), clock=clock, patience=0)
    assert only(census).orphan == "without-sandbox"
    proc.uptime(50 + CREATION - 5)
    assert only(Census(proc.path, CRI({}), clock=clock, patience=0)).orphan == ""


def test_nothing_is_an_orphan_while_cri_does_not_answer_or_never_had_it(proc: FakeProc) -> None:
    proc.sandbox(1, 100)
    for cri in (None, CRI(None)):
        assert only(Census(proc.path, cri, patience=0)).orphan == ""
    proc.end(100)
    proc.process(100, [GO, "-namespace", "default", "-id", sandbox_id(1)])
    assert only(Census(proc.path, CRI({}), patience=0)).orphan == ""


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"\x00\xff\xfe" * 100,
        b"{" * 100_000,
        b"[" * 100_000,
        b"null",
        b'{"annotations": null}',
        b'{"annotations": []}',
        b'{"annotations": {"io.kubernetes.cri.sandbox-name": {"a": 1}}}',
        b'{"annotations": {"io.kubernetes.cri.sandbox-name": "' + b"x" * 300 + b'"}}',
        b'{"annotations": {"io.kubernetes.cri.sandbox-name": "web-0"}}' + b" " * (2 << 20),
    ],
    ids=["empty", "binary", "objects", "arrays", "null", "no annotations", "a list", "no text", "too long", "huge"],
)
def test_a_bundle_that_is_none_only_leaves_the_pod_unknown(proc: FakeProc, config: bytes) -> None:
    proc.sandbox(1, 100)
    (proc.path / "100/cwd/config.json").write_bytes(config)
    found = only(Census(proc.path))
    assert (found.namespace, found.pod, found.holds_vm) == ("", "", True)


@pytest.mark.parametrize(
    "stat",
    [b"", b"100", b"100 (x", b"100 (x) S", b"100 (x) S 1 2 3 a b c", b"\xff" * 5000, b"100 (" + b")" * 900],
)
def test_a_stat_that_is_cut_off_is_no_process(proc: FakeProc, stat: bytes) -> None:
    proc.sandbox(1, 100)
    proc.sandbox(2, 200)
    (proc.path / "101/stat").write_bytes(stat)
    found = Census(proc.path).update()
    assert [pids(each) for each in found] == [
        {"virtiofsd": [102], "shim": [100]},
        {"vmm": [201], "virtiofsd": [202], "shim": [200]},
    ]


def test_a_vmm_that_nobody_waited_for_has_ended_all_the_same(proc: FakeProc) -> None:
    proc.sandbox(1, 100)
    census = Census(proc.path)
    census.update()
    stat = proc.path / "101/stat"
    stat.write_text(stat.read_text().replace(") S ", ") Z "))
    found = only(census)
    assert (found.holds_vm, pids(found)) == (False, {"virtiofsd": [102], "shim": [100]})


def test_names_with_brackets_blanks_and_line_ends_are_read_right(proc: FakeProc) -> None:
    proc.process(100, GO_SHIM, name="containerd-) (S")
    assert list(Census(proc.path).update()) == []
    seen = procfs.stat(str(proc.path), 100)
    assert seen is not None
    assert (seen.name, seen.parent, seen.start) == (b"containerd-) (S", 1, 5_000)


@pytest.mark.parametrize(
    "cmdline",
    [b"", b"\0" * 9000, b"\xff\xfe" * 50_000, b"containerd-shim-kata-v2\0-id", b"a\0-id\0\0", b"a\0-id\0../../etc\0"],
)
def test_arguments_that_say_nothing_make_no_sandbox(proc: FakeProc, cmdline: bytes) -> None:
    proc.process(100, GO_SHIM)
    (proc.path / "100/cmdline").write_bytes(cmdline)
    assert list(Census(proc.path).update()) == []


def test_huge_arguments_are_read_in_part_and_suffice(proc: FakeProc) -> None:
    proc.process(100, ["/opt/kata/bin/qemu-system-x86_64", "-name", f"sandbox-{ID}", "-append", "x" * 2_000_000])
    assert pids(only(Census(proc.path))) == {"vmm": [100]}


def test_ids_of_other_clients_are_ids_too(proc: FakeProc) -> None:
    proc.process(100, [GO, "-namespace", "default", "-id", "my_own.box-1"])
    assert only(Census(proc.path)).id == "my_own.box-1"


def test_a_look_costs_one_read_a_process_of_a_sandbox_when_nothing_changed(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        proc.sandbox(number, 1000 + 10 * number)
    proc.crowd(5000, 100)
    census = Census(proc.path)
    census.update()
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **more: opened.append(path) or real(path, *rest, **more))
    assert len(census.update()) == 20
    assert len(opened) == 60
    assert all(path.endswith("/stat") for path in opened)
    opened.clear()
    proc.crowd(6000, 3)
    census.update()
    assert len(opened) == 60 + 3 + 1  # each newcomer, and the uptime


def test_a_process_may_vanish_before_any_read_of_it(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    cri = CRI({proc.sandbox(1, 100): pod(), proc.sandbox(2, 200): pod("web-1")})
    whole = {each.id: pids(each) for each in Census(proc.path, cri).update()}
    real = {name: getattr(os, name) for name in ("open", "read", "readlink", "listdir")}
    calls = itertools.count()
    gone_at = -1

    def failing(name: str) -> object:
        def call(path: object, *rest: object, **more: object) -> object:
            if next(calls) == gone_at:
                raise ProcessLookupError(3, "No such process") if name == "read" else FileNotFoundError(2, "gone")
            return real[name](path, *rest, **more)

        return call

    for name in real:
        monkeypatch.setattr(os, name, failing(name))
    Census(proc.path, cri).update()
    total = next(calls)
    assert total > 50
    for gone_at in range(total):
        calls = itertools.count()
        census = Census(proc.path, cri)
        census.update()
        gone_at = -1  # noqa: PLW2901 - and then nothing fails any more
        census.update()
        assert {each.id: pids(each) for each in census.update()} == whole


def test_no_race_ends_a_look(proc: FakeProc) -> None:
    stay = proc.sandbox(0, 50)
    over = threading.Event()

    def churn() -> None:
        for number in itertools.cycle(range(1, 30)):
            if over.is_set():
                return
            proc.sandbox(number, 100 + 10 * number)
            for pid in range(100 + 10 * number, 103 + 10 * number):
                proc.end(pid)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        census = Census(proc.path, patience=0)
        for _ in range(300):
            found = {each.id: each for each in census.update()}
            assert pids(found[stay]) == {"vmm": [51], "virtiofsd": [52], "shim": [50]}
    finally:
        over.set()
        thread.join()


def test_the_namespaces_of_katanodes_own_sandboxes_are_known_to_those_who_leave_them_out() -> None:
    assert {canary.NAMESPACE, owned.NAMESPACE} == naming.OWN_NAMESPACES
