"""The flow: finish what was interrupted, prepare the node, probe it, install, configure, prove, report."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent import drift, install, prepare, settings
from agent.cri.activation import Activated, Activation, Change
from agent.cri.client import Client
from agent.cri.configuration import Configuration
from agent.cri.journal import Entry
from agent.errors import KatanodeError
from agent.host.lock import held
from agent.kata import debug, releases
from agent.kata import handlers as kata
from agent.kata.releases import Release
from agent.node import Node
from agent.plan import Plan, make
from agent.probes import probe_all
from agent.proofs import Proofs
from agent.reasons import Reason, Severity
from agent.report import Finding, HandlerReport, Report, bad, obstacles, without_consequences
from agent.report import State as Verdict
from agent.sandboxes import canary
from agent.state import LOCK, Failure, State
from agent.survey import Survey, able_handlers, loaded_otherwise, survey

SPACE_NEEDED = 6 << 30
"""Bytes that a release may take while it is unpacked: 4.1.0's archive has 1 GB and comes to about 3 GB."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator said besides the settings.

    Attributes:
        retry: try a change again although it failed a short while ago.
        reinstall: unpack the release anew.
        leave_hold: follow the settings' release again after a rollback.
    """

    retry: bool = False
    reinstall: bool = False
    leave_hold: bool = False

    @property
    def is_wish(self) -> bool:
        """Whether an operator wants this very run: then what differs is not somebody else's doing."""
        return self.retry or self.reinstall or self.leave_hold


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        report: the node as it is; its state says whether any handler is ready.
        plan: what was to be done, and was.
        drifted: kinds of things that were no longer as an earlier run had left them, see `drift.kinds`.
        activated: the restart of the runtime, if there was one.
    """

    report: Report
    plan: Plan
    drifted: tuple[str, ...] = ()
    activated: Activated | None = None


def apply(node: Node, options: Options) -> Outcome:
    """Makes the node as the settings want it, and proves it.

    Raises:
        KatanodeError: what stands in the way; nothing was changed by the step that failed, or it was undone.
    """
    with held(node.root(LOCK)):
        finish_interrupted(node)
        if options.leave_hold:
            node.remember(replace(node.remembered(), held=""))
        seen = survey(node, reinstall=options.reinstall)
        prepare.sweep(node, seen.daemon)
        releases.sweep(node.root)
        planned = make(seen.facts)
        if not planned.steps and not planned.note:
            if seen.state.settings != settings.as_json(node.settings):
                node.remember(replace(seen.state, settings=settings.as_json(node.settings)))
            made = report(node, seen.release, seen.proofs, seen.findings)
            return Outcome(replace(made, note="nothing to do: this node is as the settings want it"), planned)
        drifted = drift.kinds(node, seen.state, seen.facts)
        made, activated = _carry_out(node, seen, options)
        return Outcome(made, planned, drifted, activated)


def _carry_out(node: Node, seen: Survey, options: Options) -> tuple[Report, Activated | None]:
    if seen.facts.change.files:
        # A configuration that containerd itself refuses is told of before anything is fetched, written or raised.
        Configuration(node.root, node.runner, seen.daemon).checked(seen.facts.change)
    state, troubles = prepare.perform(node, seen.facts.host, seen.state)
    findings = (*troubles, *probe_all(node.root, node.runner, space_needed=0 if seen.release else SPACE_NEEDED))
    able = able_handlers(node, findings)
    if not able and not state.release:
        made = report(node, None, seen.proofs, findings)
        note = "nothing was installed: this node can run none of the wanted handlers"
        return replace(made, note=note), None
    try:
        release = seen.release or releases.install(node.root, node.settings.kata, seen.unpack, node.progress)
        if seen.release is None:
            node.say(f"release {release.id} unpacked and verified")
        rendered = seen.rendered or install.rendered(node, release)
    except KatanodeError:
        if seen.state == State():
            prepare.take_back(node, state)
        raise
    state, before = install.install_configurations(node, state, release, rendered)
    proofs = Proofs(node, seen.daemon, install.subjects(seen.daemon, release, rendered))
    proofs.recall(state)
    try:
        state, activated = _activate(node, seen, state, proofs, able, options)
    except KatanodeError:
        install.switch_back(node, release, before)
        raise
    wish = settings.as_json(node.settings)
    debugged = {name: since for name, since in state.debug.items() if name in node.settings.kata.handlers}
    state = replace(state, proofs=proofs.held, failed=proofs.failed, failure=None, settings=wish, debug=debugged)
    state = install.remember(state, release, seen.wanted)
    state, foreign = install.publish(node, state, release, rendered)
    node.remember(state)
    install.collect(node, state, release.id)
    return report(node, release, proofs, (*findings, *foreign, *_lost(activated))), activated


def _activate(
    node: Node, seen: Survey, state: State, proofs: Proofs, able: Sequence[str], options: Options
) -> tuple[State, Activated | None]:
    """Configures the runtime where that is to be done, and proves what is not proved."""
    told = [subject.handler for subject in proofs.subjects]
    proved = tuple(state.proofs)
    configuration = Configuration(node.root, node.runner, seen.daemon)
    change = configuration.wish(told)
    if not change.files and not loaded_otherwise(node, seen.daemon, told, change):
        proofs.make(proofs.missing(able))
        try:
            proofs.verdict(proved)
        except KatanodeError:
            # `check` and the next looks are to know why there is no proof.
            node.remember(replace(node.remembered(), failed={**state.failed, **proofs.failed}))
            raise
        return state, None
    change = configuration.checked(change) if change.files else change
    for file in change.files:
        state = prepare.make_folder(node, state, file.path.rpartition("/")[0])
    digest = digest_of(change)
    _cool_down(node, state, digest, options)
    if drift.is_repair(node, state) and not options.is_wish:
        drift.refuse_tug_of_war(node, state, change)
        state = node.remember(drift.counted(state))

    def prove() -> None:
        proofs.make(able)
        proofs.verdict(proved)

    activation = Activation(node.root, node.runner, node.journal, node.policy, node.say, node.permit)
    try:
        return state, activation.run(seen.daemon, change, prove)
    except KatanodeError as error:
        if error.reason in {Reason.ROLLED_BACK, Reason.ROLLBACK_FAILED}:
            node.remember(replace(state, failure=Failure(digest, time.time(), str(error.reason), error.message)))
        raise


def finish_interrupted(node: Node) -> None:
    """Finishes or undoes a change that a crash left in the middle.

    An undone one is remembered as a failure, so that it is not tried again at once.

    Raises:
        KatanodeError: `ROLLBACK_FAILED`, `JOURNAL_DAMAGED`.
    """
    entry = node.journal.read()
    if entry is None:
        return
    activation = Activation(node.root, node.runner, node.journal, node.policy, node.say, node.permit)
    try:
        activation.resume(lambda: _prove_resumed(node, entry))
    except KatanodeError as error:
        if error.reason is not Reason.ROLLED_BACK:
            raise
        digest = digest_of(Change(entry.files, entry.handlers, entry.gone))
        failure = Failure(digest, time.time(), str(error.reason), error.message)
        node.remember(replace(node.remembered(), failure=failure))


def _prove_resumed(node: Node, entry: Entry) -> None:
    """The canary's verdict on a change of an earlier run: it must bring a handler that works."""
    able = able_handlers(node, probe_all(node.root, node.runner))
    failure: KatanodeError | None = None
    with Client(node.root(entry.daemon.socket)) as client:
        for handler in entry.handlers:
            if handler.name not in able:
                continue
            shim = node.root(handler.runtime_path or handler.runtime_type)
            try:
                canary.prove(client, handler.name, shim, node.settings.canary.timeout_seconds, node.root("/run"))
            except KatanodeError as error:
                node.tried(handler.name, False)  # noqa: FBT003 - whether it started
                if error.reason is Reason.NETWORK_PLUGIN_NOT_READY:
                    return
                failure = failure or error
            else:
                node.tried(handler.name, True)  # noqa: FBT003 - as above
                return
    if failure is not None:
        raise failure


def digest_of(change: Change) -> str:
    """A digest of what a change would bring."""
    content = hashlib.sha256()
    for file in change.files:
        content.update(f"{file.path}\0".encode() + (file.after or b"") + b"\0")
    content.update(repr(change.handlers).encode())
    return content.hexdigest()


def _cool_down(node: Node, state: State, digest: str, options: Options) -> None:
    failure = state.failure
    wait = node.settings.runtime.cooldown_seconds
    if failure is None or options.retry or failure.change != digest:
        return
    passed = time.time() - failure.at
    if 0 <= passed < wait:
        raise KatanodeError(
            Reason.COOLING_DOWN,
            f"the same change failed {passed:.0f} s ago; it is tried again after {wait} s",
            evidence=f"{failure.reason}: {failure.message}",
        )


def report(node: Node, release: Release | None, proofs: Proofs, findings: Sequence[Finding]) -> Report:
    """The report on a node: findings, and each handler's readiness."""
    told = [*without_consequences(findings), *proofs.findings()]
    told += debug.findings(node.remembered().debug if release else {}, node.settings.kata.handlers)
    absent = next((f for f in told if f.reason is Reason.NOT_INSTALLED and not f.handlers), None)
    made = []
    for name in node.settings.kata.handlers:
        hindrances = obstacles(name, kata.lookup(name).needs, told)
        ready = name in proofs.held and not hindrances
        if not ready and not hindrances:
            # Able, and not ready: either nothing is installed yet, or the last word is the canary's.
            told += () if absent else (proofs.unproved(name),)
            hindrances = (absent or told[-1],)
        made.append(HandlerReport(name, ready, hindrances))
    told = [_said_of_handlers(node, finding) for finding in told]
    return Report(tuple(told), tuple(made), _state(made, absent), release.version if release else "")


def _state(made: Sequence[HandlerReport], absent: Finding | None) -> Verdict:
    good = [handler for handler in made if handler.ready]
    if len(good) == len(made):
        return Verdict.READY
    if good:
        return Verdict.DEGRADED
    return Verdict.ABSENT if absent and any(absent in handler.obstacles for handler in made) else Verdict.BLOCKED


def _said_of_handlers(node: Node, finding: Finding) -> Finding:
    """The finding with the handlers that it concerns: those that need what it is about."""
    if finding.handlers or finding.capability is None:
        return finding
    needing = tuple(n for n in node.settings.kata.handlers if finding.capability in kata.lookup(n).needs)
    return replace(finding, handlers=needing)


def _lost(activated: Activated | None) -> tuple[Finding, ...]:
    if activated is None or not activated.lost:
        return ()
    names = "\n".join(f"{name} ({id_[:13]})" for id_, name in activated.lost.items())
    return (bad("containers run on", Reason.CONTAINERS_LOST, names, severity=Severity.WARNING),)
