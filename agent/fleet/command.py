"""The command `katanode fleet`."""

import argparse
import difflib

from agent.errors import KatanodeError
from agent.reasons import Reason

_SUMMARY = "show every node of the cluster: its state, why, and its sandboxes"
_EPILOG = """\
It reads the cluster through a kubeconfig, as kubectl does, and changes nothing. REASON is that of the node's condition
KataReady, AGE the time since the condition changed, SANDBOXES the running pods in Kata sandboxes. A node whose agent
has said nothing for 15 minutes is silent. It needs the right to list nodes (with --watch also to watch them), and for
the sandboxes pods and runtimeclasses.

examples:
  katanode fleet
  katanode fleet --watch --context production
  katanode fleet --reason KVMDisabledInFirmware --json | jq -r '.nodes[].node'

exit status:
  0  there are nodes with katanode, and all of them are ready, degraded or absent
  1  some node is blocked, installing, silent or unknown, no node has katanode, or the cluster could not be read;
     --reason shows fewer nodes and does not change this
  2  wrong usage, or no usable kubeconfig
With --watch it is that of the last table, when Ctrl-C ends it.
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser(
        "fleet",
        help=_SUMMARY,
        description=f"{_SUMMARY[0].upper()}{_SUMMARY[1:]}.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kubeconfig", metavar="FILE", default="", help="kubeconfig (KUBECONFIG, then ~/.kube/config)")
    parser.add_argument("--context", metavar="NAME", default="", help="its context (the current one)")
    parser.add_argument("--reason", metavar="REASON", default="", help="only nodes with this reason")
    parser.add_argument("--watch", action="store_true", help="go on, and show what changes until Ctrl-C")
    parser.add_argument("--no-sandboxes", action="store_true", help="do not count sandboxes: no pod is read then")
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON; with --watch one line whenever it changes"
    )
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Shows the fleet; gives the exit status.

    Raises:
        KatanodeError: `SETTINGS_INVALID` for an unknown reason; `CLUSTER_CONFIG_INVALID`, `CLUSTER_UNREACHABLE` or
            `CLUSTER_FORBIDDEN` when the cluster cannot be read.
    """
    wanted = _reason(options.reason) if options.reason else ""
    from agent.fleet import session  # noqa: PLC0415 - half a second that no other command need spend

    return session.run(options, wanted)


def _reason(word: str) -> str:
    """The reason that is meant; capitals do not matter.

    Raises:
        KatanodeError: `SETTINGS_INVALID`, with the nearest one.
    """
    known = {str(reason).lower(): str(reason) for reason in Reason}
    if word.lower() in known:
        return known[word.lower()]
    begun = [key for key in known if key.startswith(word.lower())]
    near = begun[:3] or difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(known[key] for key in near)}?" if near else "no known one resembles it"
    raise KatanodeError(
        Reason.SETTINGS_INVALID,
        f"--reason {word} is not a reason ({hint})",
        remedy="Take one from the column REASON of `katanode fleet`.",
    )
