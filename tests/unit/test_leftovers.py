"""What sandboxes leave behind is found, and what is not well with them is said in the catalogue's words."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from agent.cri.listing import Listing
from agent.host.root import HostRoot
from agent.reasons import Reason, Severity
from agent.sandboxes import findings, leftovers
from agent.sandboxes.census import Census
from agent.sandboxes.findings import Overhead
from agent.sandboxes.leftovers import Leftover
from hack.lab.fakeproc import FakeProc, sandbox_id

GONE, ALIVE = sandbox_id(1), sandbox_id(2)


class Node:
    """A host's /run and /sys/fs/cgroup in a folder."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.run, self.cgroups = top / "run", top / "sys/fs/cgroup"
        self.cgroups.mkdir(parents=True)

    def folder(self, path: str, *, age: float = 3600) -> Path:
        made = self.run / path
        made.mkdir(parents=True)
        self.old(made, age)
        return made

    def cgroup(self, path: str, *, procs: str = "", events: str | None = None, age: float = 3600) -> Path:
        made = self.cgroups / path
        made.mkdir(parents=True, exist_ok=True)
        (made / "cgroup.procs").write_text(procs)
        if events is not None:
            (made / "cgroup.events").write_text(events)
        self.old(made, age)
        return made

    def old(self, path: Path, age: float) -> None:
        os.utime(path, (time.time() - age,) * 2)

    def find(self, *alive: str) -> list[tuple[str, str, str]]:
        found = leftovers.find(self.run, self.cgroups, alive)
        return [(kind, str(path.relative_to(self.top)), sandbox) for kind, path, sandbox in found]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize(
    "path",
    ["vc/sbs", "vc/vm", "vc/firecracker", "kata", "kata/firecracker", "kata-containers/shared/sandboxes"],
)
def test_a_folder_of_a_sandbox_that_ended_is_found(node: Node, path: str) -> None:
    for each in (GONE, ALIVE):
        node.folder(f"{path}/{each}")
    assert node.find(ALIVE) == [("state-folder", f"run/{path}/{GONE}", GONE)]


def test_firecrackers_folder_has_half_of_the_id(node: Node) -> None:
    node.folder(f"vc/firecracker/{ALIVE[:32]}")
    assert node.find(ALIVE) == []


def test_a_folder_that_changed_a_moment_ago_is_given_time(node: Node) -> None:
    node.folder(f"vc/sbs/{GONE}", age=5)
    assert node.find() == []


def test_files_and_links_and_the_folders_of_all_are_no_sandboxes(node: Node) -> None:
    node.folder("kata/firecracker")
    node.folder("vc/vm/template")
    (node.run / "kata/note").write_text("x")
    (node.run / "kata/link").symlink_to("/")
    assert node.find() == []


def test_an_empty_cgroup_of_version_2_is_found(node: Node) -> None:
    node.cgroup("kata_overhead", events="populated 1\nfrozen 0\n")
    node.cgroup(f"kata_overhead/{GONE}", events="populated 0\nfrozen 0\n")
    node.cgroup(f"kata_overhead/{ALIVE}", events="populated 0\nfrozen 0\n")
    node.cgroup("kata_overhead/" + sandbox_id(3), events="populated 1\nfrozen 0\n")
    assert node.find(ALIVE) == [("cgroup", f"sys/fs/cgroup/kata_overhead/{GONE}", GONE)]


def test_an_empty_cgroup_of_version_1_is_found_in_each_controller(node: Node) -> None:
    for controller in ("memory", "pids"):
        node.cgroup(f"{controller}/kata_overhead/{GONE}")
        node.cgroup(f"{controller}/kata_overhead/{sandbox_id(3)}", procs="77\n")
    found = node.find(ALIVE)
    assert found == [("cgroup", f"sys/fs/cgroup/{name}/kata_overhead/{GONE}", GONE) for name in ("memory", "pids")]


def test_only_leaves_count_below_the_path_that_runtime_rs_takes_over(node: Node) -> None:
    inner = "kata_overhead/kubepods/besteffort/podx"
    node.cgroup(f"{inner}/kata_{GONE}", events="populated 0\n")
    node.cgroup(f"{inner}/{ALIVE}", events="populated 0\n")
    node.cgroup(f"kata-overhead.slice/runtime-rs-{GONE}.scope", events="populated 0\n")
    assert node.find(ALIVE) == [
        ("cgroup", f"sys/fs/cgroup/{inner}/kata_{GONE}", GONE),
        ("cgroup", f"sys/fs/cgroup/kata-overhead.slice/runtime-rs-{GONE}.scope", GONE),
    ]


def test_a_node_without_any_of_it_is_clean(tmp_path: Path) -> None:
    assert leftovers.find(tmp_path / "run", tmp_path / "sys", ()) == ()


def test_a_thousand_pieces_are_enough(node: Node) -> None:
    for number in range(1200):
        node.folder(f"vc/sbs/{sandbox_id(number)}")
    assert len(node.find()) == 1000


# the words


def said(
    folder: Path, *, orphan: bool = False, left: tuple[Leftover, ...] = (), overhead: Overhead | None = None
) -> dict[Reason | None, str]:
    proc = FakeProc(folder)
    made = proc.sandbox(1, 100, pod="web-0", namespace="shop")
    if orphan:
        proc.end(100)
    census = Census(proc.path, patience=0)
    found = findings.findings(HostRoot(), census.update(), left, {made: overhead} if overhead else {})
    return {finding.reason: finding.evidence for finding in found if finding.severity is not Severity.OK}


def test_a_node_that_is_well_has_three_good_findings(tmp_path: Path) -> None:
    assert said(tmp_path) == {}
    found = findings.findings(HostRoot(), (), (), {})
    assert [each.severity for each in found] == [Severity.OK] * 3


def test_an_orphan_is_named_with_its_processes(tmp_path: Path) -> None:
    (reason,) = (found := said(tmp_path, orphan=True))
    assert reason is Reason.SANDBOX_ORPHANED
    assert "its shim is gone, vmm 101, virtiofsd 102 run on" in found[reason]
    assert sandbox_id(1)[:12] in found[reason]


def test_what_was_left_is_named_as_the_host_knows_it(tmp_path: Path) -> None:
    left = tuple(Leftover("state-folder", Path(f"/run/vc/sbs/{number}"), "x") for number in range(13))
    (reason,) = (found := said(tmp_path, left=left))
    assert reason is Reason.SANDBOX_LEFTOVERS
    assert found[reason].splitlines()[0] == "/run/vc/sbs/0"
    assert found[reason].splitlines()[-1] == "and 3 more"


@pytest.mark.parametrize(("measured", "allowed", "exceeds"), [(200, 130, True), (130, 130, False), (200, 0, False)])
def test_overhead_beyond_what_the_runtime_class_grants_is_said(
    tmp_path: Path, measured: int, allowed: int, *, exceeds: bool
) -> None:
    found = said(tmp_path, overhead=Overhead(measured << 20, allowed << 20))
    assert (Reason.SANDBOX_OVERHEAD_EXCEEDED in found) is exceeds
    if exceeds:
        assert "200 MiB beyond the guest's own, 130 MiB granted" in found[Reason.SANDBOX_OVERHEAD_EXCEEDED]


def test_one_look_at_everything_finds_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path)
    node.folder(f"vc/sbs/{GONE}")
    proc = FakeProc(tmp_path / "proc")
    proc.sandbox(2, 100)
    proc.end(100)
    monkeypatch.setattr(findings, "_SECOND_LOOK", 0.01)
    found = findings.look(HostRoot(tmp_path), Listing(tmp_path / "no.sock"), proc.path)
    evidence = {finding.reason: finding.evidence for finding in found}
    assert evidence[Reason.SANDBOX_LEFTOVERS] == f"/run/vc/sbs/{GONE}"
    assert "its shim is gone" in evidence[Reason.SANDBOX_ORPHANED]


def test_what_looks_like_an_orphan_for_a_moment_only_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node, proc = Node(tmp_path), FakeProc(tmp_path / "proc")
    proc.sandbox(2, 100)
    proc.end(100)

    def ends(_: float) -> None:
        for pid in (101, 102):
            proc.end(pid)

    monkeypatch.setattr(time, "sleep", ends)
    found = findings.look(HostRoot(node.top), Listing(tmp_path / "no.sock"), proc.path)
    assert [each.reason for each in found] == [None] * 3
