"""Sandboxes by node and tenant: how many, what they use, what they cost beside their guest, what was left behind."""

from __future__ import annotations

from hack.dashboarding import usage
from hack.dashboarding.board import Board, Row
from hack.dashboarding.changes import RESTARTS_MARK, ROLLBACKS_MARK
from hack.dashboarding.fleet import CLUSTER, YES_OR_NO
from hack.dashboarding.panels import GOOD_WHEN_ZERO, ODD_WHEN_ABOVE_ZERO, Query, graph, number
from hack.dashboarding.tables import Column, coloured, table
from hack.dashboarding.usage import CPU, EACH, MEASURED, MEMORY, NAMESPACE, NODE, ORPHANS, SANDBOX

_ALLOWED = "katanode_sandbox_overhead_allowed_bytes{SANDBOXES}"
_RATIO = f"max by ({SANDBOX}) ({MEASURED}) / on ({SANDBOX}) max by ({SANDBOX}) ({_ALLOWED} > 0)"
_NEAREST = f"topk(25, {_RATIO})"
_LARGEST = f"topk(100, sum by ({SANDBOX}) ({MEMORY}))"


def _of_these(chosen: str, *queries: str) -> list[str]:
    """The queries of a table that shows some sandboxes of many: each asks for those alone, or a fleet's lines come."""
    return [chosen, *(f"({query}) and on ({SANDBOX}) {chosen}" for query in queries)]


_NOW = Row(
    "Now",
    (
        number("Sandboxes", f"count({EACH}) or vector(0)", about="Those that have series of their own.", width=3),
        number(
            "On the nodes",
            "sum(katanode_sandboxes{HANDLERS}) or vector(0)",
            about="Counted on the nodes, in whichever namespace; more than the former where series were cut.",
            width=3,
        ),
        number("vCPUs", "sum(katanode_sandbox_vcpus{SANDBOXES}) or vector(0)", width=3),
        number("Cores in use", f"sum({CPU}) or vector(0)", unit="none", decimals=1, width=3),
        number(
            "Memory",
            f"sum({MEMORY}) or vector(0)",
            unit="bytes",
            about="Proportional: what several processes share is counted once.",
            width=3,
        ),
        number(
            "Without a VM",
            "count(katanode_sandbox_holds_vm{SANDBOXES} == 0) or vector(0)",
            steps=GOOD_WHEN_ZERO,
            about="Sandboxes of which no process holds a KVM virtual machine.",
            width=3,
        ),
        number(
            "Orphans",
            f"sum({ORPHANS}) or vector(0)",
            steps=ODD_WHEN_ABOVE_ZERO,
            about="Sandboxes that run on without their shim or their pod, in whichever namespace.",
            width=3,
        ),
        number(
            "Over allowance",
            f"count(({_RATIO}) > 1) or vector(0)",
            steps=ODD_WHEN_ABOVE_ZERO,
            about="Sandboxes that need more memory beside their guest than the RuntimeClass's overhead grants.",
            width=3,
        ),
    ),
)

_OVERHEAD = Row(
    "Overhead",
    (
        graph(
            "Measured and allowed by handler",
            Query(f"quantile by (handler) (0.5, {MEASURED})", "{{handler}} median"),
            Query(f"max by (handler) ({MEASURED})", "{{handler}} largest"),
            Query(f"min by (handler) ({_ALLOWED})", "{{handler}} allowed"),
            unit="bytes",
            about="A sandbox's memory on the host beyond the guest's own, and the overhead of its RuntimeClass.",
            width=8,
        ),
        table(
            "Nearest to their allowance",
            _of_these(_NEAREST, f"max by ({SANDBOX}) ({MEASURED})", f"max by ({SANDBOX}) ({_ALLOWED})"),
            NAMESPACE,
            Column("Pod", "pod"),
            Column("Handler", "handler"),
            NODE,
            CLUSTER,
            Column("Measured", "#B", "bytes"),
            Column("Allowed", "#C", "bytes"),
            Column("Share", "#A", "percentunit", coloured((None, "text"), (1, "red"))),
            sort="Share",
            descending=True,
            about="Scheduler and kubelet count with what is allowed; what is above it is taken from other pods.",
            width=16,
            height=8,
        ),
    ),
)

_ORPHANS = Row(
    "Orphans, leftovers, and the scrape itself",
    (
        graph(
            "Orphans and leftovers",
            Query("sum by (kind) (katanode_sandbox_orphans{NODES})", "{{kind}}"),
            decimals=0,
            width=6,
        ),
        table(
            "Where they are",
            ("max by (cluster, node, kind) (katanode_sandbox_orphans{NODES} > 0)",),
            NODE,
            CLUSTER,
            Column("Kind", "kind"),
            Column("Number", "#A"),
            sort="Number",
            descending=True,
            about="katanode deletes none of them; `katanode sandboxes` on the node names them.",
            width=6,
            height=8,
        ),
        graph(
            "Duration of a census",
            Query("quantile(0.5, katanode_sandbox_scrape_seconds{NODES})", "median"),
            Query("max(katanode_sandbox_scrape_seconds{NODES})", "slowest"),
            unit="s",
            about="What a scrape takes to find and read all sandboxes of a node.",
            width=6,
        ),
        graph(
            "Series cut",
            Query(
                "sum by (node) (increase(katanode_sandbox_series_dropped_total{NODES}[$__rate_interval])) > 0",
                "{{node}}",
            ),
            about="Above sandboxes.series_limit; nodes that cut none are not shown.",
            width=6,
        ),
    ),
)

_LIST = Row(
    "Sandboxes",
    (
        table(
            "The hundred largest",
            _of_these(
                _LARGEST,
                f"time() - max by ({SANDBOX}) ({EACH})",
                f"max by ({SANDBOX}) (katanode_sandbox_vcpus{{SANDBOXES}})",
                f"sum by ({SANDBOX}) ({CPU})",
                f"max by ({SANDBOX}) ({MEASURED})",
                f"max by ({SANDBOX}) (katanode_sandbox_holds_vm{{SANDBOXES}})",
            ),
            NAMESPACE,
            Column("Pod", "pod"),
            NODE,
            CLUSTER,
            Column("Handler", "handler"),
            Column("Hypervisor", "hypervisor"),
            Column("Age", "#B", "s"),
            Column("vCPUs", "#C"),
            Column("Cores", "#D", properties={"decimals": 2}),
            Column("Memory", "#A", "bytes"),
            Column("Of it overhead", "#E", "bytes"),
            Column("Holds a VM", "#F", properties=YES_OR_NO),
            sort="Memory",
            descending=True,
            height=12,
        ),
    ),
)


BOARD = Board(
    uid="katanode-sandboxes",
    title="katanode / Sandboxes",
    description="Kata sandboxes by node and tenant: number, CPU, memory, overhead, traffic, and what was left behind.",
    variables=("cluster", "node", "namespace", "handler"),
    rows=(_NOW, usage.TENANTS, usage.NODES, usage.COMPONENTS, _OVERHEAD, usage.TRAFFIC, _ORPHANS, _LIST),
    marks=(RESTARTS_MARK, ROLLBACKS_MARK),
)
