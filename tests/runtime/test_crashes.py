"""`kill -9` at every step: the runtime serves, its files are the old or the new ones whole, and the next run mends all.

Of steps that only repeat themselves (the files of a release) the first and the last are taken.
"""

import collections
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import pytest
from crashing import Crasher, Outcome, distinct

from hack.lab.containerd import RESTART

if TYPE_CHECKING:
    from conftest import Machine

pytestmark = pytest.mark.runtime

LEFTOVERS = (".katanode-tmp-", ".staging-", "journal.json")
"""Parts of names of what only a run under way may have."""
FILES = ("/etc/containerd/config.toml", "/etc/containerd/katanode.d/katanode.toml")
"""What may be written of the runtime's."""
IN_RESTART = "restart under way"
"""After this step the runtime may be away."""
ONE_AT_A_TIME = ["flock", "--close", "/run/lab/restart.lock", RESTART]
"""Restarts queue, as systemd's jobs do: that of a killed run goes on when the next begins its own."""
EVERY = {"1.7": 2, "2.1": 1}
"""Of so many steps one is taken: 2.1, with a drop-in and an import for it, has all of 1.7's and more."""
STRIDE = int(os.environ.get("KATANODE_CRASH_STRIDE", "12"))
"""Of the steps outside the transaction every so many is taken, of further transactions every third; 1 takes all."""

generations = pytest.mark.parametrize("machine", list(EVERY), indirect=True)
newest = pytest.mark.parametrize("machine", ["2.1"], indirect=True)


class Bench:
    """A machine that is crashed again and again, and what came of it.

    Attributes:
        machine: the machine.
        katanode: runs katanode in it, and kills it.
        outcomes: how often what came of a crash.
    """

    def __init__(self, machine: "Machine", katanode: Crasher) -> None:
        self.machine = machine
        self.katanode = katanode
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.settings("3.2.0")

    def settings(self, version: str) -> None:
        command = ", ".join(f'"{word}"' for word in ONE_AT_A_TIME)
        self.machine.settings(version=version)
        text = self.machine.path("/etc/katanode/katanode.toml").read_text()
        self.machine.write_settings(text.replace(f'restart_command = ["{RESTART}"]', f"restart_command = [{command}]"))

    def chosen(self, names: Sequence[str], among: Sequence[int] | None = None) -> list[int]:
        """The numbers of the steps that are tried: of the transaction each one that differs, of the others some."""
        numbers = distinct(names) if among is None else among
        inside = set(transaction(names))
        others = [number for number in numbers if number not in inside]
        taken = sorted({*inside.intersection(numbers), *others[::STRIDE], *others[-1:]})
        return taken[:: EVERY[self.machine.containerd.generation]]

    def done(self, *command: str) -> Outcome:
        """Runs katanode to its end, which must be a good one."""
        made = self.katanode(*command)
        assert made.status == 0, made
        return made

    def files(self) -> tuple[bytes | None, ...]:
        """The runtime's files."""
        paths = [self.machine.path(path) for path in FILES]
        return tuple(path.read_bytes() if path.exists() else None for path in paths)

    def sysctl(self) -> str:
        """The value that katanode raises; the network namespace's, so only a process inside sees it."""
        return self.machine.lab.run(["cat", "/proc/sys/net/core/somaxconn"]).stdout

    def crash(
        self, *command: str, step: int | str, whole: Sequence[tuple[bytes | None, ...]], away: bool = False
    ) -> None:
        """Kills katanode before a step: the runtime serves, and each of its files is one of the whole ones.

        Only in the middle of a restart, and where the test keeps it `away`, the runtime may be not there yet.
        """
        made = self.katanode(*command, fatal=step)
        assert made.killed, made
        assert away or self.katanode.last == IN_RESTART or self.machine.serves()
        assert all(now in states for now, *states in zip(self.files(), *whole, strict=True))

    def mended(self, *options: str) -> None:
        """The next apply makes the node ready and leaves nothing of the crash."""
        made = self.katanode("apply", "--json", *options)
        assert made.status == 0, made
        assert json.loads(made.stdout)["handlers"][0]["ready"], made
        assert self.machine.serves()
        assert not [name for name in self.machine.snapshot() if any(mark in name for mark in LEFTOVERS)]
        self.outcomes[outcome(made)] += 1


def outcome(made: Outcome) -> str:
    """What a run after a crash did about it, in few words."""
    step = re.search(r"ended in the middle of a change \(step: ([\w-]+)\)", made.stderr)
    if step is None:
        return "begun anew" if "restarting containerd" in made.stderr else "gone on with, no restart"
    return f"{'undone' if 'undoing the change' in made.stderr else 'finished'} from {step[1]}"


@pytest.fixture
def bench(machine: "Machine") -> Iterator[Bench]:
    with Crasher(machine) as katanode:
        yield Bench(machine, katanode)


@pytest.fixture
def table(bench: Bench, capsys: pytest.CaptureFixture[str]) -> Callable[[str, int, int], None]:
    """Prints the outcomes."""

    def show(title: str, tried: int, steps: int) -> None:
        with capsys.disabled():
            print(f"\n{title}, containerd {bench.machine.containerd.generation}: {steps} steps, {tried} tried")
            for what, count in sorted(bench.outcomes.items()):
                print(f"  {count:4}  {what}")

    return show


class Trouble:
    """Names the step at which an assertion failed; a context manager for each."""

    def __init__(self, steps: Sequence[str], step: int) -> None:
        self._what = f"killed before step {step} of {len(steps)}, {steps[step - 1]}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(self._what)


def transaction(names: Sequence[str]) -> list[int]:
    """The numbers of the steps from the journal's first to the one after its last."""
    journal = [number for number, name in enumerate(names, 1) if "journal.json" in name]
    return list(range(journal[0], journal[-1] + 2))


def alive(machine: "Machine", pod: str) -> set[int]:
    """The processes of a pod, and the one that is the pod."""
    found = {process.pid for process in machine.processes_of(pod)}
    assert found, f"nothing of {pod} runs"
    return {*found, machine.task_pid(pod)}


@generations
def test_an_apply_killed_anywhere_costs_nothing(bench: Bench, table: Callable[..., None]) -> None:
    machine = bench.machine
    pod = machine.run_pod()
    pids, plain, old, before = alive(machine, pod), machine.snapshot(), bench.files(), bench.sysctl()
    bench.done("apply")
    steps, new, names = bench.katanode.steps(), bench.files(), set(machine.snapshot())
    bench.done("uninstall")
    assert machine.snapshot() == plain
    chosen = bench.chosen(steps)
    for step in chosen:
        with Trouble(steps, step):
            bench.crash("apply", step=step, whole=(old, new))
            bench.mended()
            assert bench.files() == new
            assert set(machine.snapshot()) == names
            bench.done("uninstall")
            assert machine.snapshot() == plain
            assert bench.sysctl() == before
    assert alive(machine, pod) == pids, "a pod that ran through all of it still runs"
    machine.remove_pod(pod)
    table("apply killed", len(chosen), len(steps))


@generations
@pytest.mark.parametrize("then", ["uninstall", "apply"])
def test_an_uninstall_killed_anywhere_is_gone_on_with_or_taken_back(
    bench: Bench, then: str, table: Callable[..., None]
) -> None:
    machine = bench.machine
    plain, old, before = machine.snapshot(), bench.files(), bench.sysctl()
    bench.done("apply")
    new = bench.files()
    bench.done("uninstall")
    steps = bench.katanode.steps()
    chosen = bench.chosen(steps)
    for step in chosen:
        with Trouble(steps, step):
            bench.done("apply")
            bench.crash("uninstall", step=step, whole=(old, new))
            if then == "apply":
                bench.mended()
                assert bench.files() == new
                bench.done("uninstall")
            else:
                bench.outcomes[outcome(bench.done("uninstall"))] += 1
            assert machine.snapshot() == plain
            assert bench.sysctl() == before
            assert machine.serves()
    table(f"uninstall killed, then {then}", len(chosen), len(steps))


@newest
def test_an_uninstall_takes_along_what_a_killed_run_left(bench: Bench) -> None:
    machine = bench.machine
    plain = machine.snapshot()
    bench.done("apply")
    text = machine.path("/etc/katanode/katanode.toml").read_text()
    machine.write_settings(f"{text}[handlers.kata-clh.hypervisor.clh]\ndefault_memory = 512\n")
    assert bench.katanode("apply", fatal="canary stop_sandbox").killed
    assert machine.pods()
    bench.done("uninstall")
    assert not machine.pods(), "its canary"
    machine.write_settings(text)
    assert machine.snapshot() == plain
    assert bench.katanode("apply", fatal="remove .*candidate").killed
    assert machine.snapshot() != plain
    bench.done("uninstall")
    assert machine.snapshot() == plain, "what it had shown to containerd's parser"


@generations
def test_an_upgrade_killed_anywhere_costs_no_pod(bench: Bench, table: Callable[..., None]) -> None:
    machine = bench.machine
    bench.done("apply")
    old, pods = bench.files(), [machine.run_pod(name="plain"), machine.run_pod("kata-clh", name="kata")]
    pids = [alive(machine, pod) for pod in pods]
    for version in ("3.32.0", "3.2.0", "3.32.0"):  # the old release stays, since a sandbox uses it, and the new one too
        bench.settings(version)
        bench.done("apply")
    steps, new = bench.katanode.steps(), bench.files()
    assert old != new
    chosen = bench.chosen(steps, transaction(steps)[:: min(STRIDE, 3)])
    for step in chosen:
        with Trouble(steps, step):
            bench.settings("3.2.0")
            bench.done("apply")
            bench.settings("3.32.0")
            bench.crash("apply", step=step, whole=(old, new))
            bench.mended()
            assert bench.files() == new
            assert [alive(machine, pod) for pod in pods] == pids
    for pod in pods:
        machine.remove_pod(pod)
    table("upgrade killed with a runc pod and a Kata sandbox running", len(chosen), len(steps))


@generations
def test_an_undoing_killed_anywhere_is_ended_by_the_next_run(bench: Bench, table: Callable[..., None]) -> None:
    machine = bench.machine
    plain, old = machine.snapshot(), bench.files()
    bench.done("apply")
    new = bench.files()
    bench.done("uninstall")
    machine.containerd.refuse_start(times=1)
    made = bench.katanode("apply")
    assert made.status == 3, made
    steps = bench.katanode.steps()
    undoing = steps.index(IN_RESTART) + 2
    chosen = bench.chosen(steps, [number for number in transaction(steps) if number >= undoing])
    bench.done("uninstall")
    assert machine.snapshot() == plain
    for step in chosen:
        with Trouble(steps, step):
            machine.containerd.refuse_start(times=1)
            bench.crash("apply", step=step, whole=(old, new), away=True)
            bench.mended("--retry")
            assert bench.files() == new
            bench.done("uninstall")
            assert machine.snapshot() == plain
    table("undoing killed", len(chosen), len(steps))


@newest
@pytest.mark.parametrize("first", ["rename /etc/containerd/config.toml", "^verify"])
def test_a_run_that_mends_may_be_killed_anywhere_too(bench: Bench, first: str, table: Callable[..., None]) -> None:
    machine = bench.machine
    plain, old = machine.snapshot(), bench.files()
    assert bench.katanode("apply", fatal=first).killed
    bench.done("apply")
    steps, new = bench.katanode.steps(), bench.files()
    bench.done("uninstall")
    chosen = transaction(steps)[:: min(STRIDE, 3)]
    for step in chosen:
        with Trouble(steps, step):
            bench.crash("apply", step=first, whole=(old, new))
            bench.crash("apply", step=step, whole=(old, new))
            bench.mended()
            assert bench.files() == new
            bench.done("uninstall")
            assert machine.snapshot() == plain
    table(f"killed before {first}, and the next run too", len(chosen), len(steps))


@newest
def test_an_old_release_is_removed_whole_though_its_removal_was_killed(
    bench: Bench, table: Callable[..., None]
) -> None:
    machine = bench.machine

    def until_one_is_spare() -> None:
        bench.done("uninstall")
        for version in ("3.2.0", "3.32.0"):
            bench.settings(version)
            bench.done("apply")
        bench.settings("4.1.0")

    until_one_is_spare()
    bench.done("apply")
    steps = bench.katanode.steps()
    assert not machine.releases("3.2.0"), "one release beside the one in force is kept"
    begin = next(number for number, name in enumerate(steps, 1) if "gone-3.2.0" in name)
    chosen = bench.chosen(steps, [number for number in distinct(steps) if number >= begin])
    for step in chosen:
        with Trouble(steps, step):
            until_one_is_spare()
            assert bench.katanode("apply", fatal=step).killed
            bench.mended()
            assert not machine.releases("3.2.0")
    table("removal of an old release killed", len(chosen), len(steps))


@newest
def test_what_was_half_unpacked_goes_though_the_wish_for_it_was_taken_back(bench: Bench) -> None:
    bench.done("apply")
    bench.settings("3.32.0")
    assert bench.katanode("apply", fatal="staging.*release.json").killed
    bench.settings("3.2.0")
    bench.mended()


@newest
def test_a_rollback_killed_in_its_transaction_is_finished_by_the_next_apply(
    bench: Bench, table: Callable[..., None]
) -> None:
    bench.done("apply")
    old = bench.files()
    bench.settings("3.32.0")
    bench.done("apply")
    new = bench.files()
    bench.done("rollback")
    steps = bench.katanode.steps()
    assert bench.files() == old
    chosen = transaction(steps)[:: min(STRIDE, 3)]
    for step in chosen:
        with Trouble(steps, step):
            bench.done("apply", "--release-hold")
            assert bench.files() == new
            bench.crash("rollback", step=step, whole=(old, new))
            bench.mended()
            assert bench.files() == old
    table("rollback killed", len(chosen), len(steps))


@generations
def test_a_change_that_kills_its_agent_again_and_again_is_undone(bench: Bench) -> None:
    machine, old = bench.machine, bench.files()
    for _ in range(3):
        assert bench.katanode("apply", fatal="canary run_sandbox").killed
        assert machine.serves()
    made = bench.katanode("apply", "--json")
    assert json.loads(made.stdout)["error"]["reason"] == "CoolingDown", made
    assert outcome(made) == "undone from verifying"
    assert bench.files() == old
    assert machine.serves()
    assert "kata-clh" not in machine.loaded()
    bench.mended("--retry")
