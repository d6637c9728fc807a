"""The dashboards: Grafana's own model knows all that they say, and they ask only for what exists."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import promtool
import pytest
from fleet_series import fleet
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from monitored import METRICS, README, REPOSITORY, dashboards, filled_in, labels_of, records, selectors, series

from agent.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

BOARDS = dashboards()
OF_THE_DATA_SOURCE = r"\.annotations\.list\[\d+\]\.titleFormat"
"""What an annotation says to Prometheus' data source: Grafana's model leaves that open."""
CHOSEN = {"type": "prometheus", "uid": "${datasource}"}

each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())


def queries(board: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Each query: where it is, its expression, its legend."""
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target.get("legendFormat", "")
    for mark in board["annotations"]["list"]:
        yield mark["name"], mark["expr"], mark["titleFormat"]


def variables(board: dict[str, Any]) -> list[str]:
    return [variable["name"] for variable in board["templating"]["list"]]


def lost(wanted: Any, kept: Any, path: str = "") -> list[str]:
    """What of `wanted` is not in `kept`."""
    if isinstance(wanted, dict) and isinstance(kept, dict):
        gone = [f"{path}.{key}" for key in wanted.keys() - kept.keys()]
        return gone + [p for key in wanted.keys() & kept.keys() for p in lost(wanted[key], kept[key], f"{path}.{key}")]
    if isinstance(wanted, list) and isinstance(kept, list) and len(wanted) == len(kept):
        return [
            p for i, (one, other) in enumerate(zip(wanted, kept, strict=True)) for p in lost(one, other, f"{path}[{i}]")
        ]
    return [] if wanted == kept else [path]


def unknown_to_grafana(made: dict[str, Any]) -> list[str]:
    """Places of a dashboard that Grafana's own model of it (11.6) does not keep."""
    plugins.register_default_plugins()
    gone = lost(made, json.loads(json.dumps(Dashboard.from_json(copy.deepcopy(made)), cls=JSONEncoder)))
    return [path for path in gone if not re.fullmatch(OF_THE_DATA_SOURCE, path)]


def test_the_files_are_what_is_written() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hack.dashboarding", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@each_board
def test_grafana_s_model_knows_all_that_the_dashboard_says(board: dict[str, Any]) -> None:
    assert unknown_to_grafana(board) == []
    misspelt = copy.deepcopy(board)
    panel = next(panel for panel in misspelt["panels"] if panel["type"] == "timeseries")
    panel["fieldConfig"]["defaults"]["custom"]["fillOpacitty"] = 3
    panel["options"]["legend"]["placment"] = "right"
    assert len(unknown_to_grafana(misspelt)) == 2


@each_board
def test_panels_have_ids_of_their_own_and_do_not_overlap(board: dict[str, Any]) -> None:
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


@each_board
def test_no_place_in_the_grid_is_left_empty(board: dict[str, Any]) -> None:
    wide: dict[int, int] = {}
    for panel in board["panels"]:
        wide[panel["gridPos"]["y"]] = wide.get(panel["gridPos"]["y"], 0) + panel["gridPos"]["w"]
    assert set(wide.values()) == {24}, wide


def test_dashboards_find_each_other_and_are_listed() -> None:
    assert len(BOARDS) == 4
    for name, board in BOARDS.items():
        (links,) = board["links"]
        assert board["uid"] == name
        assert set(links["tags"]) <= set.intersection(*(set(other["tags"]) for other in BOARDS.values()))
        assert (links["type"], links["includeVars"], links["keepTime"]) == ("dashboards", True, True)
        assert re.search(rf"`grafana/{name}\.json`", README), f"{name} is not in the README"
        for target, variable in re.findall(r'"url": "/d/([\w-]+)\?[^"]*?&var-(\w+)=\$\{__value', json.dumps(board)):
            assert variable in variables(BOARDS[target]), f"{name} leads to {target} with {variable}"


@each_board
def test_the_data_source_is_chosen_at_the_top_everywhere(board: dict[str, Any]) -> None:
    assert variables(board)[:3] == ["datasource", "cluster", "node"]
    places = [panel["datasource"] for panel in board["panels"] if panel["type"] != "row"]
    places += [target["datasource"] for panel in board["panels"] for target in panel.get("targets", ())]
    places += [variable["datasource"] for variable in board["templating"]["list"][1:]]
    places += [mark["datasource"] for mark in board["annotations"]["list"]]
    assert all(place == CHOSEN for place in places)


@each_board
def test_every_query_follows_what_is_chosen_at_the_top(board: dict[str, Any]) -> None:
    known = series()
    for place, expression, _ in queries(board):
        written = re.sub(r"\$__(rate_interval|range)", "5m", expression)
        for selector in selectors(written):
            own = known[selector.name]
            of_node = set() if selector.name in records() else {"node"}
            wanted = {"cluster"} | ((own | of_node) & set(variables(board)))
            followed = {m.name for m in selector.matchers.matchers if m.value == f"${m.name}"}
            assert followed == wanted, f"{place}: {selector.name}"


@each_board
def test_a_dashboard_names_only_series_and_labels_that_exist(board: dict[str, Any]) -> None:
    for place, expression, legend in queries(board):
        allowed = labels_of(filled_in(expression))
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= allowed, place
    for variable in board["templating"]["list"][1:]:
        metric, label = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", variable["query"]["query"]).groups()
        assert variable["name"] == label
        assert label in METRICS[metric] | {"cluster", "node"}


@each_board
def test_a_dashboard_asks_only_for_reasons_that_exist(board: dict[str, Any]) -> None:
    for place, expression, _ in queries(board):
        for asked in re.findall(r'reason=~?"([^"]+)"', expression):
            for each in asked.split("|"):
                assert any(re.fullmatch(each, reason) for reason in Reason), f"{place}: {each}"


@each_board
def test_every_column_of_a_table_comes_from_a_label_or_a_query(board: dict[str, Any]) -> None:
    for panel in board["panels"]:
        if panel["type"] != "table":
            continue
        organize = panel["transformations"][-1]["options"]
        values = {f"Value #{target['refId']}" if len(panel["targets"]) > 1 else "Value" for target in panel["targets"]}
        labels = [labels_of(filled_in(target["expr"])) for target in panel["targets"]]
        shown = set(organize["renameByName"])
        assert shown <= values.union({"Value"}, *labels), panel["title"]
        by = re.findall(r"by \(([^)]+)\)", " ".join(target["expr"] for target in panel["targets"]))
        given = values | {label for found in by for label in found.split(", ")}
        assert given <= shown | set(organize["excludeByName"]), panel["title"]
        titles = set(organize["renameByName"].values())
        assert {entry["matcher"]["options"] for entry in panel["fieldConfig"]["overrides"]} <= titles, panel["title"]
        assert {entry["displayName"] for entry in panel["options"]["sortBy"]} <= titles, panel["title"]


@each_board
def test_every_query_finds_something_in_a_fleet_with_troubles(board: dict[str, Any], tmp_path: Any) -> None:
    expressions = [filled_in(expression).removesuffix(" or vector(0)") for _, expression, _ in queries(board)]
    inputs = []
    for one in fleet(series()):
        labels = {"node": one.node, "job": "katanode"} | one.labels
        text = ", ".join(f'{label}="{word}"' for label, word in labels.items())
        values = "0+1x90" if one.value is None else f"{one.value}+0x90"
        inputs.append({"series": f"{one.name}{{{text}}}", "values": values})
    case = {
        "interval": "1m",
        "input_series": inputs,
        "promql_expr_test": [
            {"expr": f"count({text}) > bool 0", "eval_time": "90m", "exp_samples": [{"labels": "{}", "value": 1}]}
            for text in expressions
        ],
    }
    assert len(expressions) > 10
    file = tmp_path / "test.json"
    file.write_text(json.dumps({"evaluation_interval": "1m", "tests": [case]}))
    done = promtool.run("test", "rules", file)
    assert done.returncode == 0, done.stdout
