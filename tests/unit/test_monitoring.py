"""What watches katanode: rules and scraping name only what exists, and alerts say what the catalogue says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import promtool
import yaml
from monitored import FOLDER, METRICS, OF_THE_TARGET, README, REPOSITORY, RULES, alerts, labels_of, records, rules

from agent.reasons import CATALOGUE, Reason, Severity

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT_REASON = {
    "KatanodeFleetNotReady",
    "KatanodeNodeDegraded",
    "KatanodeCanarySlow",
    "KatanodeCanarySlowerThanBefore",
    "KatanodeSandboxWithoutVM",
    "KatanodeSandboxSeriesDropped",
    "KatanodeRolloutStalled",
    "KatanodeAgentAbsent",
    "KatanodeAgentDown",
    "KatanodeAgentMissing",
    "KatanodeNoSuccess",
}
"""Alerts that no single reason stands behind: their runbook is their own."""
MEASURED = {
    Reason.CANARY_FAILED,
    Reason.CLUSTER_UNREACHABLE,
    Reason.SANDBOX_LEFTOVERS,
    Reason.SANDBOX_ORPHANED,
    Reason.SANDBOX_OVERHEAD_EXCEEDED,
}
"""Reasons whose alert asks for a metric of its own."""


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
    assert f"{len(rules())} rules found" in done.stdout


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
            assert code in rule["expr"] or code in MEASURED, rule["alert"]
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


def test_records_name_only_series_and_labels_that_exist_and_are_listed() -> None:
    listed = re.findall(r"^\| `([\w:]+)` \|", README, re.MULTILINE)
    assert listed == list(records())
    for rule in rules():
        if "record" in rule:
            assert records()[rule["record"]] <= labels_of(rule["expr"]) | {"cluster"}, rule["record"]


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


def test_a_sandbox_s_own_namespace_and_pod_are_kept_and_nothing_else_is_overridden() -> None:
    """Where labels are not honoured, Prometheus calls the sandbox's `exported_namespace` and `exported_pod`."""
    (endpoint,) = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text())["spec"]["podMetricsEndpoints"]
    (job,) = scrape_configuration()["scrape_configs"]
    assert endpoint["honorLabels"] is job["honor_labels"] is True
    given = frozenset[str]().union(*METRICS.values())
    assert given & (OF_THE_TARGET | {"instance"}) == {"namespace", "pod"}


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
    assert f"{len(rules())} rules found" in done.stdout


def scrape_configuration() -> dict[str, Any]:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    config: dict[str, Any] = yaml.safe_load(block)
    return config
