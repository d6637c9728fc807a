"""What Prometheus scrapes from the daemon, judged by Prometheus' own tool."""

from __future__ import annotations

import subprocess

import debian_packages
import pytest
from prometheus_client import generate_latest

from agent.reasons import CATALOGUE
from agent.service.messages import Restart, Result, Try
from agent.service.metrics import DRIFT_KINDS, Metrics

REPORT = {
    "state": "degraded",
    "kata_version": "4.1.0",
    "note": "",
    "handlers": [
        {"name": "kata-clh", "ready": True, "reasons": []},
        {"name": "kata-qemu", "ready": False, "reasons": ["VhostNetMissing"]},
    ],
    "findings": [],
}
LISTED = {
    "build_info",
    "ready",
    "handler_ready",
    "reason",
    "reconcile_duration_seconds",
    "reconcile",
    "runtime_restarts",
    "runtime_outage_seconds",
    "rollbacks",
    "drift_repairs",
    "restart_slot_wait_seconds",
    "release_info",
    "canary_start_seconds",
    "canary_runs",
    "canary_memory_bytes",
    "canary_last_success_timestamp_seconds",
    "last_success_timestamp_seconds",
    "api_reachable",
}


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics()
    result = Result(
        REPORT,
        restarts=(Restart("ok", 0.4), Restart("undone", 0.0)),
        drifted=DRIFT_KINDS,
        canaries={"kata-clh": 0.2},
        memory={"kata-clh": {"vmm": 20 << 20, "virtiofsd": 3 << 20, "shim": 8 << 20}},
        proved={"kata-clh": 1_700_000_000.0},
        tries=(Try("kata-clh", "ok"), Try("kata-clh", "failed")),
        release="4.1.0-3dc6b69c",
    )
    made.did(result)
    for outcome in ("unchanged", "changed", "failed", "rolled_back"):
        made.took(0.3, outcome)
    made.wait.observe(3.0)
    made.reached.set(1)
    made.show(REPORT, result, {str(reason): str(entry.severity) for reason, entry in CATALOGUE.items()})
    return made


def test_a_scrape_with_everything_in_it_pleases_promtool(metrics: Metrics) -> None:
    promtool = debian_packages.unpacked("prometheus") / "usr/bin/promtool"
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=generate_latest(metrics.registry),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_every_metric_of_the_list_is_there_and_no_other(metrics: Metrics) -> None:
    assert {family.name for family in metrics.registry.collect()} == {f"katanode_{name}" for name in LISTED}


def test_what_is_well_again_is_not_shown_any_more(metrics: Metrics) -> None:
    metrics.show(REPORT, Result(REPORT), {})
    text = generate_latest(metrics.registry).decode()
    assert "katanode_reason{" not in text
    assert "katanode_release_info{" not in text
    assert 'katanode_handler_ready{handler="kata-qemu"} 0.0' in text


def test_an_undone_restart_counts_as_a_rollback_and_has_no_outage(metrics: Metrics) -> None:
    text = generate_latest(metrics.registry).decode()
    assert "katanode_rollbacks_total 1.0" in text
    assert "katanode_runtime_outage_seconds_count 1.0" in text
