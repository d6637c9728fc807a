"""Patches, updates, Leases, events and refusals, the same on the stand-in and on a real API server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from servers import CORE_EVENTS, EVENTS, MERGE_PATCH, NODES, STRATEGIC_MERGE, unique

from hack.apistandin import Rule

if TYPE_CHECKING:
    from servers import Answer, Api, Json

STALE = "the object has been modified; please apply your changes to the latest version and try again"
NOW = "2026-01-01T00:00:00.000000Z"
TAINT = {"key": "katanode.io/not-ready", "effect": "NoSchedule"}


def event(**changed: object) -> Json:
    """An event of a node's agent."""
    made = {
        "metadata": {"name": unique()},
        "regarding": {"kind": "Node", "name": "node-1", "uid": "node-1"},
        "eventTime": NOW,
        "reportingController": "katanode",
        "reportingInstance": "katanode-node-1",
        "action": "Report",
        "reason": "Ready",
        "note": "all is well",
        "type": "Normal",
    }
    return {**made, **changed}


# JSON patch


def test_a_json_patch_whose_test_fails_changes_nothing(api: Api, own_config_map: str) -> None:
    test = {"op": "test", "path": "/data/a", "value": "2"}
    refused = api.admin.patch(own_config_map, test, {"op": "replace", "path": "/data/a", "value": "3"})
    assert refused.refused(422, "Invalid", "the server rejected our request due to an error in our request") == {}
    assert api.admin.get(own_config_map).body["data"] == {"a": "1"}


def test_a_json_patch_whose_test_holds_is_done(api: Api, own_config_map: str) -> None:
    test = {"op": "test", "path": "/data", "value": {"a": "1"}}
    made = api.admin.patch(own_config_map, test, {"op": "replace", "path": "/data/a", "value": "3"}, manager="patcher")
    assert made.done().body["data"] == {"a": "3"}
    assert made.owned("patcher", "Update") == {"f:data": {"f:a": {}}}


def test_the_taints_are_set_by_a_patch_that_tests_what_was_read(api: Api, own_node: str) -> None:
    for _ in range(20):
        # Controllers take the taint off that a new Node gets: then the test fails, as it should.
        read = api.admin.get(own_node).body["spec"].get("taints")
        test = {"op": "test", "path": "/spec/taints", "value": read}
        made = api.admin.patch(own_node, test, {"op": "add", "path": "/spec/taints", "value": [*(read or []), TAINT]})
        if made.status == 200:
            break
    assert TAINT in made.done().body["spec"]["taints"]
    api.admin.patch(own_node, test).refused(422, "Invalid")


def test_a_missing_field_is_null_to_a_test(api: Api, own_config_map: str) -> None:
    missing = {"op": "test", "path": "/metadata/labels", "value": None}
    made = api.admin.patch(own_config_map, missing, {"op": "add", "path": "/metadata/labels", "value": {"a": "1"}})
    assert made.done().labels == {"a": "1"}
    api.admin.patch(own_config_map, missing).refused(422, "Invalid")


def test_what_a_json_patch_cannot_find(api: Api, own_config_map: str) -> None:
    nowhere = {"op": "add", "path": "/metadata/annotations/a", "value": "1"}
    api.admin.patch(own_config_map, nowhere).refused(422, "Invalid")
    api.admin.patch(own_config_map, {"op": "remove", "path": "/data/b"}).refused(422, "Invalid")
    made = api.admin.patch(own_config_map, {"op": "replace", "path": "/data/b", "value": "2"}).done()
    assert made.body["data"] == {"a": "1", "b": "2"}


def test_a_slash_in_a_key_is_escaped(api: Api, own_node: str) -> None:
    made = api.admin.patch(own_node, {"op": "remove", "path": "/metadata/labels/example.com~1old"}).done()
    assert "example.com/old" not in made.labels


# merge and strategic merge


def test_null_in_a_merge_patch_removes(api: Api, own_config_map: str) -> None:
    assert api.admin.merge(own_config_map, {"data": {"a": None, "b": "2"}}).done().body["data"] == {"b": "2"}


def test_a_merge_patch_replaces_lists(api: Api, own_node: str) -> None:
    one, other = ({"status": {"conditions": [{"type": name, "status": "True"}]}} for name in ("A", "B"))
    api.admin.merge(f"{own_node}/status", one).done()
    made = api.admin.merge(f"{own_node}/status", other).done()
    assert made.condition("A") is None
    assert made.condition("B") is not None


def test_a_strategic_merge_joins_conditions_by_type_and_replaces_taints(api: Api, own_node: str) -> None:
    status = f"{own_node}/status"
    for name, value in (("A", "True"), ("B", "True"), ("A", "False")):
        patch = {"status": {"conditions": [{"type": name, "status": value}]}}
        made = api.admin("PATCH", status, patch, STRATEGIC_MERGE).done()
    assert [(made.condition(name) or {})["status"] for name in "AB"] == ["False", "True"]
    gone = {"status": {"conditions": [{"type": "A", "$patch": "delete"}]}}
    assert api.admin("PATCH", status, gone, STRATEGIC_MERGE).done().condition("A") is None
    for name in ("a", "b"):
        patch = {"spec": {"taints": [{"key": name, "effect": "NoSchedule"}]}}
        made = api.admin("PATCH", own_node, patch, STRATEGIC_MERGE).done()
    assert [taint["key"] for taint in made.body["spec"]["taints"]] == ["b"]


def test_a_resource_version_in_a_patch_is_a_lock(api: Api, own_config_map: str) -> None:
    before = api.admin.get(own_config_map).revision
    api.admin.merge(own_config_map, {"data": {"a": "2"}}).done()
    locked = {"metadata": {"resourceVersion": before}, "data": {"a": "3"}}
    name = own_config_map.rpartition("/")[2]
    says = f'Operation cannot be fulfilled on configmaps "{name}": {STALE}'
    api.admin.merge(own_config_map, locked).refused(409, "Conflict", says)


# Leases


def held(lease: Answer, holder: str) -> Json:
    """The Lease in other hands."""
    return {**lease.body, "spec": {**lease.body["spec"], "holderIdentity": holder}}


def test_of_two_who_take_a_lease_one_is_refused(api: Api, own_lease: str) -> None:
    seen = api.admin.get(own_lease)
    api.admin.update(own_lease, held(seen, "node-2")).done()
    refused = api.admin.update(own_lease, held(seen, "node-3"))
    name = own_lease.rpartition("/")[2]
    says = f'Operation cannot be fulfilled on leases.coordination.k8s.io "{name}": {STALE}'
    details = refused.refused(409, "Conflict", says)
    assert details == {"name": name, "group": "coordination.k8s.io", "kind": "leases"}
    assert api.admin.get(own_lease).body["spec"]["holderIdentity"] == "node-2"


def test_of_two_who_create_a_lease_one_is_refused(api: Api, own_lease: str) -> None:
    name = own_lease.rpartition("/")[2]
    refused = api.admin.create(api.leases, {"metadata": {"name": name}})
    refused.refused(409, "AlreadyExists", f'leases.coordination.k8s.io "{name}" already exists')


def test_a_lease_is_not_updated_without_a_resource_version(api: Api, own_lease: str) -> None:
    body = {"metadata": {"name": own_lease.rpartition("/")[2]}, "spec": {"holderIdentity": "node-2"}}
    says = "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
    api.admin.update(own_lease, body).refused(422, "Invalid", says)


def test_a_put_creates_a_lease_and_no_config_map(api: Api) -> None:
    name = unique()
    api.admin.update(f"{api.leases}/{name}", {"metadata": {"name": name}}).done(201)
    api.admin.delete(f"{api.leases}/{name}").done()
    api.admin.update(f"{api.config_maps}/{name}", {"metadata": {"name": name}}).refused(404, "NotFound")


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123Z", "2026-01-01 00:00:00.000000Z"])
def test_a_lease_s_times_have_six_digits_of_fraction(api: Api, own_lease: str, text: str) -> None:
    seen = api.admin.get(own_lease)
    seen.body["spec"]["renewTime"] = text
    api.admin.update(own_lease, seen.body).refused(400, "BadRequest", f'parsing time "{text}"')


def test_times_come_back_in_utc(api: Api, own_lease: str) -> None:
    made = api.admin.merge(own_lease, {"spec": {"renewTime": "2026-01-01T01:00:00.000001+01:00"}}).done()
    assert made.body["spec"]["renewTime"] == "2026-01-01T00:00:00.000001Z"


def test_a_lease_has_a_length(api: Api, own_lease: str) -> None:
    refused = api.admin.merge(own_lease, {"spec": {"leaseDurationSeconds": 0}})
    refused.refused(422, "Invalid", "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0")


# uids and deletion


def test_an_update_of_another_uid_is_a_conflict(api: Api, own_lease: str) -> None:
    seen = api.admin.get(own_lease).body
    seen["metadata"]["uid"] = "0b29d9e5"
    says = "Precondition failed: UID in precondition: 0b29d9e5, UID in object meta: "
    api.admin.update(own_lease, seen).refused(409, "Conflict", says)


@pytest.mark.parametrize("wanted", [{"uid": "0b29d9e5"}, {"resourceVersion": "1"}])
def test_a_delete_has_preconditions(api: Api, own_lease: str, wanted: Json) -> None:
    refused = api.admin.delete(own_lease, {"preconditions": wanted})
    refused.refused(409, "Conflict", f"in the precondition ({next(iter(wanted.values()))}) does not match")
    meta = api.admin.get(own_lease).done().body["metadata"]
    api.admin.delete(own_lease, {"preconditions": {name: meta[name] for name in wanted}}).done()
    api.admin.get(own_lease).refused(404, "NotFound")


def test_what_comes_again_is_another(api: Api) -> None:
    name = unique()
    first = api.admin.create(api.leases, {"metadata": {"name": name, "uid": "0b29d9e5"}}).done(201)
    api.admin.delete(f"{api.leases}/{name}").done()
    second = api.admin.create(api.leases, {"metadata": {"name": name}}).done(201)
    assert len({"0b29d9e5", first.body["metadata"]["uid"], second.body["metadata"]["uid"]}) == 3
    assert int(second.revision) > int(first.revision)
    api.admin.delete(f"{api.leases}/{name}").done()


def test_a_finalizer_keeps_what_is_deleted(api: Api, own_config_map: str) -> None:
    api.admin.merge(own_config_map, {"metadata": {"finalizers": ["example.com/wait"]}}).done()
    assert api.admin.delete(own_config_map).done().body["metadata"]["deletionTimestamp"]
    api.admin.merge(own_config_map, {"metadata": {"finalizers": None}}).done()
    api.admin.get(own_config_map).refused(404, "NotFound")


def test_a_dry_run_writes_nothing(api: Api, own_config_map: str) -> None:
    assert api.admin.merge(own_config_map, {"data": {"a": "2"}}, dryRun="All").done().body["data"] == {"a": "2"}
    assert api.admin.get(own_config_map).body["data"] == {"a": "1"}


# nodes


def test_a_new_node_is_tainted(api: Api) -> None:
    name = unique()
    made = api.admin.create(NODES, {"metadata": {"name": name}}).done(201)
    assert {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"} in made.body["spec"]["taints"]
    assert "generation" not in made.body["metadata"]
    api.admin.delete(f"{NODES}/{name}").done()


@pytest.mark.parametrize(
    ("taints", "says"),
    [
        ([{"key": "a", "effect": "Never"}], 'Unsupported value: "Never": supported values: "NoSchedule"'),
        ([{"key": "a b", "effect": "NoSchedule"}], "metadata.taints[0].key: Invalid value"),
        ([TAINT, {**TAINT, "value": "x"}], "taints must be unique by key and effect pair"),
    ],
)
def test_a_wrong_taint_is_refused(api: Api, own_node: str, taints: list[Json], says: str) -> None:
    api.admin.merge(own_node, {"spec": {"taints": taints}}).refused(422, "Invalid", says)


@pytest.mark.parametrize(
    ("label", "value", "says"),
    [
        ("a b", "", "name part must consist of alphanumeric characters"),
        ("katanode.io/state", "not ready", "a valid label must be an empty string or consist of"),
        ("a", "x" * 64, "63"),
    ],
)
def test_a_wrong_label_is_refused(api: Api, own_node: str, label: str, value: str, says: str) -> None:
    api.admin.merge(own_node, {"metadata": {"labels": {label: value}}}).refused(422, "Invalid", says)


# events


def test_an_event_is_seen_by_both_of_its_apis(api: Api) -> None:
    made = event()
    name = made["metadata"]["name"]
    api.admin.create(EVENTS, made).done(201)
    seen = api.admin.get(f"{CORE_EVENTS}/{name}").done().body
    assert (seen["involvedObject"]["name"], seen["message"]) == ("node-1", "all is well")
    assert (seen["reportingComponent"], seen["reportingInstance"]) == ("katanode", "katanode-node-1")
    series = {"series": {"count": 2, "lastObservedTime": NOW}}
    assert api.admin.merge(f"{EVENTS}/{name}", series).done().body["series"]["count"] == 2
    found = api.admin.get(EVENTS, fieldSelector=f"regarding.name=node-1,metadata.name={name}").done().body
    assert [item["note"] for item in found["items"]] == ["all is well"]
    api.admin.delete(f"{EVENTS}/{name}").done()


@pytest.mark.parametrize(
    ("wrong", "status", "says"),
    [
        ({"reportingController": ""}, 422, "reportingController: Required value"),
        ({"reportingController": "a b"}, 422, "reportingController: Invalid value"),
        ({"reportingInstance": ""}, 422, "reportingInstance: Required value"),
        ({"action": ""}, 422, "action: Required value"),
        ({"reason": ""}, 422, "reason: Required value"),
        ({"reason": "x" * 129}, 422, "can have at most 128 characters"),
        ({"note": "x" * 1025}, 422, "can have at most 1024 characters"),
        ({"type": "Error"}, 422, "has invalid value: Error"),
        ({"eventTime": None}, 422, "eventTime: Required value"),
        ({"eventTime": "2026-01-01T00:00:00Z"}, 400, "parsing time"),
        ({"series": {"count": 1, "lastObservedTime": NOW}}, 422, "should be at least 2"),
    ],
)
def test_an_event_that_lacks_something_is_refused(api: Api, wrong: Json, status: int, says: str) -> None:
    api.admin.create(EVENTS, event(**wrong)).refused(status, "Invalid" if status == 422 else "BadRequest", says)


def test_an_event_of_a_node_belongs_into_the_default_namespace(api: Api) -> None:
    path = EVENTS.replace("default", api.namespace)
    says = 'involvedObject.namespace: Invalid value: "": does not match event.namespace'
    api.admin.create(path, event()).refused(422, "Invalid", says)


# what is not understood, and who may not


def test_the_content_type_must_be_one_that_is_known(api: Api, own_config_map: str) -> None:
    wrong = api.admin("PATCH", own_config_map, {"data": {"a": "2"}}, "application/json")
    wrong.refused(415, "UnsupportedMediaType")
    wrong = api.admin("POST", api.config_maps, "a", "text/plain")
    says = "the body of the request was in an unknown format - accepted media types include: application/json"
    wrong.refused(415, "UnsupportedMediaType", says)
    api.admin("PATCH", own_config_map, {"data": {"a": "2"}}, f"{MERGE_PATCH}; charset=utf-8").done()


def test_a_body_that_does_not_parse_is_a_bad_request(api: Api, own_config_map: str) -> None:
    api.admin("POST", api.config_maps, "{").refused(400, "BadRequest")
    api.admin("PUT", own_config_map, "[1]").refused(400, "BadRequest")
    api.admin("PATCH", own_config_map, "{", MERGE_PATCH).refused(400, "BadRequest")
    api.admin("PATCH", own_config_map, "{}", "application/json-patch+json").refused(400, "BadRequest")
    api.admin("PATCH", own_config_map, "[]", STRATEGIC_MERGE).refused(400, "BadRequest")


def test_a_value_of_a_wrong_type_is_refused(api: Api, own_node: str) -> None:
    wrong = {"metadata": {"name": unique(), "labels": {"a": 1}}}
    api.admin.create(NODES, wrong).refused(400, "BadRequest", "json: cannot unmarshal number into Go struct field")
    api.admin.merge(own_node, wrong).refused(422, "Invalid", "patch: Invalid value")
    applied = {"apiVersion": "v1", "kind": "Node", "metadata": {"labels": {"a": 1}}}
    api.admin.apply(own_node, applied).refused(500, "", ".metadata.labels.a: expected string")


def test_an_unknown_field_is_dropped_with_a_warning_or_refused(api: Api, own_config_map: str) -> None:
    made = api.admin.merge(own_config_map, {"metadata": {"gate": "x"}}).done()
    assert made.warning == '299 - "unknown field \\"metadata.gate\\""'
    assert "gate" not in made.body["metadata"]
    strict = {"metadata": {"name": unique(), "gate": "x"}}
    refused = api.admin.create(api.config_maps, strict, fieldValidation="Strict")
    refused.refused(400, "BadRequest", 'strict decoding error: unknown field "metadata.gate"')


def test_who_has_no_right_is_told_which(api: Api, own_node: str) -> None:
    agent = api.user(Rule(("get",), ("",), ("nodes",)))
    agent.get(own_node).done()
    name = own_node.rpartition("/")[2]
    cannot = f'nodes "{name}" is forbidden: User "{agent.name}" cannot patch resource "nodes/status" in API group ""'
    agent.merge(f"{own_node}/status", {}).refused(403, "Forbidden", f"{cannot} at the cluster scope")
    cannot = f'cannot list resource "leases" in API group "coordination.k8s.io" in the namespace "{api.namespace}"'
    agent.get(api.leases).refused(403, "Forbidden", cannot)


def test_a_right_to_one_name_is_one_to_watch_it_alone(api: Api, own_node: str) -> None:
    name = own_node.rpartition("/")[2]
    agent = api.user(Rule(("get", "watch"), ("",), ("nodes",), names=(name,)))
    with agent.watch(NODES, fieldSelector=f"metadata.name={name}") as events:
        assert next(events)["object"]["metadata"]["name"] == name
    agent.get(NODES, watch="true").refused(403, "Forbidden", 'cannot watch resource "nodes"')


def test_a_token_that_is_not_known_is_unauthorized(api: Api, own_node: str) -> None:
    stranger = type(api.admin)(api.admin.base, _without_certificate(api), {"Authorization": "Bearer nobody"})
    answer = stranger.get(own_node)
    answer.refused(401, "Unauthorized", "Unauthorized")
    assert "details" not in answer.body


def _without_certificate(api: Api) -> object:
    pool = api.admin.pool
    known = {name: value for name, value in pool.connection_pool_kw.items() if name not in ("cert_file", "key_file")}
    return type(pool)(**known)


def test_what_does_not_exist_is_said_so(api: Api) -> None:
    api.admin.get(f"{api.leases}/none").refused(404, "NotFound", 'leases.coordination.k8s.io "none" not found')
    api.admin.get("/api/v1/gates").refused(404, "NotFound", "the server could not find the requested resource")
    nowhere = api.leases.replace(api.namespace, "katanode-test-none")
    refused = api.admin.create(nowhere, {"metadata": {"name": "a"}})
    refused.refused(404, "NotFound", 'namespaces "katanode-test-none" not found')


def test_the_time_of_an_owner_is_that_of_its_last_change(api: Api, own_config_map: str) -> None:
    wanted = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"b": "1"}}

    def time_of(made: Answer) -> str:
        entries = made.body["metadata"]["managedFields"]
        return str(next(entry["time"] for entry in entries if entry["manager"] == "katanode"))

    first = time_of(api.admin.apply(own_config_map, wanted).done())
    time.sleep(1.1)
    assert time_of(api.admin.apply(own_config_map, wanted).done()) == first
    wanted["data"] = {"b": "2"}
    assert time_of(api.admin.apply(own_config_map, wanted).done()) > first
