"""What sandboxes use: rows by tenant, by node and by component, and their traffic."""

from __future__ import annotations

from hack.dashboarding.board import Row
from hack.dashboarding.fleet import CLUSTER, TO_CHANGES
from hack.dashboarding.panels import Query, graph
from hack.dashboarding.tables import Column, coloured, link, table

EACH = "katanode_sandbox_start_time_seconds{SANDBOXES}"
"""One series a sandbox."""
CPU = "rate(katanode_sandbox_cpu_seconds_total{SANDBOXES}[$__rate_interval])"
MEMORY = "katanode_sandbox_proportional_memory_bytes{SANDBOXES}"
MEASURED = "katanode_sandbox_overhead_memory_bytes{SANDBOXES}"
ORPHANS = 'katanode_sandbox_orphans{NODES, kind=~"without-shim|without-sandbox"}'
SANDBOX = "cluster, node, namespace, pod, handler, hypervisor"
_IN = "katanode_sandbox_network_receive_bytes_total"
_OUT = "katanode_sandbox_network_transmit_bytes_total"
NAMESPACE = Column("Namespace", "namespace", properties=link("Only this namespace", "katanode-sandboxes", "namespace"))
NODE = Column("Node", "node", properties=TO_CHANGES)
ONLY_NODE = Column("Node", "node", properties=link("Only this node", "katanode-sandboxes", "node"))


def _sum(counter: str, by: str) -> str:
    return f"sum by ({by}) (rate({counter}{{SANDBOXES}}[$__rate_interval]))"


def _rates(counter: str, by: str, legend: str) -> Query:
    return Query(f"topk(10, {_sum(counter, by)})", legend)


TENANTS = Row(
    "Tenants (namespaces)",
    (
        graph(
            "Sandboxes by namespace",
            Query(f"topk(10, count by (namespace) ({EACH}))", "{{namespace}}"),
            stacked=True,
            decimals=0,
        ),
        graph(
            "Cores by namespace",
            Query(f"topk(10, sum by (namespace) ({CPU}))", "{{namespace}}"),
            unit="none",
            stacked=True,
        ),
        graph(
            "Memory by namespace",
            Query(f"topk(10, sum by (namespace) ({MEMORY}))", "{{namespace}}"),
            unit="bytes",
            stacked=True,
        ),
        table(
            "Namespaces",
            (
                f"count by (cluster, namespace) ({EACH})",
                "sum by (cluster, namespace) (katanode_sandbox_vcpus{SANDBOXES})",
                f"sum by (cluster, namespace) ({CPU})",
                f"sum by (cluster, namespace) ({MEMORY})",
                f"sum by (cluster, namespace) ({MEASURED})",
                _sum(_IN, "cluster, namespace"),
                _sum(_OUT, "cluster, namespace"),
            ),
            NAMESPACE,
            CLUSTER,
            Column("Sandboxes", "#A"),
            Column("vCPUs", "#B"),
            Column("Cores", "#C", properties={"decimals": 2}),
            Column("Memory", "#D", "bytes"),
            Column("Of it overhead", "#E", "bytes"),
            Column("To the sandboxes", "#F", "Bps"),
            Column("From the sandboxes", "#G", "Bps"),
            sort="Memory",
            descending=True,
        ),
        graph(
            "Cores over weeks",
            Query(
                "topk(10, sum by (namespace) (namespace:katanode_sandbox_cpu_seconds:rate5m{CLUSTERS, "
                'namespace=~"$namespace"}))',
                "{{namespace}}",
            ),
            unit="none",
            about="From the recording rules, so it is quick over a long time; it does not follow node and handler.",
            width=12,
        ),
        graph(
            "Memory over weeks",
            Query(
                "topk(10, sum by (namespace) (namespace:katanode_sandbox_proportional_memory_bytes:sum{CLUSTERS, "
                'namespace=~"$namespace"}))',
                "{{namespace}}",
            ),
            unit="bytes",
            about="From the recording rules, as the one beside it.",
            width=12,
        ),
    ),
)

NODES = Row(
    "Nodes",
    (
        graph(
            "Sandboxes by node",
            Query("topk(10, sum by (node) (katanode_sandboxes{HANDLERS}))", "{{node}}"),
            about="In whichever namespace.",
            decimals=0,
        ),
        graph("Cores by node", Query(f"topk(10, sum by (node) ({CPU}))", "{{node}}"), unit="none"),
        graph("Memory by node", Query(f"topk(10, sum by (node) ({MEMORY}))", "{{node}}"), unit="bytes"),
        graph(
            "Sandboxes by handler and hypervisor",
            Query("sum by (handler, hypervisor) (katanode_sandboxes{HANDLERS})", "{{handler}} {{hypervisor}}"),
            about="In whichever namespace.",
            stacked=True,
            decimals=0,
        ),
        table(
            "Nodes",
            (
                "sum by (cluster, node) (katanode_sandboxes{HANDLERS})",
                "sum by (cluster, node) (katanode_sandbox_vcpus{SANDBOXES})",
                f"sum by (cluster, node) ({CPU})",
                f"sum by (cluster, node) ({MEMORY})",
                f"sum by (cluster, node) ({MEASURED})",
                f"sum by (cluster, node) ({ORPHANS})",
            ),
            ONLY_NODE,
            CLUSTER,
            Column("Sandboxes", "#A"),
            Column("vCPUs", "#B"),
            Column("Cores", "#C", properties={"decimals": 2}),
            Column("Memory", "#D", "bytes"),
            Column("Of it overhead", "#E", "bytes"),
            Column("Orphans", "#F", properties=coloured((None, "text"), (1, "orange"))),
            sort="Memory",
            descending=True,
            width=16,
            height=8,
        ),
    ),
)

COMPONENTS = Row(
    "Components",
    (
        graph(
            "Cores by component",
            Query(f"sum by (component) ({CPU})", "{{component}}"),
            unit="none",
            about="vmm: the hypervisor and the guest's own work; virtiofsd: its files; shim: the way to the runtime.",
            width=6,
            stacked=True,
        ),
        graph(
            "Resident memory by component",
            Query("sum by (component) (katanode_sandbox_resident_memory_bytes{SANDBOXES})", "{{component}}"),
            unit="bytes",
            about="What hypervisor and virtiofsd share, the guest's memory, is counted in both.",
            width=6,
        ),
        graph(
            "Proportional memory by component",
            Query(f"sum by (component) ({MEMORY})", "{{component}}"),
            unit="bytes",
            about="What is shared is counted once; measured every few minutes.",
            width=6,
            stacked=True,
        ),
        graph(
            "Threads by hypervisor",
            Query("sum by (hypervisor) (katanode_sandbox_threads{SANDBOXES})", "{{hypervisor}}"),
            width=6,
            stacked=True,
            decimals=0,
        ),
    ),
)

TRAFFIC = Row(
    "Network and files",
    (
        graph(
            "To the sandboxes",
            _rates(_IN, "namespace", "{{namespace}}"),
            unit="Bps",
        ),
        graph(
            "From the sandboxes",
            _rates(_OUT, "namespace", "{{namespace}}"),
            unit="Bps",
        ),
        graph(
            "Packets dropped at the tap",
            _rates("katanode_sandbox_network_receive_drops_total", "node", "{{node}} receive"),
            _rates("katanode_sandbox_network_transmit_drops_total", "node", "{{node}} transmit"),
            unit="pps",
        ),
        graph(
            "Read from block devices",
            _rates("katanode_sandbox_io_read_bytes_total", "namespace", "{{namespace}}"),
            unit="Bps",
            width=12,
        ),
        graph(
            "Written to block devices",
            _rates("katanode_sandbox_io_written_bytes_total", "namespace", "{{namespace}}"),
            unit="Bps",
            width=12,
        ),
    ),
)
