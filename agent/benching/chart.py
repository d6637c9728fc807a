"""A bench as one SVG picture that needs nothing but itself: no script, no font, light or dark as the reader has it.

Pure: the same figures make the same bytes. Whoever cannot see it has the figures as words in its description.
"""

import textwrap
from collections.abc import Callable, Iterator, Sequence

from agent.benching.chart_parts import COLOURS, LEFT, RIGHT, STYLE, WIDTH, Axis, bar, clean, label, line, text
from agent.benching.figures import Measured
from agent.benching.limits import Limits
from agent.benching.memory import COMPONENTS
from agent.benching.percentiles import Samples
from agent.benching.result import Result
from agent.benching.words import end_words, facts_words, legend, milliseconds, sizes

_ROW = 30
_BAR = 16
_MARGIN = 24
_LINE = 17
_FOOT_COLUMNS = 125
"""Characters of the small print that fit a line."""
_SPOKEN = 20_000

_Row = Callable[[Axis, Measured, float], Iterator[str]]


def svg(made: Result) -> str:
    """The chart, a whole SVG document."""
    title = f"katanode bench on {made.facts.node}"
    parts = [text(_MARGIN, 36, title, "t")]
    y = 58.0
    for words in textwrap.wrap(facts_words(made), _FOOT_COLUMNS):
        parts.append(text(_MARGIN, y, words, "d"))
        y += _LINE
    for panel in (_starts, _removals, _memory):
        y = panel(made.handlers, parts, y + 18)
    if made.limits is not None:
        y = _density(made.handlers, made.limits, parts, y + 18)
    y += 24
    for words in (*(f"! {note}" for note in made.notes), *_troubles(made), *legend(made)):
        for piece in textwrap.wrap(words.replace("* the slowest", "The line's end is the slowest"), _FOOT_COLUMNS):
            parts.append(text(_MARGIN, y, piece, "d"))
            y += _LINE
    height = y + 8
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="katanode-bench-title" '
        f'aria-describedby="katanode-bench-figures" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}">'
    )
    inside = [
        f'<title id="katanode-bench-title">{clean(title)}</title>',
        f'<desc id="katanode-bench-figures">{clean(_spoken(made), _SPOKEN)}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="bg" width="{WIDTH}" height="{height:.0f}"/>',
        *parts,
    ]
    return "\n".join((head, *inside, "</svg>")) + "\n"


def _starts(handlers: Sequence[Measured], parts: list[str], y: float) -> float:
    def row(axis: Axis, handler: Measured, y: float) -> Iterator[str]:
        assert handler.starts is not None
        yield from _spread(axis, handler.starts, y)

    having = [h for h in handlers if h.starts]
    highest = max((h.starts.percentile(99) for h in having if h.starts), default=0.0) * 1000
    return _panel("Start of a sandbox, ms (bar p50, line to p99, tick p90)", having, highest, row, parts, y)


def _removals(handlers: Sequence[Measured], parts: list[str], y: float) -> float:
    def row(axis: Axis, handler: Measured, y: float) -> Iterator[str]:
        assert handler.removals is not None
        yield from _spread(axis, handler.removals, y)

    having = [h for h in handlers if h.removals]
    highest = max((h.removals.percentile(99) for h in having if h.removals), default=0.0) * 1000
    return _panel("Removal of a sandbox, ms", having, highest, row, parts, y)


def _memory(handlers: Sequence[Measured], parts: list[str], y: float) -> float:
    def row(axis: Axis, handler: Measured, y: float) -> Iterator[str]:
        assert handler.memory is not None
        begin = 0.0
        for name, size in handler.memory.components.items():
            end = begin + size / (1 << 20)
            yield bar(axis.at(begin), y, axis.at(end) - axis.at(begin), _BAR, name)
            begin = end
        told = sizes(handler.memory.total) + ("" if handler.memory.proportional else " (RSS)")
        yield text(RIGHT + 16, y + 13, told)

    having = [h for h in handlers if h.memory]
    highest = max((h.memory.total for h in having if h.memory), default=0) / (1 << 20)
    top = y
    y = _panel("Memory of an idle sandbox, MiB", having, highest, row, parts, y)
    if having:
        parts += _key([n for n in COMPONENTS if any(h.memory and n in h.memory.components for h in having)], top)
    return y


def _density(handlers: Sequence[Measured], limits: Limits, parts: list[str], y: float) -> float:
    def row(axis: Axis, handler: Measured, y: float) -> Iterator[str]:
        found = handler.density
        assert found is not None
        yield bar(LEFT, y, axis.at(found.count) - LEFT, _BAR, "bar")
        each = f", {sizes(found.each)} each" if found.each else ""
        yield text(RIGHT + 16, y + 13, f"{found.count}{each}")
        yield text(RIGHT + 16, y + 26, f"until {end_words(found, limits)}", "d")

    having = [h for h in handlers if h.density]
    highest = max((h.density.count for h in having if h.density), default=0)
    return _panel("Idle sandboxes at once", having, highest, row, parts, y, row_height=_ROW + 10)


def _panel(
    title: str,
    handlers: Sequence[Measured],
    highest: float,
    row: _Row,
    parts: list[str],
    y: float,
    row_height: float = _ROW,
) -> float:
    """Draws a panel with one row for each handler; gives where it ends. Without handlers there is none."""
    if not handlers:
        return y - 18
    parts.append(text(_MARGIN, y + 14, title, "h"))
    axis = Axis(highest)
    top = y + 26
    bottom = top + row_height * len(handlers)
    parts += axis.grid(top, bottom)
    for number, handler in enumerate(handlers):
        at = top + row_height * number + (_ROW - _BAR) / 2
        parts.append(label(at + 13, handler.name))
        parts += row(axis, handler, at)
    return bottom + 22


def _spread(axis: Axis, measured: Samples, y: float) -> Iterator[str]:
    median, nine, last = (measured.percentile(rank) for rank in (50, 90, 99))
    middle = y + _BAR / 2
    yield bar(LEFT, y, axis.at(median * 1000) - LEFT, _BAR, "bar")
    yield line(axis.at(median * 1000), middle, axis.at(last * 1000), middle, "w")
    yield line(axis.at(nine * 1000), middle - 5, axis.at(nine * 1000), middle + 5, "w")
    yield text(RIGHT + 16, y + 13, _percentiles(measured))


def _percentiles(measured: Samples) -> str:
    median, nine, last = (milliseconds(measured.percentile(rank)) for rank in (50, 90, 99))
    return f"{median} (p90 {nine}, {'max' if measured.is_maximum(99) else 'p99'} {last})"


def _key(names: Sequence[str], y: float) -> Iterator[str]:
    """Which colour is which component, beside the panel's title."""
    assert set(names) <= COLOURS.keys()
    x = LEFT + 160.0
    for name in names:
        yield bar(x, y + 4, 11, 11, name)
        yield text(x + 16, y + 14, name, "d")
        x += 36 + 6.2 * len(name)


def _troubles(made: Result) -> Iterator[str]:
    for handler in made.handlers:
        if handler.failure is not None:
            yield f"✗ {handler.name}: {handler.failure.message} [{handler.failure.reason}]"
    if made.caught:
        yield "! interrupted: less was measured than was asked for"


def _spoken(made: Result) -> str:
    """The figures in words, for a screen reader."""
    sentences = (_sentence(handler, made.limits) for handler in made.handlers)
    return " ".join((f"{facts_words(made)}.", *filter(None, sentences)))


def _sentence(handler: Measured, limits: Limits | None) -> str:
    said = []
    if handler.starts:
        said.append(f"start {_percentiles(handler.starts)}")
    if handler.removals:
        said.append(f"removal {_percentiles(handler.removals)}")
    if handler.memory:
        pieces = ", ".join(f"{name} {sizes(size)}" for name, size in handler.memory.components.items())
        said.append(f"memory {sizes(handler.memory.total)} ({pieces})")
    if handler.density and limits:
        said.append(f"{handler.density.count} at once, until {end_words(handler.density, limits)}")
    whose = f"{handler.name} ({handler.hypervisor})" if handler.hypervisor else handler.name
    return f"{whose}: {'; '.join(said)}." if said else ""
