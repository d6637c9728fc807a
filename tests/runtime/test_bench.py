"""`katanode bench` on a real containerd: what it tells, where it stops, and that nothing is left."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from conftest import PATIENCE

from agent.sandboxes import owned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Machine

pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="the stand-in's machines are KVM's: there is no /dev/kvm"),
]

VMM = "bin/cloud-hypervisor"
ENDLESS = ("bench", "--handlers", "kata-clh", "--starts", "1", "--density", "--sandbox-limit", "10000", "--json")


@pytest.fixture(scope="module")
def node(launch: Callable[..., contextlib.AbstractContextManager[Machine]]) -> Iterator[Machine]:
    with launch("2.1") as machine:
        machine.katanode("apply")
        yield machine


def of_bench(node: Machine) -> set[str]:
    with node.client() as client:
        return {sandbox.id for sandbox in owned.of_bench(client)}


@contextlib.contextmanager
def crowding(node: Machine) -> Iterator[subprocess.Popen[bytes]]:
    """A bench that has started some sandboxes and goes on."""
    with node.popen(*ENDLESS, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            with node.client() as client:
                while len(owned.of_bench(client)) < 3:
                    assert process.poll() is None, process.communicate()
                    assert time.monotonic() < deadline, "no sandboxes came"
                    time.sleep(0.05)
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def outcome(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, err = process.communicate(timeout=PATIENCE)
    try:
        made = json.loads(out)
    except ValueError:
        pytest.fail(f"no JSON: {out!r} {err!r}")
    assert isinstance(made, dict)
    return made


def by_name(made: dict[str, Any]) -> dict[str, Any]:
    return {handler["name"]: handler for handler in made["handlers"]}


def test_each_handler_s_time_and_memory_are_told_and_drawn(node: Machine) -> None:
    made = node.json("bench", "--starts", "2", "--svg", "/root/bench.svg")
    found = by_name(made)
    assert list(found) == ["runc", "kata-clh", *(["kata-qemu"] if "kata-qemu" in found else [])]
    for handler in found.values():
        assert handler["failure"] is None
        assert handler["first_start_seconds"] > 0
        assert {handler[what]["count"] for what in ("start_seconds", "removal_seconds", "memory")} == {2}
        assert 0 < handler["start_seconds"]["p50"] <= handler["start_seconds"]["p99"] < PATIENCE
        assert handler["memory"]["kind"] == "PSS"
        assert handler["density"] is None
    runc, clh = found["runc"]["memory"]["component_bytes"], found["kata-clh"]["memory"]["component_bytes"]
    # The stand-in's pods run beside its machines, so there is a pause process where the real Kata has none.
    assert (list(runc), list(clh)) == (["shim", "pause"], ["vmm", "virtiofsd", "shim", "pause"])
    assert all(size > 0 for size in (*runc.values(), *clh.values()))
    assert (found["runc"]["hypervisor"], found["kata-clh"]["hypervisor"]) == (None, "cloud-hypervisor")
    assert made["node"]["kata"] == "3.2.0"
    assert ET.fromstring(node.path("/root/bench.svg").read_text()).tag.endswith("svg")
    assert of_bench(node) == set()
    assert not node.path("/var/lib/katanode/bench.lock").exists()


def test_a_person_sees_a_table(node: Machine) -> None:
    pod = node.run_pod(name="somebody-s")
    try:
        text = node.katanode("bench", "--starts", "1", "--handlers", "default,kata-clh").stdout
    finally:
        node.remove_pod(pod)
    assert "START p50" in text
    assert "1 pod ran here" in text
    assert "p99 (it takes 100)" in text


def test_density_ends_at_its_bounds(node: Machine) -> None:
    limited = ("bench", "--handlers", "kata-clh", "--starts", "1", "--density", "--sandbox-limit", "3")
    found = node.json(*limited)["handlers"][0]["density"]
    assert (found["count"], found["until"]) == (3, "sandboxes")
    assert of_bench(node) == set()


def test_a_handler_that_fails_is_told_and_the_others_are_measured(node: Machine) -> None:
    program = node.path(f"{node.release_path()}/{VMM}")
    away = program.with_name("away")
    program.rename(away)
    try:
        done = node.katanode("bench", "--starts", "1", "--handlers", "kata-clh,runc", "--json", check=False)
    finally:
        away.rename(program)
    found = by_name(json.loads(done.stdout))
    assert done.returncode == 1
    failure = found["kata-clh"]["failure"]
    assert (failure["reason"], "cloud-hypervisor" in failure["evidence"]) == ("CanaryFailed", True)
    assert found["runc"]["start_seconds"]["count"] == 1
    assert of_bench(node) == set()


def test_somebody_who_stops_its_sandboxes_ends_a_density_run(node: Machine) -> None:
    with crowding(node) as process:
        with node.client() as client:
            client.stop_sandbox(min(of_bench(node)), PATIENCE)
        made = outcome(process)
    assert process.returncode == 1
    (handler,) = made["handlers"]
    assert handler["density"]["until"] == "stopped by others"
    assert handler["failure"]["reason"] == "BenchDisturbed"
    assert of_bench(node) == set()


def test_a_bench_at_work_is_left_alone_and_an_interrupted_one_leaves_nothing(node: Machine) -> None:
    with crowding(node) as process:
        second = node.katanode("bench", "--json", check=False)
        assert (second.returncode, json.loads(second.stdout)["error"]["reason"]) == (5, "AnotherRunInProgress")
        prove_anew(node, memory=1024)
        send(node, process, signal.SIGINT)
        made = outcome(process)
    assert process.returncode == 130
    assert made["interrupted"] is True
    assert made["handlers"][0]["density"]["until"] == "interrupted"
    assert of_bench(node) == set()


@pytest.mark.parametrize("sweeper", ["the next bench", "the next canary"])
def test_what_a_killed_bench_left_is_removed(node: Machine, sweeper: str) -> None:
    with crowding(node) as process:
        send(node, process, signal.SIGKILL)
        process.wait(PATIENCE)
    left = of_bench(node)
    assert len(left) >= 3
    if sweeper == "the next bench":
        node.katanode("bench", "--starts", "1", "--handlers", "runc")
    else:
        prove_anew(node, memory=2048)
    assert of_bench(node) == set()
    assert all(node.processes_of(sandbox_id) == () for sandbox_id in left)


def prove_anew(node: Machine, memory: int) -> None:
    """Has a canary started: a tunable that is not as it was asks for a new proof."""
    node.settings(more=f"[handlers.kata-clh.hypervisor.clh]\ndefault_memory = {memory}")
    assert "canary kata-clh" in node.katanode("apply", check=False).stderr


def send(node: Machine, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Sends a signal to the bench itself: what was started here is the program that brought it into the lab."""
    for folder in node.path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdecimal() and b"\0bench\0" in (folder / "cmdline").read_bytes():
                node.lab.run(["kill", f"-{number.value}", folder.name])
                return
    pytest.fail(f"no bench runs: {process.poll()}")
