"""`kill -9` before every step of the transaction: the node serves, files are old or new, the next run mends."""

import collections
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Machine

pytestmark = pytest.mark.runtime

DRIVER = Path(__file__).with_name("crashing.py")
STRIDE = int(os.environ.get("KATANODE_CRASH_STRIDE", "12"))
"""Of the steps outside the transaction every so many is tried; 1 tries all."""


LEFTOVERS = (".katanode-tmp-", ".staging-", "journal.json")
"""Parts of names of what only a run under way may have."""

either = pytest.mark.parametrize("machine", ["1.7", "2.1"], indirect=True)


def crash(node: "Machine", step: int, *command: str) -> int:
    """Runs katanode until a step; gives its exit status, -9 for killed."""
    report = "/run/steps"
    argv = [sys.executable, str(DRIVER), str(step), report, *command]
    environment = {"PYTHONPATH": str(DRIVER.parents[2])}
    return node.lab.run(argv, check=False, env=environment, timeout=120).returncode


def steps(node: "Machine", *command: str) -> list[str]:
    assert crash(node, 0, *command) == 0
    return node.path("/run/steps").read_text().splitlines()


def chosen(names: list[str]) -> list[int]:
    """All steps of the transaction, journal to journal, and some of the others."""
    journal = [i for i, name in enumerate(names, 1) if "journal.json" in name]
    transaction = range(journal[0], journal[-1] + 2) if journal else range(0)
    others = [i for i in range(1, len(names) + 1) if i not in transaction]
    return sorted({*transaction, *others[::STRIDE]} & set(range(1, len(names) + 1)))


def killed(status: int) -> bool:
    return status in {-signal.SIGKILL, 128 + signal.SIGKILL}


@either
def test_an_apply_killed_anywhere_costs_nothing(machine: "Machine", capsys: pytest.CaptureFixture[str]) -> None:
    pod = machine.run_pod()
    plain, old, pids = machine.snapshot(), machine.config, {p.pid for p in machine.processes_of(pod)}
    names = steps(machine, "apply")
    new = machine.config
    machine.katanode("uninstall")
    outcomes: collections.Counter[str] = collections.Counter()
    for step in chosen(names):
        what = f"before step {step} of {len(names)}: {names[step - 1]}"
        assert killed(crash(machine, step, "apply")), what
        assert machine.config in {old, new}, what
        assert machine.serves(), what
        done = machine.katanode("apply")
        outcomes["finished by the next run" if "earlier run" in done.stderr else "begun anew"] += 1
        assert machine.json("status")["handlers"][0]["ready"], what
        assert machine.config == new, what
        assert not [path for path in machine.snapshot() if any(mark in path for mark in LEFTOVERS)], what
        machine.katanode("uninstall")
        assert machine.snapshot() == plain, what
    assert {p.pid for p in machine.processes_of(pod)} == pids, "a pod that ran through all of it still runs"
    machine.remove_pod(pod)
    with capsys.disabled():
        print(f"\napply: {len(names)} steps, killed before {sum(outcomes.values())} of them: {dict(outcomes)}")


@either
def test_an_uninstall_killed_anywhere_is_gone_on_with(machine: "Machine", capsys: pytest.CaptureFixture[str]) -> None:
    plain, old = machine.snapshot(), machine.config
    machine.katanode("apply")
    new = machine.config
    names = steps(machine, "uninstall")
    tried = chosen(names)
    for step in tried:
        what = f"before step {step} of {len(names)}: {names[step - 1]}"
        machine.katanode("apply")
        assert killed(crash(machine, step, "uninstall")), what
        assert machine.config in {old, new}, what
        assert machine.serves(), what
        machine.katanode("uninstall")
        assert machine.snapshot() == plain, what
    with capsys.disabled():
        print(f"\nuninstall: {len(names)} steps, killed before {len(tried)} of them")
