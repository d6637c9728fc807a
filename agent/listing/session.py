"""What `katanode sandboxes` does: looks and shows, and with --watch goes on; one in detail; the debug switch."""

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

from agent import debugging, install
from agent.cri.daemon import Daemon, find
from agent.cri.listing import Listing
from agent.errors import KatanodeError
from agent.fleet.show import console
from agent.kata import releases, render
from agent.listing import detail, explain, hints, show
from agent.listing.find import find as meant
from agent.listing.gather import BUDGET, WATCH_BUDGET, Gathering
from agent.listing.row import Row, ordered
from agent.listing.table import Overview
from agent.node import Node
from agent.proofs import Proofs
from agent.sandboxes.census import Census

_PROC = Path("/proc")
_ONCE = 1.0
_WATCH = 2.0
"""Seconds over which CPU is measured, unless said otherwise."""
_FIRST = 0.2
"""Seconds after which --watch shows its first table."""


def run(options: argparse.Namespace, node: Node) -> int:
    """Does what the options say; gives the exit status.

    Raises:
        KatanodeError: `SANDBOX_UNKNOWN`; what `debugging.switch` raises.
    """
    if options.below == "debug":
        return _debug(options, node)
    session = _Session(options, node)
    if options.below == "show":
        session.show(options.id)
    elif options.watch:
        with contextlib.suppress(KeyboardInterrupt):
            session.watch()
    else:
        session.once()
    return 0


class _Session:
    """Looks at a node and shows it."""

    def __init__(self, options: argparse.Namespace, node: Node) -> None:
        self._json: bool = options.json
        self._order: str = options.sort
        self._interval: float = options.interval or (_WATCH if options.watch else _ONCE)
        self._node = node
        self._daemon, self._trouble = _daemon(node)
        self._listing = Listing(node.root(self._daemon.socket)) if self._daemon else None
        # A sandbox that ends looks like an orphan for a moment: it is called one if the second look finds it so too.
        patience = 10.0 if options.watch else self._interval / 2
        census = Census(_PROC, self._listing.pods if self._listing else None, patience=patience)
        self._gathering = Gathering(_PROC, census, budget=WATCH_BUDGET if options.watch else BUDGET)
        self._console = console()

    def once(self) -> None:
        """Shows the table."""
        view = self._measured()
        if self._json:
            sys.stdout.write(json.dumps(view.as_json(), indent=2) + "\n")
        else:
            self._console.print(show.once(self._console, view))

    def show(self, word: str) -> None:
        """Shows one sandbox."""
        row = meant(self._gathering.look(), word)
        time.sleep(self._interval)
        row = meant(self._gathering.look(), row.sandbox.id)
        allowed = self._listing.overhead(row.sandbox.id) if self._listing and row.sandbox.handler else None
        seen = detail.look(self._node.root, _PROC, row, allowed=allowed, config=self._config(row))
        daemon = self._daemon
        told = hints.commands(
            seen, daemon.socket if daemon else "", daemon.unit if daemon else "", self._node.runner.prefix
        )
        if self._json:
            lines = [{"title": each.title, "line": each.line} for each in told]
            sys.stdout.write(json.dumps({**seen.as_json(time.time()), "commands": lines}, indent=2) + "\n")
        else:
            explain.sandbox(self._console, seen, told, time.time(), in_pod=bool(self._node.runner.prefix))

    def watch(self) -> None:
        """Shows the table again and again, until Ctrl-C."""
        target = self._console
        self._gathering.look()
        time.sleep(min(self._interval, _FIRST))
        if self._json or not target.is_terminal or target.is_dumb_terminal:
            while True:
                self._say(self._view())
                time.sleep(self._interval)
        from rich.live import Live  # noqa: PLC0415 - only a terminal needs it

        view = self._view()
        try:
            with Live(show.screen(target, view), console=target, screen=True, auto_refresh=False) as live:
                while True:
                    time.sleep(self._interval)
                    view = self._view()
                    live.update(show.screen(target, view), refresh=True)
        except KeyboardInterrupt:
            target.print(show.once(target, view))  # what was seen last stays

    def _say(self, view: Overview) -> None:
        if self._json:
            sys.stdout.write(json.dumps(view.as_json()) + "\n")
        else:
            self._console.print(show.once(self._console, view))
            sys.stdout.write("\n")
        sys.stdout.flush()

    def _measured(self) -> Overview:
        """The table with CPU over the interval, in which memory is measured."""
        begin = time.monotonic()
        self._gathering.measure(self._gathering.look())
        time.sleep(max(self._interval - (time.monotonic() - begin), 0.0))
        return self._view()

    def _view(self) -> Overview:
        rows = self._gathering.measure(self._gathering.look())
        state = self._node.remembered()
        runtime = self._trouble
        if not runtime and not self._gathering.answered:
            runtime = f"nothing came from {self._daemon.socket if self._daemon else 'its socket'} in time"
        wanted = self._node.settings.kata.handlers
        return Overview(
            ordered(rows, self._order),
            time.time(),
            self._gathering.interval,
            state.release,
            {} if rows else _proved(self._node, self._daemon),
            tuple(name for name in wanted if name in state.debug),
            runtime,
        )

    def _config(self, row: Row) -> str:
        own = row.sandbox
        path = render.config_path(own.handler, own.release) if own.handler and own.release else ""
        return path if path and self._node.root(path).is_file() else ""


def _daemon(node: Node) -> tuple[Daemon | None, str]:
    try:
        return find(node.root, node.settings.runtime.socket), ""
    except KatanodeError as error:
        return None, error.message


def _proved(node: Node, daemon: Daemon | None) -> dict[str, bool]:
    """The wanted handlers, to whether pods can be sent to them: a proof that still holds."""
    wanted = node.settings.kata.handlers
    state = node.remembered()
    release = releases.find(node.root, state.release)
    if daemon is None or release is None:
        return dict.fromkeys(wanted, False)
    try:
        proofs = Proofs(node, daemon, install.subjects(daemon, release, install.rendered(node, release)))
    except KatanodeError:
        return dict.fromkeys(wanted, False)
    proofs.recall(state)
    return {name: name in proofs.held for name in wanted}


def _debug(options: argparse.Namespace, node: Node) -> int:
    made = debugging.switch(node, options.handler, on=options.switch == "on")
    if options.json:
        sys.stdout.write(json.dumps(made.as_json(), indent=2) + "\n")
    else:
        explain.switched(console(), made, node.runner.prefix)
    return 1 if made.trouble else 0
