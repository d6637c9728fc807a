"""A bench from beginning to end."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from agent.benching import chart, choice, density, starts, surroundings
from agent.benching.choice import Chosen
from agent.benching.figures import Measured
from agent.benching.interrupts import Interrupts
from agent.benching.limits import Limits
from agent.benching.options import Options
from agent.benching.result import Result
from agent.benching.sandboxes import Sandboxes
from agent.benching.words import counted
from agent.cri.client import Client
from agent.cri.daemon import find
from agent.errors import KatanodeError
from agent.host import files
from agent.host.lock import held
from agent.node import Node
from agent.reasons import Reason
from agent.sandboxes import owned
from agent.state import FOLDER

LOCK = f"{FOLDER}/bench.lock"
"""One bench at a time; the daemon and other commands go on meanwhile."""

Tell = Callable[[str], None]


def bench(node: Node, options: Options, tell: Tell, step: Tell) -> Result:
    """Measures the handlers; every sandbox that it started is gone afterwards, and what killed benches left.

    Args:
        node: the node.
        options: what is wanted.
        tell: told of each part, for a log.
        step: told of each start, for those who watch.

    Raises:
        KatanodeError: `ANOTHER_RUN` when a bench is at work; `SETTINGS_INVALID`, `CANARY_NOT_RUN` as `choose`;
            `NETWORK_PLUGIN_NOT_READY`; `FILE_WRITE_FAILED` when the chart cannot be written, which is tried first.
    """
    target = options.svg and options.svg.resolve()
    if target is not None:
        _check_writable(target)
    daemon = find(node.root, node.settings.runtime.socket)
    proved, kata = choice.proved(node, daemon)
    with held(node.root(LOCK)), Client(node.root(daemon.socket)) as client:
        timeout = node.settings.canary.timeout_seconds
        owned.sweep(client, timeout)
        status = client.status()
        chosen = choice.choose(status.handlers, proved, options.handlers)
        if not status.network_ready:
            raise KatanodeError(
                Reason.NETWORK_PLUGIN_NOT_READY,
                "no sandbox was started: the pod network is not ready",
                evidence=status.network_message,
            )
        facts = surroundings.facts(node.root, daemon, kata)
        missing = () if options.handlers else set(node.settings.kata.handlers) - {handler.name for handler in chosen}
        notes = surroundings.notes(client.sandboxes(), sorted(missing), density=options.limits is not None)
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        sandboxes = Sandboxes(client, timeout)
        with Interrupts() as interrupts, sandboxes:
            tell(f"{', '.join(handler.name for handler in chosen)}: {counted(options.starts, 'start')} each")
            measured = starts.measure(sandboxes, chosen, options.starts, interrupts, step)
            if options.limits is not None:
                measured = _densities(sandboxes, chosen, measured, options.limits, interrupts, tell, step)
        made = Result(facts, at, options.starts, options.limits, measured, notes, interrupts.caught, sandboxes.left)
    if target is not None:
        files.write_atomic(target, chart.svg(made).encode())
    return made


def _densities(
    sandboxes: Sandboxes,
    chosen: tuple[Chosen, ...],
    measured: tuple[Measured, ...],
    limits: Limits,
    interrupts: Interrupts,
    tell: Tell,
    step: Tell,
) -> tuple[Measured, ...]:
    made = []
    for handler, seen in zip(chosen, measured, strict=True):
        if seen.failure is not None or interrupts.caught:
            made.append(seen)
            continue
        tell(f"{handler.name}: as many at once as the bounds allow")
        guess = seen.memory.highest if seen.memory else 0
        found, failure = density.measure(sandboxes, handler, limits, guess, interrupts, step)
        made.append(seen.with_density(found, failure))
    return tuple(made)


def _check_writable(path: Path) -> None:
    """Sees that the chart can be written, before minutes are spent on it.

    Raises:
        KatanodeError: `FILE_WRITE_FAILED`.
    """
    folder = path.parent
    if not folder.is_dir():
        why = f"{folder} is not a folder"
    elif path.exists() and not path.is_file():  # it is replaced as a whole, and a device must not be
        why = f"{path} is not a regular file"
    elif not os.access(folder, os.W_OK):
        why = f"nothing can be written in {folder}"
    else:
        return
    raise KatanodeError(Reason.FILE_WRITE_FAILED, f"{path} cannot be written", evidence=why)
