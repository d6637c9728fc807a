"""The recording rules, run by promtool over series of a fleet: what they record of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import promtool
from monitored import RULES, records


def recorded(tmp_path: Path, series: dict[str, str], expected: dict[str, dict[str, float]], at: str = "30m") -> None:
    """Asserts what promtool records of series: name to labels, as PromQL writes them, to value."""
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": name,
                "eval_time": at,
                "exp_samples": [{"labels": f"{name}{labels}", "value": value} for labels, value in samples.items()],
            }
            for name, samples in expected.items()
        ],
    }
    file = tmp_path / "test.json"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}))
    done = promtool.run("test", "rules", file)
    assert done.returncode == 0, done.stdout


def of(metric: str, value: str, **labels: Any) -> dict[str, str]:
    """A series that stands at a value, or changes as promtool's words say."""
    text = ", ".join(f'{key}="{word}"' for key, word in labels.items())
    return {f"katanode_{metric}{{{text}}}": value if "x" in value else f"{value}+0x60"}


def test_nodes_taken_out_do_not_count_in_the_share_that_is_ready(tmp_path: Path) -> None:
    series = {}
    for node, value in (("n1", "1"), ("n2", "1"), ("n3", "1"), ("n4", "0"), ("out", "0")):
        series |= of("ready", value, node=node)
        series |= of("handler_ready", value, node=node, handler="kata-clh")
        series |= of("handler_ready", "0", node=node, handler="kata-qemu")
    series |= of("reason", "1", node="out", reason="InstallDisabled", severity="info")
    recorded(
        tmp_path,
        series,
        {
            "cluster:katanode_ready:ratio": {"": 0.75},
            "handler:katanode_handler_ready:ratio": {'{handler="kata-clh"}': 0.75, '{handler="kata-qemu"}': 0},
        },
    )


def test_what_tenants_and_nodes_use_is_added_up(tmp_path: Path) -> None:
    series: dict[str, str] = {}
    places = (("n1", "a", "web-0"), ("n1", "a", "web-1"), ("n2", "a", "web-2"), ("n2", "b", "job"))
    for node, namespace, pod in places:
        labels = {"node": node, "namespace": namespace, "pod": pod, "handler": "kata-clh", "hypervisor": "clh"}
        series |= of("sandbox_start_time_seconds", "1000", **labels)
        series |= of("sandbox_vcpus", "2", **labels)
        series |= of("sandbox_network_receive_bytes_total", "0+600x60", **labels)
        series |= of("sandbox_network_transmit_bytes_total", "0+60x60", **labels)
        for component, per_minute, memory in (("vmm", 30, "300"), ("shim", 15, "20")):
            series |= of("sandbox_cpu_seconds_total", f"0+{per_minute}x60", component=component, **labels)
            series |= of("sandbox_proportional_memory_bytes", memory, component=component, **labels)
    recorded(
        tmp_path,
        series,
        {
            "namespace_handler:katanode_sandboxes:count": {
                '{namespace="a", handler="kata-clh"}': 3,
                '{namespace="b", handler="kata-clh"}': 1,
            },
            "namespace:katanode_sandbox_vcpus:sum": {'{namespace="a"}': 6, '{namespace="b"}': 2},
            "namespace:katanode_sandbox_cpu_seconds:rate5m": {'{namespace="a"}': 2.25, '{namespace="b"}': 0.75},
            "node_component:katanode_sandbox_cpu_seconds:rate5m": {
                f'{{node="{node}", component="{component}"}}': value
                for node in ("n1", "n2")
                for component, value in (("vmm", 1.0), ("shim", 0.5))
            },
            "namespace:katanode_sandbox_proportional_memory_bytes:sum": {
                '{namespace="a"}': 960,
                '{namespace="b"}': 320,
            },
            "node_component:katanode_sandbox_proportional_memory_bytes:sum": {
                f'{{node="{node}", component="{component}"}}': value
                for node in ("n1", "n2")
                for component, value in (("vmm", 600), ("shim", 40))
            },
            "namespace:katanode_sandbox_network_receive_bytes:rate5m": {'{namespace="a"}': 30, '{namespace="b"}': 10},
            "namespace:katanode_sandbox_network_transmit_bytes:rate5m": {'{namespace="a"}': 3, '{namespace="b"}': 1},
        },
    )


def test_sandboxes_are_counted_by_handler_and_by_node(tmp_path: Path) -> None:
    series: dict[str, str] = {}
    for node, handler, hypervisor, number in (
        ("n1", "kata-clh", "clh", "3"),
        ("n2", "kata-clh", "clh", "4"),
        ("n2", "kata-qemu", "qemu", "1"),
    ):
        series |= of("sandboxes", number, node=node, handler=handler, hypervisor=hypervisor)
    recorded(
        tmp_path,
        series,
        {
            "handler_hypervisor:katanode_sandboxes:sum": {
                '{handler="kata-clh", hypervisor="clh"}': 7,
                '{handler="kata-qemu", hypervisor="qemu"}': 1,
            },
            "node_handler:katanode_sandboxes:sum": {
                '{node="n1", handler="kata-clh"}': 3,
                '{node="n2", handler="kata-clh"}': 4,
                '{node="n2", handler="kata-qemu"}': 1,
            },
        },
    )


def test_an_overhead_that_is_not_known_is_in_no_share(tmp_path: Path) -> None:
    series: dict[str, str] = {}
    for pod, used, allowed in (("a", "65", "130"), ("b", "65", "130"), ("c", "65", "0"), ("d", "65", "")):
        labels = {"node": "n1", "namespace": "a", "pod": pod, "handler": "kata-clh", "hypervisor": "clh"}
        series |= of("sandbox_overhead_memory_bytes", used, **labels)
        if allowed:
            series |= of("sandbox_overhead_allowed_bytes", allowed, **labels)
    recorded(tmp_path, series, {"handler:katanode_sandbox_overhead:p95": {'{handler="kata-clh"}': 0.5}})


def test_every_record_is_tested_or_has_a_history() -> None:
    source = Path(__file__).read_text()
    assert [name for name in records() if name not in source and ":katanode_canary_start_seconds:" not in name] == []
