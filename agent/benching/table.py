"""A bench on a terminal: one table for time, one for memory, one for how many fit, and how each figure is meant."""

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agent.benching.figures import Measured
from agent.benching.limits import Limits, Until
from agent.benching.memory import COMPONENTS
from agent.benching.percentiles import SHOWN, Samples
from agent.benching.result import Result
from agent.benching.words import counted, end_words, facts_words, legend, milliseconds, sizes, times

_NONE = "-"


def drawn(made: Result) -> RenderableType:
    """The whole answer."""
    parts: list[RenderableType] = [Text(f"katanode bench on {made.facts.node}", style="bold"), Text(facts_words(made))]
    parts += [Text(f"! {note}", style="yellow") for note in made.notes]
    if any(h.starts for h in made.handlers):
        parts += [Text(), _times(made.handlers)]
    if any(h.memory for h in made.handlers):
        parts += [Text(), _memory(made.handlers)]
    if made.limits is not None and any(h.density for h in made.handlers):
        parts += [Text(), _densities(made.handlers, made.limits)]
    parts += [Text(), *(Text(line, style="dim") for line in legend(made))]
    for handler in made.handlers:
        parts += _failure(handler)
    if made.left:
        parts.append(
            Text(f"✗ {counted(made.left, 'sandbox')} left: the next bench or canary removes them", style="red")
        )
    if made.caught:
        parts.append(Text("! interrupted: less was measured than was asked for", style="yellow"))
    return Group(*parts)


def _times(handlers: Sequence[Measured]) -> RenderableType:
    table = _table("HANDLER")
    for what in ("START", "REMOVAL"):
        for rank in SHOWN:
            table.add_column(f"{what} p{rank}" if rank == SHOWN[0] else f"p{rank}", justify="right", no_wrap=True)
    base = handlers[0].starts
    if len(handlers) > 1:
        table.add_column(f"x {handlers[0].name}", justify="right", no_wrap=True)
    for handler in handlers:
        cells = [handler.name, *_cells(handler.starts), *_cells(handler.removals)]
        if len(handlers) > 1:
            cells.append(times(handler.starts, base) or _NONE)
        table.add_row(*map(Text, cells))
    return table


def _cells(measured: Samples | None) -> list[str]:
    if measured is None:
        return [_NONE] * len(SHOWN)
    return [f"{milliseconds(measured.percentile(r))}{'*' if measured.is_maximum(r) else ' '}" for r in SHOWN]


def _memory(handlers: Sequence[Measured]) -> RenderableType:
    names = [name for name in COMPONENTS if any(h.memory and name in h.memory.components for h in handlers)]
    table = _table("HANDLER", "HYPERVISOR")
    for heading in ("MEMORY", *names):
        table.add_column(heading, justify="right", no_wrap=True)
    for handler in handlers:
        memory = handler.memory
        cells = [_NONE] * (len(names) + 1)
        if memory is not None:
            mark = "" if memory.proportional else " (RSS)"
            cells = [f"{sizes(memory.total)}{mark}"]
            cells += [sizes(memory.components[name]) if name in memory.components else _NONE for name in names]
        table.add_row(Text(handler.name), Text(handler.hypervisor or _NONE), *map(Text, cells))
    return table


def _densities(handlers: Sequence[Measured], limits: Limits) -> RenderableType:
    table = _table("HANDLER")
    for heading in ("AT ONCE", "MEMORY EACH", "WOULD FIT"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("UNTIL", overflow="fold")
    for handler in handlers:
        found = handler.density
        if found is None:
            table.add_row(Text(handler.name), *[Text(_NONE)] * 3, Text("not measured"))
            continue
        table.add_row(
            Text(handler.name),
            Text(str(found.count)),
            Text(sizes(found.each) if found.each else _NONE),
            Text(f"about {found.fit}" if found.fit is not None else _NONE),
            Text(end_words(found, limits), style="yellow" if found.until in {Until.FAILURE, Until.STOPPED} else ""),
        )
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _failure(handler: Measured) -> Iterable[RenderableType]:
    failure = handler.failure
    if failure is None:
        return
    yield Text.assemble(("✗ ", "red"), f"{handler.name}: {failure.message}", (f"  [{failure.reason}]", "red"))
    for line in failure.evidence.splitlines():
        yield Padding(Text(line), (0, 0, 0, 4), expand=False)
    yield Padding(Text(f"→ {failure.remedy}"), (0, 0, 0, 2), expand=False)
