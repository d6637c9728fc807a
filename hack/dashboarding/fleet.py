"""The first dashboard: which nodes are ready, which are not, and why."""

from __future__ import annotations

from hack.dashboarding.board import Board, Row
from hack.dashboarding.panels import GOOD_WHEN_ZERO, ODD_WHEN_ABOVE_ZERO, Query, graph, number, ranking
from hack.dashboarding.tables import Column, link, table, words

YES_OR_NO = words(("0", "no", "orange"), ("1", "yes", "green")) | {"custom.align": "center"}
SEVERITIES = words(
    ("critical", "critical", "red"),
    ("error", "error", "red"),
    ("warning", "warning", "orange"),
    ("info", "info", "blue"),
)
TO_SANDBOXES = link("Sandboxes of this node", "katanode-sandboxes", "node")
TO_CHANGES = link("Restarts and rollbacks of this node", "katanode-changes", "node")
CLUSTER = Column("Cluster", "cluster")

_NOT_READY = "count(katanode_ready{NODES} == 0) or vector(0)"
_TAKEN_OUT = 'katanode_reason{NODES, reason="InstallDisabled"}'
_FIRING = 'ALERTS{NODES, alertname=~"Katanode.*", alertstate="firing"}'
_READY = "count(katanode_ready{NODES} == 1) or vector(0)"

_READINESS = Row(
    "Fleet readiness",
    (
        number(
            "Nodes ready",
            _READY,
            steps=((None, "red"), (1, "green")),
            about="Nodes on which a handler is ready.",
            width=3,
        ),
        number("Nodes not ready", _NOT_READY, steps=ODD_WHEN_ABOVE_ZERO, width=3),
        number(
            "Share ready",
            f"avg(katanode_ready{{NODES}} unless on (cluster, node) {_TAKEN_OUT} == 1)",
            unit="percentunit",
            steps=((None, "red"), (0.8, "orange"), (0.95, "green")),
            about="Of the nodes that are wanted ready: those taken out by label do not count.",
            width=3,
        ),
        number("Sandboxes", "sum(katanode_sandboxes{NODES}) or vector(0)", width=3),
        number(
            "Alerts",
            f"count({_FIRING}) or vector(0)",
            steps=GOOD_WHEN_ZERO,
            about="katanode's own that fire now.",
            width=3,
        ),
        number(
            "Not scraped",
            'count(up{job="katanode", NODES} == 0) or vector(0)',
            steps=GOOD_WHEN_ZERO,
            about="Agents that do not answer: nothing is known of their nodes.",
            width=3,
        ),
        number(
            "API not reached",
            "count(katanode_api_reachable{NODES} == 0) or vector(0)",
            steps=ODD_WHEN_ABOVE_ZERO,
            about="Agents that cannot publish; they go on repairing.",
            width=3,
        ),
        number(
            "Oldest success",
            "time() - min(katanode_last_success_timestamp_seconds{NODES} > 0)",
            unit="s",
            steps=((None, "green"), (1800, "orange"), (3600, "red")),
            about="The longest time since a node was found or made as the settings want it.",
            width=3,
        ),
        graph(
            "Nodes ready and not",
            Query(_READY, "ready"),
            Query(_NOT_READY, "not ready"),
            width=12,
            stacked=True,
            decimals=0,
        ),
        graph(
            "Nodes ready by handler",
            Query("sum by (handler) (katanode_handler_ready{NODES})", "{{handler}}"),
            width=6,
            decimals=0,
        ),
        graph(
            "Nodes by Kata release",
            Query("count by (version, release) (katanode_release_info{NODES})", "{{version}} {{release}}"),
            about="During an upgrade there are two.",
            width=6,
            stacked=True,
            decimals=0,
        ),
        table(
            "Nodes",
            (
                "max by (cluster, node) (katanode_ready{NODES})",
                "max by (cluster, node, version) (katanode_release_info{NODES})",
                "time() - max by (cluster, node) (katanode_last_success_timestamp_seconds{NODES} > 0)",
                'count by (cluster, node) (katanode_reason{NODES, severity=~"warning|error"} == 1)',
                "sum by (cluster, node) (katanode_sandboxes{NODES})",
                "max by (cluster, node) (katanode_canary_start_seconds{NODES})",
            ),
            Column("Node", "node", properties=TO_SANDBOXES),
            CLUSTER,
            Column("Ready", "#A", properties=YES_OR_NO),
            Column("Kata", "version"),
            Column("Last success", "#C", "s"),
            Column("Reasons", "#D"),
            Column("Sandboxes", "#E"),
            Column("Slowest canary", "#F", "s"),
            sort="Ready",
            about="One line a node; a node's name leads to its sandboxes.",
        ),
    ),
)

_REASONS = Row(
    "Alerts and reasons",
    (
        table(
            "Alerts that fire",
            (f"count by (cluster, node, alertname, severity, reason, handler) ({_FIRING})",),
            Column("Alert", "alertname"),
            Column("Severity", "severity", properties=SEVERITIES),
            Column("Node", "node", properties=TO_CHANGES),
            CLUSTER,
            Column("Reason", "reason"),
            Column("Handler", "handler"),
            sort="Severity",
            about="What to do stands in each alert's annotation `runbook`.",
            width=12,
        ),
        table(
            "Which node, which reason",
            ("max by (cluster, node, reason, severity) (katanode_reason{NODES} == 1)",),
            Column("Node", "node", properties=TO_CHANGES),
            CLUSTER,
            Column("Reason", "reason"),
            Column("Severity", "severity", properties=SEVERITIES),
            sort="Node",
            about="The remedy of each is in the alert KatanodeNodeNotReady and on the node's page.",
            width=12,
        ),
        ranking(
            "Nodes by reason, now",
            Query("sort_desc(count by (reason) (katanode_reason{NODES} == 1))", "{{reason}}"),
            about="The codes are those of `katanode check` and of the condition KataReady.",
        ),
        graph(
            "Nodes by reason",
            Query('count by (reason) (katanode_reason{NODES, severity=~"warning|error"} == 1)', "{{reason}}"),
            width=16,
            decimals=0,
        ),
    ),
)

_AGENTS = Row(
    "Agents",
    (
        table(
            "Versions of the agent",
            ("count by (version) (katanode_build_info{NODES})",),
            Column("Version", "version"),
            Column("Nodes", "#A"),
            sort="Version",
            height=8,
            width=8,
        ),
        graph(
            "Time since the last success",
            Query(
                "topk(10, time() - max by (node) (katanode_last_success_timestamp_seconds{NODES} > 0))",
                "{{node}}",
            ),
            unit="s",
            about="The ten longest.",
        ),
        graph(
            "Readiness over weeks",
            Query("cluster:katanode_ready:ratio{CLUSTERS}", "nodes {{cluster}}"),
            Query("handler:katanode_handler_ready:ratio{CLUSTERS}", "{{handler}} {{cluster}}"),
            unit="percentunit",
            max=1,
            about="From the recording rules, so it is quick over a long time; it does not follow the chosen node.",
        ),
    ),
)

BOARD = Board(
    uid="katanode-fleet",
    title="katanode / Fleet",
    description="Nodes that run pods in Kata Containers: which are ready, which are not, and why.",
    variables=("cluster", "node"),
    rows=(_READINESS, _REASONS, _AGENTS),
)
