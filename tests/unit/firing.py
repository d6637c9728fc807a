"""Alerts run by promtool over made-up series: which fire, when, and what they say."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import promtool
from monitored import RULES, alerts

if TYPE_CHECKING:
    from pathlib import Path

ALERTS = {rule["alert"]: rule for rule in alerts()}
HOURS = "x180"
"""Values once a minute for three hours."""
STANDS = f"1+0{HOURS}"
NO = f"0+0{HOURS}"


@dataclass(frozen=True)
class Fired:
    """An alert as it is expected: its labels besides the rule's own, its summary, what its templates' words become."""

    labels: dict[str, str]
    summary: str
    words: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)

    def expected(self, name: str) -> dict[str, Any]:
        rule = ALERTS[name]
        annotations = {key: self._expanded(rule["annotations"][key]) for key in ("description", "runbook")}
        return {
            "exp_labels": self.labels | rule["labels"],
            "exp_annotations": annotations | {"summary": self.summary} | self.annotations,
        }

    def _expanded(self, text: str) -> str:
        words = {f"$labels.{key}": value for key, value in self.labels.items()} | self.words
        return re.sub(r"\{\{ (.*?) \}\}", lambda match: words.get(match[1], match[0]), text)


def assert_fires(
    tmp_path: Path, series: dict[str, str], *expected: tuple[str, str, list[Fired]], step: str = "1m"
) -> None:
    """Asserts that at each time (as `15m`) the named alert fires as given, and not otherwise.

    Args:
        tmp_path: where promtool's file goes.
        series: each with its values, in promtool's words.
        expected: time, alert, how it fires then.
        step: time from one value to the next, and from one evaluation to the next.
    """
    file = tmp_path / "test.json"
    case = {
        "interval": step,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": at, "alertname": name, "exp_alerts": [fired.expected(name) for fired in alerts]}
            for at, name, alerts in expected
        ],
    }
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": step, "tests": [case]}))
    done = promtool.run("test", "rules", file)
    assert done.returncode == 0, done.stdout


def reason(name: str, node: str = "n1", severity: str = "error", cluster: str = "") -> str:
    """The series of a reason."""
    where = f', cluster="{cluster}"' if cluster else ""
    return f'katanode_reason{{node="{node}", reason="{name}", severity="{severity}"{where}}}'


def ready(node: str = "n1", cluster: str = "") -> str:
    """The series of a node's readiness."""
    where = f', cluster="{cluster}"' if cluster else ""
    return f'katanode_ready{{node="{node}"{where}}}'
