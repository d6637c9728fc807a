"""Sandboxes of a real containerd, found and told of by the daemon; Kata's shim and hypervisors are stand-ins."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
import uuid
from concurrent import futures
from typing import TYPE_CHECKING

import debian_packages
import pytest
from daemon import Daemon, running

from agent.cri import cri_pb2 as pb
from agent.cri.listing import Listing
from agent.sandboxes.census import Census

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Machine

    from agent.sandboxes.census import Sandbox

pytestmark = pytest.mark.runtime

MANY = 50
HANDLERS = ("kata-clh", "kata-qemu")
MIB = 1 << 20
SETTINGS = """
[run]
interval_seconds = 3600
[serve]
address = "127.0.0.1"
[sandboxes]
memory_interval_seconds = 10
"""
ORPHANS = '[handlers.kata-clh.hypervisor.clh]\nkernel_params = "katanode_standin.orphan=1"\n'


@pytest.fixture(scope="module")
def machine(launch: Callable[..., contextlib.AbstractContextManager[Machine]]) -> Iterator[Machine]:
    with launch("2.1") as made:
        made.settings(more=SETTINGS)
        made.katanode("apply")
        yield made


@pytest.fixture(scope="module")
def daemon(machine: Machine) -> Iterator[Daemon]:
    with running(machine) as made:
        made.until(lambda: made.fetch("/readyz")[0] == 200)
        yield made


@pytest.fixture
def pods(machine: Machine) -> Iterator[Callable[..., dict[str, str]]]:
    """Starts pods, four at a time: name to sandbox id; all are gone after the test."""
    made: dict[str, str] = {}

    def start(*names: str, handler: str = "") -> dict[str, str]:
        chosen = {name: handler or HANDLERS[number % len(HANDLERS)] for number, name in enumerate(names)}
        with futures.ThreadPoolExecutor(4) as pool:
            ids = pool.map(lambda name: machine.run_pod(chosen[name], name), names)
            made.update(zip(names, ids, strict=True))
        return {name: made[name] for name in names}

    yield start
    with futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(machine.remove_pod, made.values()))


def census(machine: Machine) -> Census:
    return Census(machine.path("/proc"), Listing(machine.containerd.socket).pods, patience=0)


def by_pod(found: Census) -> dict[str, Sandbox]:
    return {each.pod: each for each in found.update()}


def told(daemon: Daemon, name: str = "sandbox_holds_vm") -> dict[str, float]:
    """Pod to the value of a metric."""
    text = daemon.fetch("/metrics")[1]
    return {
        pod: float(n) for pod, n in re.findall(rf'^katanode_{name}{{.*pod="([^"]*)".*}} (\S+)$', text, re.MULTILINE)
    }


def resident(machine: Machine, pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", machine.path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) << 10


def test_fifty_sandboxes_appear_with_the_right_pods_and_disappear_with_them(
    daemon: Daemon, machine: Machine, pods: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    names = [f"web-{number}" for number in range(MANY)]
    watch = census(machine)
    made = pods(*names)
    found = by_pod(watch)
    assert {name: each.id for name, each in found.items()} == made
    for number, name in enumerate(names):
        each = found[name]
        handler = HANDLERS[number % len(HANDLERS)]
        assert (each.namespace, each.handler, each.hypervisor) == ("default", handler, handler.removeprefix("kata-"))
        assert (each.holds_vm, each.vcpus, each.orphan) == (True, 1, "")
        assert each.release == machine.release_path().rpartition("/")[2]
        assert {"vmm", "shim"} <= each.processes.keys()
    assert told(daemon) == dict.fromkeys(names, 1.0)
    daemon.until(lambda: len(told(daemon, "sandbox_overhead_memory_bytes")) == MANY)

    # The daemon stays small, and Prometheus' tool has nothing to say of it all.
    for _ in range(20):
        daemon.fetch("/metrics")
    size = resident(machine, daemon.pids[0])
    print(f"the daemon has {size / MIB:.1f} MiB with {MANY} sandboxes")
    assert size <= 80 * MIB
    text = daemon.fetch("/metrics")[1]
    done = subprocess.run(
        [debian_packages.unpacked("prometheus") / "usr/bin/promtool", "check", "metrics"],
        input=text.encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    with futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(machine.remove_pod, made.values()))
    assert by_pod(watch) == {}
    assert told(daemon) == {}
    assert daemon.metric("sandbox_orphans", kind="without-shim") == 0


def test_a_vmm_that_is_killed_is_seen_by_the_next_scrape(
    daemon: Daemon, machine: Machine, pods: Callable[..., dict[str, str]]
) -> None:
    made = pods("killed", "kept", handler="kata-clh")
    assert told(daemon) == {"killed": 1.0, "kept": 1.0}
    vmm = machine.vmm_of(made["killed"])
    assert vmm is not None
    machine.lab.run(["kill", "-9", str(vmm.pid)])
    assert told(daemon).get("killed", 0.0) == 0.0
    assert told(daemon)["kept"] == 1.0


def test_a_number_that_is_used_again_confuses_nobody(machine: Machine, pods: Callable[..., dict[str, str]]) -> None:
    made = pods("first", handler="kata-clh")
    watch = census(machine)
    assert by_pod(watch)["first"].holds_vm
    vmm = machine.vmm_of(made["first"])
    assert vmm is not None
    machine.lab.run(["kill", "-9", str(vmm.pid)])
    # The kernel gives the next process the number after this one (pid_namespaces(7)).
    script = (
        f"while [ -d /proc/{vmm.pid} ]; do :; done; echo {vmm.pid - 1} >/proc/sys/kernel/ns_last_pid; "
        "sleep 100 & echo $!; wait"
    )
    with machine.lab.popen(["sh", "-c", script], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        again = int(shell.stdout.readline())
        try:
            assert again == vmm.pid
            left = by_pod(watch).get("first")
            assert left is None or (not left.holds_vm and "vmm" not in left.processes)
        finally:
            machine.lab.run(["kill", "-9", str(again)])


def test_an_orphan_is_found_counted_and_said_and_what_it_leaves_too(
    daemon: Daemon, machine: Machine, pods: Callable[..., dict[str, str]]
) -> None:
    machine.settings(more=SETTINGS + ORPHANS)
    daemon.until(lambda: "katanode_standin.orphan" in _rendered(machine))
    daemon.until(lambda: daemon.metric("ready") == 1)
    made = pods("lost", handler="kata-clh")["lost"]
    vmm = machine.vmm_of(made)
    shims = [each for each in machine.processes_of(made) if each.is_shim_of(made)]
    assert vmm is not None
    machine.lab.run(["kill", "-9", *(str(each.pid) for each in shims)])
    # The stand-in may have left the canary's virtiofsd too: the canary went through the same handler.
    daemon.until(lambda: daemon.metric("sandbox_orphans", kind="without-shim") >= 1)
    daemon.until(lambda: made[:12] in daemon.fetch("/")[1])
    assert daemon.metric("reason", reason="SandboxOrphaned", severity="warning") == 1
    assert told(daemon)["lost"] == 1.0
    report = machine.json("check", check=False)
    (finding,) = [each for each in report["findings"] if each["reason"] == "SandboxOrphaned"]
    assert f"vmm {vmm.pid}" in finding["evidence"]
    # Nothing is ended or removed without a person; when the person has ended it, its folders are what is left.
    assert machine.vmm_of(made) is not None
    orphans = [each for each in census(machine).update() if each.orphan]
    machine.lab.run(
        ["kill", "-9", *(str(p.pid) for each in orphans for group in each.processes.values() for p in group)]
    )
    daemon.until(lambda: daemon.metric("sandbox_orphans", kind="without-shim") == 0)
    daemon.until(lambda: daemon.metric("reason", reason="SandboxOrphaned", severity="warning") == 0)
    folders = [path for path in _state_folders(machine) if path.name == made]
    assert folders
    for path in folders:
        os.utime(path, (1, 1))
    daemon.until(lambda: daemon.metric("sandbox_orphans", kind="state-folder") >= len(folders))
    daemon.until(lambda: daemon.metric("reason", reason="SandboxLeftovers", severity="info") == 1)
    assert all(path.is_dir() for path in folders)


def _rendered(machine: Machine) -> str:
    files = machine.path("/etc/kata-containers/katanode/kata-clh").rglob("*.toml")
    return "".join(path.read_text() for path in files)


def _state_folders(machine: Machine) -> list[Path]:
    return [path for name in ("vc/sbs", "vc/vm", "kata-containers/shared/sandboxes") for path in _in(machine, name)]


def _in(machine: Machine, name: str) -> list[Path]:
    folder = machine.path(f"/run/{name}")
    return list(folder.iterdir()) if folder.is_dir() else []


def test_what_a_guest_says_is_passed_through_the_daemon(
    daemon: Daemon, machine: Machine, pods: Callable[..., dict[str, str]]
) -> None:
    made = pods("guest", handler="kata-clh")["guest"]
    assert daemon.fetch(f"/metrics/guest?sandbox={made}")[0] == 404  # the stand-in has no such socket
    assert daemon.fetch("/metrics/guest?sandbox=../../etc")[0] == 404
    assert daemon.fetch("/metrics/guest")[0] == 404
    folder = os.open(machine.path(f"/run/vc/sbs/{made}"), os.O_PATH)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/shim-monitor.sock")
        os.close(folder)
        server.listen()
        answers = [b"HTTP/1.1 200 OK\r\n\r\nkata_guest_load 1\n", b""]

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert daemon.fetch(f"/metrics/guest?sandbox={made}") == (200, "kata_guest_load 1\n")
        assert daemon.fetch(f"/metrics/guest?sandbox={made}")[0] == 502
        thread.join()
        # Nobody accepts any more: the daemon waits for so long and no longer, and says so.
        status, text = daemon.fetch(f"/metrics/guest?sandbox={made}")
        assert (status, "within 3 s" in text) == (504, True)


@pytest.mark.parametrize("version", ["3.2.0", "4.1.0"])
@pytest.mark.parametrize("generation", ["1.6", "1.7", "2.1"])
def test_every_containerd_and_both_runtimes_are_known(
    start_machine: Callable[..., Machine], generation: str, version: str
) -> None:
    machine = start_machine(generation)
    machine.settings(version=version, kata='handlers = ["kata-clh", "kata-qemu"]')
    machine.katanode("apply")
    listing = Listing(machine.containerd.socket)
    with machine.client() as client:
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name="granted", uid=str(uuid.uuid4()), namespace="default"),
            linux=pb.LinuxPodSandboxConfig(overhead=pb.LinuxContainerResources(memory_limit_in_bytes=130 * MIB)),
        )
        request = pb.RunPodSandboxRequest(config=config, runtime_handler="kata-clh")
        granted = client._call("RunPodSandbox", request, pb.RunPodSandboxResponse, 30.0).pod_sandbox_id
    plain = machine.run_pod("kata-qemu", "plain")
    other = machine.run_pod("", "runc")
    found = by_pod(census(machine))
    assert {name: (each.id, each.handler, each.hypervisor) for name, each in found.items()} == {
        "granted": (granted, "kata-clh", "clh"),
        "plain": (plain, "kata-qemu", "qemu"),
    }
    assert all(each.holds_vm for each in found.values())
    assert [listing.overhead(each) for each in (granted, plain, "unknown")] == [130 * MIB, 0, None]
    listed = listing.pods()
    assert listed is not None
    assert listed.keys() == {granted, plain, other}
    machine.containerd.kill9()
    assert listing.pods() is None
    assert by_pod(census(machine))["plain"].namespace == "default"  # by its bundle
