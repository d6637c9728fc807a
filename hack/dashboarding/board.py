"""A dashboard: its variables and links, and the places of its panels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hack.dashboarding.panels import DATA_SOURCE, Query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hack.dashboarding.panels import Panel

TAG = "katanode"
"""What every dashboard has, and by which they find each other."""
WIDTH = 24
"""Columns of Grafana's grid."""
_LINE = 120

VARIABLES = {
    "cluster": ("Cluster", "label_values(katanode_build_info, cluster)"),
    "node": ("Node", 'label_values(katanode_build_info{cluster=~"$cluster"}, node)'),
    "namespace": (
        "Namespace",
        'label_values(katanode_sandbox_start_time_seconds{cluster=~"$cluster", node=~"$node"}, namespace)',
    ),
    "handler": ("Handler", 'label_values(katanode_handler_ready{cluster=~"$cluster", node=~"$node"}, handler)'),
}
"""What is chosen at the top, with its label and where Grafana finds the choices."""


@dataclass(frozen=True, slots=True)
class Row:
    """A heading with the panels below it, from left to right and then from top to bottom."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard.

    Attributes:
        uid: by which links find it; also its file's name.
        title: its name.
        description: a sentence on what it shows.
        tags: further tags.
        variables: names out of `VARIABLES`.
        rows: its rows.
        span: how far back it looks at first.
        marks: events that are drawn into its graphs: name, colour, expression, text with labels.
    """

    uid: str
    title: str
    description: str
    variables: Sequence[str]
    rows: Sequence[Row]
    tags: Sequence[str] = ()
    span: str = "6h"
    marks: Sequence[tuple[str, str, str, str]] = ()

    def as_json(self) -> dict[str, Any]:
        """The dashboard as Grafana imports it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG, "kata-containers", "kubernetes", *self.tags],
            "links": [_LINKS],
            "editable": True,
            "graphTooltip": 1,
            "schemaVersion": 39,
            "refresh": "1m",
            "timezone": "browser",
            "time": {"from": f"now-{self.span}", "to": "now"},
            "annotations": {"list": [_mark(*mark) for mark in self.marks]},
            "templating": {"list": [_SOURCE, *(_variable(name) for name in self.variables)]},
            "panels": list(_placed(self.rows)),
        }


_LINKS = {
    "type": "dashboards",
    "title": "katanode",
    "tags": [TAG],
    "asDropdown": False,
    "includeVars": True,
    "keepTime": True,
    "targetBlank": False,
    "icon": "external link",
    "tooltip": "",
    "url": "",
}
"""To all dashboards with the tag, with the choice and the time that stand here."""
_SOURCE = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}}


def _variable(name: str) -> dict[str, Any]:
    label, query = VARIABLES[name]
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _mark(name: str, colour: str, expression: str, text: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": DATA_SOURCE,
        "enable": True,
        "iconColor": colour,
        "expr": Query(expression).expression,
        "titleFormat": text,
    }


def _placed(rows: Sequence[Row]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        made.append(
            {"id": len(made) + 1, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}
        )
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, height = 0, y + height, 0
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            head = {"id": len(made) + 1, "type": panel.kind, "title": panel.title, "description": panel.description}
            made.append({**head, "datasource": DATA_SOURCE, "gridPos": place, **panel.body})
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return made


def written(value: Any, indent: str = "", before: int = 0) -> str:
    """JSON for a person: what fits on a line stands on one.

    Args:
        value: what is written.
        indent: of the line on which it begins.
        before: how much of that line is taken, comma at its end included.
    """
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + before + len(line) <= _LINE or not isinstance(value, dict | list) or not value:
        return line
    deeper = indent + "  "
    if isinstance(value, list):
        inner = [deeper + written(item, deeper, 1) for item in value]
    else:
        keys = [json.dumps(key) + ": " for key in value]
        inner = [
            deeper + key + written(item, deeper, len(key) + 1) for key, item in zip(keys, value.values(), strict=True)
        ]
    opening, closing = "[]" if isinstance(value, list) else "{}"
    return f"{opening}\n" + ",\n".join(inner) + f"\n{indent}{closing}"
