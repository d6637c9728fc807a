"""Restarts of the container runtime, rollbacks, repairs, and whose turn it is."""

from __future__ import annotations

from hack.dashboarding.board import Board, Row
from hack.dashboarding.fleet import CLUSTER, SEVERITIES, TO_SANDBOXES
from hack.dashboarding.panels import GOOD_WHEN_ZERO, ODD_WHEN_ABOVE_ZERO, Query, graph, number
from hack.dashboarding.tables import Column, coloured, table

RESTARTS_MARK = (
    "Restarts of the container runtime",
    "blue",
    "sum by (node, outcome) (changes(katanode_runtime_restarts_total{NODES}[2m])) > 0",
    "Container runtime of {{node}} restarted: {{outcome}}",
)
ROLLBACKS_MARK = (
    "Rollbacks",
    "red",
    "sum by (node) (changes(katanode_rollbacks_total{NODES}[2m])) > 0",
    "Change rolled back on {{node}}",
)
_WAITING = "WaitingForRestartSlot|RolloutHalted|CoolingDown"
_OF_A_CHANGE = f"{_WAITING}|RolledBack|RollbackFailed|TugOfWar|ContainersLost|JournalDamaged"


def quantiles(metric: str, over: str, *shares: float) -> list[Query]:
    """Quantiles of a histogram over all chosen nodes."""
    return [
        Query(
            f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{NODES}}[{over}])))", f"p{share * 100:.0f}"
        )
        for share in shares
    ]


_NOW = Row(
    "In the time that is shown",
    (
        number("Restarts", "sum(increase(katanode_runtime_restarts_total{NODES}[$__range])) or vector(0)", decimals=0),
        number(
            "Rollbacks",
            "sum(increase(katanode_rollbacks_total{NODES}[$__range])) or vector(0)",
            steps=GOOD_WHEN_ZERO,
            decimals=0,
            about="Changes that failed their verification and were undone.",
        ),
        number(
            "Repairs of drift",
            "sum(increase(katanode_drift_repairs_total{NODES}[$__range])) or vector(0)",
            steps=ODD_WHEN_ABOVE_ZERO,
            decimals=0,
            about="What somebody else had changed and the agent put right.",
        ),
        number(
            "Longest outage, p99",
            "histogram_quantile(0.99, sum by (le) (increase(katanode_runtime_outage_seconds_bucket{NODES}[$__range])))",
            unit="s",
            about="From a restart until CRI served again.",
        ),
        number(
            "Nodes that wait",
            'count(katanode_reason{NODES, reason="WaitingForRestartSlot"} == 1) or vector(0)',
            about="For a restart slot, now.",
        ),
        number(
            "Rollout halted on",
            'count(katanode_reason{NODES, reason="RolloutHalted"} == 1) or vector(0)',
            steps=GOOD_WHEN_ZERO,
            about="Nodes that wait because too many others failed, now.",
        ),
        table(
            "Nodes on which something happened",
            (
                "sum by (cluster, node) (increase(katanode_runtime_restarts_total{NODES}[$__range])) > 0",
                "sum by (cluster, node) (increase(katanode_rollbacks_total{NODES}[$__range])) > 0",
                "sum by (cluster, node) (increase(katanode_drift_repairs_total{NODES}[$__range])) > 0",
                'sum by (cluster, node) (increase(katanode_reconcile_total{NODES, outcome="failed"}[$__range])) > 0',
            ),
            Column("Node", "node", properties=TO_SANDBOXES),
            CLUSTER,
            Column("Restarts", "#A", properties={"decimals": 0}),
            Column("Rollbacks", "#B", properties={"decimals": 0, **coloured((None, "text"), (0.5, "red"))}),
            Column("Repairs", "#C", properties={"decimals": 0}),
            Column("Failed looks", "#D", properties={"decimals": 0}),
            sort="Rollbacks",
            descending=True,
            about="Counts over the time that is shown at the top.",
            width=12,
            height=8,
        ),
        table(
            "Who waits or needs somebody",
            (f'max by (cluster, node, reason, severity) (katanode_reason{{NODES, reason=~"{_OF_A_CHANGE}"}} == 1)',),
            Column("Node", "node"),
            CLUSTER,
            Column("Reason", "reason"),
            Column("Severity", "severity", properties=SEVERITIES),
            sort="Node",
            about="Reasons that have to do with a change, now.",
            width=12,
            height=8,
        ),
    ),
)

_CHANGES = Row(
    "Restarts and rollbacks",
    (
        graph(
            "Restarts of the container runtime",
            Query(
                "sum by (outcome) (increase(katanode_runtime_restarts_total{NODES}[$__rate_interval]))", "{{outcome}}"
            ),
            about="`undone`: the change was rolled back afterwards.",
            bars=True,
        ),
        graph(
            "Rollbacks",
            Query("sum by (node) (increase(katanode_rollbacks_total{NODES}[$__rate_interval])) > 0", "{{node}}"),
            about="By node; nodes without one are not shown.",
            bars=True,
        ),
        graph(
            "Repairs of drift",
            Query("sum by (kind) (increase(katanode_drift_repairs_total{NODES}[$__rate_interval]))", "{{kind}}"),
            about="What somebody else had changed, by kind.",
            bars=True,
        ),
        graph(
            "Outage of the container runtime",
            *quantiles("katanode_runtime_outage_seconds", "1h", 0.5, 0.95),
            unit="s",
            about="From the restart until CRI served again; restarts of the hour before.",
        ),
        graph(
            "Wait for a restart slot",
            *quantiles("katanode_restart_slot_wait_seconds", "1h", 0.5, 0.95),
            unit="s",
            about="Waits that ended within the hour before.",
        ),
        graph(
            "Nodes that wait",
            Query(f'count by (reason) (katanode_reason{{NODES, reason=~"{_WAITING}"}} == 1)', "{{reason}}"),
            decimals=0,
        ),
    ),
)

_LOOKS = Row(
    "Looks at the nodes",
    (
        graph(
            "Duration of a look at a node",
            *quantiles("katanode_reconcile_duration_seconds", "30m", 0.5, 0.95, 0.99),
            unit="s",
            about="A look that finds nothing to do takes about half a second.",
            width=12,
        ),
        graph(
            "Looks by outcome",
            Query("sum by (outcome) (increase(katanode_reconcile_total{NODES}[$__rate_interval]))", "{{outcome}}"),
            bars=True,
            width=12,
        ),
    ),
)

BOARD = Board(
    uid="katanode-changes",
    title="katanode / Restarts and rollbacks",
    description="What katanode changed on the nodes, what it undid and put right, and which nodes wait their turn.",
    variables=("cluster", "node"),
    rows=(_NOW, _CHANGES, _LOOKS),
    span="24h",
    marks=(ROLLBACKS_MARK,),
)
