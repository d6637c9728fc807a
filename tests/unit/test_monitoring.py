"""What watches katanode: alerts, scraping and the dashboard name only what exists, and say what the catalogue says."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import promql_parser
import promtool
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from agent.reasons import CATALOGUE, Reason, Severity
from agent.service.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "manifests/monitoring"
RULES = FOLDER / "prometheus/katanode.rules"
README = (FOLDER / "README.md").read_text()

ENDINGS = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
METRICS = {
    metric.name + ending: frozenset(collector._labelnames)
    for collector in Metrics().registry._collector_to_names
    for metric in collector.describe()
    for ending in ENDINGS.get(metric.type, ("",))
}
"""The agent's series with their labels."""
OTHERS = {
    "up": frozenset[str](),
    "kube_daemonset_status_desired_number_scheduled": frozenset({"daemonset"}),
    "kube_daemonset_status_number_ready": frozenset({"daemonset"}),
}
"""Prometheus' own, and those of kube-state-metrics."""
OF_THE_TARGET = {"cluster", "job", "namespace", "node", "pod"}
"""Labels that scraping adds; `cluster` where a ruler or a remote store does."""
WITHOUT_REASON = {
    "KatanodeFleetNotReady",
    "KatanodeNodeDegraded",
    "KatanodeCanarySlow",
    "KatanodeRolloutStalled",
    "KatanodeAgentAbsent",
    "KatanodeAgentDown",
    "KatanodeAgentMissing",
    "KatanodeNoSuccess",
}
"""Alerts that no single reason stands behind: their runbook is their own."""


def series() -> dict[str, frozenset[str]]:
    """All series that may be asked for, with their labels."""
    return OTHERS | {name: labels | {"le"} if name.endswith("_bucket") else labels for name, labels in METRICS.items()}


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    made: dict[str, Any] = json.loads((FOLDER / "grafana/katanode.json").read_text())
    return made


def queries() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each panel with each of its queries."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel, target


def filled_in(text: str) -> str:
    """A dashboard's expression with something in the place of its variables."""
    return text.replace("$__rate_interval", "5m").replace("$cluster", ".*").replace("$node", ".*")


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
    allowed = OF_THE_TARGET.union(*(known[name] for name in seen))
    assert used <= allowed, f"{used - allowed} in {expression}"
    return allowed


# --- alerts


def test_the_remedies_and_the_operator_s_copy_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "hack/alerts", "--check"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_operator_is_given_the_same_rules() -> None:
    rule = yaml.safe_load((FOLDER / "prometheusrule.yaml").read_text())
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rule["metadata"]["namespace"] == "katanode"
    assert rule["spec"] == yaml.safe_load(RULES.read_text())


def test_prometheus_takes_the_rules_and_finds_no_duplicate() -> None:
    done = promtool.run("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout
    assert f"{len(alerts())} rules found" in done.stdout


def test_every_alert_says_how_grave_it_is_what_is_and_what_to_do() -> None:
    for rule in alerts():
        assert rule["alert"].startswith("Katanode"), rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, rule["alert"]
        assert all(rule["annotations"].values()), rule["alert"]
        assert not rule["annotations"]["summary"].endswith("."), rule["alert"]


def test_a_runbook_is_the_catalogue_s_remedy() -> None:
    for rule in alerts():
        code = rule["labels"].get("reason")
        if code:
            assert rule["annotations"]["runbook"] == CATALOGUE[Reason(code)].remedy, rule["alert"]
            assert code in rule["expr"] or code == Reason.CLUSTER_UNREACHABLE, rule["alert"]
    assert {rule["alert"] for rule in alerts() if "reason" not in rule["labels"]} == {
        *WITHOUT_REASON,
        "KatanodeNodeNotReady",  # its reason is the series': test_alerts.py
    }


def test_alerts_name_only_series_labels_and_reasons_that_exist() -> None:
    codes = {str(reason) for reason in Reason}
    severities = {str(severity) for severity in Severity}
    for rule in alerts():
        allowed = labels_of(rule["expr"])
        texts = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", texts)) <= allowed, rule["alert"]
        for key, values in re.findall(r'(reason|severity)=~?"([^"]+)"', rule["expr"]):
            assert set(values.split("|")) <= (codes if key == "reason" else severities), rule["alert"]


def test_the_readme_lists_every_alert_with_its_severity() -> None:
    listed = re.findall(r"^\| (Katanode\w+) \| (\w+) \|", README, re.MULTILINE)
    assert listed == [(rule["alert"], rule["labels"]["severity"]) for rule in alerts()]


# --- scraping


def daemonset() -> dict[str, Any]:
    for file in sorted((REPOSITORY / "manifests").glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if document and document["kind"] == "DaemonSet":
                return document
    raise AssertionError("manifests/ has no DaemonSet")


def test_the_podmonitor_finds_the_daemonset_s_pods_by_label_and_port() -> None:
    monitor = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text())
    pod = daemonset()["spec"]["template"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    ports = {port["name"]: port["containerPort"] for c in pod["spec"]["containers"] for port in c.get("ports", ())}
    assert ports[endpoint["port"]] == int(pod["metadata"]["annotations"]["prometheus.io/port"])
    assert endpoint["path"] == pod["metadata"]["annotations"]["prometheus.io/path"]
    assert monitor["metadata"]["namespace"] == daemonset()["metadata"]["namespace"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    # What the alerts and the dashboard ask for: the job's name and the node's.
    assert pod["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "katanode"
    assert {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"} in endpoint["relabelings"]


def test_the_readme_s_scrape_configuration_finds_annotated_pods_and_names_their_nodes(tmp_path: Path) -> None:
    config = scrape_configuration()
    annotations = daemonset()["spec"]["template"]["metadata"]["annotations"]
    found = {
        f"__meta_kubernetes_pod_annotation_{re.sub(r'[^a-z]', '_', key)}": value for key, value in annotations.items()
    }
    found |= {
        "__meta_kubernetes_namespace": "katanode",
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": "katanode",
        "__meta_kubernetes_pod_name": "katanode-x",
        "__meta_kubernetes_pod_node_name": "n1",
    }
    (job,) = config["scrape_configs"]
    del job["kubernetes_sd_configs"]
    # A pod's address with the port that it declares, with another, with none, and another pod.
    addresses = ["192.0.2.1:9810", "192.0.2.2:80", "192.0.2.3", "[2001:db8::4]:9810"]
    job["static_configs"] = [
        {"targets": addresses, "labels": found},
        {"targets": ["192.0.2.9:1"], "labels": found | {"__meta_kubernetes_pod_label_app_kubernetes_io_name": "no"}},
    ]
    (tmp_path / "katanode.rules").write_bytes(RULES.read_bytes())
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    done = promtool.run("check", "service-discovery", "--timeout=1s", "prometheus.yml", "katanode", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    targets = [item["labels"] for item in json.loads(done.stdout) if item["labels"]]
    hosts = ("192.0.2.1", "192.0.2.2", "192.0.2.3", "[2001:db8::4]")
    assert sorted(target.pop("__address__") for target in targets) == sorted(f"{host}:9810" for host in hosts)
    wanted = {
        "__metrics_path__": "/metrics",
        "job": "katanode",
        "namespace": "katanode",
        "node": "n1",
        "pod": "katanode-x",
    }
    assert all(wanted.items() <= target.items() for target in targets)


def test_prometheus_takes_the_readme_s_configuration(tmp_path: Path) -> None:
    config = scrape_configuration()
    # Debian builds Prometheus without Kubernetes' service discovery: promtool is not asked about that.
    discovery = config["scrape_configs"][0].pop("kubernetes_sd_configs")
    assert discovery == [{"role": "pod", "namespaces": {"names": [daemonset()["metadata"]["namespace"]]}}]
    (tmp_path / "katanode.rules").write_bytes(RULES.read_bytes())
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    done = promtool.run("check", "config", "--lint=all", "--lint-fatal", "prometheus.yml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert f"{len(alerts())} rules found" in done.stdout


def scrape_configuration() -> dict[str, Any]:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    config: dict[str, Any] = yaml.safe_load(block)
    return config


# --- dashboard


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
    return lost(made, json.loads(json.dumps(Dashboard.from_json(copy.deepcopy(made)), cls=JSONEncoder)))


def test_grafana_s_model_knows_all_that_the_dashboard_says() -> None:
    assert unknown_to_grafana(dashboard()) == []
    misspelt = dashboard()
    panel = next(panel for panel in misspelt["panels"] if panel["type"] == "timeseries")
    panel["fieldConfig"]["defaults"]["custom"]["fillOpacitty"] = 3
    panel["options"]["legend"]["placment"] = "right"
    assert len(unknown_to_grafana(misspelt)) == 2


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_data_source_is_chosen_at_the_top_everywhere() -> None:
    made = dashboard()
    names = [variable["name"] for variable in made["templating"]["list"]]
    assert names == ["datasource", "cluster", "node"]
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    places = [panel["datasource"] for panel in made["panels"] if panel["type"] != "row"]
    places += [target["datasource"] for _, target in queries()]
    places += [variable["datasource"] for variable in made["templating"]["list"][1:]]
    assert all(place == chosen for place in places)
    for panel, target in queries():
        expression = target["expr"]
        asked = expression.count('cluster=~"$cluster", node=~"$node"')
        assert asked == len(re.findall(r"\{", expression)) > 0, f"{panel['title']} does not follow the choice"


def test_the_dashboard_names_only_series_and_labels_that_exist() -> None:
    for panel, target in queries():
        allowed = labels_of(filled_in(target["expr"]))
        assert set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))) <= allowed, panel["title"]
    for variable in dashboard()["templating"]["list"][1:]:
        (metric,) = re.findall(r"label_values\((\w+)", variable["query"]["query"])
        assert metric in METRICS


def test_every_query_of_the_dashboard_finds_something_in_a_fleet_with_troubles(tmp_path: Path) -> None:
    expressions = [filled_in(target["expr"]).removesuffix(" or vector(0)") for _, target in queries()]
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in fleet()],
        "promql_expr_test": [
            {"expr": f"count({text}) > bool 0", "eval_time": "90m", "exp_samples": [{"labels": "{}", "value": 1}]}
            for text in expressions
        ],
    }
    assert len(expressions) > 25
    file = tmp_path / "test.json"
    file.write_text(json.dumps({"evaluation_interval": "1m", "tests": [case]}))
    done = promtool.run("test", "rules", file)
    assert done.returncode == 0, done.stdout


def fleet() -> Iterator[tuple[str, str]]:
    """Series of all metrics from two nodes, of which one is well and the other is not."""
    values = {
        "handler": ["kata-clh", "kata-qemu"],
        "reason": ["WaitingForRestartSlot", "KVMBusy"],
        "outcome": ["ok", "undone", "failed"],
        "kind": ["sysctls"],
        "version": ["1"],
        "release": ["1-abcd"],
        "le": ["1", "5", "+Inf"],
    }
    for name, labels in series().items():
        counts = name.endswith(("_total", "_bucket", "_count", "_sum"))
        for node, steady in (("n1", "1+0x120"), ("n2", "0+0x120")):
            fixed = f'node="{node}", cluster="", job="katanode"'
            if name == "katanode_reason":
                steady = "1+0x120"  # noqa: PLW2901 - a reason that stands is 1 wherever it stands
                fixed += ', severity="error"'
            key = next((key for key in sorted(labels) if key != "severity"), "")
            rest = "".join(f', {other}="{values[other][0]}"' for other in labels - {key, "severity"})
            for value in values.get(key, [""]):
                given = f', {key}="{value}"' if key in values else ""
                yield f"{name}{{{fixed}{rest}{given}}}", "0+1x120" if counts else steady
