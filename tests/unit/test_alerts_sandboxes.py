"""The alerts on sandboxes and canaries, run by promtool: each fires when it should, and no sooner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firing import ALERTS, HOURS, NO, STANDS, Fired, assert_fires

if TYPE_CHECKING:
    from pathlib import Path

OF_SANDBOXES = [name for name in ALERTS if name.startswith(("KatanodeSandbox", "KatanodeCanary"))]
SLOWER = "KatanodeCanarySlowerThanBefore"
DAY = 24 * 6
"""Values of a day, one in ten minutes."""


def sandbox(metric: str, pod: str = "shop-0", node: str = "n1", handler: str = "kata-clh") -> str:
    return (
        f'katanode_sandbox_{metric}{{node="{node}", namespace="tenant", pod="{pod}", handler="{handler}", '
        f'hypervisor="clh"}}'
    )


def orphans(kind: str, node: str = "n1") -> str:
    return f'katanode_sandbox_orphans{{node="{node}", kind="{kind}"}}'


def failed(outcome: str = "failed", handler: str = "kata-clh") -> str:
    return f'katanode_canary_runs_total{{node="n1", handler="{handler}", outcome="{outcome}"}}'


def handler_ready(handler: str = "kata-clh") -> str:
    return f'katanode_handler_ready{{node="n1", handler="{handler}"}}'


def start(node: str = "n1", pod: str = "katanode-a") -> str:
    return f'katanode_canary_start_seconds{{node="{node}", handler="kata-clh", pod="{pod}"}}'


def test_sandboxes_that_are_well_are_told_of_by_nobody(tmp_path: Path) -> None:
    series = {
        sandbox("holds_vm"): STANDS,
        sandbox("overhead_memory_bytes"): f"100+0{HOURS}",
        sandbox("overhead_allowed_bytes"): f"130+0{HOURS}",
        orphans("without-shim"): NO,
        'katanode_sandbox_series_dropped_total{node="n1"}': NO,
        handler_ready(): STANDS,
        failed("ok"): f"0+1{HOURS}",
        failed(): f"0+0x10 2+0{HOURS}",
        start(): f"0.4+0{HOURS}",
    }
    assert_fires(tmp_path, series, *((at, name, []) for name in OF_SANDBOXES for at in ("20m", "100m", "170m")))


def test_sandboxes_without_a_virtual_machine_are_counted_by_node(tmp_path: Path) -> None:
    series = {
        sandbox("holds_vm", "a"): NO,
        sandbox("holds_vm", "b"): NO,
        sandbox("holds_vm", "c"): STANDS,
        sandbox("holds_vm", "starting", "n2"): f"0 0 0 1+0{HOURS}",
        sandbox("holds_vm", "orphan", "n3"): NO,
        orphans("without-shim", "n1"): NO,
        orphans("state-folder", "n1"): f"9+0{HOURS}",
        orphans("without-shim", "n2"): NO,
        orphans("without-shim", "n3"): STANDS,
    }
    fired = Fired({"node": "n1"}, "2 sandboxes on node n1 run without a virtual machine", {"$value": "2"})
    name = "KatanodeSandboxWithoutVM"
    assert_fires(tmp_path, series, ("4m", name, []), ("5m", name, [fired]))


def test_orphans_and_leftovers_are_told_apart(tmp_path: Path) -> None:
    series = {
        orphans("without-shim"): STANDS,
        orphans("without-sandbox"): f"2+0{HOURS}",
        orphans("state-folder", "n1"): f"9+0{HOURS}",
        orphans("state-folder", "n2"): f"40+0{HOURS}",
        orphans("cgroup", "n2"): f"20+0{HOURS}",
    }
    orphaned = Fired({"node": "n1"}, "3 sandboxes on node n1 run on without their shim or their pod", {"$value": "3"})
    left = Fired({"node": "n2"}, "60 state folders and cgroups of ended sandboxes stand on node n2", {"$value": "60"})
    first, second = "KatanodeSandboxOrphaned", "KatanodeSandboxLeftovers"
    assert_fires(
        tmp_path,
        series,
        ("14m", first, []),
        ("15m", first, [orphaned]),
        ("59m", second, []),
        ("60m", second, [left]),
    )


def test_an_orphan_that_is_gone_soon_is_none(tmp_path: Path) -> None:
    series = {orphans("without-shim"): f"1x10 0+0{HOURS}"}
    assert_fires(tmp_path, series, ("9m", "KatanodeSandboxOrphaned", []), ("20m", "KatanodeSandboxOrphaned", []))


def test_overheads_that_are_exceeded_are_counted_by_handler(tmp_path: Path) -> None:
    series = {}
    for pod, node, handler, used in (
        ("a", "n1", "kata-clh", 140),
        ("b", "n2", "kata-clh", 150),
        ("c", "n1", "kata-clh", 100),
        ("d", "n1", "kata-qemu", 130),
    ):
        series[sandbox("overhead_memory_bytes", pod, node, handler)] = f"{used}+0{HOURS}"
        series[sandbox("overhead_allowed_bytes", pod, node, handler)] = f"130+0{HOURS}"
    series[sandbox("overhead_memory_bytes", "of-an-unknown-class")] = f"999+0{HOURS}"
    series[sandbox("overhead_memory_bytes", "granted-none")] = f"999+0{HOURS}"
    series[sandbox("overhead_allowed_bytes", "granted-none")] = NO
    fired = Fired(
        {"handler": "kata-clh"}, "2 sandboxes of kata-clh take more memory than their overhead", {"$value": "2"}
    )
    name = "KatanodeSandboxOverheadExceeded"
    assert_fires(tmp_path, series, ("29m", name, []), ("30m", name, [fired]))


def test_series_that_are_cut_are_told_of_while_they_are(tmp_path: Path) -> None:
    series = {'katanode_sandbox_series_dropped_total{node="n1"}': f"0+0x20 5+5x60 300+0{HOURS}"}
    fired = Fired({"node": "n1"}, "Not every sandbox on node n1 is measured")
    name = "KatanodeSandboxSeriesDropped"
    assert_fires(tmp_path, series, ("30m", name, []), ("40m", name, [fired]), ("130m", name, []))


def test_a_canary_that_fails_now_and_then_on_a_handler_that_is_ready(tmp_path: Path) -> None:
    series = {
        handler_ready(): STANDS,
        failed(): f"0+0x10 1+0x10 2+0x10 3+0{HOURS}",
        failed("ok"): f"0+1{HOURS}",
        # Told of already: the handler is withdrawn.
        handler_ready("kata-qemu"): NO,
        failed(handler="kata-qemu"): f"0+1{HOURS}",
    }
    fired = Fired({"node": "n1", "handler": "kata-clh"}, "Canaries of kata-clh on node n1 fail again and again")
    name = "KatanodeCanaryFailing"
    assert_fires(tmp_path, series, ("40m", name, []), ("60m", name, [fired]))


def test_a_canary_is_judged_by_the_past_of_its_node(tmp_path: Path) -> None:
    """Two days as ever, then slow; the agent's pod is another by then."""
    days = 2 * DAY
    nodes = {
        "slower": ("0.5", "1.8"),
        "not-a-second-slower": ("0.5", "1.4"),
        "less-than-twice": ("3", "5"),
        "twice": ("3", "7"),
        "told-of-by-canary-slow": ("6", "13"),
    }
    series = {
        start("as-ever"): f"0.5+0x{3 * DAY}",
        start("without-a-past"): f"_x{days - DAY // 2} 0.5x{DAY // 2} 5x{DAY}",
    }
    for node, (past, now) in nodes.items():
        series[start(node, "katanode-a")] = f"{past}+0x{days - 10} stale"
        series[start(node, "katanode-b")] = f"_x{days - 10} {past}+0x9 {now}+0x{DAY}"
    fired = [
        Fired(
            {"node": node, "handler": "kata-clh"},
            f"A sandbox takes twice its usual time to start on node {node}",
            {"$value | humanizeDuration": seconds},
        )
        for node, seconds in (("slower", "1.8s"), ("twice", "7s"))
    ]
    at = days * 10
    assert_fires(tmp_path, series, (f"{at + 80}m", SLOWER, []), (f"{at + 100}m", SLOWER, fired), step="10m")


def test_a_canary_that_stays_slow_is_as_ever_after_some_days(tmp_path: Path) -> None:
    series = {start(): f"0.5+0x{3 * DAY // 3} 5+0x{5 * DAY // 3}"}
    fired = Fired(
        {"node": "n1", "handler": "kata-clh"},
        "A sandbox takes twice its usual time to start on node n1",
        {"$value | humanizeDuration": "5s"},
    )
    assert_fires(tmp_path, series, ("80h", SLOWER, [fired]), ("160h", SLOWER, []), step="30m")
