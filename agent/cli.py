"""The command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent import __version__, logs, settings
from agent.benching import options as bench_options
from agent.errors import KatanodeError
from agent.fleet.command import add_parser
from agent.host.process import NSENTER, Runner
from agent.host.root import HostRoot
from agent.listing.command import add_parser as add_sandboxes_parser
from agent.reasons import Reason, Severity
from agent.report import State as Verdict
from agent.settings import DEFAULT_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    # Loaded by the commands that need them: the daemon must not carry what only its workers use.
    from agent.node import Node, Progress
    from agent.report import Report

EXIT_CODES = {
    Reason.SETTINGS_INVALID: 2,
    Reason.CLUSTER_CONFIG_INVALID: 2,
    Reason.HANDLER_UNKNOWN: 2,
    Reason.TUNABLE_UNKNOWN: 2,
    Reason.TUNABLE_WRONG_TYPE: 2,
    Reason.TUNABLE_WRONG_VALUE: 2,
    Reason.SANDBOX_UNKNOWN: 2,
    Reason.ROLLED_BACK: 3,
    Reason.ROLLBACK_FAILED: 4,
    Reason.ANOTHER_RUN: 5,
}
"""Exit status by reason; every other one is 1."""

_EPILOG = """\
exit status:
  0  done; for apply: at least one handler is ready
  1  the node cannot be served, or something failed; what was there still is
  2  wrong usage or settings; nothing that was there was changed
  3  a change was made, failed its verification and was undone
  4  undoing a change failed: the node needs a person
  5  another katanode is at work on this node
"""


class _Json(Protocol):
    """What can be shown to machines."""

    def as_json(self) -> dict[str, object]:
        """Its JSON."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; gives the exit status."""
    options = _parser().parse_args(arguments)
    os.umask(0o022)  # what pods and shims must read is not to depend on whose shell this is
    try:
        return int(options.command(options))
    except KatanodeError as error:
        return _failed(error, as_json=options.json)
    except KeyboardInterrupt:
        print("interrupted; a change under way is finished or undone by the next run", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe has gone (katanode check | head): no reason for a traceback at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception:  # noqa: BLE001 - a fault of katanode's own is told like any other, and never half-told
        fault = KatanodeError(Reason.INTERNAL_ERROR, "katanode itself failed", evidence=traceback.format_exc(limit=-6))
        return _failed(fault, as_json=options.json)


def _failed(error: KatanodeError, *, as_json: bool) -> int:
    code = EXIT_CODES.get(error.reason, 1)
    if as_json:
        what = {"reason": error.reason, "message": error.message, "evidence": error.evidence, "remedy": error.remedy}
        print(json.dumps({"error": what, "exit_status": code}, indent=2))
    else:
        from agent import show  # noqa: PLC0415

        show.console(error=True).print(show.error(error))
    return code


def _root(options: argparse.Namespace) -> HostRoot:
    root = HostRoot(Path(options.root or ("/host" if logs.in_pod() and Path("/host/etc").is_dir() else "/")))
    if not root.path.is_dir():
        raise KatanodeError(Reason.SETTINGS_INVALID, f"--root {root.path} is not a folder")
    return root


@contextlib.contextmanager
def _node(options: argparse.Namespace, *, bars: bool = True) -> Iterator[Node]:
    """The node that a command is about, with progress shown where somebody looks; no `bars` for what draws itself."""
    from agent.node import Node  # noqa: PLC0415

    root = _root(options)
    runner = Runner() if root.is_own else Runner(NSENTER)
    named = options.settings is not None
    wishes = settings.load(Path(options.settings) if named else root(settings.DEFAULT_PATH), required=named)
    with _progress(silent=options.json or not bars) as progress:
        yield Node(root, runner, wishes, logs.info, progress)


@contextlib.contextmanager
def _progress(*, silent: bool) -> Iterator[Progress]:
    if silent or not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    from agent import show  # noqa: PLC0415 - drawing needs a library that a run without a terminal need not load

    with show.progress() as tell:
        yield tell


def _check(options: argparse.Namespace) -> int:
    from agent import inspect  # noqa: PLC0415

    with _node(options) as node:
        made = inspect.check(node)
    title = f"katanode {__version__} on {platform.node()}"
    _print(options, made, lambda show: show.report(made, title))
    # Not installed is no fault of the node's: what counts is whether a handler could be ready.
    hindered = {h.name for h in made.handlers if any(f.reason not in _TO_COME for f in h.obstacles)}
    return 0 if hindered < {h.name for h in made.handlers} else 1


_TO_COME = frozenset({Reason.NOT_INSTALLED, Reason.CANARY_NOT_RUN, Reason.HANDLER_NOT_LOADED})
"""Reasons that the next apply mends."""


def _plan(options: argparse.Namespace) -> int:
    from agent.plan import make  # noqa: PLC0415
    from agent.survey import survey  # noqa: PLC0415

    with _node(options) as node:
        made = make(survey(node).facts)
    _print(options, made, lambda show: show.plan(made))
    return 0


def _apply(options: argparse.Namespace) -> int:
    from agent import undo  # noqa: PLC0415
    from agent.reconcile import Options, apply  # noqa: PLC0415

    if options.dry_run:
        return _plan(options)
    _need_root()
    with _node(options) as node:
        if node.settings.state == "absent":
            made, _ = undo.uninstall(node)
        else:
            made = apply(node, Options(options.retry, options.reinstall, options.release_hold)).report
    return _tell(options, made)


def _need_root() -> None:
    if os.geteuid() != 0:
        raise KatanodeError(Reason.NOT_ROOT, f"this changes the node, and user {os.geteuid()} may not")


def _tell(options: argparse.Namespace, made: Report) -> int:
    """Shows what came of a change: what is not well, then the verdict."""
    worse = [f for f in made.findings if f.severity.rank > Severity.INFO.rank]
    _print(options, made, lambda show: show.outcome(made, worse))
    return 0 if made.state in {Verdict.READY, Verdict.DEGRADED, Verdict.ABSENT} else 1


def _status(options: argparse.Namespace) -> int:
    from agent import inspect  # noqa: PLC0415

    with _node(options) as node:
        made = inspect.status(node)
    _print(options, made, lambda show: show.status(made.rows, made.report))
    return 0


def _bench(options: argparse.Namespace) -> int:
    from agent.benching import bench, progress, table  # noqa: PLC0415

    _need_root()
    with _node(options) as node, progress.watched(quiet=options.json) as watcher:
        made = bench.bench(node, bench_options.of(options), *((_unheard, watcher) if watcher else (node.say, _unheard)))
    _print(options, made, lambda _show: table.drawn(made))
    return made.status


def _unheard(_step: str) -> None:
    """Nobody listens."""


def _rollback(options: argparse.Namespace) -> int:
    from agent import undo  # noqa: PLC0415

    with _node(options) as node:
        if options.dry_run:
            target = undo.rollback_target(node)
            print(json.dumps({"release": target}) if options.json else f"would go back to release {target}")
            return 0
        _need_root()
        made = undo.rollback(node)
    return _tell(options, made)


def _uninstall(options: argparse.Namespace) -> int:
    from agent import undo  # noqa: PLC0415

    with _node(options) as node:
        if options.dry_run:
            planned = undo.plan_uninstall(node)
            _print(options, planned, lambda show: show.plan(planned))
            return 0
        _need_root()
        made, troubles = undo.uninstall(node)
    _print(options, made, lambda show: show.outcome(made, troubles))
    return 1 if troubles else 0


def _pin(options: argparse.Namespace) -> int:
    from agent.pinning import pin  # noqa: PLC0415

    with _node(options) as node:
        pinned = pin(node, options.version, options.sha256)
    if options.json:
        print(json.dumps({"sha256": pinned}, indent=2))
    else:
        for name, digest in pinned.items():
            print(f"{digest}  {name}")
    return 0


def _sandboxes(options: argparse.Namespace) -> int:
    from agent.listing import session  # noqa: PLC0415

    if os.geteuid() != 0:
        raise KatanodeError(Reason.NOT_ROOT, f"the kernel shows user {os.geteuid()} no process of a sandbox whole")
    with _node(options, bars=False) as node:
        return session.run(options, node)


def _run(options: argparse.Namespace) -> int:
    from agent.service.start import service  # noqa: PLC0415

    _need_root()
    service(_root(options), options.settings or "").run()
    return 0


def _bundle(options: argparse.Namespace) -> int:
    from agent.bundle import command  # noqa: PLC0415

    return command.run(_root(options), options)


def _print(options: argparse.Namespace, made: _Json, drawn: Callable[[Any], Any]) -> None:
    if options.json:
        print(json.dumps(made.as_json(), indent=2))
        return
    from agent import show  # noqa: PLC0415

    show.console().print(drawn(show))


def _common(*, later: bool = False) -> argparse.ArgumentParser:
    """The options of all commands; `later` for a command below another, where one not given leaves that one's alone."""
    unless_given: dict[str, Any] = {"default": argparse.SUPPRESS} if later else {}
    settings_file = unless_given or {"default": os.environ.get("KATANODE_SETTINGS")}
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--settings", metavar="FILE", help=f"settings ({DEFAULT_PATH})", **settings_file)
    common.add_argument("--root", metavar="DIR", help="where the host's / is (/, in a pod /host)", **unless_given)
    common.add_argument("--json", action="store_true", help="print the result as JSON", **unless_given)
    return common


def _parser() -> argparse.ArgumentParser:
    common = _common()
    parser = argparse.ArgumentParser(
        prog="katanode",
        description="Turns a node into one that runs pods in Kata Containers virtual machines, and proves it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"katanode {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], summary: str, examples: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            parents=[common],
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=run)
        return sub

    command(
        "check",
        _check,
        "look at everything that Kata needs, change nothing",
        "  katanode check\n  katanode check --json | jq '.handlers'",
    )
    command(
        "plan",
        _plan,
        "show what apply would change, and what each change disturbs",
        "  katanode plan\n  katanode plan --settings ./katanode.toml",
    )
    apply = command(
        "apply",
        _apply,
        "make this node run Kata sandboxes, and prove it",
        "  katanode apply\n  katanode apply --dry-run\n  katanode apply --retry    # what made a change fail is mended",
    )
    apply.add_argument("--dry-run", action="store_true", help="only show what would be done, as plan does")
    apply.add_argument("--retry", action="store_true", help="try a change again that failed a short while ago")
    apply.add_argument(
        "--reinstall", action="store_true", help="unpack the release again, in the place of the one that is there"
    )
    apply.add_argument("--release-hold", action="store_true", help="leave the release that `rollback` went back to")
    command(
        "run",
        _run,
        "look after this node as a daemon: make it ready, keep it so, and say so",
        "  katanode run                     # in the pod of the manifests\n"
        "  katanode run --settings ./katanode.toml    # on a machine without Kubernetes",
    )
    command(
        "status",
        _status,
        "say what is installed, what was proved and what runs",
        "  katanode status\n  katanode status --json",
    )
    bench = command(
        "bench",
        _bench,
        "measure what a sandbox costs here: start, removal, memory, and how many fit, by handler",
        bench_options.EXAMPLES,
    )
    bench_options.add(bench)
    rollback = command(
        "rollback",
        _rollback,
        "go back to the release before, and stay there until kata.version changes",
        "  katanode rollback\n  katanode rollback --dry-run",
    )
    rollback.add_argument("--dry-run", action="store_true", help="only show what would be done")
    uninstall = command(
        "uninstall",
        _uninstall,
        "take everything of katanode's off this node, byte for byte as it was",
        "  katanode uninstall\n  katanode uninstall --dry-run",
    )
    uninstall.add_argument("--dry-run", action="store_true", help="only show what would be done")
    add_sandboxes_parser(commands, _common, _sandboxes)
    add_parser(commands)
    bundle = command(
        "bundle",
        _bundle,
        "gather what somebody who helps needs to know of this node, without secrets",
        "  katanode bundle --list    # what would be in it, and what was masked; nothing is written\n"
        "  katanode bundle           # katanode-bundle-NODE-DATE.tar.gz in this folder, for its owner alone\n"
        "  kubectl -n katanode exec POD -- katanode bundle --output - > bundle.tar.gz\n\n"
        "It is made also where nothing works: what could not be had is named in it, and the exit status stays 0.\n"
        "Names of pods, nodes and registries and addresses are in it: look through it before you give it away.",
    )
    bundle.add_argument("--output", metavar="FILE", default="", help="a new .tar.gz or .tar.zst; - is standard output")
    bundle.add_argument("--list", action="store_true", help="only show what would be in it, and what was masked")
    pin = command(
        "pin",
        _pin,
        "add the sha256 of a release that katanode does not know",
        "  katanode pin 4.3.0 --sha256 kata-static-4.3.0-amd64.tar.zst=DIGEST\n"
        "  katanode pin 4.3.0          # fetches it from kata.source and pins what came: trust on first use",
    )
    pin.add_argument("version", metavar="VERSION", help="the release, for instance 4.3.0")
    pin.add_argument(
        "--sha256",
        metavar="FILE=DIGEST",
        action="append",
        default=[],
        help="a digest that you compared with a source you trust",
    )
    return parser
