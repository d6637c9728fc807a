"""`katanode fleet`, what of it is pure: rows, the summary line, order, and what fits a terminal."""

import argparse
import io
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent.errors import KatanodeError
from agent.fleet import command, show
from agent.fleet.facts import HandlerOf, NodeFacts, OtherNode, RunningPod, keep_class, keep_node, keep_pod
from agent.fleet.table import (
    SILENT_AFTER,
    STATES,
    Fleet,
    age,
    common_domain,
    iso,
    make,
    natural,
    remedies,
    worst_first,
    worst_last,
)
from agent.reasons import CATALOGUE, Reason

NOW = 1_795_521_303.0
CLASSES = [HandlerOf("kata-clh", "kata-clh"), HandlerOf("sandboxed", "kata-qemu"), HandlerOf("gvisor", "runsc")]


def node(
    name: str,
    state: str = "ready",
    reason: str = "Ready",
    *,
    status: str = "",
    heard: float = 60,
    since: float = 7200,
    handlers: dict[str, bool] | None = None,
    **labels: str,
) -> dict[str, Any]:
    """A Node as the API gives it."""
    ready = handlers if handlers is not None else {"kata-clh": True, "kata-qemu": state == "ready"}
    own = {f"handler.katanode.io/{handler}": str(good).lower() for handler, good in ready.items()}
    own |= {"katanode.io/state": state, "katanode.io/kata-version": "4.1.0"} if state else {}
    condition = {
        "type": "KataReady",
        "status": status or ("True" if state in {"ready", "degraded"} else "False"),
        "reason": reason,
        "message": "A sentence.",
        "lastTransitionTime": iso(NOW - since),
        "lastHeartbeatTime": iso(NOW - heard),
    }
    kubelet = {"type": "Ready", "status": "True", "lastHeartbeatTime": iso(NOW)}
    return {
        "metadata": {"name": name, "labels": own | {k.replace("__", "/"): v for k, v in labels.items()}},
        "status": {"conditions": [kubelet, condition]},
    }


def plain(name: str, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def blocked(name: str, reason: Reason = Reason.KVM_DISABLED_IN_FIRMWARE) -> dict[str, Any]:
    return node(name, "blocked", reason, handlers={"kata-clh": False, "kata-qemu": False})


def fleet(*nodes: dict[str, Any], pods: list[RunningPod] | None = None) -> Fleet:
    return make([keep_node(n) for n in nodes], pods or [], CLASSES, NOW)


def test_a_ready_node_has_its_state_version_and_age_and_no_reason() -> None:
    (row,) = fleet(node("a")).rows
    assert (row.state, row.words, row.code, row.facts.version) == ("ready", "", "", "4.1.0")
    assert age(NOW - row.facts.since) == "2h"


def test_a_blocked_node_shows_the_reason_of_its_condition() -> None:
    (row,) = fleet(blocked("a")).rows
    assert (row.state, row.words, row.code) == ("blocked", "KVMDisabledInFirmware", "KVMDisabledInFirmware")


def test_a_degraded_node_shows_which_handler_is_not_ready() -> None:
    (row,) = fleet(node("a", "degraded", "Degraded")).rows
    assert (row.state, row.words, row.code) == ("degraded", "not ready: kata-qemu", "")


def test_a_ready_node_may_carry_a_reason_of_the_fleets() -> None:
    (row,) = fleet(node("a", "ready", Reason.ROLLOUT_HALTED)).rows
    assert (row.state, row.words, row.code) == ("ready", "RolloutHalted", "RolloutHalted")


@pytest.mark.parametrize(("heard", "state"), [(SILENT_AFTER - 1, "ready"), (SILENT_AFTER + 1, "silent")])
def test_a_node_without_a_heartbeat_for_15_minutes_is_silent(heard: float, state: str) -> None:
    (row,) = fleet(node("a", heard=heard)).rows
    assert row.state == state


def test_a_silent_node_says_what_it_said_last() -> None:
    (row,) = fleet(node("a", "blocked", Reason.KVM_BUSY, heard=3 * 3600, since=4 * 3600)).rows
    assert row.words == "last word 3h ago: blocked KVMBusy"
    assert row.as_json()["said"] == "blocked"


def test_the_silence_after_katanode_was_taken_off_is_none() -> None:
    made = fleet(node("a", "absent", Reason.NOT_INSTALLED, heard=9e6, since=9e6, handlers={}))
    assert [row.state for row in made.rows] == ["absent"]
    assert made.summary() == "1 absent"
    assert made.fine


def test_a_node_with_labels_and_no_condition_is_unknown() -> None:
    bare = node("a")
    bare["status"]["conditions"] = []
    (row,) = fleet(bare).rows
    assert (row.state, row.words) == ("unknown", "no condition KataReady")


def test_a_condition_without_the_states_label_still_says_how_it_is() -> None:
    for status, handlers, state in (
        ("True", {"kata-clh": True}, "ready"),
        ("True", {"kata-clh": True, "kata-qemu": False}, "degraded"),
        ("False", {}, "blocked"),
        ("Unknown", {}, "unknown"),
    ):
        (row,) = fleet(node("a", "", "Ready", status=status, handlers=handlers)).rows
        assert row.state == state


def test_a_condition_without_times_is_silent_and_has_no_age() -> None:
    odd = node("a")
    for key in ("lastTransitionTime", "lastHeartbeatTime"):
        odd["status"]["conditions"][1][key] = None
    (row,) = fleet(odd).rows
    assert (row.state, row.words) == ("silent", "last word ever: ready")
    assert row.as_json()["since"] is None


def test_nodes_that_katanode_does_not_speak_on_are_only_counted() -> None:
    other = plain("b", **{"katacontainers.io/kata-runtime": "true"})  # another installer's work
    made = fleet(node("a"), other, plain("c"))
    assert [row.name for row in made.rows] == ["a"]
    assert made.others == 2
    assert made.summary() == "1 ready; 2 nodes without katanode"
    wished = plain("d", **{"katanode.io/install": "disabled"})
    assert isinstance(keep_node(wished), NodeFacts)
    assert isinstance(keep_node(plain("e")), OtherNode)


def test_an_object_with_next_to_nothing_in_it_is_taken() -> None:
    assert keep_node({"metadata": {"name": "a"}}) == OtherNode("a")
    assert keep_node({"metadata": {"name": "a", "labels": None}, "status": {"conditions": None}}) == OtherNode("a")
    assert keep_pod({"metadata": {"name": "a"}}) is None
    assert keep_class({"metadata": {"name": "a"}}) == HandlerOf("a", "")


@pytest.mark.parametrize(
    ("pod", "counted"),
    [
        ({"spec": {"nodeName": "a", "runtimeClassName": "kata-clh"}, "status": {"phase": "Running"}}, True),
        ({"spec": {"nodeName": "a", "runtimeClassName": "kata-clh"}, "status": {"phase": "Succeeded"}}, False),
        ({"spec": {"nodeName": "a"}, "status": {"phase": "Running"}}, False),
        ({"spec": {"runtimeClassName": "kata-clh"}, "status": {"phase": "Running"}}, False),
    ],
)
def test_only_running_pods_with_a_runtime_class_are_kept(pod: dict[str, Any], counted: bool) -> None:  # noqa: FBT001
    assert (keep_pod(pod) == RunningPod("a", "kata-clh")) is counted


def test_sandboxes_are_pods_whose_class_leads_to_a_handler_of_kata() -> None:
    pods = [
        *[RunningPod("a", "kata-clh")] * 3,
        *[RunningPod("a", "sandboxed")] * 2,  # its handler counts, not its name
        RunningPod("a", "gvisor"),
        RunningPod("a", "kata-deleted"),  # a class that is gone while its pod runs
        RunningPod("elsewhere", "kata-clh"),
    ]
    counts = {row.name: row.sandboxes for row in fleet(node("a"), node("b"), pods=pods).rows}
    assert counts == {"a": 6, "b": 0}


def test_a_handler_by_any_name_is_katas_where_katanode_labels_it() -> None:
    strong = node("a", handlers={"strong": True})
    made = make([keep_node(n) for n in (strong, node("b"))], [RunningPod("a", "s"), RunningPod("b", "s")],
                [HandlerOf("s", "strong")], NOW)  # fmt: skip
    assert [row.sandboxes for row in made.rows] == [1, 0]


def test_sandboxes_that_cannot_be_read_are_not_zero() -> None:
    (row,) = make([keep_node(node("a"))], None, [], NOW).rows
    assert row.sandboxes is None
    assert "?" in drawn(Fleet((row,)), 120)


@pytest.mark.parametrize(
    ("nodes", "line"),
    [
        ([], "the cluster has no nodes"),
        ([plain("a")], "1 node without katanode"),
        ([*map(node, "abc")], "3 ready"),
        ([*map(node, "abc"), blocked("d"), blocked("e")], "3 ready, 2 blocked: KVMDisabledInFirmware"),
        (
            [blocked("a"), blocked("b"), blocked("c", Reason.TUN_MISSING)],
            "3 blocked: KVMDisabledInFirmware (2), TunMissing (1)",
        ),
        (
            [node("a", "ready", Reason.ROLLOUT_HALTED), node("b"), blocked("c"), plain("d")],
            "2 ready: RolloutHalted (1); 1 blocked: KVMDisabledInFirmware; 1 node without katanode",
        ),
        ([node("a"), node("b", "degraded", "Degraded"), node("c", heard=9e3)], "1 ready, 1 degraded, 1 silent"),
        ([node("a", "of tomorrow")], "1 of tomorrow"),
    ],
)
def test_the_summary_is_one_line(nodes: list[dict[str, Any]], line: str) -> None:
    assert fleet(*nodes).summary() == line


def test_forty_six_and_two_as_the_issue_has_it() -> None:
    made = fleet(*(node(f"n{i}") for i in range(46)), blocked("x"), blocked("y"))
    assert made.summary() == "46 ready, 2 blocked: KVMDisabledInFirmware"


@pytest.mark.parametrize(
    ("nodes", "fine"),
    [
        ([], False),
        ([plain("a")], False),
        ([node("a"), plain("b")], True),
        ([node("a"), node("b", "degraded", "Degraded")], True),
        ([node("a"), node("b", "installing", Reason.WAITING_FOR_SLOT)], False),
        ([node("a"), blocked("b")], False),
        ([node("a"), node("b", heard=1e4)], False),
    ],
)
def test_the_fleet_is_fine_when_no_node_needs_anybody(nodes: list[dict[str, Any]], fine: bool) -> None:  # noqa: FBT001
    assert fleet(*nodes).fine is fine


def test_when_every_agent_seems_silent_the_clock_is_doubted() -> None:
    assert fleet(node("a", heard=1e4), node("b", heard=1e4)).notes == (
        "Every agent seems silent. Is this machine's clock right? It says 2026-11-24T11:55:03Z.",
    )
    assert not fleet(node("a", heard=1e4), node("b")).notes
    assert not fleet(node("a", heard=1e4)).notes, "one node alone may well be down"


def test_rows_come_by_name_as_people_count() -> None:
    made = fleet(*(node(f"node-{i}") for i in (10, 9, 1, 100)))
    assert [row.name for row in made.rows] == ["node-1", "node-9", "node-10", "node-100"]


@given(st.lists(st.text(max_size=12)))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    assert sorted(sorted(names, key=natural)) == sorted(names)


def test_the_worst_are_together_at_one_end() -> None:
    made = fleet(
        node("a"), blocked("c"), node("b", "degraded", "Degraded"), blocked("d", Reason.KVM_BUSY), blocked("b-2"),
        node("e", heard=1e4), node("f", "absent", Reason.NOT_INSTALLED),
    )  # fmt: skip
    assert [row.name for row in worst_first(made.rows)] == ["d", "b-2", "c", "e", "b", "f", "a"]
    assert [row.name for row in worst_last(made.rows)] == ["a", "f", "b", "e", "d", "b-2", "c"]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-5, "0s"),
        (59, "59s"),
        (60, "1m"),
        (200, "3m20s"),
        (600, "10m"),
        (3700, "1h1m"),
        (86400 * 4 + 7 * 3600, "4d7h"),
        (86400 * 40 + 5, "40d"),
    ],
)
def test_an_age_is_told_as_kubectl_does(seconds: float, told: str) -> None:
    assert age(seconds) == told


def test_names_share_a_domain_or_none() -> None:
    assert common_domain(["a.x.y", "b.x.y"]) == ".x.y"
    assert common_domain(["a.x.y", "b.z.y"]) == ""
    assert common_domain(["a", "b"]) == ""
    assert common_domain([]) == ""


def test_only_the_catalogues_reasons_have_a_remedy() -> None:
    assert remedies(["KVMBusy", "SomethingElse"]) == [
        ("KVMBusy", CATALOGUE[Reason.KVM_BUSY].title, CATALOGUE[Reason.KVM_BUSY].remedy)
    ]


def screen_of(width: int, height: int = 40) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, highlight=False, force_terminal=False)


def drawn(made: Fleet, width: int, *, count: bool = True) -> str:
    screen = screen_of(width)
    screen.print(show.once(screen, made, made.rows, NOW, count=count))
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


DOMAIN = ".eu-central-1.compute.internal"
MIXED = fleet(
    *(node(f"ip-10-0-17-{i}{DOMAIN}") for i in range(1, 8)),
    blocked(f"ip-10-0-17-20{DOMAIN}", Reason.CONFIG_CHANGED_MEANWHILE),
    node(f"ip-10-0-17-21{DOMAIN}", "degraded", "Degraded"),
)


def test_a_wide_terminal_has_whole_names_and_one_line_a_node() -> None:
    lines = drawn(MIXED, 120).splitlines()
    assert lines[0].split() == ["NODE", "STATE", "REASON", "KATA", "AGE", "SANDBOXES"]
    assert lines[1].split() == [f"ip-10-0-17-1{DOMAIN}", "ready", "4.1.0", "2h", "0"]
    assert lines[9].split()[:3] == [f"ip-10-0-17-20{DOMAIN}", "blocked", "RuntimeConfigChangedMeanwhile"]
    assert lines[10:12] == ["", "7 ready, 1 degraded, 1 blocked: RuntimeConfigChangedMeanwhile"]


def test_a_narrow_terminal_leaves_the_shared_domain_out_and_says_so() -> None:
    lines = drawn(MIXED, 80).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert lines[9].split()[:3] == ["ip-10-0-17-20", "blocked", "RuntimeConfigChangedMeanwhile"]
    assert lines[10] == f"names end in {DOMAIN}"


def test_where_names_share_no_domain_they_are_folded_and_reasons_are_not() -> None:
    made = fleet(node("a" * 50), blocked("b" * 50, Reason.CONFIG_CHANGED_MEANWHILE))
    assert "  RuntimeConfigChangedMeanwhile  " in drawn(made, 80)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(len(line) for line in drawn(MIXED, width).splitlines()) <= width


def test_what_goes_to_a_file_has_one_line_a_node_and_no_great_margin() -> None:
    text = drawn(MIXED, 10_000)
    assert max(len(line) for line in text.splitlines()) < 300
    assert "\x1b" not in text


def test_each_reason_is_followed_by_its_remedy() -> None:
    text = " ".join(drawn(MIXED, 120).split())
    entry = CATALOGUE[Reason.CONFIG_CHANGED_MEANWHILE]
    assert f"RuntimeConfigChangedMeanwhile: {entry.title} → {entry.remedy}" in text


def test_the_column_of_sandboxes_can_be_left_out() -> None:
    assert "SANDBOXES" not in drawn(MIXED, 120, count=False)


def test_names_and_words_from_the_cluster_are_no_markup() -> None:
    odd = keep_node(node("[red]a[/]", "blocked", "[bold]x"))
    text = drawn(make([odd], [], [], NOW), 120)
    assert "[red]a[/]" in text
    assert "[bold]x" in text


@pytest.mark.parametrize("height", [6, 10, 24, 60])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_while_watching_the_worst_fit_the_screen_and_the_rest_is_counted(width: int, height: int) -> None:
    made = fleet(*(node(f"node-{i}{DOMAIN}") for i in range(1200)), blocked(f"bad{DOMAIN}"))
    screen = screen_of(width, height)
    screen.print(show.screen(screen, made, made.rows, NOW))
    assert isinstance(screen.file, io.StringIO)
    lines = screen.file.getvalue().splitlines()
    assert len(lines) <= height
    assert lines[0].startswith("1200 ready, 1 blocked: KVMDisabledInFirmware")
    assert lines[3].startswith("bad")
    shown = sum(line.startswith(("node-", "bad")) for line in lines)
    assert lines[-1] == f"… and {1201 - shown} more"


def test_a_small_fleet_is_shown_whole_while_watching() -> None:
    screen = screen_of(120, 24)
    screen.print(show.screen(screen, MIXED, MIXED.rows, NOW))
    assert isinstance(screen.file, io.StringIO)
    assert "more" not in screen.file.getvalue()
    assert screen.file.getvalue().count(DOMAIN) == 9


def test_the_answer_for_machines_has_all_that_the_table_has() -> None:
    said = fleet(node("a"), blocked("b"), plain("c"), pods=[RunningPod("a", "kata-clh")]).as_json()
    assert said["summary"] == "1 ready, 1 blocked: KVMDisabledInFirmware; 1 node without katanode"
    assert said["fine"] is False
    assert said["states"] == {"ready": 1, "blocked": 1}
    assert said["reasons"] == {"KVMDisabledInFirmware": 1}
    assert said["without_katanode"] == 1
    assert said["nodes"][0] == {  # type: ignore[index]
        "node": "a",
        "state": "ready",
        "said": "ready",
        "reason": None,
        "message": "A sentence.",
        "kata_version": "4.1.0",
        "since": "2026-11-24T09:55:03Z",
        "heartbeat": "2026-11-24T11:54:03Z",
        "sandboxes": 1,
        "handlers": {"kata-clh": True, "kata-qemu": True},
        "install": None,
    }


def test_every_state_has_a_colour_of_its_own_kind() -> None:
    assert set(show._STYLES) == set(STATES)


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return parser.parse_args(["fleet", *argv])


def test_a_reason_that_is_none_is_refused_with_the_nearest_one_before_anything_is_read() -> None:
    with pytest.raises(KatanodeError) as caught:
        command.run(parsed("--reason", "KVMDisabledInFirmwar", "--kubeconfig", "/nowhere"))
    assert caught.value.reason is Reason.SETTINGS_INVALID
    assert "did you mean KVMDisabledInFirmware" in caught.value.message
    with pytest.raises(KatanodeError, match="no known one resembles it"):
        command.run(parsed("--reason", "zzzzzzzzzz", "--kubeconfig", "/nowhere"))


def test_the_capitals_of_a_reason_do_not_matter() -> None:
    with pytest.raises(KatanodeError) as caught:
        command.run(parsed("--reason", "kvmdisabledinfirmware", "--kubeconfig", "/nowhere"))
    assert caught.value.reason is Reason.CLUSTER_CONFIG_INVALID


def test_the_command_line_starts_without_the_kubernetes_package() -> None:
    code = "import sys, agent.fleet.command; print([m for m in sys.modules if m in ('kubernetes', 'rich', 'urllib3')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
