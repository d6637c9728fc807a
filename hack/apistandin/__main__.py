"""``python -m hack.apistandin [--port N]``: the stand-in until it is interrupted."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

from hack.apistandin.standin import ApiStandin

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve, and print where."""
    parser = argparse.ArgumentParser(prog="python -m hack.apistandin", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="of the API; 0 takes a free one")
    parser.add_argument("--namespace", action="append", default=[], help="that is there from the start")
    parser.add_argument("--nodes", type=int, default=0, help="how many Nodes there are: node-0, node-1, ...")
    options = parser.parse_args(arguments)
    with ApiStandin(port=options.port, namespaces=options.namespace or ["katanode"]) as api:
        for number in range(options.nodes):
            api.add_node(f"node-{number}")
        print(f"api {api.url} token {api.admin_token} control {api.control_url}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.exit(main())
