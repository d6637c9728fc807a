"""``python -m hack.lab shell|run GENERATION [-- CMD ...]``: a lab with a running containerd."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from hack.lab.containerd import LOG, RESTART, PrivateContainerd
from hack.lab.errors import LabError
from hack.lab.lab import Lab
from hack.lab.packages import GENERATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Start a lab, run the command or a shell in it, remove it; the exit status is the command's."""
    parser = argparse.ArgumentParser(prog="python -m hack.lab", description=__doc__)
    parser.add_argument("action", choices=("shell", "run"))
    parser.add_argument("generation", choices=GENERATIONS, help="containerd's")
    parser.add_argument("--schema", type=int, choices=(2, 3), help="of the configuration")
    parser.add_argument("command", nargs="*", metavar="CMD", help="after --, for run")
    options = parser.parse_args(arguments)
    if (options.action == "run") != bool(options.command):
        parser.error("run needs a command after --, shell takes none")
    try:
        with Lab() as lab, PrivateContainerd(lab, options.generation, schema=options.schema) as containerd:
            shell = options.command or [os.environ.get("SHELL", "/bin/sh")]
            if not options.command:
                version = containerd.binaries.version
                print(f"containerd {version}, log {LOG}, restart with {RESTART}", file=sys.stderr)
            # In the terminal's own session, so that job control and Ctrl-C work.
            with lab.popen(shell, cwd=os.getcwd(), start_new_session=False) as process:
                while True:
                    try:
                        return process.wait()
                    except KeyboardInterrupt:
                        # Ctrl-C is for the command: it went to the whole foreground group.
                        continue
    except LabError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
