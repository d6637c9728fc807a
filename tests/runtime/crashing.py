"""Runs katanode and kills it with SIGKILL before its N-th step that changes anything: `crashing.py N COUNTFILE ARGS…`.

Steps are the system calls that make, replace or remove a directory entry, the restart of the runtime and the canary.
With N = 0 nothing is killed, and their names go to COUNTFILE, a line each.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from agent import cli, proofs
from agent.cri import activation

steps: list[str] = []


def main() -> int:
    fatal, report = int(sys.argv[1]), sys.argv[2]

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            where = str(args[1] if name in {"rename", "symlink", "link"} else args[0]) if args else ""
            steps.append(f"{name} {where}")
            if len(steps) == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return step

    for name in ("rename", "unlink", "symlink", "link", "mkdir", "rmdir", "ftruncate"):
        setattr(os, name, counted(name, getattr(os, name)))
    activation.restart = counted("restart", activation.restart)  # type: ignore[attr-defined]
    activation.wait_ready = counted("verify", activation.wait_ready)  # type: ignore[attr-defined]
    proofs.canary.prove = counted("canary", proofs.canary.prove)  # type: ignore[attr-defined]
    status = cli.main(sys.argv[3:])
    if fatal == 0:
        with open(report, "w", encoding="utf-8") as file:
            file.write("\n".join(steps))
    return status


if __name__ == "__main__":
    sys.exit(main())
