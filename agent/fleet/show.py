"""The fleet on a terminal: a table, one line of summary, and what to do about each reason."""

import sys
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agent.fleet.table import Fleet, Row, age, common_domain, remedies, worst_first, worst_last

_STYLES = {
    "ready": "green",
    "degraded": "yellow",
    "installing": "cyan",
    "absent": "dim",
    "blocked": "bold red",
    "silent": "bold magenta",
    "unknown": "magenta",
}
_REMEDIES = 6
"""Reasons whose remedy is shown at most; the most frequent ones."""
_UNBOUNDED = 10_000
"""Columns where no terminal is: a row is one line there, for grep and the like."""


def console() -> Console:
    """A console on stdout; colours and width are the terminal's, if one is there (NO_COLOR is honoured)."""
    tty = sys.stdout.isatty()
    return Console(file=sys.stdout, width=None if tty else _UNBOUNDED, highlight=False, soft_wrap=False)


def table(target: Console, rows: Sequence[Row], now: float, *, count: bool = True) -> RenderableType:
    """The rows as a table without a frame; where it is too wide, names without the domain that they share."""
    made = _table(rows, now, count=count)
    domain = common_domain([row.name for row in rows])
    # A reason is one word, to be copied as it stands; names give way first.
    if not domain or Measurement.get(target, target.options.update(max_width=_UNBOUNDED), made).maximum <= target.width:
        return made
    return Group(_table(rows, now, domain, count=count), Text(f"names end in {domain}", style="dim"))


def _table(rows: Sequence[Row], now: float, domain: str = "", *, count: bool) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    made.add_column("NODE", overflow="fold")
    made.add_column("STATE", no_wrap=True)
    made.add_column("REASON", overflow="fold", min_width=max((len(row.code) for row in rows), default=0))
    made.add_column("KATA", no_wrap=True)
    made.add_column("AGE", no_wrap=True)
    if count:
        made.add_column("SANDBOXES", no_wrap=True, justify="right")
    for row in rows:
        since = "-" if row.facts.since is None else age(now - row.facts.since)
        state = Text(row.state, style=_STYLES.get(row.state, ""))
        cells = [
            Text(row.name.removesuffix(domain)),
            state,
            Text(row.words),
            Text(row.facts.version or "-"),
            Text(since),
        ]
        if count:
            cells.append(Text("?" if row.sandboxes is None else str(row.sandboxes)))
        made.add_row(*cells)
    return made


def summary(fleet: Fleet) -> RenderableType:
    """The line, and below it the notes."""
    lines: list[RenderableType] = [Text(fleet.summary(), style="bold")]
    lines += [Text(f"! {note}", style="yellow") for note in fleet.notes]
    return Group(*lines)


def advice(fleet: Fleet) -> RenderableType:
    """What to do about each reason that stands, the most frequent first."""
    lines: list[RenderableType] = []
    codes = [code for code, _ in fleet.reasons().most_common()]
    for code, title, remedy in remedies(codes)[:_REMEDIES]:
        lines += [
            Text(),
            Text.assemble((code, "bold"), f": {title}"),
            Padding(Text(f"→ {remedy}"), (0, 0, 0, 2), expand=False),
        ]
    return Group(*lines)


def once(target: Console, fleet: Fleet, rows: Sequence[Row], now: float, *, count: bool = True) -> RenderableType:
    """The whole answer, the worst rows last: they stand just above the summary, where the eye is."""
    parts: list[RenderableType] = []
    if rows:
        parts += [table(target, worst_last(rows), now, count=count), Text()]
    return Group(*parts, summary(fleet), advice(fleet))


def screen(target: Console, fleet: Fleet, rows: Sequence[Row], now: float, *, count: bool = True) -> RenderableType:
    """What fits a terminal: the summary, then the worst rows, then how many more there are.

    Args:
        target: the terminal.
        fleet: the fleet.
        rows: the rows to show.
        now: Unix seconds.
        count: whether the sandboxes are shown.
    """
    top = summary(fleet)
    room = max(target.height - len(target.render_lines(top)) - 1, 2)
    shown = worst_first(rows)[:room]
    while True:
        left = len(rows) - len(shown)
        foot = [Text(f"… and {left} more", style="dim")] if left else []
        middle = table(target, shown, now, count=count)
        over = len(target.render_lines(middle)) + len(foot) - room
        if over <= 0 or not shown:
            below = advice(fleet)
            fits = not left and over + len(target.render_lines(below)) <= 0
            return Group(top, Text(), middle, *foot, *([below] if fits else []))
        del shown[-max(over // 2, 1) :]
