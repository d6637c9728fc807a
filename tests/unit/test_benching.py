"""What a bench makes of what it measured: percentiles, bounds, memory by component, whose sandboxes, which handlers."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
from collections import deque
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.benching import density, memory, options, surroundings
from agent.benching.choice import Chosen, choose
from agent.benching.interrupts import Interrupts
from agent.benching.limits import HEADROOM_BYTES, Limits, Until
from agent.benching.memory import Footprint
from agent.benching.percentiles import Samples, samples
from agent.benching.sandboxes import Sandboxes
from agent.benching.starts import measure
from agent.cri.client import CRIError, Sandbox
from agent.errors import KatanodeError
from agent.reasons import Reason
from agent.sandboxes import canary, owned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from agent.benching.sandboxes import Started

MIB = 1 << 20
GIB = 1 << 30
ID = "0123456789abcdef" * 4
RUNC, CLH = Chosen("runc", "runc"), Chosen("kata-clh", "kata-clh")


def unheard(_step: str) -> None: ...


# percentiles


def test_percentiles_are_values_that_were_measured() -> None:
    measured = Samples(tuple(float(n) for n in range(100, 0, -1)))
    assert [measured.percentile(rank) for rank in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert not any(measured.is_maximum(rank) for rank in (50, 90, 99))


def test_a_percentile_that_can_only_be_the_maximum_says_so() -> None:
    ten = Samples(tuple(float(n) for n in range(10)))
    assert [(ten.percentile(r), ten.is_maximum(r)) for r in (50, 90, 99)] == [(4, False), (8, False), (9, True)]
    nine = Samples(tuple(float(n) for n in range(9)))
    assert [(nine.percentile(r), nine.is_maximum(r)) for r in (50, 90, 99)] == [(4, False), (8, True), (8, True)]
    assert Samples((7.0,)).as_json()["only_the_maximum"] == ["p50", "p90", "p99"]
    assert samples([]) is None


@given(st.lists(st.floats(0, 100), min_size=1, max_size=250), st.integers(1, 100))
def test_at_least_so_many_per_cent_do_not_exceed_a_percentile_and_fewer_do_not_exceed_less(
    values: list[float], rank: int
) -> None:
    found = Samples(tuple(values)).percentile(rank)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= rank * len(values)
    assert sum(value < found for value in values) * 100 < rank * len(values)


# bounds


def test_the_headroom_is_left_whatever_share_is_asked_for() -> None:
    assert Limits(percent=50).budget(available=20 * GIB, total=32 * GIB) == 10 * GIB
    assert Limits(percent=90).budget(available=20 * GIB, total=100 * GIB) == 10 * GIB
    assert Limits(percent=90).budget(available=2 * GIB, total=2 * GIB) == 2 * GIB - HEADROOM_BYTES
    assert Limits(percent=90).budget(available=GIB // 4, total=8 * GIB) == 0


def test_a_run_ends_before_the_sandbox_that_would_cross_the_bound() -> None:
    limits = Limits(50, sandboxes=10, seconds=60)
    assert limits.reached(9, used=90, expected=10, budget=100, seconds=59.9) is None
    assert limits.reached(9, used=91, expected=10, budget=100, seconds=59.9) is Until.MEMORY
    assert limits.reached(10, used=90, expected=10, budget=100, seconds=59.9) is Until.SANDBOXES
    assert limits.reached(9, used=90, expected=10, budget=100, seconds=60) is Until.TIME


def test_options_out_of_bounds_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    options.add(parser)
    assert options.of(parser.parse_args([])) == options.Options()
    given_ = options.of(
        parser.parse_args(["--density", "--memory-limit", "90", "--handlers", "runc,,kata-clh", "--starts", "3"])
    )
    assert given_ == options.Options(("runc", "kata-clh"), 3, Limits(90))
    for wrong in (
        "--memory-limit 91",
        "--memory-limit 0",
        "--starts 0",
        "--starts x",
        "--handlers ,",
        "--time-limit -1",
    ):
        with pytest.raises(SystemExit, match="2"):
            parser.parse_args(wrong.split())
    assert "91 is not a number from 1 to 90" in capsys.readouterr().err


# memory


@dataclass
class Proc:
    """A made-up /proc."""

    path: Path

    def add(
        self, pid: int, parent: int, *argv: str, pss: int | None = 0, links: tuple[str, ...] = (), **more: int
    ) -> None:
        folder = self.path / str(pid)
        (folder / "fd").mkdir(parents=True)
        for number, target in enumerate(links):
            (folder / "fd" / str(number)).symlink_to(target)
        (folder / "exe").symlink_to(argv[0])
        (folder / "cmdline").write_bytes(b"".join(a.encode() + b"\0" for a in argv))
        (folder / "comm").write_text(f"{argv[0].rpartition('/')[2][:15]}\n")
        resident = more.pop("resident", 1)
        rest = f"S {parent} {'0 ' * 9}0 0 0 0 0 0 1 0 {pid * 100} 0 {resident}"
        (folder / "stat").write_text(f"{pid} (a ) b) {rest} 0\n")
        if pss is not None:
            fields = {"Rss": 2 * pss, "Pss": pss, "Private_Hugetlb": 0, "Shared_Hugetlb": 0, **more}
            lines = "".join(f"{name}: {size >> 10} kB\n" for name, size in fields.items())
            (folder / "smaps_rollup").write_text(f"55d0 ---p 00000000 00:00 0 [rollup]\n{lines}")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    made = Proc(tmp_path / "proc")
    made.add(1, 0, "/sbin/init", pss=9 * MIB)
    made.add(99, 1, "/usr/bin/other", pss=7 * MIB)
    return made


def test_memory_is_told_by_component(proc: Proc) -> None:
    vmm = ("/opt/kata/bin/cloud-hypervisor", "--api-socket", f"/run/vc/vm/{ID}/clh-api.sock")
    proc.add(10, 1, "/opt/kata/bin/containerd-shim-kata-v2", "-namespace", "k8s.io", "-id", ID, pss=30 * MIB)
    proc.add(11, 10, *vmm, pss=100 * MIB, links=("/dev/kvm", "anon_inode:kvm-vm"))
    for pid, parent, share in ((12, 10, 2), (13, 12, 3)):
        proc.add(pid, parent, "/opt/kata/libexec/virtiofsd", f"--shared-dir=/run/{ID}/shared", pss=share * MIB)
    found = memory.of_sandbox(ID, proc.path)
    assert found is not None
    assert found.components == {"vmm": 100 * MIB, "virtiofsd": 5 * MIB, "shim": 30 * MIB}
    assert found.resident == {"vmm": 200 * MIB, "virtiofsd": 10 * MIB, "shim": 60 * MIB}
    assert (found.total, found.proportional, found.hypervisor) == (135 * MIB, True, "cloud-hypervisor")


def test_a_pod_s_own_process_is_the_shim_s_child_that_does_not_name_the_sandbox(proc: Proc) -> None:
    proc.add(20, 1, "/usr/bin/containerd-shim-runc-v2", "-id", ID, pss=9 * MIB)
    proc.add(21, 20, "/pause", pss=MIB)
    found = memory.of_sandbox(ID, proc.path)
    assert found is not None
    assert (found.components, found.hypervisor) == ({"shim": 9 * MIB, "pause": MIB}, "")


def test_a_firecracker_that_bears_half_of_the_id_is_found(proc: Proc) -> None:
    proc.add(30, 1, "/opt/kata/bin/containerd-shim-kata-v2", "-id", ID, pss=9 * MIB)
    socket = f"/run/vc/firecracker/{ID[:32]}/root/run/firecracker.socket"
    proc.add(31, 30, "/firecracker", "--api-sock", socket, pss=5 * MIB, links=("anon_inode:kvm-vm",))
    found = memory.of_sandbox(ID, proc.path)
    assert found is not None
    assert (found.components, found.hypervisor) == ({"vmm": 5 * MIB, "shim": 9 * MIB}, "firecracker")


def test_a_machine_inside_the_shim_is_the_vmm(proc: Proc) -> None:
    proc.add(
        40, 1, "/opt/kata/runtime-rs/bin/containerd-shim-kata-v2", "-id", ID, pss=MIB, links=("anon_inode:kvm-vm",)
    )
    found = memory.of_sandbox(ID, proc.path)
    assert found is not None
    assert found.components == {"vmm": MIB}


def test_huge_pages_of_a_guest_count_once(proc: Proc) -> None:
    huge = {"Shared_Hugetlb": 2 * GIB}
    proc.add(50, 1, "/opt/kata/bin/qemu-system-x86_64", f"sandbox-{ID}", pss=MIB, links=("anon_inode:kvm-vm",), **huge)
    proc.add(51, 1, "/opt/kata/libexec/virtiofsd", ID, pss=MIB, **huge)
    found = memory.of_sandbox(ID, proc.path)
    assert found is not None
    assert found.components == {"vmm": 2 * GIB + MIB, "virtiofsd": MIB}


def test_resident_memory_stands_in_where_the_kernel_does_not_tell_the_share(proc: Proc) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    proc.add(60, 1, "/usr/bin/containerd-shim-runc-v2", "-id", ID, pss=None, resident=256)
    found = memory.of_sandbox(ID, proc.path)
    assert found is not None
    assert (found.components, found.proportional) == ({"shim": 256 * page}, False)


def test_a_sandbox_without_processes_has_no_memory(proc: Proc) -> None:
    assert memory.of_sandbox(ID, proc.path) is None


# sandboxes


@dataclass
class FakeClient:
    """A runtime that only keeps its books.

    Attributes:
        listed: its sandboxes.
        faults: number of a start to what is raised there.
        before_listing: called before each list.
    """

    listed: dict[str, Sandbox] = field(default_factory=dict)
    faults: dict[int, Exception] = field(default_factory=dict)
    before_listing: Callable[[FakeClient], None] = lambda _client: None
    handlers: list[str] = field(default_factory=list)
    down: bool = False

    def add(self, namespace: str = "default", labels: Mapping[str, str] | None = None, handler: str = "runc") -> str:
        sandbox = Sandbox(f"{len(self.handlers):064x}", "pod", namespace, "uid", True, handler, labels or {})  # noqa: FBT003
        self.handlers.append(handler)
        self.listed[sandbox.id] = sandbox
        return sandbox.id

    def run_sandbox(self, handler: str, *, namespace: str, labels: Mapping[str, str], **_rest: object) -> str:
        number = len(self.handlers) + 1
        if number in self.faults:
            self.handlers.append(handler)
            raise self.faults[number]
        return self.add(namespace, labels, handler)

    def sandboxes(self, labels: Mapping[str, str] | None = None) -> tuple[Sandbox, ...]:
        if self.down:
            raise refusal("connection refused")
        self.before_listing(self)
        return tuple(s for s in self.listed.values() if (labels or {}).items() <= s.labels.items())

    def stop_sandbox(self, sandbox_id: str, _timeout: float) -> None:
        if sandbox_id in self.listed:
            self.listed[sandbox_id] = replace(self.listed[sandbox_id], ready=False)

    def remove_sandbox(self, sandbox_id: str, _timeout: float) -> None:
        self.listed.pop(sandbox_id, None)


def refusal(words: str) -> CRIError:
    return CRIError(SimpleNamespace(__str__=lambda: "socket"), "RunPodSandbox", grpc.StatusCode.UNKNOWN, words)  # type: ignore[arg-type]


@pytest.fixture
def client() -> Any:
    return FakeClient()


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Footprint({"shim": MIB}, {"shim": 2 * MIB}, True, "")  # noqa: FBT003
    monkeypatch.setattr(memory, "of_sandbox", lambda _sandbox_id: seen)


def test_a_sweep_takes_what_nobody_owns_and_leaves_a_bench_that_is_at_work(client: Any) -> None:
    with subprocess.Popen(["sleep", "60"]) as gone:
        at_work = client.add(owned.NAMESPACE, {owned.LABEL: owned.owner()})
        left = client.add(owned.NAMESPACE, {owned.LABEL: owned.owner(gone.pid)})
        gone.kill()
        os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
        assert owned.owner(gone.pid) == "", "a zombie owns nothing"
    reused = client.add(owned.NAMESPACE, {owned.LABEL: f"{os.getpid()}-1"})
    odd = client.add(owned.NAMESPACE, {owned.LABEL: "../1"})
    pod = client.add("default", {owned.LABEL: "1-1"})
    proof = client.add(canary.NAMESPACE, {canary.LABEL: "true"})
    assert owned.sweep(client, 1.0) == 3
    assert client.listed.keys() == {at_work, pod, proof}
    assert not {left, reused, odd} & client.listed.keys()


def test_every_canary_sweeps_what_a_killed_bench_left(client: Any) -> None:
    client.add(owned.NAMESPACE, {owned.LABEL: "1-1"})
    client.add(canary.NAMESPACE, {canary.LABEL: "true"})
    pod = client.add("default", {canary.LABEL: "true", owned.LABEL: "1-1"})
    canary.sweep(client, 1.0)
    assert client.listed.keys() == {pod}


@pytest.mark.usefixtures("no_processes")
def test_handlers_take_turns_and_the_first_start_of_each_does_not_count(client: Any) -> None:
    with Sandboxes(client, 1.0) as sandboxes:
        runc, clh = measure(sandboxes, (RUNC, CLH), 3, Interrupts(), unheard)
    assert client.handlers == ["runc", "kata-clh"] * 4
    assert client.listed == {}
    for measured in (runc, clh):
        assert measured.starts is not None
        assert measured.removals is not None
        assert measured.memory is not None
        assert len(measured.starts.values) == len(measured.removals.values) == measured.memory.count == 3
        assert measured.first is not None
        assert measured.memory.components == {"shim": MIB}


@pytest.mark.usefixtures("no_processes")
def test_a_handler_that_fails_keeps_what_it_has_and_hinders_no_other(client: Any) -> None:
    client.faults[4] = refusal("out of memory")
    with Sandboxes(client, 1.0) as sandboxes:
        runc, clh = measure(sandboxes, (RUNC, CLH), 3, Interrupts(), unheard)
    assert runc.failure is None
    assert runc.starts is not None
    assert len(runc.starts.values) == 3
    assert (clh.first is not None, clh.starts) == (True, None)
    assert clh.failure is not None
    assert (clh.failure.reason, clh.failure.evidence) == (Reason.CANARY_FAILED, "out of memory")
    assert client.handlers.count("kata-clh") == 2


@pytest.mark.usefixtures("no_processes")
def test_a_sandbox_that_somebody_else_stopped_gives_no_figure_but_its_start(client: Any) -> None:
    def kubelet(runtime: FakeClient) -> None:
        if len(runtime.handlers) == 3:
            for sandbox_id in list(runtime.listed):
                runtime.stop_sandbox(sandbox_id, 1.0)

    client.before_listing = kubelet
    with Sandboxes(client, 1.0) as sandboxes:
        (runc,) = measure(sandboxes, (RUNC,), 3, Interrupts(), unheard)
    assert runc.starts is not None
    assert runc.removals is not None
    assert runc.memory is not None
    counts = (len(runc.starts.values), len(runc.removals.values), runc.memory.count, runc.cut_short)
    assert counts == (3, 2, 2, 1)


@dataclass
class Meter:
    """A node whose memory sandboxes use up."""

    client: Any
    each: int
    start: int = 8 * GIB

    def available(self) -> int:
        return self.start - self.each * len(self.client.listed)

    settled = available

    def total(self) -> int:
        return 16 * GIB


def crowd(client: Any, limits: Limits, each: int = 100 * MIB, guess: int = 90 * MIB) -> Any:
    with Sandboxes(client, 1.0) as sandboxes:
        gauge: Any = Meter(client, each)
        return density.measure(sandboxes, CLH, limits, guess, Interrupts(), unheard, gauge)


def test_density_stops_short_of_the_share_of_memory_and_leaves_nothing(client: Any) -> None:
    found, failure = crowd(client, Limits(percent=50))
    assert (found.count, found.until, failure) == (40, Until.MEMORY, None)
    assert found.each == 100 * MIB
    assert found.fit == (8 * GIB - 16 * GIB // 10) // (100 * MIB)
    assert client.listed == {}


def test_density_keeps_to_its_number_and_makes_no_guess_from_little(client: Any) -> None:
    found, failure = crowd(client, Limits(sandboxes=3))
    assert (found.count, found.until, failure) == (3, Until.SANDBOXES, None)
    assert (found.each, found.fit) == (100 * MIB, None)
    tiny, _ = crowd(client, Limits(sandboxes=3), each=MIB)
    assert (tiny.each, tiny.fit) == (None, None)


def test_density_starts_nothing_where_even_one_would_be_too_much(client: Any) -> None:
    found, _ = crowd(client, Limits(percent=1), guess=GIB)
    assert (found.count, found.until, client.handlers) == (0, Until.MEMORY, [])


def test_density_stops_on_the_first_failure_and_tells_it(client: Any) -> None:
    client.faults[4] = refusal("no space left on device")
    found, failure = crowd(client, Limits())
    assert (found.count, found.until) == (3, Until.FAILURE)
    assert (failure.reason, failure.evidence) == (Reason.CANARY_FAILED, "no space left on device")
    assert client.listed == {}


def test_density_stops_when_somebody_else_stops_its_sandboxes(client: Any) -> None:
    def kubelet(runtime: FakeClient) -> None:
        if len(runtime.listed) == 4:
            runtime.stop_sandbox(next(iter(runtime.listed)), 1.0)

    client.before_listing = kubelet
    found, failure = crowd(client, Limits())
    assert (found.count, found.until, found.each) == (3, Until.STOPPED, None)
    assert failure.reason is Reason.BENCH_DISTURBED
    assert "kubelet" in failure.remedy


def test_what_cannot_be_removed_is_counted(client: Any) -> None:
    sandboxes = Sandboxes(client, 0.01)
    with sandboxes:
        sandboxes.start("runc")
        sandboxes.start("runc")
        client.down = True
    assert sandboxes.left == 2


def test_a_second_interrupt_leaves_at_once(client: Any) -> None:
    sandboxes = Sandboxes(client, 30.0)
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts, sandboxes:
        sandboxes.start("runc")
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.caught == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    assert sandboxes.left == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("no_processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_the_start_under_way_end_and_keeps_what_was_measured(client: Any, number: signal.Signals) -> None:
    class Interrupted(Sandboxes):
        def start(self, handler: str) -> Started:
            if len(client.handlers) == 4:
                os.kill(os.getpid(), number)
            return super().start(handler)

    with Interrupts() as interrupts, Interrupted(client, 1.0) as sandboxes:
        (runc,) = measure(sandboxes, (RUNC,), 100, interrupts, unheard)
    assert interrupts.caught == number
    assert runc.starts is not None
    assert (len(runc.starts.values), len(client.handlers), client.listed) == (4, 5, {})


# which handlers, and where


def test_runc_and_every_kata_handler_that_is_ready_are_compared() -> None:
    loaded = {"runc", "kata-clh", "kata-qemu", "other"}
    assert choose(loaded, ("kata-clh",), ()) == (RUNC, CLH)
    assert choose(loaded - {"runc"}, ("kata-clh",), ()) == (Chosen("default", ""), CLH)
    assert choose(loaded, (), ("other", "default", "other")) == (Chosen("other", "other"), Chosen("default", ""))


def test_handlers_that_are_not_there_are_refused_with_the_nearest() -> None:
    with pytest.raises(KatanodeError, match="did you mean kata-clh") as refused:
        choose({"runc", "kata-clh"}, ("kata-clh",), ("kata-chl",))
    assert refused.value.reason is Reason.SETTINGS_INVALID
    with pytest.raises(KatanodeError) as unready:
        choose({"runc", "kata-clh"}, (), ())
    assert unready.value.reason is Reason.CANARY_NOT_RUN
    assert "--handlers runc" in unready.value.remedy


def noted(proc: Proc, *sandboxes: Sandbox, density: bool = False, left_out: tuple[str, ...] = ()) -> str:
    return "\n".join(surroundings.notes(sandboxes, left_out, density=density, proc=proc.path))


def test_a_quiet_node_needs_no_note(proc: Proc) -> None:
    (proc.path / "loadavg").write_text("0.00 0.1 0.1 1/100 4711\n")
    assert noted(proc) == ""


def test_pods_load_and_a_kubelet_are_told(proc: Proc) -> None:
    (proc.path / "pressure").mkdir()
    (proc.path / "pressure/cpu").write_text("some avg10=32.50 avg60=1.00 avg300=0.00 total=1\n")
    (proc.path / "meminfo").write_text("MemTotal: 1024 kB\nSwapTotal: 1024 kB\n")
    proc.add(70, 1, "/usr/bin/kubelet")
    pod = Sandbox("a", "web", "shop", "u", True, "runc", {})  # noqa: FBT003
    ours = Sandbox("b", "bench-1", owned.NAMESPACE, "u", True, "runc", {owned.LABEL: "1-1"})  # noqa: FBT003
    told = noted(proc, pod, ours, left_out=("kata-qemu",))
    for words in ("kata-qemu: not ready", "1 pod ran here", "32 % of the time", "A kubelet runs here"):
        assert words in told
    assert "Swap" not in told
    assert "stop the kubelet" in noted(proc, density=True)
    assert "Swap is on" in noted(proc, density=True)


def test_a_node_without_pressure_figures_is_judged_by_its_load(proc: Proc) -> None:
    (proc.path / "loadavg").write_text(f"{(os.cpu_count() or 1) * 2:.2f} 0 0 1/100 4711\n")
    assert "a load of" in noted(proc)


def test_waiting_for_calm_memory_ends(tmp_path: Path) -> None:
    readings = deque([100, 90, 80, 80, 80])

    class Changing(density.Gauge):
        def available(self) -> int:
            return readings.popleft()

    assert Changing(tmp_path).settled() == 80
