"""Which handlers a bench compares."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from agent import install
from agent.cri.daemon import Daemon
from agent.errors import KatanodeError
from agent.kata import releases
from agent.node import Node
from agent.proofs import Proofs
from agent.reasons import Reason

DEFAULT = "default"
"""What the runtime's own handler is called here: over CRI it has no name."""
_BASELINE = "runc"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A handler that is measured.

    Attributes:
        name: what it is called.
        handler: what CRI is told; "" for the runtime's default.
    """

    name: str
    handler: str


def choose(loaded: Collection[str], proved: Sequence[str], names: Sequence[str]) -> tuple[Chosen, ...]:
    """The handlers to compare: those that were named, else runc (or the default) and every Kata handler that is ready.

    Args:
        loaded: the handlers that the runtime has.
        proved: the Kata handlers that were proved on this node.
        names: those that were asked for; empty for the usual ones.

    Raises:
        KatanodeError: `SETTINGS_INVALID` for a name that the runtime does not have; `CANARY_NOT_RUN` when none were
            asked for and no Kata handler is ready.
    """
    if names:
        return tuple(_named(name, loaded) for name in dict.fromkeys(names))
    ready = [name for name in proved if name in loaded]
    if not ready:
        raise KatanodeError(
            Reason.CANARY_NOT_RUN,
            "no Kata handler is ready on this node, so there is nothing to compare",
            evidence=f"the runtime has {', '.join(sorted(filter(None, loaded))) or 'no handlers'}",
            remedy="`katanode check` says what is missing. To measure others, name them: `katanode bench --handlers "
            f"{_BASELINE if _BASELINE in loaded else DEFAULT}`.",
        )
    return tuple(_named(name, loaded) for name in (_BASELINE if _BASELINE in loaded else DEFAULT, *ready))


def _named(name: str, loaded: Collection[str]) -> Chosen:
    if name in loaded:
        return Chosen(name, name)
    if name == DEFAULT:
        return Chosen(name, "")
    known = sorted(filter(None, loaded))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    raise KatanodeError(
        Reason.SETTINGS_INVALID,
        f"--handlers: the runtime has no handler {name}{f' (did you mean {near[0]}?)' if near else ''}",
        evidence=f"it has {', '.join(known)}",
        remedy=f"Name handlers that the runtime has, or {DEFAULT}.",
    )


def proved(node: Node, daemon: Daemon) -> tuple[tuple[str, ...], str]:
    """The Kata handlers of the release in force that have been proved, and its version; nothing without a release.

    Raises:
        KatanodeError: katanode's memory cannot be read, or the settings do not fit the release.
    """
    state = node.remembered()
    release = releases.find(node.root, state.release)
    if release is None:
        return (), ""
    proofs = Proofs(node, daemon, install.subjects(daemon, release, install.rendered(node, release)))
    proofs.recall(state)
    return tuple(s.handler.name for s in proofs.subjects if s.handler.name in proofs.held), release.version
