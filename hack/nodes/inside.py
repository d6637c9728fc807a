"""The guest's half: ``python3 -m hack.nodes.inside METHOD HEX`` sends one CRI request and prints the reply in hex.

Runs in the node with nothing but Debian's Python; the request is made, and the reply read, outside.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hack.lab.cri import call
from hack.lab.errors import LabError

SOCKET = Path("/run/containerd/containerd.sock")
TIMEOUT = 120.0
"""Seconds: a processor in software takes its time to start a container."""


def main(method: str, request: str = "") -> int:
    """Sends the request; the exit status is 1 when it is refused or nobody listens."""
    try:
        print(call(SOCKET, method, bytes.fromhex(request), timeout=TIMEOUT).hex())
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
