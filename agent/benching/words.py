"""How a bench's figures are said; the table and the chart say them alike. Pure."""

from typing import assert_never

from agent.benching.figures import Density
from agent.benching.limits import Limits, Until, headroom
from agent.benching.percentiles import METHOD, SHOWN, Samples
from agent.benching.result import Result

_MIB = 1 << 20
_GIB = 1 << 30
_SMALL = 0.1


def milliseconds(seconds: float) -> str:
    """A time: "98 ms", from ten seconds on "12.3 s"."""
    return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds * 1000:.0f} ms"


def sizes(number: int) -> str:
    """A size: "12 KiB", "0.4 MiB", "12.3 MiB", "148 MiB", "2.1 GiB"."""
    if number >= _GIB:
        gib = number / _GIB
        return f"{gib:.0f} GiB" if gib >= 100 else f"{gib:.1f} GiB"
    mib = number / _MIB
    if mib < _SMALL:
        return f"{number >> 10} KiB"
    return f"{mib:.0f} MiB" if mib >= 100 else f"{mib:.1f} MiB"


def counted(number: int, what: str) -> str:
    """A number of things: "1 start", "2 starts", "2 sandboxes"."""
    return f"{number} {what}{('es' if what.endswith('x') else 's') * (number != 1)}"


def times(measured: Samples | None, base: Samples | None) -> str:
    """How many times as long a start takes as the first handler's, by the medians: "4.2 x"; "" when not known."""
    if measured is None or base is None:
        return ""
    return f"{measured.percentile(50) / base.percentile(50):.1f} x"


def end_words(found: Density, limits: Limits) -> str:
    """What ended a density run: a bound by its figure, or what came in between."""
    match found.until:
        case Until.MEMORY:
            return f"{limits.percent} % of the available memory" if found.count else "no memory to spare"
        case Until.SANDBOXES:
            return f"{limits.sandboxes} sandboxes"
        case Until.TIME:
            return f"{limits.seconds:g} s"
        case Until.FAILURE | Until.STOPPED | Until.INTERRUPTED:
            return str(found.until)
        case _:
            assert_never(found.until)


def facts_words(made: Result) -> str:
    """Where and when it was measured, in one line."""
    facts = made.facts
    parts = [
        facts.machine,
        f"{facts.cpus} processors",
        sizes(facts.memory),
        f"Linux {facts.kernel}",
        facts.runtime,
        f"Kata {facts.kata}" if facts.kata else "",
        made.at,
    ]
    return ", ".join(filter(None, parts))


def legend(made: Result) -> list[str]:
    """How the figures are meant."""
    lines: list[str] = []
    lines.append(
        "Start: from the call to the runtime until the sandbox is ready, pod network and all; handlers took turns, and "
        f"the first start of each does not count. Percentiles by {METHOD}."
    )
    marked = sorted(
        {
            (rank, len(found.values))
            for handler in made.handlers
            for found in (handler.starts, handler.removals)
            if found
            for rank in SHOWN
            if found.is_maximum(rank)
        }
    )
    if marked:
        ranks = sorted({rank for rank, _ in marked})
        few = min(count for _, count in marked)
        lines.append(
            f"* the slowest: {counted(few, 'sample')} {'is' if few == 1 else 'are'} too few for "
            + ", ".join(f"p{rank} (it takes {_needed(rank)})" for rank in ranks)
            + "."
        )
    if any(h.memory for h in made.handlers):
        lines.append(
            "Memory: of one idle sandbox without containers, by component. PSS: what processes share is divided."
        )
    if made.limits is not None:
        lines.append(
            f"Density: idle sandboxes at once, until {made.limits.percent} % of the available memory, "
            f"{made.limits.sandboxes} sandboxes or {made.limits.seconds:g} s. Memory each: what the node had less of, "
            f"the kernel's part included. Would fit: with {sizes(headroom(made.facts.memory))} left over. Where too "
            "little was used to say, neither is told."
        )
    cut = sum(h.cut_short for h in made.handlers)
    if cut:
        lines.append(f"{counted(cut, 'sandbox')} stopped by somebody else while looked at: left out of these figures.")
    return lines


def _needed(rank: int) -> int:
    """How many samples it takes until that percentile need not be their maximum."""
    return 100 // (100 - rank)
