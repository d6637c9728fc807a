"""Panels of a Grafana dashboard: what each kind says in the JSON that Grafana imports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}

_CLUSTERS = 'cluster=~"$cluster"'
_NODES = f'{_CLUSTERS}, node=~"$node"'
_HANDLERS = f'{_NODES}, handler=~"$handler"'
SELECTIONS = {
    "CLUSTERS": _CLUSTERS,
    "NODES": _NODES,
    "HANDLERS": _HANDLERS,
    "SANDBOXES": f'{_HANDLERS}, namespace=~"$namespace"',
}
"""Words in an expression, and the choice made at the dashboard's top that they stand for."""

Steps = tuple[tuple[float | None, str], ...]
"""Thresholds: from this value on, this colour; the first from None."""
LETTERS = "ABCDEFGHIJKLM"
"""Names of a panel's queries."""
GOOD_WHEN_ZERO: Steps = ((None, "green"), (1, "red"))
ODD_WHEN_ABOVE_ZERO: Steps = ((None, "green"), (1, "orange"))


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        text: PromQL, with the words of `SELECTIONS`.
        legend: its series' name, with labels as `{{handler}}`.
    """

    text: str
    legend: str = ""

    @property
    def expression(self) -> str:
        """PromQL with Grafana's variables."""
        return re.sub("|".join(SELECTIONS), lambda match: SELECTIONS[match[0]], self.text)


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel before it has a place; `body` is the part of its JSON that no other kind shares."""

    title: str
    kind: str
    width: int
    height: int
    body: Mapping[str, Any]
    description: str = ""


def number(
    title: str,
    query: str,
    *,
    unit: str = "short",
    steps: Steps = ((None, "text"),),
    about: str = "",
    width: int = 4,
    **defaults: Any,
) -> Panel:
    """A single figure, coloured by its thresholds."""
    body = {
        "targets": [target(Query(query), "A", instant=True)],
        "fieldConfig": _fields(
            unit=unit, noValue="none", color={"mode": "thresholds"}, thresholds=thresholds(steps), **defaults
        ),
        "options": {
            "reduceOptions": _LAST,
            "graphMode": "none",
            "colorMode": "value",
            "justifyMode": "auto",
            "textMode": "value",
            "orientation": "auto",
        },
    }
    return Panel(title, "stat", width, 4, body, about)


def graph(
    title: str,
    *queries: Query,
    unit: str = "short",
    about: str = "",
    width: int = 8,
    stacked: bool = False,
    bars: bool = False,
    **defaults: Any,
) -> Panel:
    """Values over time: lines, or areas or bars that are stacked."""
    custom: dict[str, Any] = {"fillOpacity": 0}
    if stacked:
        custom = {"fillOpacity": 30, "stacking": {"mode": "normal", "group": "A"}}
    if bars:
        custom = {"drawStyle": "bars", "fillOpacity": 60, "stacking": {"mode": "normal", "group": "A"}}
    body = {
        "targets": [target(query, letter) for query, letter in zip(queries, LETTERS, strict=False)],
        "fieldConfig": _fields(unit=unit, min=0, custom=custom, **defaults),
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }
    return Panel(title, "timeseries", width, 8, body, about)


def ranking(
    title: str, query: Query, *, unit: str = "short", steps: Steps = (), about: str = "", width: int = 8
) -> Panel:
    """Bars of what is so now, the longest first."""
    colour: dict[str, Any] = {"color": {"mode": "continuous-YlRd"}}
    if steps:
        colour = {"color": {"mode": "thresholds"}, "thresholds": thresholds(steps)}
    body = {
        "targets": [target(query, "A", instant=True)],
        "fieldConfig": _fields(unit=unit, min=0, noValue="none", **colour),
        "options": {
            "displayMode": "basic",
            "orientation": "horizontal",
            "valueMode": "color",
            "minVizWidth": 8,
            "minVizHeight": 16,
            "showUnfilled": False,
            "reduceOptions": _LAST,
        },
    }
    return Panel(title, "bargauge", width, 8, body, about)


_LAST = {"values": False, "calcs": ["lastNotNull"], "fields": ""}


def target(query: Query, letter: str, *, instant: bool = False) -> dict[str, Any]:
    """A query as a panel's JSON has it."""
    made: dict[str, Any] = {"refId": letter, "datasource": DATA_SOURCE, "expr": query.expression}
    if query.legend:
        made["legendFormat"] = query.legend
    if instant:
        made["instant"] = True
    return made


def _fields(**defaults: Any) -> dict[str, Any]:
    return {"defaults": defaults, "overrides": []}


def thresholds(steps: Sequence[tuple[float | None, str]]) -> dict[str, Any]:
    """Thresholds as the JSON has them."""
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in steps]}
