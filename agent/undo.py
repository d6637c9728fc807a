"""Going back: to the release before, or to a node without katanode."""

import contextlib
from dataclasses import replace

from agent import prepare
from agent.cri.activation import Activation, Change
from agent.cri.client import Client
from agent.cri.configuration import Configuration
from agent.cri.daemon import Daemon, find
from agent.errors import KatanodeError
from agent.host import files
from agent.host.lock import held
from agent.install import wish
from agent.kata import handlers, links, releases, render
from agent.node import Node
from agent.plan import Disturbs, Plan, Step, diff
from agent.reasons import Reason
from agent.reconcile import Options, apply, finish_interrupted
from agent.report import Finding, Report
from agent.report import State as Verdict
from agent.sandboxes import canary
from agent.state import FOLDER, LOCK, STATE, State

_OWN = (releases.HOME, render.FOLDER, FOLDER)


def plan_uninstall(node: Node) -> Plan:
    """What an uninstall would do.

    Raises:
        KatanodeError: as `uninstall`.
    """
    state = node.remembered()
    if not _is_installed(node, state):
        return Plan(())
    daemon = find(node.root, node.settings.runtime.socket)
    change = _removal(node, daemon)
    steps = []
    if change.files or change.gone:
        text = "\n".join(diff(f.path, f.before or b"", f.after or b"") for f in change.files)
        steps.append(Step("take the handlers out of containerd's configuration", Disturbs.RESTART, text))
    gone = [path for path in _OWN if node.root(path).exists()]
    steps.append(Step(f"remove {', '.join(gone)} and the links that lead there", Disturbs.NOTHING))
    if state.sysctls or state.modules:
        lines = [f"-{key} = {new}\n+{key} = {old}" for key, (old, new) in state.sysctls.items()]
        lines += [f"-module {name}" for name in state.modules]
        steps.append(Step("set sysctls and modules back", Disturbs.NOTHING, "\n".join(lines)))
    return Plan(tuple(steps))


def uninstall(node: Node) -> tuple[Report, tuple[Finding, ...]]:
    """Takes everything of katanode's off the node.

    In this order, since anything else breaks nodes: configuration out, checked, restarted, verified over CRI; only then
    files, modules and sysctls.

    Returns:
        The report, and what could not be set back.

    Raises:
        KatanodeError: `SANDBOXES_RUNNING`; what stands in the way of changing the runtime's configuration.
    """
    troubles: tuple[Finding, ...] = ()
    with held(node.root(LOCK)):
        finish_interrupted(node)
        state = node.remembered()
        if _is_installed(node, state):
            daemon = find(node.root, node.settings.runtime.socket)
            node.policy.check(daemon)
            prepare.sweep(node, daemon)  # first: what a killed run left of its own holds up nobody
            _refuse_running(node, daemon)
            _deactivate(node, daemon)
            troubles = _remove(node, state)
        else:
            # A run that was killed before it changed anything left what it showed to the runtime's parser.
            with contextlib.suppress(KatanodeError):
                prepare.sweep(node, find(node.root, node.settings.runtime.socket))
    return Report((), (), Verdict.ABSENT), troubles


def rollback(node: Node) -> Report:
    """Goes back to the release before and stays there until the settings wish for another.

    Raises:
        KatanodeError: `NOTHING_TO_ROLL_BACK`, and as `apply`.
    """
    target = rollback_target(node)
    with held(node.root(LOCK)):
        state = node.remembered()
        before = state.release
        node.remember(replace(state, held=wish(node).id, release=target, previous=before))
    try:
        return apply(node, Options(retry=True)).report
    except KatanodeError:
        with held(node.root(LOCK)):
            node.remember(replace(node.remembered(), held=state.held, release=before, previous=target))
        raise


def rollback_target(node: Node) -> str:
    """The id of the release to go back to.

    Raises:
        KatanodeError: `NOTHING_TO_ROLL_BACK`.
    """
    state = node.remembered()
    if not state.previous or releases.find(node.root, state.previous) is None:
        there = ", ".join(r.id for r in releases.installed(node.root)) or "none"
        raise KatanodeError(
            Reason.NOTHING_TO_ROLL_BACK, "there is no earlier release on this node", evidence=f"releases: {there}"
        )
    return state.previous


def running_sandboxes(node: Node, daemon: Daemon) -> list[str]:
    """The Kata sandboxes that run, `namespace/name (handler)`; canaries are left out.

    Raises:
        KatanodeError: `RUNTIME_UNREACHABLE`, `CRI_DISABLED`.
    """
    with Client(node.root(daemon.socket)) as client:
        return sorted(
            f"{s.namespace}/{s.name} ({s.handler})"
            for s in client.sandboxes()
            if s.ready and s.handler in handlers.HANDLERS and not canary.is_canary(s)
        )


def _is_installed(node: Node, state: State) -> bool:
    return state != State() or any(node.root(path).exists() for path in (releases.FOLDER, render.FOLDER))


def _refuse_running(node: Node, daemon: Daemon) -> None:
    running = running_sandboxes(node, daemon)
    if running:
        raise KatanodeError(
            Reason.SANDBOXES_RUNNING,
            f"{len(running)} Kata sandboxes run on this node",
            evidence="\n".join(running[:20]),
        )


def _removal(node: Node, daemon: Daemon) -> Change:
    change = Configuration(node.root, node.runner, daemon).wish(())
    # Handlers that the daemon loaded and whose file is gone already: the restart is what is missing.
    with Client(node.root(daemon.socket)) as client:
        loaded = client.status().handlers
    ours = {name for name, table in loaded.items() if _is_ours(table)}
    return replace(change, gone=tuple(sorted({*change.gone, *ours})))


def _is_ours(table: object) -> bool:
    options = table.get("options") if isinstance(table, dict) else None
    return isinstance(options, dict) and str(options.get("ConfigPath", "")).startswith(f"{render.FOLDER}/")


def _deactivate(node: Node, daemon: Daemon) -> None:
    change = _removal(node, daemon)
    if not change.files and not change.gone:
        return
    configuration = Configuration(node.root, node.runner, daemon)
    if change.files:
        configuration.checked(change)
    activation = Activation(node.root, node.runner, node.journal, node.policy, node.say, node.permit)
    activation.run(daemon, change, lambda: None)


def _remove(node: Node, state: State) -> tuple[Finding, ...]:
    links.remove(node.root)
    render.remove_all(node.root)
    releases.remove_all(node.root)
    troubles = prepare.undo(node, state)
    for folder in state.folders:
        files.remove_empty(node.root(folder))
    for path in node.root(FOLDER).iterdir():
        if path not in {node.root(LOCK), node.root(STATE)}:
            path.unlink()
    files.remove(node.root(STATE))  # last: until then a killed run is gone on with
    node.say("files, links, modules and sysctls are as before")
    return troubles
