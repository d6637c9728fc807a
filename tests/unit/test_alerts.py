"""The alerts, run by promtool over series of a fleet: each fires when it should and says what it should."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from firing import ALERTS, HOURS, NO, STANDS, Fired, assert_fires, ready, reason

from agent.reasons import CATALOGUE, Reason, Severity

if TYPE_CHECKING:
    from pathlib import Path

NOT_READY = "KatanodeNodeNotReady"
NO_SUCCESS = (
    "No look of the agent at node {} has ended well {}. What the node serves it still serves; what is wanted of it now "
    "it does not have."
)
AGAIN = (
    "Something on node {} keeps changing what katanode installed{}. Repairs of the runtime's configuration restart it, "
    "so they are made ever more rarely."
)


def test_a_healthy_fleet_is_silent(tmp_path: Path) -> None:
    series = {}
    for node in ("n1", "n2"):
        series |= {
            ready(node): STANDS,
            f'up{{job="katanode", node="{node}"}}': STANDS,
            f'katanode_handler_ready{{node="{node}", handler="kata-clh"}}': STANDS,
            f'katanode_api_reachable{{node="{node}"}}': STANDS,
            f'katanode_last_success_timestamp_seconds{{node="{node}"}}': f"0+60{HOURS}",
            f'katanode_canary_start_seconds{{node="{node}", handler="kata-clh"}}': f"2+0{HOURS}",
            f'katanode_rollbacks_total{{node="{node}"}}': NO,
            f'katanode_drift_repairs_total{{node="{node}", kind="sysctls"}}': f"0+0x60 1+0{HOURS}",
            f'katanode_runtime_restarts_total{{node="{node}", outcome="ok"}}': f"0+0x60 1+0{HOURS}",
            reason("SELinuxEnforcing", node, "info"): STANDS,
            reason("MemoryLow", node, "warning"): STANDS,
        }
    number = {"namespace": "katanode", "daemonset": "katanode"}
    labels = ", ".join(f'{key}="{value}"' for key, value in number.items())
    series[f"kube_daemonset_status_desired_number_scheduled{{{labels}}}"] = f"2+0{HOURS}"
    series[f"kube_daemonset_status_number_ready{{{labels}}}"] = f"2+0{HOURS}"
    times = ("20m", "70m", "150m")
    assert_fires(tmp_path, series, *((at, name, []) for name in ALERTS for at in times))


def test_a_node_that_is_not_ready_is_told_of_with_its_reason_after_a_quarter_of_an_hour(tmp_path: Path) -> None:
    series = {ready(): NO, reason("KVMNestedOff"): STANDS, reason("MemoryLow", severity="warning"): STANDS}
    fired = Fired(
        {"node": "n1", "reason": "KVMNestedOff"},
        "Node n1 serves no Kata pods: KVMNestedOff",
        annotations={
            "runbook": "Use an instance type with nested virtualization or bare metal, or let the outer hypervisor "
            "offer it."
        },
    )
    assert_fires(tmp_path, series, ("14m", NOT_READY, []), ("15m", NOT_READY, [fired]))


def test_where_no_error_stands_a_warning_is_the_reason(tmp_path: Path) -> None:
    fired = Fired(
        {"node": "n1", "reason": "CoolingDown"},
        "Node n1 serves no Kata pods: CoolingDown",
        annotations={"runbook": "Mend its cause, then wait or run `katanode apply --retry`."},
    )
    series = {ready(): NO, reason("CoolingDown", severity="warning"): STANDS}
    assert_fires(tmp_path, series, ("20m", NOT_READY, [fired]))


def test_every_reason_s_remedy_is_told_word_for_word(tmp_path: Path) -> None:
    series, alerts = {}, []
    for code, entry in CATALOGUE.items():
        if entry.severity in {Severity.ERROR, Severity.WARNING}:
            node = f"node-of-{code}"
            series |= {ready(node): NO, reason(code, node, entry.severity): STANDS}
            alerts.append(
                Fired(
                    {"node": node, "reason": code},
                    f"Node {node} serves no Kata pods: {code}",
                    annotations={"runbook": entry.remedy},
                )
            )
    assert len(alerts) > 50
    assert_fires(tmp_path, series, ("20m", NOT_READY, alerts))


@pytest.mark.parametrize(
    "reasons",
    [{}, {reason("WaitingForRestartSlot", severity="info"): STANDS}],
    ids=["that is being installed", "that waits"],
)
def test_a_node_is_not_called_failed(tmp_path: Path, reasons: dict[str, str]) -> None:
    assert_fires(tmp_path, {ready(): NO} | reasons, ("60m", NOT_READY, []), ("60m", "KatanodeFleetNotReady", []))


def test_a_node_taken_out_by_label_is_not_wanted_ready(tmp_path: Path) -> None:
    series = {ready(): NO, reason("KVMNestedOff"): STANDS, reason("InstallDisabled", severity="info"): STANDS}
    names = (NOT_READY, "KatanodeFleetNotReady", "KatanodeNoSuccess")
    series['katanode_last_success_timestamp_seconds{node="n1"}'] = NO
    assert_fires(tmp_path, series, *(("150m", name, []) for name in names))


def test_nodes_of_one_name_in_several_clusters_are_kept_apart(tmp_path: Path) -> None:
    """In `a` three nodes fail, one serves, one is being installed; others would change that if they were mixed in."""

    def seconds(cluster: str, node: str = "n1") -> str:
        return f'katanode_last_success_timestamp_seconds{{node="{node}", cluster="{cluster}"}}'

    series = {
        # a: what is looked at
        ready("n1", "a"): NO,
        reason("KVMBusy", "n1", cluster="a"): STANDS,
        ready("n2", "a"): STANDS,
        reason("VhostVsockMissing", "n2", cluster="a"): STANDS,
        ready("n3", "a"): NO,
        ready("n4", "a"): NO,
        reason("KVMBusy", "n4", cluster="a"): STANDS,
        ready("n5", "a"): NO,
        reason("KVMBusy", "n5", cluster="a"): STANDS,
        reason("InstallDisabled", "n5", "info", "a"): STANDS,
        ready("n6", "a"): NO,
        reason("CoolingDown", "n6", "warning", "a"): STANDS,
        'katanode_handler_ready{node="n1", handler="kata-clh", cluster="a"}': NO,
        'katanode_drift_repairs_total{node="n1", kind="links", cluster="a"}': f"0+1{HOURS}",
        seconds("a"): STANDS,
        # b: the same names, serving, with reasons
        ready("n1", "b"): STANDS,
        reason("TugOfWar", "n1", "warning", "b"): STANDS,
        ready("n3", "b"): STANDS,
        reason("KVMBusy", "n3", cluster="b"): STANDS,
        # c: only a warning
        ready("n1", "c"): NO,
        reason("CoolingDown", "n1", "warning", "c"): STANDS,
        # d: taken out
        reason("InstallDisabled", "n1", "info", "d"): STANDS,
        reason("InstallDisabled", "n4", "info", "d"): STANDS,
        # e: one serves without a success, one neither serves nor says why; one has its alert, one waits
        ready("n1", "e"): STANDS,
        seconds("e"): STANDS,
        ready("n2", "e"): NO,
        seconds("e", "n2"): STANDS,
        ready("n3", "e"): NO,
        seconds("e", "n3"): STANDS,
        reason("KVMBusy", "n3", cluster="e"): STANDS,
        ready("n4", "e"): STANDS,
        seconds("e", "n4"): STANDS,
        reason("WaitingForRestartSlot", "n4", "info", "e"): STANDS,
        # f: being installed
        ready("n1", "f"): NO,
    }

    def failed(node: str, cluster: str, code: Reason) -> Fired:
        labels = {"node": node, "cluster": cluster, "reason": str(code)}
        remedy = {"runbook": CATALOGUE[code].remedy}
        return Fired(labels, f"Node {node} serves no Kata pods: {code}", annotations=remedy)

    def again(cluster: str, **labels: str) -> Fired:
        kind = " (links, three times or more within 6 hours)" if labels else ""
        return Fired(
            {"node": "n1", "cluster": cluster} | labels,
            "Node n1 is repaired again and again",
            annotations={"description": AGAIN.format("n1", kind)},
        )

    stale = [
        Fired(
            {"node": node, "cluster": "e"},
            f"Node {node} has not been found as wanted for over an hour",
            annotations={"description": NO_SUCCESS.format(node, "for 1h 59m 59s")},
        )
        for node in ("n1", "n2")
    ]
    assert_fires(
        tmp_path,
        series,
        (
            "20m",
            NOT_READY,
            [
                failed("n1", "a", Reason.KVM_BUSY),
                failed("n4", "a", Reason.KVM_BUSY),
                failed("n6", "a", Reason.COOLING_DOWN),
                failed("n1", "c", Reason.COOLING_DOWN),
                failed("n3", "e", Reason.KVM_BUSY),
            ],
        ),
        (
            "20m",
            "KatanodeFleetNotReady",
            [
                Fired({"cluster": "a"}, "75% of the nodes serve no Kata pods"),
                Fired({"cluster": "c"}, "100% of the nodes serve no Kata pods"),
                Fired({"cluster": "e"}, "33.33% of the nodes serve no Kata pods"),
            ],
        ),
        ("60m", "KatanodeNodeDegraded", []),
        ("60m", "KatanodeTugOfWar", [again("a", kind="links"), again("b")]),
        ("120m", "KatanodeNoSuccess", stale),
    )


@pytest.mark.parametrize(("failing", "of", "percent"), [(1, 5, None), (3, 12, "25%")])
def test_the_fleet_is_told_of_when_more_than_a_fifth_of_it_fails(
    tmp_path: Path, failing: int, of: int, percent: str | None
) -> None:
    series = {ready("out"): NO, reason("KVMBusy", "out"): STANDS, reason("InstallDisabled", "out", "info"): STANDS}
    series[ready("new")] = NO
    for number in range(of):
        series[ready(f"n{number}")] = NO if number < failing else STANDS
        if number < failing:
            series[reason("KVMBusy", f"n{number}")] = STANDS
    fired = [Fired({}, f"{percent} of the nodes serve no Kata pods")] if percent else []
    assert_fires(tmp_path, series, ("14m", "KatanodeFleetNotReady", []), ("20m", "KatanodeFleetNotReady", fired))


def test_a_handler_that_is_not_ready_on_a_node_that_is(tmp_path: Path) -> None:
    handler = 'katanode_handler_ready{node="%s", handler="%s"}'
    series = {ready(): STANDS, handler % ("n1", "kata-clh"): STANDS, handler % ("n1", "kata-qemu"): NO}
    series |= {ready("n2"): NO, handler % ("n2", "kata-qemu"): NO}
    fired = Fired({"node": "n1", "handler": "kata-qemu"}, "Node n1 does not serve kata-qemu")
    name = "KatanodeNodeDegraded"
    assert_fires(tmp_path, series, ("29m", name, []), ("30m", name, [fired]))


def test_a_canary_that_is_slow(tmp_path: Path) -> None:
    series = {
        'katanode_canary_start_seconds{node="n1", handler="kata-clh"}': f"12.5+0{HOURS}",
        'katanode_canary_start_seconds{node="n2", handler="kata-clh"}': f"9+0{HOURS}",
    }
    fired = Fired(
        {"node": "n1", "handler": "kata-clh"},
        "A sandbox takes 12.5s to start on node n1",
        {"$value | humanizeDuration": "12.5s"},
    )
    assert_fires(tmp_path, series, ("14m", "KatanodeCanarySlow", []), ("15m", "KatanodeCanarySlow", [fired]))


@pytest.mark.parametrize(
    ("code", "severity", "name", "wait", "summary"),
    [
        (
            "CanaryWithoutVM",
            "error",
            "KatanodeIsolationNotSeen",
            0,
            "A sandbox on node n1 started without a virtual machine",
        ),
        (
            "CanaryOnHostKernel",
            "error",
            "KatanodeIsolationBypassed",
            0,
            "A sandbox on node n1 runs on the node's own kernel",
        ),
        ("DiskSpaceLow", "error", "KatanodeDiskSpaceLow", 15, "Node n1 has too little disk space for a release"),
        ("RollbackFailed", "error", "KatanodeRollbackFailed", 0, "Node n1 starts no pods: undoing a change failed"),
        (
            "PublicationContested",
            "warning",
            "KatanodePublicationContested",
            15,
            "Somebody else writes what katanode says of node n1",
        ),
    ],
)
def test_a_reason_with_an_alert_of_its_own(
    tmp_path: Path, code: str, severity: str, name: str, wait: int, summary: str
) -> None:
    fired = Fired({"node": "n1"}, summary)
    series = {reason(code, severity=severity): f"_x10 1+0{HOURS}"}
    assert_fires(tmp_path, series, (f"{9 + wait}m", name, []), (f"{11 + wait}m", name, [fired]))


@pytest.mark.parametrize(
    "series",
    [
        {'katanode_rollbacks_total{node="n1"}': f"0+0x20 1+0{HOURS}"},
        {'katanode_rollbacks_total{node="n1", pod="after a crash"}': f"_x21 1+0{HOURS}"},
    ],
    ids=["counted", "counted before the first scrape"],
)
def test_a_rollback_is_told_of_at_once_and_for_an_hour(tmp_path: Path, series: dict[str, str]) -> None:
    fired = Fired({"node": "n1"}, "A change was rolled back on node n1")
    name = "KatanodeRolledBack"
    assert_fires(tmp_path, series, ("20m", name, []), ("22m", name, [fired]), ("78m", name, [fired]), ("90m", name, []))


def test_a_rollback_is_told_of_as_long_as_its_reason_stands(tmp_path: Path) -> None:
    fired = Fired({"node": "n1"}, "A change was rolled back on node n1")
    assert_fires(tmp_path, {reason("RolledBack"): STANDS}, ("150m", "KatanodeRolledBack", [fired]))


def test_lost_containers_are_told_of_for_an_hour_after_the_only_look_that_saw_them(tmp_path: Path) -> None:
    fired = Fired({"node": "n1"}, "Containers on node n1 did not survive a restart of the container runtime")
    name = "KatanodeContainersLost"
    series = {reason("ContainersLost", severity="warning"): f"_x10 1x5 stale _{HOURS}"}
    assert_fires(tmp_path, series, ("9m", name, []), ("12m", name, [fired]), ("60m", name, [fired]), ("80m", name, []))


def test_a_halted_rollout_is_one_alert_for_the_fleet_and_not_a_stalled_one(tmp_path: Path) -> None:
    series = {reason("RolloutHalted", f"n{number}", "warning"): STANDS for number in range(3)}
    series |= {reason("WaitingForRestartSlot", f"n{number}", "info"): STANDS for number in range(3)}
    fired = Fired({}, "The rollout is halted: 3 nodes wait", {"$value": "3"})
    assert_fires(
        tmp_path,
        series,
        ("0m", "KatanodeRolloutHalted", []),
        ("1m", "KatanodeRolloutHalted", [fired]),
        ("60m", "KatanodeRolloutStalled", []),
    )


def test_a_rollout_in_which_nobody_restarts_is_stalled(tmp_path: Path) -> None:
    waiting = {reason("WaitingForRestartSlot", f"n{number}", "info"): STANDS for number in range(2)}
    name = "KatanodeRolloutStalled"
    fired = Fired({}, "2 nodes wait for a restart slot and none restarts", {"$value": "2"})
    assert_fires(tmp_path, waiting, ("14m", name, []), ("15m", name, [fired]))
    # A counter that was seen before, and one that appears with the first restart.
    counted = {'katanode_runtime_restarts_total{node="n8", outcome="ok"}': f"5+0x35 6+0{HOURS}"}
    assert_fires(tmp_path, waiting | counted, ("79m", name, []), ("83m", name, [fired]))
    appearing = {'katanode_runtime_restarts_total{node="n9", outcome="ok"}': f"_x10 1+0{HOURS}"}
    assert_fires(tmp_path, waiting | appearing, ("54m", name, []), ("58m", name, [fired]))


def test_repairs_of_one_kind_again_and_again_are_a_tug_of_war(tmp_path: Path) -> None:
    repairs = 'katanode_drift_repairs_total{node="%s", kind="%s"}'
    series = {
        repairs % ("n1", "sysctls"): f"0+0x10 1+0x10 2+0x10 3+0{HOURS}",
        repairs % ("n1", "links"): f"0+0x10 1+0{HOURS}",
        repairs % ("n2", "sysctls"): f"0+0x10 2+0{HOURS}",
        reason("TugOfWar", "n1", "warning"): STANDS,
        reason("TugOfWar", "n3", "warning"): STANDS,
    }
    counted = Fired(
        {"node": "n1", "kind": "sysctls"},
        "Node n1 is repaired again and again",
        annotations={"description": AGAIN.format("n1", " (sysctls, three times or more within 6 hours)")},
    )
    said = Fired(
        {"node": "n3"},
        "Node n3 is repaired again and again",
        annotations={"description": AGAIN.format("n3", "")},
    )
    assert_fires(tmp_path, series, ("60m", "KatanodeTugOfWar", [counted, said]))


def test_settings_that_are_not_valid_are_one_alert_for_the_fleet(tmp_path: Path) -> None:
    series = {reason("SettingsInvalid", f"n{number}"): STANDS for number in range(4)}
    fired = Fired({}, "katanode's settings are not valid: 4 nodes stay as they are", {"$value": "4"})
    assert_fires(tmp_path, series, ("4m", "KatanodeSettingsInvalid", []), ("5m", "KatanodeSettingsInvalid", [fired]))


def test_agents_that_nobody_scrapes(tmp_path: Path) -> None:
    fired = Fired({"job": "katanode"}, "No katanode agent is scraped")
    other = {'up{job="other"}': STANDS}
    assert_fires(tmp_path, other, ("14m", "KatanodeAgentAbsent", []), ("15m", "KatanodeAgentAbsent", [fired]))


def test_an_agent_that_does_not_answer(tmp_path: Path) -> None:
    labels = {"job": "katanode", "node": "n1", "pod": "katanode-x"}
    series = {f"up{{{', '.join(f'{key}={json.dumps(value)}' for key, value in labels.items())}}}": NO}
    fired = Fired(labels, "The agent on node n1 is not scraped")
    assert_fires(
        tmp_path,
        series,
        ("9m", "KatanodeAgentDown", []),
        ("10m", "KatanodeAgentDown", [fired]),
        ("60m", "KatanodeAgentAbsent", []),
    )


def test_nodes_without_a_ready_agent_are_counted_where_kube_state_metrics_is(tmp_path: Path) -> None:
    labels = {"namespace": "katanode", "daemonset": "katanode"}
    given = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    series = {
        f"kube_daemonset_status_desired_number_scheduled{{{given}}}": f"7+0{HOURS}",
        f"kube_daemonset_status_number_ready{{{given}}}": f"5+0{HOURS}",
    }
    fired = Fired(labels, "2 nodes have no ready katanode agent", {"$value": "2"})
    assert_fires(tmp_path, series, ("14m", "KatanodeAgentMissing", []), ("15m", "KatanodeAgentMissing", [fired]))


@pytest.mark.parametrize(
    ("besides", "fires"),
    [
        ({ready(): STANDS}, True),
        ({ready(): NO}, True),
        ({ready(): STANDS, reason("ReleaseUnreachable"): STANDS}, True),
        ({ready(): NO, reason("ReleaseUnreachable"): STANDS}, False),
        ({ready(): STANDS, reason("WaitingForRestartSlot", severity="info"): STANDS}, False),
        ({ready(): STANDS, reason("RolloutHalted", severity="warning"): STANDS}, False),
    ],
    ids=["ready", "not ready without a reason", "ready with a reason", "told of already", "waiting", "halted"],
)
def test_a_node_that_has_not_been_as_wanted_for_over_an_hour(
    tmp_path: Path, besides: dict[str, str], *, fires: bool
) -> None:
    series = {'katanode_last_success_timestamp_seconds{node="n1"}': f"0+60x10 600+0{HOURS}"} | besides
    fired = Fired(
        {"node": "n1"},
        "Node n1 has not been found as wanted for over an hour",
        annotations={"description": NO_SUCCESS.format("n1", "for 1h 16m 0s")},
    )
    name = "KatanodeNoSuccess"
    assert_fires(tmp_path, series, ("85m", name, []), ("86m", name, [fired] if fires else []))


def test_a_node_that_was_never_as_wanted_is_told_of_once_its_agent_has_been_there_for_an_hour(tmp_path: Path) -> None:
    series = {'katanode_last_success_timestamp_seconds{node="n1"}': f"_x10 0+0{HOURS}", ready(): NO}
    fired = Fired(
        {"node": "n1"},
        "Node n1 has not been found as wanted for over an hour",
        annotations={"description": NO_SUCCESS.format("n1", "since it started")},
    )
    name = "KatanodeNoSuccess"
    assert_fires(tmp_path, series, ("84m", name, []), ("86m", name, [fired]))


def test_an_agent_that_does_not_reach_the_api(tmp_path: Path) -> None:
    series = {'katanode_api_reachable{node="n1"}': NO, 'katanode_api_reachable{node="n2"}': STANDS}
    fired = Fired({"node": "n1"}, "The agent on node n1 does not reach the Kubernetes API")
    name = "KatanodeClusterUnreachable"
    assert_fires(tmp_path, series, ("9m", name, []), ("10m", name, [fired]))
