"""When somebody undoes what katanode installs: repaired at once, then more and more rarely, and never fought over."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import pytest

from agent import drift, settings
from agent.cri.activation import Change
from agent.cri.journal import FileChange
from agent.errors import KatanodeError
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.node import Node
from agent.reasons import Reason
from agent.state import State

if TYPE_CHECKING:
    from pathlib import Path

CHANGE = Change((FileChange("/etc/containerd/katanode.d/katanode.toml", None, b"new"),))
COOLDOWN = 600


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(HostRoot(tmp_path), Runner(), settings.Settings(), lambda _: None, lambda *_: None)


def installed(node: Node, *ago: float) -> State:
    now = time.time()
    return State(
        release="4.1.0-x", settings=settings.as_json(node.settings), repairs=tuple(now - seconds for seconds in ago)
    )


def is_left(node: Node, state: State) -> bool:
    try:
        drift.refuse_tug_of_war(node, state, CHANGE)
    except KatanodeError as error:
        assert error.reason is Reason.TUG_OF_WAR
        assert "/etc/containerd/katanode.d/katanode.toml" in error.evidence
        return True
    return False


def test_the_first_repair_is_made_at_once(node: Node) -> None:
    assert not is_left(node, installed(node))


@pytest.mark.parametrize(
    ("ago", "left"),
    [
        ((COOLDOWN - 5,), True),
        ((COOLDOWN + 5,), False),
        ((3000, COOLDOWN * 2 - 5), True),
        ((3000, COOLDOWN * 2 + 5), False),
        ((*range(80000, 20000, -6000), 6 * 3600 - 60), True),
        ((*range(80000, 22000, -6000), 6 * 3600 + 60), False),
        ((90000, 88000, 87000), False),
    ],
)
def test_each_further_repair_waits_twice_as_long_up_to_six_hours(
    node: Node, ago: tuple[float, ...], *, left: bool
) -> None:
    assert is_left(node, installed(node, *ago)) is left


def test_what_the_operator_wants_anew_is_no_repair(node: Node) -> None:
    state = dataclasses.replace(installed(node, 5), settings={"kata": {"version": "3.2.0"}})
    assert not drift.is_repair(node, state)


def test_a_first_installation_is_no_repair(node: Node) -> None:
    assert not drift.is_repair(node, State())


def test_repairs_are_counted_for_a_day(node: Node) -> None:
    state = drift.counted(installed(node, 90000, 50))
    assert len(state.repairs) == 2


def test_settings_survive_being_kept() -> None:
    text = """
        [kata]
        handlers = ["kata-clh"]
        [handlers.kata-clh]
        annotations = ["default_vcpus"]
        [handlers.kata-clh.hypervisor.clh]
        default_memory = 512
        [runtime]
        restart_command = ["a", "b"]
    """
    made = settings.parse(text)
    assert settings.from_json(settings.as_json(made)) == made
    assert settings.from_json(settings.as_json(settings.Settings())) == settings.Settings()
