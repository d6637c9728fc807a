"""What alerts, recording rules and dashboards may name: the agent's series, and where those files are."""

from __future__ import annotations

import functools
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import promql_parser
import yaml
from prometheus_client.parser import text_string_to_metric_families

from agent.host.root import HostRoot
from agent.service.metrics import Metrics
from agent.service.sandboxes import Sandboxes
from hack.lab.fakeproc import FakeProc

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "manifests/monitoring"
RULES = FOLDER / "prometheus/katanode.rules"
README = (FOLDER / "README.md").read_text()

ENDINGS = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}


def _own() -> dict[str, frozenset[str]]:
    """The series of the daemon's registry."""
    return {
        metric.name + ending: frozenset((*collector._labelnames, *(["le"] if ending == "_bucket" else [])))
        for collector in Metrics().registry._collector_to_names
        for metric in collector.describe()
        for ending in ENDINGS.get(metric.type, ("",))
    }


def _of_sandboxes() -> dict[str, frozenset[str]]:
    """The series of sandboxes: those of a scrape with one in it, of which everything is known."""
    with tempfile.TemporaryDirectory() as folder:
        proc = FakeProc(Path(folder) / "proc")
        made = proc.sandbox(1, 100)
        for pid in (100, 101, 102):
            proc.mappings(pid, ("[heap]", 2048, 2048))
        sandboxes = Sandboxes(HostRoot(Path(folder)), proc.path)
        sandboxes.look()
        sandboxes._allowed[made] = 1
        text = sandboxes.scrape(openmetrics=False)
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name: frozenset(sample.labels) for sample in samples}


METRICS = _own() | _of_sandboxes()
"""The agent's series with their labels."""
OTHERS = {
    "up": frozenset[str](),
    "ALERTS": frozenset({"alertname", "alertstate", "severity", "reason", "handler", "kind"}),
    "kube_daemonset_status_desired_number_scheduled": frozenset({"daemonset"}),
    "kube_daemonset_status_number_ready": frozenset({"daemonset"}),
}
"""Prometheus' own, and those of kube-state-metrics."""
OF_THE_TARGET = {"cluster", "job", "namespace", "node", "pod"}
"""Labels that scraping adds; `cluster` where a ruler or a remote store does."""


@functools.cache
def rules() -> list[dict[str, Any]]:
    """All rules, in their order."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """The rules that alert."""
    return [rule for rule in rules() if "alert" in rule]


@functools.cache
def records() -> dict[str, frozenset[str]]:
    """What the rules record, with the labels that a name's first part tells of."""
    names = [rule["record"] for rule in rules() if "record" in rule]
    return {name: frozenset(name.split(":")[0].split("_")) | {"cluster"} for name in names}


@functools.cache
def series() -> dict[str, frozenset[str]]:
    """All series that may be asked for, with the labels that are their own."""
    return OTHERS | METRICS | records()


def selectors(expression: str) -> Iterator[promql_parser.VectorSelector]:
    """The series that an expression asks for."""
    found: list[promql_parser.VectorSelector] = []

    def look(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), look)
    yield from found


def labels_of(expression: str) -> set[str]:
    """The labels that an expression may use; asserts that it uses only those, and only series that exist."""
    known = series()
    seen: set[str] = set()
    used: set[str] = set()

    def look(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            seen.add(node.name)
            used.update(matcher.name for matcher in node.matchers.matchers)
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            used.update(node.modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier and node.modifier.matching:
            used.update(node.modifier.matching.labels)

    promql_parser.walk(promql_parser.parse(expression), look)
    assert seen, expression
    assert seen <= known.keys(), seen - known.keys()
    of_target = set() if seen <= records().keys() else OF_THE_TARGET
    allowed = of_target.union(*(known[name] for name in seen))
    assert used <= allowed, f"{used - allowed} in {expression}"
    return allowed


def dashboards() -> dict[str, dict[str, Any]]:
    """The dashboards by their uid."""
    return {file.stem: json.loads(file.read_text()) for file in sorted((FOLDER / "grafana").glob("*.json"))}


def filled_in(text: str) -> str:
    """A dashboard's expression with something in the place of its variables."""
    ranges = text.replace("$__rate_interval", "5m").replace("$__range", "1h")
    return re.sub(r"\$(cluster|node|namespace|handler)\b", ".*", ranges)
