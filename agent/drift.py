"""Drift: what an earlier run left as wanted and somebody else has changed since, and when not to repair it again."""

import time
from dataclasses import replace

from agent import settings
from agent.cri.activation import Change
from agent.errors import KatanodeError
from agent.node import Node
from agent.plan import Facts
from agent.reasons import Reason
from agent.state import State

_DAY = 86400.0
_LONGEST = 6 * 3600.0
"""Seconds between repairs in a tug of war that goes on."""


def is_repair(node: Node, state: State) -> bool:
    """Whether what is wanted now is in force already: whatever differs then is drift, not an operator's wish."""
    return bool(state.release) and state.settings == settings.as_json(node.settings)


def kinds(node: Node, state: State, facts: Facts) -> tuple[str, ...]:
    """The kinds of things that drifted: the values of the metric `katanode_drift_repairs_total{kind}`."""
    if not is_repair(node, state):
        return ()
    found = {
        "modules": bool(facts.host.load),
        "sysctls": bool(facts.host.raises),
        "boot-files": bool(facts.host.texts),
        "release": bool(facts.archives),
        "hypervisor-configuration": not facts.archives and any(facts.renderings.values()),
        "links": not facts.archives and bool(facts.links),
        "runtime-configuration": bool(facts.change.files),
        "runtime": bool(facts.not_loaded),
    }
    return tuple(kind for kind, there in found.items() if there)


def refuse_tug_of_war(node: Node, state: State, change: Change) -> None:
    """Leaves the runtime's configuration alone when it was repaired a short while ago: each repair is a restart.

    The first repair is made at once. After the n-th within a day, `runtime.cooldown_seconds` times two to the power of
    n - 1 have to pass, at most six hours.

    Raises:
        KatanodeError: `TUG_OF_WAR`, naming the files and the time of the next repair.
    """
    recent = _recent(state)
    if not recent:
        return
    wait = min(node.settings.runtime.cooldown_seconds * 2.0 ** (len(recent) - 1), _LONGEST)
    passed = time.time() - recent[-1]
    if 0 <= passed < wait:
        again = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(recent[-1] + wait))
        paths = [file.path for file in change.files] or ["the running daemon"]
        raise KatanodeError(
            Reason.TUG_OF_WAR,
            f"the runtime's configuration was repaired {passed:.0f} s ago and is changed again; next repair: {again}",
            evidence=f"repairs in the last day: {len(recent)}\nchanged: {', '.join(paths)}",
        )


def counted(state: State) -> State:
    """The state with one repair more."""
    return replace(state, repairs=(*_recent(state), time.time()))


def _recent(state: State) -> tuple[float, ...]:
    now = time.time()
    return tuple(at for at in state.repairs if 0 <= now - at < _DAY)
