"""The sandboxes on a terminal: all columns where they fit, fewer on a narrow one, one row a line where none is."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from agent.fleet.table import age
from agent.listing.row import Row, distinct, generation
from agent.listing.table import Overview
from agent.sandboxes.naming import COMPONENTS

_UNBOUNDED = 10_000
"""More columns than any terminal has."""
_PARTS = {"vmm": "VMM", "virtiofsd": "VIRTIOFSD", "shim": "SHIM"}
_POD = 30
"""Characters of a pod's name and namespace that are shown on one line before columns are left out for them."""
_MIB = 1 << 20


def once(target: Console, view: Overview) -> RenderableType:
    """The whole answer; when there is none, what to do for one."""
    if not view.rows:
        return Group(*(Text(line) for line in _empty(view)), *_below(view))
    table, wide = _fitting(target, view, view.rows)
    return Group(table, Text(), *_below(view, wide=wide))


def screen(target: Console, view: Overview) -> RenderableType:
    """What fits a terminal: of too many rows the first ones and those that are marked, and how many more there are."""
    if not view.rows:
        return once(target, view)
    below = Group(*_below(view, wide=_fitting(target, view, view.rows)[1]))
    room = max(target.height - len(target.render_lines(below)) - 2, 3)
    shown = _first(view.rows, room)
    while True:
        left = len(view.rows) - len(shown)
        foot = Text(f"… and {left} more" if left else "", style="dim")
        middle, _ = _fitting(target, view, shown)
        over = len(target.render_lines(middle)) - room
        if over <= 0 or not shown:
            return Group(middle, foot, below)
        shown = _first(shown, len(shown) - max(over // 2, 1))


def _first(rows: Sequence[Row], count: int) -> list[Row]:
    """So many of the rows: all that are marked before any other."""
    marked = [row for row in rows if row.mark][: max(count, 0)]
    plain = [row for row in rows if not row.mark][: max(count - len(marked), 0)]
    return [*plain, *marked]


def _fitting(target: Console, view: Overview, rows: Sequence[Row]) -> tuple[Table, bool]:
    """The table with all columns where they fit, else without the parts of memory; long names of pods are folded."""
    unbounded = target.options.update(max_width=_UNBOUNDED)
    foldable = max(0, *(len(row.pod) - _POD for row in rows)) if target.width < _UNBOUNDED else 0
    for wide, space in ((True, 2), (True, 1), (False, 2)):
        made = _table(view, rows, wide=wide, space=space)
        if Measurement.get(target, unbounded, made).maximum - foldable <= target.width:
            return made, wide
    return _table(view, rows, wide=False, space=1), False


def _table(view: Overview, rows: Sequence[Row], *, wide: bool, space: int) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, space, 0, 0), header_style="dim", show_footer=True)
    marked = any(row.mark for row in rows)
    if marked:
        made.add_column("", width=1)
    made.add_column("ID", no_wrap=True, footer="")
    made.add_column("POD", overflow="fold", footer=Text("together", style="bold"))
    for name in ("HANDLER", "HYPERVISOR" if wide else "VMM", "KATA", "AGE"):
        made.add_column(name, no_wrap=True)
    for name, total in (("VCPUS", str(view.vcpus)), ("CPU", cores(view.cores)), ("MEMORY", _memory(view))):
        made.add_column(name, no_wrap=True, justify="right", footer=Text(total, style="bold"))
    for component in COMPONENTS if wide else ():
        sum_of_all = Text(mebibytes(view.part(component)), style="bold")
        made.add_column(_PARTS[component], no_wrap=True, justify="right", footer=sum_of_all)
    by = distinct([row.sandbox.id for row in view.rows])
    releases = [view.release, *(row.sandbox.release for row in view.rows)]
    for row in rows:
        cells = [Text("!", style="yellow")] if marked and row.mark else [Text("")] if marked else []
        cells += _cells(row, view, by, releases)
        cells += [Text(mebibytes(row.part(c)) if c in row.sandbox.processes else "-") for c in COMPONENTS if wide]
        made.add_row(*cells)
    return made


def _cells(row: Row, view: Overview, by: int, releases: Sequence[str]) -> list[Text]:
    own = row.sandbox
    old = "cyan" if own.release != view.release else ""
    return [
        Text(own.id[:by]),
        Text(row.pod or "(not known)", style="" if row.pod else "dim"),
        Text(own.handler or "-"),
        Text(own.hypervisor or "-"),
        Text(generation(own.release, releases), style=old),
        Text(age(view.now - own.started)),
        Text(str(own.vcpus) if own.holds_vm else "-"),
        Text(cores(row.cores)),
        Text(_memory(row)),
    ]


def _below(view: Overview, *, wide: bool = True) -> list[RenderableType]:
    """The line below the table, and the notes."""
    by = distinct([row.sandbox.id for row in view.rows])
    lines: list[RenderableType] = []
    if view.rows:
        lines.append(Text(view.summary(), style="bold"))
    for note, remedy in view.notes(by=by):
        lines.append(Text(f"! {note}", style="yellow"))
        lines += [Text(f"  → {remedy}")] if remedy else []
    if view.rows and not wide:
        parts = ", ".join(f"{component} {mebibytes(view.part(component))}" for component in COMPONENTS)
        lines.append(Text(f"· memory together: {parts}", style="dim"))
    lines += [Text(f"· {hint}", style="dim") for hint in view.hints()]
    return lines


def _empty(view: Overview) -> list[str]:
    """Words for a node on which no sandbox runs."""
    ready = [name for name, good in view.handlers.items() if good]
    if not view.release:
        return ["No Kata sandbox runs on this node, and katanode has installed nothing here: run `katanode check`."]
    if not ready:
        return ["No Kata sandbox runs on this node, and no handler is proved: `katanode check` says why."]
    return [
        f"No Kata sandbox runs on this node. It can run them through {', '.join(ready)}:",
        f"give a pod `runtimeClassName: {ready[0]}`, or look for pods of yours that are pending.",
    ]


def cores(used: float | None) -> str:
    """CPU as Kubernetes writes it: "30m" is thirty thousandths of a core; "-" when it was not measured."""
    return "-" if used is None else f"{used * 1000:.0f}m"


def _memory(of: Row | Overview) -> str:
    return ("" if of.is_proportional else "~") + mebibytes(of.memory)


def mebibytes(size: float) -> str:
    """Bytes as Kubernetes writes memory: "378Ki", "4.1Mi", "182Mi", "9.8Gi"."""
    many = size / _MIB
    if many >= 10_000:
        return f"{many / 1024:.1f}Gi"
    if many >= 1 or not size:
        return f"{many:.0f}Mi" if many >= 10 or not size else f"{many:.1f}Mi"
    return f"{many * 1024:.0f}Ki"
