"""`katanode run` with looks that are played back, one after the other: `python -m hack.lab.looks PLAYER SETTINGS`.

For seeing what a thousand looks leave behind in the daemon. The daemon, its pipes, its metrics and its cluster side are
the real ones; its worker is PLAYER, which prints what a real worker once said, and there is no interval between looks.
"""

from __future__ import annotations

import sys

from agent import cli
from agent.service.pace import Pace


def main() -> int:
    """Runs until SIGTERM."""
    player, settings = sys.argv[1:]
    sys.executable = player  # what the daemon starts its worker with
    Pace.ended = lambda self, _interval, _reason: self.wanted()
    return cli.main(["run", "--settings", settings])


if __name__ == "__main__":
    sys.exit(main())
