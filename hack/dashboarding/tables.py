"""Tables: a line for each set of labels, made of one query or of several."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hack.dashboarding.panels import LETTERS, Panel, Query, target, thresholds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        source: the label that it shows, or `#` and the query's letter.
        unit: the values' unit in Grafana's words, "" for text.
        properties: further properties of Grafana's field overrides.
    """

    title: str
    source: str
    unit: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)


def table(
    title: str,
    queries: Sequence[str],
    *columns: Column,
    sort: str,
    descending: bool = False,
    about: str = "",
    width: int = 24,
    height: int = 9,
) -> Panel:
    """A table of what is so now: a line for each set of labels, a column for each label or query that is named."""
    single = len(queries) == 1
    values = {f"#{letter}": "Value" if single else f"Value #{letter}" for letter in LETTERS[: len(queries)]}
    shown = {values.get(column.source, column.source): column.title for column in columns}
    if not single and "Value #A" in shown:
        # What Grafana calls the first query's values where the others have none.
        shown["Value"] = shown["Value #A"]
    labels = {
        label for query in queries for found in re.findall(r"by \(([^)]+)\)", query) for label in found.split(", ")
    }
    hidden = ["Time", *values.values(), *sorted(labels)]
    organize = {
        "excludeByName": {name: True for name in hidden if name not in shown},
        "indexByName": {name: place for place, name in enumerate(shown)},
        "renameByName": shown,
    }
    body = {
        "targets": [
            {**target(Query(query), letter, instant=True), "format": "table"}
            for query, letter in zip(queries, LETTERS, strict=False)
        ],
        "fieldConfig": {
            "defaults": {"noValue": "-", "custom": {"filterable": True}},
            "overrides": [
                {
                    "matcher": {"id": "byName", "options": column.title},
                    "properties": [{"id": key, "value": value} for key, value in _properties(column).items()],
                }
                for column in columns
                if _properties(column)
            ],
        },
        "transformations": [
            *([] if single else [{"id": "merge", "options": {}}]),
            {"id": "organize", "options": organize},
        ],
        "options": {
            "showHeader": True,
            "cellHeight": "sm",
            "sortBy": [{"displayName": sort, "desc": descending}],
        },
    }
    return Panel(title, "table", width, height, body, about)


def words(*texts: tuple[str, str, str]) -> dict[str, Any]:
    """Properties of a column whose values, each with its word and colour, are shown as words."""
    options = {value: {"text": text, "color": colour, "index": i} for i, (value, text, colour) in enumerate(texts)}
    return {
        "mappings": [{"type": "value", "options": options}],
        "custom.cellOptions": {"type": "color-text"},
    }


def link(title: str, board: str, variable: str) -> dict[str, Any]:
    """Properties of a column whose values lead to another dashboard, with the value chosen there."""
    url = f"/d/{board}?${{datasource:queryparam}}&${{cluster:queryparam}}&var-{variable}=${{__value.text}}"
    return {"links": [{"title": title, "url": url + "&${__url_time_range}"}]}


def coloured(*steps: tuple[float | None, str]) -> dict[str, Any]:
    """Properties of a column whose values are coloured by thresholds."""
    return {
        "color": {"mode": "thresholds"},
        "thresholds": thresholds(steps),
        "custom.cellOptions": {"type": "color-text"},
    }


def _properties(column: Column) -> dict[str, Any]:
    return ({"unit": column.unit} if column.unit else {}) | dict(column.properties)
