"""`kill -9` before every step of the transaction: the node serves, files are old or new, the next run mends."""

import collections
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from labnode import LabNode, lab_node

from hack.standin.archive import Archive
from hack.standin.build import build_release

pytestmark = pytest.mark.runtime

DRIVER = Path(__file__).with_name("crashing.py")
STRIDE = int(os.environ.get("KATANODE_CRASH_STRIDE", "12"))
"""Of the steps outside the transaction every so many is tried; 1 tries all."""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Archive]:
    return {"3.2.0": build_release(tmp_path_factory.mktemp("standin"), "3.2.0")["kata-static"]}


def crash(node: LabNode, step: int, *command: str) -> int:
    """Runs katanode until a step; gives its exit status, -9 for killed."""
    report = "/run/steps"
    argv = [sys.executable, str(DRIVER), str(step), report, *command]
    environment = {"PYTHONPATH": str(DRIVER.parents[2])}
    return node.lab.run(argv, check=False, env=environment, timeout=120).returncode


def steps(node: LabNode, *command: str) -> list[str]:
    assert crash(node, 0, *command) == 0
    return node.lab.path("/run/steps").read_text().splitlines()


def chosen(names: list[str]) -> list[int]:
    """All steps of the transaction, journal to journal, and some of the others."""
    journal = [i for i, name in enumerate(names, 1) if "journal.json" in name]
    transaction = range(journal[0], journal[-1] + 2) if journal else range(0)
    others = [i for i in range(1, len(names) + 1) if i not in transaction]
    return sorted({*transaction, *others[::STRIDE]} & set(range(1, len(names) + 1)))


def killed(status: int) -> bool:
    return status in {-signal.SIGKILL, 128 + signal.SIGKILL}


@pytest.mark.parametrize("generation", ["1.7", "2.1"])
def test_an_apply_killed_anywhere_costs_nothing(
    generation: str, archives: Mapping[str, Archive], capsys: pytest.CaptureFixture[str]
) -> None:
    with lab_node(generation, archives) as node, node.sandbox("") as pod:
        plain, old = node.snapshot(), node.config.read_bytes()
        pids = {p.pid for p in node.processes(pod)}
        names = steps(node, "apply")
        new = node.config.read_bytes()
        node.katanode("uninstall")
        outcomes: collections.Counter[str] = collections.Counter()
        for step in chosen(names):
            what = f"before step {step} of {len(names)}: {names[step - 1]}"
            assert killed(crash(node, step, "apply")), what
            assert node.config.read_bytes() in {old, new}, what
            serves = node.lab.run(["test", "-S", "/run/containerd/containerd.sock"], check=False).returncode == 0
            node.containerd.wait_ready()
            assert serves, what
            done = node.katanode("apply")
            outcomes["finished by the next run" if "earlier run" in done.stderr else "begun anew"] += 1
            assert node.json("status")["handlers"][0]["ready"], what
            assert not node.leftovers(), (what, node.leftovers())
            assert node.config.read_bytes() == new, what
            node.katanode("uninstall")
            assert node.snapshot() == plain, what
        assert node.ready(pod)
        assert {p.pid for p in node.processes(pod)} == pids
    with capsys.disabled():
        print(f"\ncontainerd {generation}, apply: {len(names)} steps, {sum(outcomes.values())} tried: {dict(outcomes)}")


@pytest.mark.parametrize("generation", ["1.7", "2.1"])
def test_an_uninstall_killed_anywhere_is_gone_on_with(
    generation: str, archives: Mapping[str, Archive], capsys: pytest.CaptureFixture[str]
) -> None:
    with lab_node(generation, archives) as node:
        plain, old = node.snapshot(), node.config.read_bytes()
        node.katanode("apply")
        new = node.config.read_bytes()
        names = steps(node, "uninstall")
        tried = chosen(names)
        for step in tried:
            what = f"before step {step} of {len(names)}: {names[step - 1]}"
            node.katanode("apply")
            assert killed(crash(node, step, "uninstall")), what
            assert node.config.read_bytes() in {old, new}, what
            node.containerd.wait_ready()
            node.katanode("uninstall")
            assert node.snapshot() == plain, what
    with capsys.disabled():
        print(f"\ncontainerd {generation}, uninstall: {len(names)} steps, {len(tried)} tried")
