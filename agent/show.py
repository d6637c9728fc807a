"""What people see on a terminal: tables of findings, plans with their diffs, progress bars."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from agent.errors import KatanodeError
from agent.plan import Disturbs, Plan
from agent.reasons import CATALOGUE, Reason, Severity
from agent.report import Finding, HandlerReport, Report, State

_MARKS = {
    Severity.OK: ("✓", "green"),
    Severity.INFO: ("·", "dim"),
    Severity.WARNING: ("!", "yellow"),
    Severity.ERROR: ("✗", "red"),
}
_STATES = {State.READY: "bold green", State.DEGRADED: "bold yellow", State.ABSENT: "bold"}
_PLAIN_WIDTH = 120
"""Columns where no terminal tells its width: in a file, a pipe or a pod's log."""


def console(*, error: bool = False) -> Console:
    """A console on stdout or stderr; colours and width are the terminal's, if one is there (NO_COLOR is honoured)."""
    stream = sys.stderr if error else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _PLAIN_WIDTH, highlight=False, soft_wrap=False)


def report(made: Report, title: str) -> RenderableType:
    """A report as a table, grouped by handler, with the verdict last."""
    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim", title_justify="left")
    table.add_column("", width=1)
    table.add_column("finding", ratio=3, overflow="fold")
    table.add_column("evidence", ratio=4, overflow="fold")
    table.add_column("remedy", ratio=4, overflow="fold")
    for heading, findings in _groups(made):
        table.add_row("", Text(heading, style="bold"), "", "")
        for finding in findings:
            table.add_row(*_row(finding))
    return Group(Text(title, style="bold"), Text(), table, Text(), verdict(made))


def _groups(made: Report) -> Iterator[tuple[str, list[Finding]]]:
    """Findings that concern every handler or none first, then those of single handlers."""
    names = {handler.name for handler in made.handlers}
    shared = [f for f in made.findings if not f.handlers or set(f.handlers) >= names]
    yield "this node", shared
    for handler in made.handlers:
        own = [f for f in made.findings if f not in shared and handler.name in f.handlers]
        if own:
            yield handler.name, own


def _row(finding: Finding) -> tuple[Text, Text, str, str]:
    mark, style = _MARKS[finding.severity]
    what = Text(finding.check)
    if finding.reason is not None:
        what.append(f"\n{finding.reason}: {CATALOGUE[finding.reason].title}", style=style)
    return Text(mark, style=style), what, finding.evidence, finding.remedy


def verdict(made: Report) -> RenderableType:
    """One line a handler, and the node's state."""
    lines = [_handler_line(handler) for handler in made.handlers]
    state = Text(f"{made.state}", style=_STATES.get(made.state, "bold red"))
    if made.kata_version:
        state.append(f"  Kata Containers {made.kata_version}", style="none")
    return Group(*lines, state)


def _handler_line(handler: HandlerReport) -> Text:
    if handler.ready:
        return Text.assemble(("✓ ", "green"), handler.name)
    reasons = ", ".join(dict.fromkeys(str(f.reason) for f in handler.obstacles))
    if reasons == Reason.NOT_INSTALLED:
        return Text.assemble(("· ", "dim"), f"{handler.name}: nothing here stands in its way; run `katanode apply`")
    return Text.assemble(("✗ ", "red"), f"{handler.name}: {reasons}")


def outcome(made: Report, items: Iterable[Finding]) -> RenderableType:
    """What came of a change: what is not well, each with its remedy, and the verdict."""
    lines: list[RenderableType] = []
    for item in items:
        mark, style = _MARKS[item.severity]
        title = CATALOGUE[item.reason].title if item.reason else item.check
        whose = f"{', '.join(item.handlers)}: " if item.handlers else ""
        lines.append(Text.assemble((f"{mark} ", style), f"{whose}{title}", (f"  [{item.reason}]", style)))
        lines += [Text(f"    {line}") for line in item.evidence.splitlines()]
        lines.append(Text(f"  → {item.remedy}"))
    return Group(*lines, *([Text(made.note)] if made.note else []), verdict(made))


def status(rows: Sequence[tuple[str, str]], made: Report) -> RenderableType:
    """What is installed, proved and running, and the verdict."""
    return Group(pairs(rows), verdict(made))


def plan(made: Plan) -> RenderableType:
    """A plan: each step, what it disturbs, and its diff."""
    if not made.steps and not made.note:
        return Text("Nothing to do: this node is as the settings want it.")
    parts: list[RenderableType] = []
    for number, step in enumerate(made.steps, 1):
        style = "yellow" if step.disturbs is Disturbs.RESTART else "dim"
        parts.append(Text.assemble(f"{number}. {step.title}  ", (f"disturbs: {step.disturbs}", style)))
        if step.diff:
            parts.append(Syntax(step.diff, "diff", background_color="default", word_wrap=True))
    return Group(*parts, *([Text(made.note)] if made.note else []))


def error(failure: KatanodeError) -> RenderableType:
    """A failure: what, the evidence, the remedy."""
    lines = [Text.assemble(("katanode: ", "red"), failure.message, (f"  [{failure.reason}]", "red"))]
    lines += [Text(f"    {line}") for line in failure.evidence.splitlines()]
    lines.append(Text(f"  → {failure.remedy}"))
    return Group(*lines)


def pairs(rows: Sequence[tuple[str, str]]) -> RenderableType:
    """A two-column table without a frame."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Progress bars on a terminal's stderr; silence elsewhere."""
    screen = console(error=True)
    if not screen.is_terminal:
        yield lambda _what, _done, _total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=screen, transient=True) as bars:

        def tell(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield tell
