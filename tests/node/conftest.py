"""Nodes in QEMU, each booted once: a test gets its node as it was when nothing of katanode was on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from nodes import Case

from hack.lab.errors import LabError
from hack.nodes import disk
from hack.nodes.cluster import Account
from hack.nodes.machine import Node
from hack.nodes.pods import Pods
from hack.nodes.prepared import prepare, without_kvm
from hack.standin.build import build_release

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from images import Built

    from hack.lab.packages import Generation
    from hack.standin.archive import Archive

RELEASES = ("3.2.0", "3.32.0")
PLAIN = "plain"


@pytest.fixture(scope="session")
def account(tmp_path_factory: pytest.TempPathFactory) -> Account:
    """What every node knows of its cluster."""
    if not os.environ.get("KATANODE_NODE_TESTS"):
        pytest.skip(reason="nodes in QEMU stand still now and then, not yet understood; KATANODE_NODE_TESTS=1 tries")
    if os.geteuid() != 0 or os.uname().machine != "x86_64":
        pytest.skip(reason="a node needs root on x86_64")
    if lacking := disk.missing():
        pytest.skip(reason=f"{', '.join(lacking)} not found: hack/tools node installs what a node needs")
    return Account(tmp_path_factory.mktemp("account"))


@pytest.fixture(scope="session")
def node_releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Archive]:
    """Stand-in releases by their version."""
    folder = tmp_path_factory.mktemp("releases")
    return {version: build_release(folder, version)["kata-static"] for version in RELEASES}


@pytest.fixture(scope="session")
def agent_image(request: pytest.FixtureRequest, account: Account) -> Path:
    """The agent's image: the one in KATANODE_IMAGE, for who tries again and again, or one that is built now."""
    named = os.environ.get("KATANODE_IMAGE")
    if named:
        return Path(named)
    built: Built = request.getfixturevalue("built")
    return built.file


@pytest.fixture(scope="session")
def prepared(
    account: Account, node_releases: dict[str, Archive], agent_image: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Generation], disk.Disk]:
    """Makes a generation's disk with the agent's image and releases on it, once."""
    made: dict[Generation, disk.Disk] = {}

    def make(generation: Generation) -> disk.Disk:
        if generation not in made:
            folder = tmp_path_factory.mktemp(f"prepared-{generation}")
            made[generation] = prepare(generation, folder, agent_image, node_releases, account.files)
        return made[generation]

    return make


@pytest.fixture(scope="session")
def booted(
    request: pytest.FixtureRequest,
    prepared: Callable[[Generation], disk.Disk],
    account: Account,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Node]:
    """A node that has booted, with a snapshot of it; one at a time."""
    generation = request.param
    node = Node(prepared(generation), tmp_path_factory.mktemp(f"node-{generation}"), forward=account.port)
    with node:
        node.network_up()
        without_kvm(node)
        node.snapshot(PLAIN)
        yield node
    node.remove()


@pytest.fixture
def case(booted: Node, account: Account, node_releases: dict[str, Archive]) -> Iterator[Case]:
    """A plain node in a cluster."""
    booted.restore(PLAIN)
    made = Case(booted, Pods(booted), account, node_releases)
    with made.cluster():
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the node's journal and the agent's log to a failure."""
    report = yield
    case = getattr(item, "funcargs", {}).get("case")
    if report.failed and isinstance(case, Case):
        for title, words in (("the agent's log", case.log), ("the node's journal", case.node.evidence)):
            try:
                report.sections.append((title, words()[-8000:]))
            except LabError as error:
                report.sections.append((title, str(error)))
    return report
