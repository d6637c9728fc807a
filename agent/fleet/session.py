"""What `katanode fleet` does: reads, shows, and with --watch goes on."""

import argparse
import json
import sys
import threading
import time
from collections.abc import Sequence

from rich.console import RenderableType

from agent.fleet import show
from agent.fleet.connect import connect
from agent.fleet.gather import Gathering
from agent.fleet.table import Fleet, Row

_PAUSE = 0.5  # seconds between two tables, so that a storm of changes is one
_TICK = 10.0  # seconds after which ages and silence are reckoned anew


def run(options: argparse.Namespace, reason: str) -> int:
    """Shows the fleet; gives the exit status.

    Args:
        options: the command line's.
        reason: only nodes with this one; "" for all.

    Raises:
        KatanodeError: `CLUSTER_CONFIG_INVALID`, `CLUSTER_UNREACHABLE` or `CLUSTER_FORBIDDEN`.
    """
    cluster = connect(options.kubeconfig, options.context)
    gathering = Gathering(cluster, count=not options.no_sandboxes)
    view = _View(options, reason)
    try:
        gathering.fill()
        if options.watch:
            return _watch(gathering, view)
        fleet = gathering.fleet(time.time())
        view.once(fleet)
        return _status(fleet)
    finally:
        cluster.api.close()


class _View:
    """How the fleet is shown: as the options say, and as the place where it goes allows."""

    def __init__(self, options: argparse.Namespace, reason: str) -> None:
        self._json: bool = options.json
        self._reason = reason
        self._count = not options.no_sandboxes
        self._said: dict[str, object] = {}
        self.console = show.console()

    @property
    def live(self) -> bool:
        """Whether tables replace each other on a screen."""
        return not self._json and self.console.is_terminal and not self.console.is_dumb_terminal

    def _rows(self, fleet: Fleet) -> Sequence[Row]:
        return fleet.rows if not self._reason else [row for row in fleet.rows if row.code == self._reason]

    def once(self, fleet: Fleet) -> None:
        """Prints the whole answer."""
        if self._json:
            sys.stdout.write(json.dumps(fleet.as_json(self._rows(fleet)), indent=2) + "\n")
        else:
            self.console.print(show.once(self.console, fleet, self._rows(fleet), time.time(), count=self._count))

    def screen(self, fleet: Fleet) -> RenderableType:
        """What fits the screen."""
        return show.screen(self.console, fleet, self._rows(fleet), time.time(), count=self._count)

    def again(self, fleet: Fleet) -> None:
        """Prints the answer if it says something new; ages alone are nothing new."""
        rows = self._rows(fleet)
        said = fleet.as_json(rows) | {"nodes": [row.as_json() | {"heartbeat": None} for row in rows]}
        if said == self._said:
            return
        self._said = said
        if self._json:
            sys.stdout.write(json.dumps(fleet.as_json(rows)) + "\n")
        else:
            self.once(fleet)
            sys.stdout.write("\n")
        sys.stdout.flush()


def _status(fleet: Fleet) -> int:
    return 0 if fleet.fine else 1


def _watch(gathering: Gathering, view: _View) -> int:
    """Shows the fleet whenever it changes, until Ctrl-C."""
    changed = threading.Event()
    fleet = gathering.fleet(time.time())
    gathering.start(changed.set)
    try:
        if view.live:
            from rich.live import Live  # noqa: PLC0415

            with Live(view.screen(fleet), console=view.console, screen=True, auto_refresh=False) as live:
                while True:
                    changed.wait(_TICK)
                    changed.clear()
                    fleet = gathering.fleet(time.time())
                    live.update(view.screen(fleet), refresh=True)
                    time.sleep(_PAUSE)
        while True:
            view.again(fleet)
            changed.wait(_TICK)
            time.sleep(_PAUSE)
            changed.clear()
            fleet = gathering.fleet(time.time())
    except KeyboardInterrupt:
        gathering.stop()
        if view.live:
            view.console.print(fleet.summary())
        return _status(fleet)
