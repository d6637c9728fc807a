"""What is wanted of a bench, and how the command line says it."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.benching.limits import Limits

EXAMPLES = """\
  katanode bench                               # runc and every Kata handler that is ready, 10 starts each
  katanode bench --starts 100 --svg bench.svg  # a p99 that is not just the slowest start, and a chart
  katanode bench --density --memory-limit 30 --handlers kata-clh
  katanode bench --json | jq '.handlers[] | {name, p90: .start_seconds.p90}'

With --json, failures are told in `.handlers[].failure`. 130 and 143 are the statuses after Ctrl-C and SIGTERM: what was
measured until then is shown, and the sandboxes are removed. What a killed bench left, the next one removes, or the next
canary."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is wanted of a bench.

    Attributes:
        handlers: the handlers to compare; empty for runc and every ready one.
        starts: starts for each.
        limits: the bounds of the density; None when it is not wanted.
        svg: the file for the chart, as this process sees it; None for none.
    """

    handlers: tuple[str, ...] = ()
    starts: int = 10
    limits: Limits | None = None
    svg: Path | None = None


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the options to a command."""
    usual = Limits()
    parser.add_argument(
        "--handlers",
        metavar="NAME,…",
        type=_names,
        default=(),
        help="handlers of the runtime to compare; `default` is its own (runc and every Kata handler that is ready)",
    )
    parser.add_argument("--starts", metavar="N", type=_number(1, 10_000), default=10, help="starts for each (10)")
    parser.add_argument(
        "--density",
        action="store_true",
        help="also start idle sandboxes until a bound is reached: memory, number or time, whichever comes first",
    )
    parser.add_argument(
        "--memory-limit",
        metavar="PERCENT",
        type=_number(1, 90),
        default=usual.percent,
        help=f"of the memory that is available, what --density may use ({usual.percent}); a tenth of all memory, and "
        "512 MiB at least, stay free in any case",
    )
    parser.add_argument(
        "--sandbox-limit",
        metavar="N",
        type=_number(1, 10_000),
        default=usual.sandboxes,
        help=f"the most sandboxes that --density starts at once ({usual.sandboxes})",
    )
    parser.add_argument(
        "--time-limit",
        metavar="SECONDS",
        type=_number(1, 86_400),
        default=usual.seconds,
        help=f"how long --density goes on starting sandboxes of one handler ({usual.seconds:g})",
    )
    parser.add_argument("--svg", metavar="FILE", type=Path, help="write a chart as well")


def of(parsed: argparse.Namespace) -> Options:
    """The options that were given."""
    limits = Limits(parsed.memory_limit, parsed.sandbox_limit, float(parsed.time_limit)) if parsed.density else None
    return Options(parsed.handlers, parsed.starts, limits, parsed.svg)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, (name.strip() for name in text.split(","))))
    if not names:
        raise argparse.ArgumentTypeError("name at least one handler")
    return names


def _number(lowest: int, highest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"{text} is not a number from {lowest} to {highest}")
        return int(text)

    return number
