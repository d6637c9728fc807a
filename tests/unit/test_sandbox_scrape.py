"""The sandboxes in a scrape: what it says, to whose taste, how much of it at most, and at what cost."""

from __future__ import annotations

import math
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import debian_packages
import hypothesis
import pytest
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as families

from agent.host.root import HostRoot
from agent.reasons import Reason, Severity
from agent.sandboxes import guest
from agent.sandboxes.census import Sandbox
from agent.sandboxes.measure import IO, Memory, Network
from agent.sandboxes.members import Process
from agent.service.sandbox_metrics import Row, Text
from agent.service.sandboxes import Sandboxes
from agent.service.server import Server
from agent.settings import Sandboxes as Settings
from agent.settings import Serve
from hack.lab.bench_sandboxes import cost
from hack.lab.fakeproc import FakeProc, sandbox_id

if TYPE_CHECKING:
    from pathlib import Path

LABELS = ("namespace", "pod", "handler", "hypervisor")
OF_A_SANDBOX = {
    "cpu_seconds",
    "resident_memory_bytes",
    "proportional_memory_bytes",
    "overhead_memory_bytes",
    "overhead_allowed_bytes",
    "threads",
    "io_read_bytes",
    "io_written_bytes",
    "network_receive_bytes",
    "network_transmit_bytes",
    "network_receive_drops",
    "network_transmit_drops",
    "vcpus",
    "start_time_seconds",
    "holds_vm",
}
OF_THE_NODE = {"sandboxes", "sandbox_orphans", "sandbox_series_dropped", "sandbox_scrape_seconds"}


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


@pytest.fixture
def sandboxes(tmp_path: Path, proc: FakeProc) -> Sandboxes:
    return Sandboxes(HostRoot(tmp_path), proc.path)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Name and values of labels to value."""
    return {
        (sample.name.removeprefix("katanode_"), *sample.labels.values()): sample.value
        for family in families(text)
        for sample in family.samples
    }


def row(namespace: str, pod: str, handler: str = "kata-clh") -> Row:
    processes = {name: (Process(1, 2, 0.1, 1 << 20, 3), Process(4, 5, 0.2, 1 << 20, 3)) for name in ("vmm", "shim")}
    sandbox = Sandbox("id", processes, "clh", "", namespace, pod, "u", handler, 1.7e9 + 0.123, holds_vm=True, vcpus=2)
    memory = Memory({"vmm": 7, "shim": 8}, 9)
    return Row(sandbox, IO(1, 2), Network(3, 4, 5, 6), memory, 130 << 20)


def measured(proc: FakeProc, sandboxes: Sandboxes, number: int = 1) -> str:
    made = proc.sandbox(number, 100 * number, pod=f"web-{number}", namespace="shop", vcpus=2)
    for pid in range(100 * number, 100 * number + 3):
        proc.mappings(pid, ("/memfd:ch_ram", 2 << 20, 1000), ("[heap]", 500, 24))
    sandboxes.look()
    return made


def test_a_scrape_says_what_a_sandbox_uses(proc: FakeProc, sandboxes: Sandboxes) -> None:
    measured(proc, sandboxes)
    found = samples(sandboxes.scrape(openmetrics=False))
    labels = ("shop", "web-1", "", "clh")
    assert found["sandboxes", "", "clh"] == 1
    assert found["sandbox_cpu_seconds_total", *labels, "vmm"] == 2.5
    assert found["sandbox_proportional_memory_bytes", *labels, "virtiofsd"] == 1024 << 10
    assert found["sandbox_overhead_memory_bytes", *labels] == (3 * 24) << 10
    assert found["sandbox_threads", *labels] == 9
    assert found["sandbox_io_written_bytes_total", *labels] == 2 * 8192
    assert found["sandbox_network_receive_bytes_total", *labels] == 2001
    assert found["sandbox_network_receive_drops_total", *labels] == 2
    assert (found["sandbox_vcpus", *labels], found["sandbox_holds_vm", *labels]) == (2, 1)
    # Started 5001 ticks of a hundredth after a boot 100,000 s ago.
    assert found["sandbox_start_time_seconds", *labels] == pytest.approx(time.time() - 100_000 + 50.01, abs=5)
    assert 0 < found["sandbox_scrape_seconds",] < 5


def test_every_family_is_there_and_no_other(proc: FakeProc, sandboxes: Sandboxes) -> None:
    text = Text(1000, openmetrics=False)
    text.add(row("shop", "web-0"))
    names = {family.name for family in families(text.families())}
    assert names == {f"katanode_sandbox_{name}" for name in OF_A_SANDBOX}
    own = {family.name.removeprefix("katanode_") for family in families(sandboxes.scrape(openmetrics=False))}
    assert own == OF_THE_NODE


def test_promtool_is_pleased(proc: FakeProc, sandboxes: Sandboxes, tmp_path: Path) -> None:
    measured(proc, sandboxes)
    text = Text(1000, openmetrics=False)
    text.add(row("shop", 'we"b\\-\n0'))
    sandboxes.configure(Settings(series_limit=0), "")
    done = subprocess.run(
        [debian_packages.unpacked("prometheus") / "usr/bin/promtool", "check", "metrics"],
        input=(text.families() + sandboxes.scrape(openmetrics=False)).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@hypothesis.given(
    st.lists(st.text(st.characters(codec=None, exclude_categories=()), max_size=20), min_size=3, max_size=3)
)
@hypothesis.example(['"', "\\", "\n"])
@hypothesis.example(['",pod="x"} 1\n#', "\\n", "\ud800\udfff"])
@hypothesis.example(["\x00", "\r\n\u2028\x85", "{}"])
def test_any_name_comes_out_as_a_legal_label(names: list[str]) -> None:
    for openmetrics, parse in ((False, families), (True, openmetrics_families)):
        text = Text(1000, openmetrics=openmetrics)
        text.add(row(*names))
        end = "# EOF\n" if openmetrics else ""
        found = list(parse((text.families() + end).encode().decode()))
        assert len(found) == len(OF_A_SANDBOX)
        for family in found:
            for sample in family.samples:
                said = [sample.labels[name] for name in LABELS]
                assert said == [*(name.encode("utf-8", "replace").decode() for name in names), "clh"]


def test_openmetrics_and_the_older_form_say_the_same(proc: FakeProc, sandboxes: Sandboxes) -> None:
    measured(proc, sandboxes)
    older = samples(sandboxes.scrape(openmetrics=False))
    newer = {
        (sample.name.removeprefix("katanode_"), *sample.labels.values()): sample.value
        for family in openmetrics_families(sandboxes.scrape(openmetrics=True) + "# EOF\n")
        for sample in family.samples
    }
    for said in (older, newer):
        del said[("sandbox_scrape_seconds",)]
    assert older.keys() == newer.keys()
    assert all(math.isclose(older[key], newer[key], abs_tol=0.1) for key in older)


def test_the_limit_cuts_whole_sandboxes_the_youngest_and_always_the_same(proc: FakeProc, sandboxes: Sandboxes) -> None:
    for number in range(10):
        proc.sandbox(number, 1000 + 10 * number)
    whole = sandboxes.scrape(openmetrics=False)
    lines = [line for line in whole.splitlines() if 'pod="' in line]
    each = len(lines) // 10
    sandboxes.configure(Settings(series_limit=3 * each + each // 2), "")
    for scrape in (1, 2):
        found = samples(sandboxes.scrape(openmetrics=False))
        said = {key[2] for key in found if key[0] == "sandbox_vcpus"}
        assert said == {"pod-0", "pod-1", "pod-2"}
        assert sum(len(key) > 3 for key in found) == 3 * each
        assert found["sandbox_series_dropped_total",] == 7 * each * scrape
        assert found["sandboxes", "", "clh"] == 10


def test_no_series_and_no_metrics_at_all_can_be_had(proc: FakeProc, sandboxes: Sandboxes) -> None:
    measured(proc, sandboxes)
    sandboxes.configure(Settings(series_limit=0), "")
    assert 'pod="' not in sandboxes.scrape(openmetrics=False)
    assert "katanode_sandboxes{" in sandboxes.scrape(openmetrics=False)
    sandboxes.configure(Settings(metrics=False), "")
    assert sandboxes.scrape(openmetrics=False) == ""


def test_of_a_pod_that_was_made_anew_the_newer_sandbox_speaks(proc: FakeProc, sandboxes: Sandboxes) -> None:
    proc.sandbox(1, 100, pod="web-0", namespace="shop", vcpus=1)
    proc.sandbox(2, 200, pod="web-0", namespace="shop", vcpus=8)
    found = samples(sandboxes.scrape(openmetrics=False))
    assert found["sandbox_vcpus", "shop", "web-0", "", "clh"] == 8
    assert found["sandboxes", "", "clh"] == 2


def test_canaries_and_benches_are_not_told_of(proc: FakeProc, sandboxes: Sandboxes) -> None:
    proc.sandbox(1, 100, pod="canary-kata-clh", namespace="katanode-canary")
    proc.sandbox(2, 200, pod="density-17", namespace="katanode-bench")
    assert "clh" not in sandboxes.scrape(openmetrics=False)


def test_orphans_are_counted_and_found_and_forgotten(
    proc: FakeProc, sandboxes: Sandboxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc.sandbox(1, 100)
    sandboxes.look()
    assert [each.severity for each in sandboxes.findings] == [Severity.OK] * 3
    proc.end(100)
    sandboxes.look()
    now = time.monotonic()
    monkeypatch.setattr(sandboxes._census, "_clock", lambda: now + 60)
    sandboxes.look()
    assert samples(sandboxes.scrape(openmetrics=False))["sandbox_orphans", "without-shim"] == 1
    assert Reason.SANDBOX_ORPHANED in {each.reason for each in sandboxes.findings}
    proc.end(101)
    proc.end(102)
    assert samples(sandboxes.scrape(openmetrics=False))["sandbox_orphans", "without-shim"] == 0
    sandboxes.look()
    assert [each.severity for each in sandboxes.findings] == [Severity.OK] * 3


def test_memory_is_measured_at_its_own_interval_and_forgotten_with_the_sandbox(
    proc: FakeProc, sandboxes: Sandboxes
) -> None:
    made = measured(proc, sandboxes)
    proc.mappings(101, ("[heap]", 500, 400))
    sandboxes.look()
    key = ("sandbox_overhead_memory_bytes", "shop", "web-1", "", "clh")
    assert samples(sandboxes.scrape(openmetrics=False))[key] == (3 * 24) << 10
    taken, memory = sandboxes._memory[made]
    sandboxes._memory[made] = (taken - 301, memory)
    sandboxes.look()
    assert samples(sandboxes.scrape(openmetrics=False))[key] == (400 + 2 * 24) << 10
    for pid in (100, 101, 102):
        proc.end(pid)
    sandboxes.look()
    assert sandboxes._memory == {}


def test_without_a_proc_a_scrape_is_empty_and_not_an_error(tmp_path: Path) -> None:
    assert Sandboxes(HostRoot(tmp_path), tmp_path / "nothing").scrape(openmetrics=False) == ""


def test_only_sandboxes_of_the_census_are_asked(proc: FakeProc, sandboxes: Sandboxes) -> None:
    proc.sandbox(1, 100)
    assert sandboxes.guest(sandbox_id(1)).text.startswith(b"the sandbox has no socket")
    for wanted in ("", "../../etc", sandbox_id(2), "x" * 10_000):
        assert sandboxes.guest(wanted) == (404, b"no sandbox with this id runs here: /metrics/guest?sandbox=ID")


def test_the_daemons_server_adds_them_to_its_own_metrics_in_either_form(proc: FakeProc, sandboxes: Sandboxes) -> None:
    proc.sandbox(1, 100, pod="web-0")
    registry = CollectorRegistry()
    Gauge("katanode_ready", "Ready.", registry=registry).set(1)
    server = Server(Serve("127.0.0.1", 0), registry, str, lambda: (200, "ok"), lambda: (200, "ok"), sandboxes)
    try:
        address = f"http://127.0.0.1:{server.port}/metrics"
        with urllib.request.urlopen(address, timeout=5) as answer:
            text = answer.read().decode()
        assert {"katanode_ready", "katanode_sandboxes"} <= {family.name for family in families(text)}
        request = urllib.request.Request(address, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            found = {family.name for family in openmetrics_families(answer.read().decode())}
        assert {"katanode_ready", "katanode_sandboxes", "katanode_sandbox_cpu_seconds"} <= found
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/guest?sandbox={sandbox_id(1)}", timeout=5)
    finally:
        server.close()


def test_a_sandbox_that_would_not_survive_it_is_not_asked(
    proc: FakeProc, sandboxes: Sandboxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sandbox_id(1)
    proc.process(100, ["/opt/kata/runtime-rs/bin/containerd-shim-kata-v2", "-id", made, "-namespace", "k8s.io"])
    proc.process(101, ["/opt/kata/bin/qemu-system-x86_64", "-name", f"sandbox-{made}"], parent=100)
    (tmp_path / "run/kata" / made).mkdir(parents=True)
    monkeypatch.setattr(guest, "metrics", lambda *_: pytest.fail("it was asked"))
    assert sandboxes.guest(made).status == 501


def test_five_hundred_sandboxes_among_five_thousand_processes_are_cheap(tmp_path: Path) -> None:
    found = cost(tmp_path, 500, 5_000)
    print(f"first {found.first:.3f} s, then {min(found.cpu):.3f} to {max(found.cpu):.3f}, {found.memory / 1e6:.1f} MB")
    # CPU time, since others work on this machine too; everything is read, and every series is said.
    assert found.lines > 500 * 16
    assert statistics.median(found.cpu) <= 0.1
    assert found.memory <= 30e6


def test_the_cost_is_linear_up_to_two_thousand(tmp_path: Path) -> None:
    small, large = cost(tmp_path / "small", 500, 1_600), cost(tmp_path / "large", 2_000, 6_400)
    ratio = min(large.cpu) / min(small.cpu)
    print(f"2,000 sandboxes cost {ratio:.2f} times what 500 do")
    assert ratio <= 4 * 1.5
