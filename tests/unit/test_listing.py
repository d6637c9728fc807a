"""`katanode sandboxes`: what the table says of a made-up /proc, in every width, and for machines."""

from __future__ import annotations

import io
import itertools
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent.cli import _parser
from agent.cri.listing import Pod
from agent.errors import KatanodeError
from agent.fleet.show import console
from agent.listing import show
from agent.listing.command import ORDERS
from agent.listing.find import find
from agent.listing.gather import BUDGET, MEMORY_AGE, Gathering
from agent.listing.row import Row, distinct, generation, ordered
from agent.listing.table import Overview
from agent.reasons import Reason
from agent.sandboxes import measure
from agent.sandboxes.census import Census
from hack.lab.fakeproc import RELEASE, TICKS, FakeProc, sandbox_id

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from agent.sandboxes.census import Sandbox

CURRENT = RELEASE.rpartition("/")[2]
MIB = 1 << 20


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeNode:
    """A made-up /proc with sandboxes, and a CRI that knows their pods."""

    def __init__(self, folder: Path) -> None:
        self.proc = FakeProc(folder)
        self.pods: dict[str, Pod] = {}
        self.clock = Clock()
        census = Census(folder, lambda: self.pods, patience=0.0, clock=self.clock)
        self.gathering = Gathering(folder, census, clock=self.clock)

    def add(self, number: int, pod: str, handler: str = "kata-clh", vcpus: int = 1) -> str:
        namespace, _, name = pod.partition("/")
        made = self.proc.sandbox(number, 1000 * number, pod=name, namespace=namespace, vcpus=vcpus)
        self.pods[made] = Pod(namespace, name, f"uid-{number}", handler, ready=True)
        return made

    def spend(self, pid: int, ticks: int, like: str) -> None:
        """Lets a process have used so many ticks of CPU; it stays the same process."""
        path = self.proc.path / str(pid) / "stat"
        head, _, rest = path.read_text().rpartition(")")
        fields = rest.split()
        fields[11:13] = [str(ticks), "0"]
        path.write_text(f"{head}) {' '.join(fields)}\n")
        assert like in head

    def view(self, order: str = "pod", seconds: float = 2.0) -> Overview:
        self.gathering.look()
        self.clock.now += seconds
        rows = self.gathering.measure(self.gathering.look())
        return Overview(ordered(rows, order), rows[0].sandbox.started + 3600 if rows else 0.0, seconds, CURRENT)


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    return FakeNode(tmp_path / "proc")


def text(made: RenderableType, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(made)
    return out.getvalue()


def drawn(view: Overview, width: int = 120) -> str:
    return text(show.once(Console(width=width), view), width)


def test_a_row_says_pod_handler_hypervisor_release_age_and_machine(node: FakeNode) -> None:
    node.add(1, "shop/web-0", "kata-clh", vcpus=4)
    lines = drawn(node.view()).splitlines()
    assert lines[0].split()[:7] == ["ID", "POD", "HANDLER", "HYPERVISOR", "KATA", "AGE", "VCPUS"]
    assert lines[1].split()[:7] == ["00000001", "shop/web-0", "kata-clh", "clh", "4.1.0", "1h", "4"]


def test_cpu_is_what_was_used_between_two_looks(node: FakeNode) -> None:
    node.add(1, "shop/web-0")
    node.gathering.look()
    node.clock.now += 2.0
    node.spend(1001, 250 + TICKS, "cloud-hyper")
    node.spend(1000, 250 + TICKS // 2, "containerd-shim")
    (row,) = node.gathering.look()
    assert row.cores == pytest.approx(1.5 / 2.0)


def test_a_process_that_took_over_a_pid_is_charged_nothing_of_the_one_before(node: FakeNode) -> None:
    node.add(1, "shop/web-0")
    node.gathering.look()
    node.clock.now += 1.0
    made = node.proc.sandbox(2, 1000, pod="web-1", namespace="shop")
    (row,) = node.gathering.look()
    assert (row.sandbox.id, row.cores) == (made, None)


def test_memory_is_the_proportional_share_and_said_to_be_resident_where_that_cannot_be_read(node: FakeNode) -> None:
    node.add(1, "shop/web-0")
    node.add(2, "shop/web-1")
    for pid, share in ((1000, 20), (1001, 300), (1002, 30)):
        node.proc.mappings(pid, ("", share << 11, share << 10))
    one, other = node.view().rows
    assert (one.memory, one.is_proportional) == (350 * MIB, True)
    assert {name: one.part(name) // MIB for name in one.sandbox.processes} == {"vmm": 300, "virtiofsd": 30, "shim": 20}
    assert not other.is_proportional
    assert other.memory == sum(p.resident for group in other.sandbox.processes.values() for p in group)
    lines = drawn(node.view()).splitlines()
    assert " 350Mi " in lines[1]
    assert "~" in lines[2]
    assert any(line.startswith("· ~ resident memory") for line in lines)


def test_in_a_watch_memory_is_measured_now_and_then(node: FakeNode) -> None:
    node.add(1, "shop/web-0")
    for pid in (1000, 1001, 1002):
        node.proc.mappings(pid, ("", 10 << 10, 10 << 10))
    assert node.view().memory == 30 * MIB
    node.proc.mappings(1001, ("", 10 << 10, 5 << 10))
    assert node.view(seconds=MEMORY_AGE / 4).memory == 30 * MIB
    assert node.view(seconds=MEMORY_AGE).memory == 25 * MIB


def test_a_look_takes_no_longer_than_it_may_and_the_next_one_goes_on(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 6):
        node.add(number, f"shop/web-{number}")
    measured = []

    def slow(proc: Path, sandbox: Sandbox) -> measure.Memory:
        measured.append(sandbox.pod)
        node.clock.now += BUDGET * 0.6
        return measure.Memory(dict.fromkeys(sandbox.processes, MIB), 0)

    monkeypatch.setattr(measure, "memory", slow)
    rows = node.gathering.measure(node.gathering.look())
    assert [row.is_proportional for row in rows].count(True) == len(measured) == 2
    rows = node.gathering.measure(node.gathering.look())
    assert sorted(measured) == [f"web-{number}" for number in range(1, 5)]
    assert [row.is_proportional for row in rows].count(True) == 4


def test_sums_stand_below_their_columns(node: FakeNode) -> None:
    for number in range(1, 4):
        node.add(number, f"shop/web-{number}", vcpus=number)
        for pid in range(1000 * number, 1000 * number + 3):
            node.proc.mappings(pid, ("", 64 << 10, 50 << 10))
    lines = drawn(node.view()).splitlines()
    words = lines[4].split()
    assert words == ["together", "6", "0m", "450Mi", "150Mi", "150Mi", "150Mi"]
    column = lines[0].index("VCPUS") + len("VCPUS")
    assert all(line[column - 1] in "1236" for line in lines[1:5])
    assert lines[6] == "3 sandboxes: 3 kata-clh"


@pytest.mark.parametrize(
    ("order", "expected"),
    [("pod", ["a/z", "b/a", "c/m"]), ("cpu", ["c/m", "a/z", "b/a"]), ("memory", ["b/a", "c/m", "a/z"])],
)
def test_rows_are_ordered_by_what_is_asked_for(node: FakeNode, order: str, expected: list[str]) -> None:
    for number, (pod, share) in enumerate((("b/a", 300), ("a/z", 100), ("c/m", 200)), 1):
        node.add(number, pod)
        for pid in range(1000 * number, 1000 * number + 3):
            node.proc.mappings(pid, ("", share << 10, share << 10))
    node.gathering.look()
    node.clock.now += 1.0
    node.spend(3001, 250 + 90, "cloud-hyper")
    node.spend(2001, 250 + 40, "cloud-hyper")
    rows = node.gathering.measure(node.gathering.look())
    assert [row.pod for row in ordered(rows, order)] == expected
    assert {row.pod for row in ordered(rows, "age")} == set(expected)


def test_an_orphan_is_marked_stands_last_and_its_processes_are_named(node: FakeNode) -> None:
    node.add(1, "a/first")
    node.add(2, "b/second")
    node.view()
    node.proc.end(1000)
    told = drawn(node.view())
    lines = told.splitlines()
    assert lines[1].split()[1] == "b/second"
    assert lines[2].split()[:3] == ["!", "00000001", "a/first"]
    assert "its shim is gone, the rest of it runs on (vmm 1001, virtiofsd 1002)" in told
    assert "katanode ends none by itself" in " ".join(told.split())


def test_a_sandbox_without_a_virtual_machine_is_marked(node: FakeNode) -> None:
    node.add(1, "a/first")
    for descriptor in (node.proc.path / "1001/fd").iterdir():
        descriptor.unlink()
    told = drawn(node.view())
    assert told.splitlines()[1].startswith("!")
    assert "holds a KVM virtual machine" in told
    assert node.view().as_json()["sandboxes"][0]["mark"] == "without-vm"  # type: ignore[index]


def test_older_releases_and_foreign_ones_are_told_from_the_current_one(node: FakeNode) -> None:
    node.add(1, "a/first")
    view = node.view()
    newer = Overview(view.rows, view.now, 1.0, "4.2.0-00000000")
    assert f"1 on release {CURRENT}: they keep it until they end" in newer.hints()
    assert not any("on release" in hint for hint in view.hints())
    assert generation("", [""]) == "foreign"
    assert generation("4.1.0-aaaaaaaa", ["4.1.0-aaaaaaaa", "3.2.0-aaaaaaaa"]) == "4.1.0"
    assert generation("4.1.0-aaaaaaaa", ["4.1.0-aaaaaaaa", "4.1.0-bbbbbbbb"]) == "4.1.0-aaaaaaaa"
    assert generation("4.3.0-rc1-aaaaaaaa", ["4.3.0-rc1-aaaaaaaa"]) == "4.3.0-rc1"


@pytest.mark.parametrize("width", [72, 80, 100, 120, 200])
def test_every_width_has_the_rows_whole_and_none_is_wider(node: FakeNode, width: int) -> None:
    pods = ["agents-prod-eu-west/code-interpreter-session-0f3d9e1c77ab-5c9fd7b9fc-q8w2n", "default/web-0"]
    for number, pod in enumerate(pods, 1):
        node.add(number, pod)
    told = drawn(node.view(), width)
    assert all(len(line.rstrip()) <= width for line in told.splitlines())
    flat = "".join(told.split())
    assert "default/web-0" in flat
    assert "00000001" in flat
    assert ("VIRTIOFSD" in told) == (width >= 120)
    assert ("· memory together" in told) == (width < 120)


def test_without_a_terminal_each_sandbox_is_one_line(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.add(1, f"{'n' * 63}/{'p' * 253}")
    view = node.view()
    target = console()
    target.print(show.once(target, view))
    lines = capsys.readouterr().out.splitlines()
    assert f"{'n' * 63}/{'p' * 253}" in lines[1]
    assert "kata-clh" in lines[1]


def test_a_low_terminal_says_how_many_more_there_are_and_keeps_what_is_marked(node: FakeNode) -> None:
    for number in range(1, 40):
        node.add(number, f"a/pod-{number:02}")
    node.view()
    node.proc.end(5000)
    target = Console(width=100, height=24)
    told = text(show.screen(target, node.view()), 100)
    lines = told.splitlines()
    assert len(lines) <= 24
    assert "a/pod-05" in told
    assert "a/pod-01" in told
    assert any(line.startswith("… and ") for line in lines)
    assert "39 sandboxes: 39 kata-clh" in told


@pytest.mark.parametrize(
    ("release", "handlers", "words"),
    [
        ("", {}, "katanode check"),
        ("4.1.0-x", {"kata-clh": False}, "katanode check"),
        ("4.1.0-x", {"kata-clh": True, "kata-qemu": False}, "runtimeClassName: kata-clh"),
    ],
)
def test_an_empty_node_is_told_of_with_what_to_do(release: str, handlers: dict[str, bool], words: str) -> None:
    told = drawn(Overview((), 0.0, 1.0, release, handlers))
    assert told.startswith("No Kata sandbox runs on this node")
    assert words in told
    assert "kata-qemu" not in told


def test_a_runtime_that_does_not_answer_is_said(node: FakeNode) -> None:
    node.add(1, "a/first")
    rows = node.view().rows
    told = drawn(Overview(rows, 0.0, 1.0, CURRENT, runtime="nobody listens"))
    assert "! the container runtime does not say which pods there are: nobody listens" in told


def test_debug_output_is_reminded_of_also_on_an_empty_node() -> None:
    told = drawn(Overview((), 0.0, 1.0, "4.1.0-x", {"kata-clh": True}, ("kata-clh",)))
    assert "katanode sandboxes debug kata-clh off" in told


def test_machines_get_everything_as_json(node: FakeNode) -> None:
    made = node.add(1, "shop/web-0", vcpus=2)
    told = json.loads(json.dumps(node.view().as_json()))
    (row,) = told["sandboxes"]
    assert (row["id"], row["namespace"], row["pod"], row["uid"]) == (made, "shop", "web-0", "uid-1")
    assert (row["handler"], row["hypervisor"], row["release"]) == ("kata-clh", "clh", CURRENT)
    assert (row["holds_vm"], row["vcpus"], row["mark"]) == (True, 2, None)
    assert row["processes"] == {"vmm": [1001], "virtiofsd": [1002], "shim": [1000]}
    assert row["memory_bytes"] == sum(row["memory_by_component"].values()) == told["total"]["memory_bytes"]
    assert (told["total"]["sandboxes"], told["total"]["vcpus"], told["runtime_answers"]) == (1, 2, True)


class TestFinding:
    """Which sandbox is meant."""

    @pytest.fixture
    @staticmethod
    def rows(node: FakeNode) -> tuple[Row, ...]:
        for place, number in enumerate((0x10000000, 0x10000001, 0x20000000), 1):
            made = node.proc.sandbox(number, 1000 * place, pod=f"pod-{number:x}", namespace="a")
            node.pods[made] = Pod("a", f"pod-{number:x}", "", "kata-clh", ready=True)
        return node.view().rows

    def test_a_beginning_that_is_one_sandboxs_alone_is_enough(self, rows: tuple[Row, ...]) -> None:
        assert find(rows, "2").sandbox.id == sandbox_id(0x20000000)
        assert find(rows, "10000001").sandbox.id == sandbox_id(0x10000001)
        assert find(rows, sandbox_id(0x10000000)).sandbox.id == sandbox_id(0x10000000)

    def test_a_pods_name_with_its_namespace_is_enough_too(self, rows: tuple[Row, ...]) -> None:
        assert find(rows, "a/pod-20000000").sandbox.id == sandbox_id(0x20000000)

    def test_one_that_two_begin_with_lists_both(self, rows: tuple[Row, ...]) -> None:
        with pytest.raises(KatanodeError) as caught:
            find(rows, "1000")
        assert caught.value.reason is Reason.SANDBOX_UNKNOWN
        listed = caught.value.evidence.splitlines()
        assert [line.split()[1] for line in listed] == ["a/pod-10000000", "a/pod-10000001"]
        assert all(find(rows, line.split()[0]).pod == line.split()[1] for line in listed)

    @pytest.mark.parametrize("word", ["", "3", "a/", "pod-20000000", "2" * 65])
    def test_one_that_none_has_lists_what_there_is(self, rows: tuple[Row, ...], word: str) -> None:
        with pytest.raises(KatanodeError) as caught:
            find(rows, word)
        assert len(caught.value.evidence.splitlines()) == 4

    def test_on_an_empty_node_nothing_is_listed(self) -> None:
        with pytest.raises(KatanodeError, match="no Kata sandbox runs on this node"):
            find((), "1")


@given(st.sets(st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1, max_size=20), st.integers(1, 12))
def test_so_many_characters_tell_ids_apart(ids: set[str], least: int) -> None:
    length = distinct(sorted(ids), least)
    assert length >= least
    assert len({each[:length] for each in ids}) == len(ids)
    assert length == least or len({each[: length - 1] for each in ids}) < len(ids)


def test_options_before_and_behind_a_command_below_are_the_same() -> None:
    for rest in (["show", "x"], ["debug", "kata-clh", "on"]):
        before = vars(_parser().parse_args(["sandboxes", "--json", "--root", "/a", "--settings", "s", *rest]))
        behind = vars(_parser().parse_args(["sandboxes", *rest, "--json", "--root", "/a", "--settings", "s"]))
        assert before == behind
        assert (before["json"], before["root"], before["settings"]) == (True, "/a", "s")


@pytest.mark.parametrize("word", ["0", "-1", "nan", "inf", "x", "1e9"])
def test_an_interval_that_is_none_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        _parser().parse_args(["sandboxes", f"--interval={word}"])
    assert caught.value.code == 2
    assert "--interval" in capsys.readouterr().err


def test_every_order_is_accepted() -> None:
    for order, watch in itertools.product(ORDERS, ((), ("--watch",))):
        assert _parser().parse_args(["sandboxes", "--sort", order, *watch]).sort == order
