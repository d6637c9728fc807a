"""Turning debug output on for one handler, and off again: an operator's wish for a while, in no settings file.

It is kept in katanode's memory, so that whoever renders (`katanode apply`, the daemon) renders it too. The switch
itself touches nothing but the rendering of that handler for the release in force: no other difference is carried out,
the runtime is not restarted, and one canary is run where there was a proof: a changed configuration needs a new one.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from agent import install, settings
from agent.cri.daemon import Daemon, find
from agent.errors import KatanodeError
from agent.host.lock import held
from agent.kata import debug, releases, render
from agent.kata.releases import Release
from agent.kata.tomlwrite import Value
from agent.node import Node
from agent.proofs import Proofs
from agent.reasons import Reason
from agent.report import Finding
from agent.state import LOCK, State

PATIENCE = 30.0
"""Seconds that another katanode is waited for: the daemon looks at what changed, which takes it some seconds."""


@dataclass(frozen=True, slots=True)
class Switched:
    """What came of it.

    Attributes:
        handler: whose debug output it is.
        since: when it was turned on, in seconds since 1970; None when it is off.
        changed: False when it was so already.
        config: the path of the handler's configuration.
        tables: tables to the keys and values that make it so; empty when it is off.
        unit: the runtime's systemd unit, whose log has the lines; "" when none is known.
        seconds: how long the canary took to start; None when none was run.
        trouble: why there is no proof where there was one.
    """

    handler: str
    since: float | None
    changed: bool
    config: str
    tables: Mapping[str, Mapping[str, Value]]
    unit: str
    seconds: float | None = None
    trouble: Finding | None = None

    def as_json(self) -> dict[str, object]:
        """It for machines."""
        return {
            "handler": self.handler,
            "debug": self.since is not None,
            "since": self.since,
            "changed": self.changed,
            "configuration": self.config,
            "tables": {table: dict(keys) for table, keys in self.tables.items()},
            "canary_seconds": self.seconds,
            "trouble": self.trouble and self.trouble.as_json(),
        }


def switch(node: Node, handler: str, *, on: bool) -> Switched:
    """Turns debug output of a handler on or off, for sandboxes that start from now on.

    Raises:
        KatanodeError: `NOT_INSTALLED`; `HANDLER_UNKNOWN`; `ANOTHER_RUN` when the other one does not end in time;
            `KATA_CONFIG_REFUSED` or the canary's reason when sandboxes do not start with it, and it is off again.
    """
    with _locked(node):
        state = node.remembered()
        node = _in_force(node, state)
        release = _release(node, state, handler)
        daemon = _daemon(node)
        if on == (handler in state.debug):
            if not on:
                _clean(node, release, handler)  # a run that was killed may have left some of it
            return _result(node, release, daemon, state, handler, changed=False)
        was_proved = handler in _proofs(node, release, daemon, state).held
        # The wish first: a run that is killed now is brought to its end by whoever renders next.
        wish = {name: since for name, since in state.debug.items() if name != handler}
        now = node.remember(replace(state, debug={**wish, handler: time.time()} if on else wish))
        try:
            now, proofs = _carry_out(node, release, daemon, now, handler, prove=was_proved)
            failure = proofs.failures.get(handler)
            if on and failure is not None and failure.reason is not Reason.NETWORK_PLUGIN_NOT_READY:
                raise _refused(handler, failure)
        except KatanodeError:
            _carry_out(node, release, daemon, node.remember(state), handler, prove=False)
            _clean(node, release, handler)
            raise
        proved, failed = (
            {name: kept for name, kept in old.items() if name != handler} for old in (now.proofs, now.failed)
        )
        now = node.remember(replace(now, proofs={**proved, **proofs.held}, failed={**failed, **proofs.failed}))
        if not on:
            _clean(node, release, handler)
        seconds = float(proofs.held[handler]["seconds"]) if was_proved and handler in proofs.held else None
        return _result(node, release, daemon, now, handler, changed=True, seconds=seconds, trouble=failure)


def _carry_out(
    node: Node, release: Release, daemon: Daemon | None, state: State, handler: str, *, prove: bool
) -> tuple[State, Proofs]:
    """Renders as the memory has it, and runs the canary."""
    own = [item for item in install.rendered(node, release) if item.handler.name == handler]
    state, _ = install.install_configurations(node, state, release, own)
    proofs = _proofs(node, release, daemon, state)
    if prove:
        proofs.make((handler,))
    return state, proofs


def _proofs(node: Node, release: Release, daemon: Daemon | None, state: State) -> Proofs:
    subjects = install.subjects(daemon, release, install.rendered(node, release)) if daemon else ()
    proofs = Proofs(node, daemon, subjects)
    proofs.recall(state)
    return proofs


def _clean(node: Node, release: Release, handler: str) -> None:
    """Leaves nothing of it: not in what is there for a rollback, and not in renderings that nobody is led to."""
    for other in releases.installed(node.root):
        files = dict(render.installed(node.root, handler, other.id))
        if files.pop(debug.DROP_IN, None) is not None and other.id != release.id:
            render.install(node.root, handler, other.id, files)
        render.forget_before(node.root, handler, other.id)


def _in_force(node: Node, state: State) -> Node:
    """The node with the settings that are in force: what else they say by now is not this switch's business."""
    return replace(node, settings=settings.from_json(state.settings)) if state.settings else node


def _release(node: Node, state: State, handler: str) -> Release:
    release = releases.find(node.root, state.release)
    if release is None:
        raise KatanodeError(Reason.NOT_INSTALLED, "there is no handler yet whose debug output could be turned on")
    names = node.settings.kata.handlers
    if handler not in names:
        raise KatanodeError(
            Reason.HANDLER_UNKNOWN,
            f"{handler!r} is no handler of this node",
            remedy=f"Use one of its own: {', '.join(names)}.",
        )
    return release


def _daemon(node: Node) -> Daemon | None:
    # Debug output is wanted most where something does not work: it needs no runtime that answers.
    with contextlib.suppress(KatanodeError):
        return find(node.root, node.settings.runtime.socket)
    return None


def _refused(handler: str, failure: Finding) -> KatanodeError:
    assert failure.reason is not None
    return KatanodeError(
        failure.reason,
        f"sandboxes of {handler} start without debug output, and not with it: it is off again",
        evidence=failure.evidence,
        remedy=failure.remedy,
    )


def _result(
    node: Node,
    release: Release,
    daemon: Daemon | None,
    state: State,
    handler: str,
    *,
    changed: bool,
    seconds: float | None = None,
    trouble: Finding | None = None,
) -> Switched:
    added = render.installed(node.root, handler, release.id).get(debug.DROP_IN, b"")
    return Switched(
        handler,
        state.debug.get(handler),
        changed,
        render.config_path(handler, release.id),
        debug.read(added),
        daemon.unit if daemon else "",
        seconds,
        trouble,
    )


@contextlib.contextmanager
def _locked(node: Node) -> Iterator[None]:
    """The node's lock, waited for."""
    deadline = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(node.root(LOCK)))
                break
            except KatanodeError as error:
                if error.reason is not Reason.ANOTHER_RUN or time.monotonic() > deadline:
                    raise
            time.sleep(0.2)
        yield
