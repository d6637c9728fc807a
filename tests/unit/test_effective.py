"""Two effective configurations compared: our handlers may come, change and go, and every other difference is told."""

from typing import Any

import pytest

from agent.cri import effective
from agent.cri.handler import Handler

FC = Handler("kata-fc", "io.containerd.kata.v2", "/opt/shim", "/etc/kata/fc.toml", snapshotter="devmapper")
V2, V3, IMAGES = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"


def table(**changes: Any) -> dict[str, Any]:
    return {
        "runtime_type": "io.containerd.kata.v2",
        "runtime_path": "/opt/shim",
        "pod_annotations": ["io.katacontainers.*"],
        "privileged_without_host_devices": True,
        "snapshotter": "devmapper",
        "options": {"ConfigPath": "/etc/kata/fc.toml"},
    } | changes


def dump(plugin: str = V3, **runtimes: Any) -> dict[str, Any]:
    return {"version": 3, "imports": [], "plugins": {plugin: {"containerd": {"runtimes": runtimes}}}}


@pytest.mark.parametrize("plugin", [V2, V3])
def test_runtimes_are_found_in_the_names_of_every_schema(plugin: str) -> None:
    assert list(effective.runtimes(dump(plugin, runc={}))) == ["runc"]
    assert effective.runtimes({"plugins": {}}) == {}


def test_our_handlers_old_and_new_are_no_difference() -> None:
    before, after = dump(runc={"a": 1}, **{"kata-fc": table()}), dump(runc={"a": 1}, **{"kata-fc": table(x=1)})
    after["plugins"][IMAGES] = {"runtime_platforms": {"kata-fc": {"snapshotter": "devmapper"}}}
    after["imports"] = ["/etc/containerd/katanode.d/katanode.toml"]
    assert effective.others_changed(before, after, ["kata-fc"]) == []


def test_every_other_difference_is_told_with_path_and_both_values() -> None:
    before = dump(runc={"options": {"SystemdCgroup": True}}, crun={"runtime_type": "c"})
    after = dump(runc={"options": {"SystemdCgroup": False}}) | {"oom_score": 1}
    runtimes = f"plugins.{V3}.containerd.runtimes"
    assert effective.others_changed(before, after, ["kata-fc"]) == [
        "oom_score: (not there) → 1",
        f"{runtimes}.crun.runtime_type: 'c' → (not there)",
        f"{runtimes}.runc.options.SystemdCgroup: True → False",
    ]


@pytest.mark.parametrize(("was", "now"), [(1.0, 1), (True, 1), ("1", 1), ([1], [1.0]), ([], [[]])])
def test_another_type_is_a_difference(was: object, now: object) -> None:  # HAZARDS 26: 1 for 1.0 kills containerd 1.7
    assert len(effective.others_changed({"a": was}, {"a": now}, [])) == 1


@pytest.mark.parametrize("key", ["password", "auth", "identitytoken", "X-Api-Key", "Authorization"])
def test_a_credential_is_never_shown(key: str) -> None:
    lines = effective.others_changed({"r": {"h": {key: "hunter2"}}}, {"r": {"h": {key: "hunter3"}}}, [])
    assert len(lines) == 1
    assert "hunter" not in lines[0]


def test_a_handler_with_all_that_was_wanted_is_in_effect() -> None:
    assert effective.without_effect(dump(**{"kata-fc": table()}), [FC], ["kata-clh"]) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"runtime_type": "io.containerd.runc.v2"}, "runtime_type"),
        ({"runtime_path": ""}, "runtime_path"),
        ({"pod_annotations": []}, "pod_annotations"),
        ({"privileged_without_host_devices": False}, "privileged_without_host_devices"),
        ({"snapshotter": ""}, "snapshotter"),
        ({"options": {}}, "ConfigPath"),
    ],
)
def test_each_value_that_is_not_as_wanted_is_told(changes: dict[str, Any], word: str) -> None:
    lines = effective.without_effect(dump(**{"kata-fc": table(**changes)}), [FC], [])
    assert len(lines) == 1
    assert word in lines[0]


def test_containerd_1_6_does_not_know_a_handlers_snapshotter() -> None:
    there = table()
    del there["snapshotter"]
    assert effective.without_effect(dump(V2, **{"kata-fc": there}), [FC], []) == []


def test_what_is_missing_and_what_should_be_gone_is_told() -> None:
    assert effective.without_effect(dump(old={}), [FC], ["old"]) == ["old is still there", "kata-fc is not there"]


def test_a_runtime_that_would_go_is_restated_and_ours_is_not() -> None:
    before = dump(V2, runc={"runtime_type": "r"}, **{"kata-fc": table()})
    assert effective.to_restate(before, dump(V2), ["kata-fc"]) == {"runtimes": {"runc": {"runtime_type": "r"}}}
    assert effective.to_restate(before, before, ["kata-fc"]) == {}
