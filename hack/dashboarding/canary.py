"""Canaries: how long a sandbox takes to start on each node, against that node's own past, and what fails."""

from __future__ import annotations

from hack.dashboarding.board import Board, Row
from hack.dashboarding.changes import RESTARTS_MARK, ROLLBACKS_MARK
from hack.dashboarding.fleet import CLUSTER, SEVERITIES, TO_SANDBOXES
from hack.dashboarding.panels import ODD_WHEN_ABOVE_ZERO, Query, graph, number, ranking
from hack.dashboarding.tables import Column, coloured, table

SLOW: tuple[tuple[float | None, str], ...] = ((None, "green"), (5, "orange"), (10, "red"))
"""Seconds; the last is KatanodeCanarySlow's."""
_STARTS = "katanode_canary_start_seconds{HANDLERS}"
_PAST = "node_handler:katanode_canary_start_seconds:median7d{HANDLERS}"
_RATIO = (
    f"max by (cluster, node, handler) ({_STARTS}) / on (cluster, node, handler) "
    f"max by (cluster, node, handler) ({_PAST} > 0)"
)
_FAILED = 'katanode_canary_runs_total{HANDLERS, outcome="failed"}'
_CAUSES = 'reason=~"Canary.*|NetworkPlugin.*|PauseImageMissing|SnapshotterMissing"'
_SUCCESS = "katanode_canary_last_success_timestamp_seconds{HANDLERS}"

_NOW = Row(
    "Now",
    (
        number("Median start", f"quantile(0.5, {_STARTS})", unit="s", steps=SLOW, about="Over nodes and handlers."),
        number("Slowest start", f"max({_STARTS})", unit="s", steps=SLOW),
        number(
            "Slower than their past",
            f"count(({_RATIO}) > 2) or vector(0)",
            steps=ODD_WHEN_ABOVE_ZERO,
            about="Handlers of nodes whose last canary took over twice their median of seven days (recording rule).",
        ),
        number(
            "Runs",
            "sum(increase(katanode_canary_runs_total{HANDLERS}[$__range])) or vector(0)",
            decimals=0,
            about="In the time that is shown.",
        ),
        number(
            "Failed",
            f"sum(increase({_FAILED}[$__range])) or vector(0)",
            steps=ODD_WHEN_ABOVE_ZERO,
            decimals=0,
            about="In the time that is shown.",
        ),
        number(
            "Oldest success",
            f"time() - min({_SUCCESS} > 0)",
            unit="s",
            steps=((None, "green"), (7200, "orange"), (86400, "red")),
            about="The longest time since a canary of a handler of a node came up.",
        ),
    ),
)

_START = Row(
    "Start of a sandbox",
    (
        graph(
            "Start of a sandbox by handler",
            Query(f"quantile by (handler) (0.5, {_STARTS})", "{{handler}} median"),
            Query(f"quantile by (handler) (0.95, {_STARTS})", "{{handler}} p95"),
            Query(f"max by (handler) ({_STARTS})", "{{handler}} slowest"),
            unit="s",
            about="Over the nodes: the sandbox that last proved the handler there.",
            width=12,
        ),
        graph(
            "Slowest nodes",
            Query(f"topk(10, max by (node, handler) ({_STARTS}))", "{{node}} {{handler}}"),
            unit="s",
            width=12,
        ),
        graph(
            "Against their own past",
            Query(f"topk(10, {_RATIO})", "{{node}} {{handler}}"),
            unit="none",
            about="Start of the last canary over the median of seven days before; 1 is as ever (recording rule).",
            width=12,
            decimals=1,
        ),
        ranking(
            "Slowest nodes, now",
            Query(f"topk(10, max by (node, handler) ({_STARTS}))", "{{node}} {{handler}}"),
            unit="s",
            steps=SLOW,
            width=12,
        ),
        table(
            "Handlers of nodes",
            (
                f"max by (cluster, node, handler) ({_STARTS})",
                f"max by (cluster, node, handler) ({_PAST})",
                _RATIO,
                f"time() - max by (cluster, node, handler) ({_SUCCESS} > 0)",
                f"sum by (cluster, node, handler) (increase({_FAILED}[$__range]))",
                "sum by (cluster, node, handler) (katanode_canary_memory_bytes{HANDLERS})",
            ),
            Column("Node", "node", properties=TO_SANDBOXES),
            CLUSTER,
            Column("Handler", "handler"),
            Column("Start", "#A", "s"),
            Column("Median of 7 days", "#B", "s"),
            Column(
                "Now over median",
                "#C",
                properties={"decimals": 1, **coloured((None, "text"), (1.5, "orange"), (2, "red"))},
            ),
            Column("Last success", "#D", "s"),
            Column("Failed", "#E", properties={"decimals": 0, **coloured((None, "text"), (0.5, "orange"))}),
            Column("Memory", "#F", "bytes"),
            sort="Now over median",
            descending=True,
            about="Failed: within the time that is shown.",
        ),
    ),
)

_FAILURES = Row(
    "Failures",
    (
        graph(
            "Runs by outcome",
            Query("sum by (outcome) (increase(katanode_canary_runs_total{HANDLERS}[$__rate_interval]))", "{{outcome}}"),
            bars=True,
        ),
        graph(
            "Failed runs by node",
            Query(
                f"sum by (node, handler) (increase({_FAILED}[$__rate_interval])) > 0",
                "{{node}} {{handler}}",
            ),
            about="Nodes without one are not shown.",
            bars=True,
        ),
        graph(
            "Time since the last success",
            Query(f"topk(10, time() - max by (node, handler) ({_SUCCESS} > 0))", "{{node}} {{handler}}"),
            unit="s",
            about="The ten longest.",
        ),
        table(
            "Why",
            (f"max by (cluster, node, reason, severity) (katanode_reason{{NODES, {_CAUSES}}} == 1)",),
            Column("Node", "node"),
            CLUSTER,
            Column("Reason", "reason"),
            Column("Severity", "severity", properties=SEVERITIES),
            sort="Node",
            about="Of the canary's reasons those that stand now. The runtime's own words are on the node's page.",
            height=8,
        ),
    ),
)

_MEMORY = Row(
    "Memory of an idle sandbox",
    (
        graph(
            "By handler and component",
            Query(
                "quantile by (handler, component) (0.5, katanode_canary_memory_bytes{HANDLERS})",
                "{{handler}} {{component}}",
            ),
            unit="bytes",
            about="Median over the nodes: the canary's, which runs nothing.",
            width=12,
            stacked=True,
        ),
        graph(
            "Largest nodes",
            Query("topk(10, sum by (node, handler) (katanode_canary_memory_bytes{HANDLERS}))", "{{node}} {{handler}}"),
            unit="bytes",
            width=12,
        ),
    ),
)

BOARD = Board(
    uid="katanode-canary",
    title="katanode / Canaries",
    description="The sandboxes that prove each handler on each node: how fast they start, and what fails.",
    variables=("cluster", "node", "handler"),
    rows=(_NOW, _START, _FAILURES, _MEMORY),
    span="24h",
    marks=(RESTARTS_MARK, ROLLBACKS_MARK),
)
