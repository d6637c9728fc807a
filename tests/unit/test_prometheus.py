"""A real Prometheus with the README's configuration and the rules: what it records, and that every query is answered.

What it scrapes is a stand-in for the agents (`standin_exporter.py`); a day of canaries is put into its store before.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import debian_packages
import promtool
import pytest
import standin_exporter
import yaml
from fleet_series import NODES
from monitored import METRICS, README, RULES, alerts, dashboards, filled_in, records, rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ANY_PORT = "127.0.0.1:0"
PAST = "node_handler:katanode_canary_start_seconds:max"


class Prometheus:
    """The API of a Prometheus.

    Args:
        address: its host and port.
    """

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}/"

    def ready(self) -> bool:
        """Whether it answers queries yet."""
        try:
            with urllib.request.urlopen(f"{self._url}-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer; raises `HTTPError` where a query is refused."""
        with urllib.request.urlopen(
            f"{self._url}api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10
        ) as answer:
            return json.load(answer)["data"]

    def ask(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What an expression gives now."""
        return [(one["metric"], float(one["value"][1])) for one in self.get("query", query=expression)["result"]]

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their state."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]


def waited(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """What a condition gives once it is true."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, condition
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    past_canaries(folder)
    # Each group at once, and again every second.
    (folder / "katanode.rules").write_text(re.sub(r"\n    interval: \d+m\n", "\n    interval: 1s\n", RULES.read_text()))
    with standin_exporter.serving(METRICS) as port:
        (folder / "prometheus.yml").write_text(json.dumps(configuration(port)))
        program = debian_packages.unpacked("prometheus") / "usr/bin/prometheus"
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [
                    program,
                    "--config.file=prometheus.yml",
                    "--storage.tsdb.path=data",
                    f"--web.listen-address={ANY_PORT}",
                ],
                cwd=folder,
                stderr=log,
            )
        try:
            said = r'msg="Listening on" address=(\S+)'
            server = Prometheus(waited(lambda: re.search(said, (folder / "log").read_text()))[1])
            waited(server.ready)
            waited(lambda: len(server.ask("up == 1")) == len(NODES))
            waited(lambda: all(records_of(server)))
            yield server
        finally:
            process.terminate()
            process.wait(30)


def records_of(server: Prometheus) -> list[Any]:
    """What each record has; empty lists where nothing is recorded yet."""
    return [server.ask(name) for name in records()]


def configuration(port: int) -> dict[str, Any]:
    """The README's, with targets that no cluster has to name."""
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    config: dict[str, Any] = yaml.safe_load(block)
    (job,) = config["scrape_configs"]
    del job["kubernetes_sd_configs"]
    job["static_configs"] = [
        {
            "targets": ["127.0.0.1"],
            "labels": {
                "__meta_kubernetes_namespace": "katanode",
                "__meta_kubernetes_pod_annotation_prometheus_io_path": f"/{node}/metrics",
                "__meta_kubernetes_pod_annotation_prometheus_io_port": str(port),
                "__meta_kubernetes_pod_annotation_prometheus_io_scrape": "true",
                "__meta_kubernetes_pod_label_app_kubernetes_io_name": "katanode",
                "__meta_kubernetes_pod_name": f"katanode-on-{node}",
                "__meta_kubernetes_pod_node_name": node,
            },
        }
        for node in NODES
    ]
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    return config


def past_canaries(folder: Path) -> None:
    """Puts what was recorded since yesterday into the store, as an earlier run would have: starts of 2 s."""
    now = int(time.time())
    lines = [
        f'{PAST}{{node="{node}",handler="kata-clh"}} 2 {now - ago}'
        for node in NODES
        for ago in range(30 * 3600, 3 * 3600, -240)
    ]
    (folder / "past").write_text("\n".join([*lines, "# EOF\n"]))
    done = promtool.run("tsdb", "create-blocks-from", "openmetrics", folder / "past", folder / "data")
    assert done.returncode == 0, done.stdout


def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    known = prometheus.rules()
    assert {rule["name"] for rule in known} == {rule.get("alert") or rule["record"] for rule in rules()}
    assert {rule["name"]: rule.get("lastError") for rule in known if rule["health"] != "ok"} == {}


def test_a_record_s_name_says_which_labels_it_has(prometheus: Prometheus) -> None:
    for name, labels in records().items():
        found = prometheus.ask(name)
        assert found, name
        for metric, _ in found:
            assert metric.keys() == labels - {"cluster"} | {"__name__"}, name


def test_a_node_is_judged_by_what_was_recorded_before(prometheus: Prometheus) -> None:
    def past() -> set[tuple[str, str, float]]:
        found = prometheus.ask("node_handler:katanode_canary_start_seconds:median7d")
        return {(metric["node"], metric["handler"], value) for metric, value in found}

    def judged() -> set[str]:
        known = {rule["name"]: rule.get("alerts", []) for rule in prometheus.rules()}
        return {alert["labels"]["node"] for alert in known["KatanodeCanarySlowerThanBefore"]}

    waited(lambda: past() == {(node, "kata-clh", 2.0) for node in NODES})
    waited(lambda: judged() == set(NODES))


def test_a_sandbox_s_namespace_and_pod_stay_its_own(prometheus: Prometheus) -> None:
    found = [metric for metric, _ in prometheus.ask("katanode_sandbox_vcpus")]
    assert {(metric["node"], metric["namespace"]) for metric in found} == {
        (node, namespace) for node in NODES for namespace in ("tenant-a", "tenant-b")
    }
    # A pod that is not known yet is no pod, and not the agent's.
    assert {metric.get("pod") for metric in found} == {"shop-0", None}
    assert not {label for metric in found for label in metric if label.startswith("exported_")}
    agents = [metric for metric, _ in prometheus.ask("katanode_ready")]
    assert {(metric["namespace"], metric["pod"]) for metric in agents} == {
        ("katanode", f"katanode-on-{node}") for node in NODES
    }


def test_alerts_on_what_is_not_well_are_under_way_and_others_are_not(prometheus: Prometheus) -> None:
    def under_way() -> set[str]:
        return {rule["name"] for rule in prometheus.rules() if rule.get("alerts")}

    of_sandboxes = {rule["alert"] for rule in alerts() if rule["alert"].startswith("KatanodeSandbox")}
    waited(lambda: under_way() >= of_sandboxes)
    assert not under_way() & {"KatanodeAgentAbsent", "KatanodeAgentDown", "KatanodeAgentMissing", "KatanodeCanarySlow"}


@pytest.mark.parametrize("uid", dashboards())
def test_every_query_of_a_dashboard_is_answered_also_over_time(prometheus: Prometheus, uid: str) -> None:
    board = dashboards()[uid]
    targets = [target for panel in board["panels"] for target in panel.get("targets", ())]
    now = time.time()
    for expression in [target["expr"] for target in targets] + [mark["expr"] for mark in board["annotations"]["list"]]:
        answer = prometheus.get("query_range", query=filled_in(expression), start=str(now - 5), end=str(now), step="1")
        assert answer["resultType"] == "matrix", expression
