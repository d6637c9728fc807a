"""The command `katanode sandboxes` and what stands below it."""

import argparse
import math
from collections.abc import Callable

Run = Callable[[argparse.Namespace], int]
ORDERS = ("pod", "cpu", "memory", "age")
"""By what rows can be ordered."""

_SUMMARY = "show the Kata sandboxes of this node: pod, handler, hypervisor, age, CPU and memory"
_EPILOG = """\
CPU is measured over a second (--interval), in thousandths of a core. MEMORY is the host's: of the hypervisor with the
guest's memory, virtiofsd and the shim, shared pages divided among those that map them (PSS).

examples:
  katanode sandboxes
  katanode sandboxes --watch --sort cpu
  katanode sandboxes --json | jq '.sandboxes[] | select(.mark)'
  katanode sandboxes show 3fa2b1        # an id's beginning, or NAMESPACE/POD
  katanode sandboxes debug kata-clh on  # and off again when you have seen enough
"""
_SHOW = "show one sandbox: processes, sockets, state, network, and the commands to look further"
_SHOW_EPILOG = """\
examples:
  katanode sandboxes show 3fa2b1
  katanode sandboxes show default/web-0 --json | jq -r '.commands[].line'
"""
_DEBUG = "turn the debug output of a handler's hypervisor, agent and shim on or off"
_DEBUG_EPILOG = """\
It holds for sandboxes that start from now on, restarts nothing, and stays until it is turned off: neither the settings
nor the daemon take it back. It fills the node's log, and what guests print is in it.

examples:
  katanode sandboxes debug kata-clh on
  katanode sandboxes debug kata-clh off
"""


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    common: Callable[..., argparse.ArgumentParser],
    run: Run,
) -> None:
    """Adds the command to the command line.

    Args:
        commands: where.
        common: makes the options of all commands; `later=True` makes those for a command below another, which leave
            alone what was given before it.
        run: what is called.
    """
    parser = _add(commands, "sandboxes", _SUMMARY, _EPILOG, common())
    parser.usage = "katanode sandboxes [-h] [OPTIONS] [show ID | debug HANDLER on|off]"
    parser.set_defaults(command=run, below="")
    parser.add_argument("--watch", action="store_true", help="go on, and show it again until Ctrl-C")
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_seconds,
        default=None,
        help="over how long CPU is measured, and the pause of --watch (1, and with --watch 2)",
    )
    parser.add_argument("--sort", choices=ORDERS, default=ORDERS[0], help="by what rows are ordered (pod)")
    below = parser.add_subparsers(metavar="COMMAND")
    show = _add(below, "show", _SHOW, _SHOW_EPILOG, common(later=True))
    show.add_argument("id", metavar="ID", help="the beginning of a sandbox's id, or NAMESPACE/POD")
    show.set_defaults(below="show")
    debug = _add(below, "debug", _DEBUG, _DEBUG_EPILOG, common(later=True))
    debug.add_argument("handler", metavar="HANDLER", help="the handler, for instance kata-clh")
    debug.add_argument("switch", choices=("on", "off"), help="what it is to be")
    debug.set_defaults(below="debug")


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    summary: str,
    epilog: str,
    common: argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        parents=[common],
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _seconds(word: str) -> float:
    seconds = float(word)
    if not (math.isfinite(seconds) and 0.1 <= seconds <= 3600):
        raise argparse.ArgumentTypeError(f"{word} is not a number of seconds from 0.1 to 3600")
    return seconds
