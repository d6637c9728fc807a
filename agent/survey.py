"""What there is and what is wanted of it, read without changing anything: the input of the plan."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent import install, prepare
from agent.cri.activation import Change
from agent.cri.client import Client
from agent.cri.configuration import Configuration
from agent.cri.daemon import Daemon, find
from agent.cri.handler import Handler
from agent.cri.loaded import not_loaded
from agent.install import Rendered
from agent.kata import handlers, releases
from agent.kata.releases import Release, Wanted
from agent.node import Node
from agent.plan import Facts
from agent.probes import devices, kvm
from agent.proofs import Proofs
from agent.report import Finding, obstacles
from agent.state import State


@dataclass(frozen=True, slots=True)
class Survey:
    """The node as it is.

    Attributes:
        state: what katanode remembers.
        daemon: who serves CRI.
        wanted: the release that the settings want.
        release: the one to work with; None while it is not there.
        unpack: what is unpacked where there is none: the wanted one, or anew the one that an operator went back to.
        rendered: the handlers' configurations; empty while the release is not there.
        proofs: what is proved of them.
        findings: what the probes of devices found, which cost little.
        facts: the input of the plan.
    """

    state: State
    daemon: Daemon
    wanted: Wanted
    release: Release | None
    unpack: Wanted
    rendered: tuple[Rendered, ...]
    proofs: Proofs
    findings: tuple[Finding, ...]
    facts: Facts


def survey(node: Node, *, reinstall: bool = False) -> Survey:
    """Reads everything that a plan depends on.

    Raises:
        KatanodeError: whatever stands in the way of knowing: settings that do not fit the release, no runtime, a
            configuration that is left alone.
    """
    state = node.remembered()
    wanted = install.wish(node)
    daemon = find(node.root, node.settings.runtime.socket)
    node.policy.check(daemon)
    release, unpack = install.present(node, state, wanted), wanted
    if release is not None and reinstall:
        # Not the wanted one: an operator may have gone back from it, and damage is no reason to return there.
        unpack = wanted if release.id == wanted.id else releases.made_of(node.root, release)
        release = None
    if release is not None:
        releases.verify(node.root, release)
    rendered = install.rendered(node, release) if release else ()
    proofs = Proofs(node, daemon, install.subjects(daemon, release, rendered) if release else ())
    proofs.recall(state)
    told = tuple(s.handler for s in proofs.subjects) or install.expected(node, daemon, unpack)
    change = Configuration(node.root, node.runner, daemon).wish(told)
    findings = quick_probes(node)
    able = able_handlers(node, findings)
    facts = Facts(
        host=prepare.survey(node, state),
        release=release.id if release else unpack.id,
        archives=() if release else [name for name, _ in unpack.archives],
        renderings=install.differences(node, release, rendered)
        if release
        else {name: {} for name in node.settings.kata.handlers},
        links={link.path: link.target for link in install.wanted_links(node, release, rendered)} if release else {},
        change=change,
        not_loaded=() if change.files else loaded_otherwise(node, daemon, told, change),
        unproved=proofs.missing(able) if release else able,
        collectable=[r.id for r in install.collectable(node, state, release.id)] if release else (),
        hindered=not able and not state.release,
        interrupted=node.journal.read() is not None,
    )
    return Survey(state, daemon, wanted, release, unpack, rendered, proofs, findings, facts)


def quick_probes(node: Node) -> tuple[Finding, ...]:
    """The functional probes that cost some milliseconds: KVM and the devices."""
    probed = [kvm.probe_kvm(node.root)]
    probed += [devices.probe_device(node.root, device) for device in devices.DEVICES]
    return tuple(finding for findings in probed for finding in findings)


def able_handlers(node: Node, findings: Sequence[Finding]) -> tuple[str, ...]:
    """The wanted handlers that nothing among these findings hinders."""
    names = node.settings.kata.handlers
    return tuple(name for name in names if not obstacles(name, handlers.lookup(name).needs, findings))


def loaded_otherwise(node: Node, daemon: Daemon, told: Sequence[Handler], change: Change) -> list[str]:
    """What the running daemon has otherwise than its configuration says.

    Raises:
        KatanodeError: `RUNTIME_UNREACHABLE`, `CRI_DISABLED`.
    """
    with Client(node.root(daemon.socket)) as client:
        return not_loaded(client.status().handlers, told, change.gone, daemon)
