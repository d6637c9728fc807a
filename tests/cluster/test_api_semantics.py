"""Server-side apply and who owns what, the same on the stand-in and on a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servers import unique

from hack.apistandin import Rule

if TYPE_CHECKING:
    from servers import Answer, Api, Client, Json

GATE = "katacontainers.io/kata-runtime"
STATE = "katanode.io/state"
READY = {"type": "KataReady", "status": "True", "reason": "Ready", "message": "well"}


def labels(**named: str) -> Json:
    """An apply of labels; `gate` and `state` stand for the agent's, others for example.com's."""
    real = {"gate": GATE, "state": STATE}
    given = {real.get(name, f"example.com/{name}"): value for name, value in named.items()}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"labels": given}}


def condition(**changed: str) -> Json:
    """An apply of the agent's condition."""
    return {"apiVersion": "v1", "kind": "Node", "status": {"conditions": [{**READY, **changed}]}}


def field(name: str) -> str:
    return f".metadata.labels.{name}"


def settled(client: Client, path: str, wanted: Json) -> tuple[Answer, Answer]:
    """Two equal applies, one after the other, that nobody wrote between: controllers look after new Nodes."""
    for _ in range(20):
        first, second = client.apply(path, wanted).done(), client.apply(path, wanted).done()
        if first.body["metadata"]["managedFields"] == second.body["metadata"]["managedFields"]:
            break
    return first, second


# what an apply owns


def test_an_apply_owns_exactly_what_it_names(api: Api, own_node: str) -> None:
    made = api.admin.apply(own_node, labels(gate="true", state="ready")).done()
    assert made.labels.items() >= {GATE: "true", STATE: "ready", "example.com/old": "1"}.items()
    assert made.owned("katanode") == {"f:metadata": {"f:labels": {f"f:{GATE}": {}, f"f:{STATE}": {}}}}
    assert made.owned("maker", "Update") == {"f:metadata": {"f:labels": {".": {}, "f:example.com/old": {}}}}
    entry = next(e for e in made.body["metadata"]["managedFields"] if e["manager"] == "katanode")
    assert (entry["apiVersion"], entry["fieldsType"], entry["operation"]) == ("v1", "FieldsV1", "Apply")
    assert entry["time"].endswith("Z")


def test_what_another_owns_is_a_conflict_that_names_the_manager_and_the_field(api: Api, own_node: str) -> None:
    refused = api.admin.apply(own_node, labels(old="2"))
    message = f'Apply failed with 1 conflict: conflict with "maker" using v1: {field("example.com/old")}'
    details = refused.refused(409, "Conflict", message)
    cause = {"reason": "FieldManagerConflict", "message": 'conflict with "maker" using v1'}
    assert details == {"causes": [{**cause, "field": field("example.com/old")}]}
    assert api.admin.get(own_node).labels["example.com/old"] == "1"


def test_an_applier_is_named_without_a_version(api: Api, own_node: str) -> None:
    api.admin.apply(own_node, labels(gate="true")).done()
    refused = api.admin.apply(own_node, labels(gate="false"), "other")
    refused.refused(409, "Conflict", f'Apply failed with 1 conflict: conflict with "katanode": {field(GATE)}')


def test_several_conflicts_are_listed_by_manager(api: Api, own_node: str) -> None:
    api.admin.apply(own_node, labels(gate="true", state="ready")).done()
    refused = api.admin.apply(own_node, labels(gate="false", state="absent", old="2"), "other")
    lines = ['conflicts with "katanode":', f"- {field(GATE)}", f"- {field(STATE)}"]
    lines += ['conflicts with "maker" using v1:', f"- {field('example.com/old')}"]
    details = refused.refused(409, "Conflict", "Apply failed with 3 conflicts: " + "\n".join(lines))
    assert sorted(cause["field"] for cause in details["causes"]) == sorted(map(field, (GATE, STATE, "example.com/old")))


def test_force_takes_the_field_from_its_owner(api: Api, own_node: str) -> None:
    made = api.admin.apply(own_node, labels(old="2"), force="true").done()
    assert made.labels["example.com/old"] == "2"
    assert made.owned("katanode") == {"f:metadata": {"f:labels": {"f:example.com/old": {}}}}
    assert made.owned("maker", "Update") == {"f:metadata": {"f:labels": {}}}


def test_who_applies_the_value_that_is_there_shares_the_field(api: Api, own_node: str) -> None:
    api.admin.apply(own_node, labels(gate="true"), "one").done()
    made = api.admin.apply(own_node, labels(gate="true"), "two").done()
    assert made.owned("one") == made.owned("two") == {"f:metadata": {"f:labels": {f"f:{GATE}": {}}}}
    api.admin.apply(own_node, labels(gate="false"), "one").refused(409, "Conflict", '"two"')


def test_what_is_no_longer_applied_goes(api: Api, own_node: str) -> None:
    api.admin.apply(own_node, labels(gate="true", state="ready")).done()
    made = api.admin.apply(own_node, labels(gate="true")).done()
    assert STATE not in made.labels
    assert made.owned("katanode") == {"f:metadata": {"f:labels": {f"f:{GATE}": {}}}}


def test_what_is_no_longer_applied_stays_while_another_owns_it(api: Api, own_node: str) -> None:
    api.admin.apply(own_node, labels(gate="true", state="ready"), "one").done()
    api.admin.apply(own_node, labels(state="ready"), "two").done()
    made = api.admin.apply(own_node, labels(gate="true"), "one").done()
    assert made.labels[STATE] == "ready"
    made = api.admin.apply(own_node, {**labels(), "metadata": {"name": own_node.rpartition("/")[2]}}, "two").done()
    assert STATE not in made.labels
    assert made.owned("two") is None


def test_an_update_takes_the_field_from_its_applier(api: Api, own_node: str) -> None:
    api.admin.apply(own_node, labels(gate="true", state="ready")).done()
    made = api.admin.merge(own_node, {"metadata": {"labels": {GATE: "false"}}}, manager="kubectl-label").done()
    assert made.owned("katanode") == {"f:metadata": {"f:labels": {f"f:{STATE}": {}}}}
    assert made.owned("kubectl-label", "Update") == {"f:metadata": {"f:labels": {f"f:{GATE}": {}}}}
    refused = api.admin.apply(own_node, labels(gate="true", state="ready"))
    refused.refused(409, "Conflict", f'conflict with "kubectl-label" using v1: {field(GATE)}')


def test_what_an_update_took_stays_when_its_applier_lets_go(api: Api, own_node: str) -> None:
    api.admin.apply(own_node, labels(gate="true", state="ready")).done()
    api.admin.merge(own_node, {"metadata": {"labels": {GATE: "false"}}}, manager="kubectl-label").done()
    assert api.admin.apply(own_node, labels(state="ready")).done().labels[GATE] == "false"


def test_a_label_that_an_update_removes_is_nobodys(api: Api, own_node: str) -> None:
    api.admin.apply(own_node, labels(gate="true", state="ready")).done()
    made = api.admin.merge(own_node, {"metadata": {"labels": {GATE: None}}}, manager="kubectl-label").done()
    assert made.owned("katanode") == {"f:metadata": {"f:labels": {f"f:{STATE}": {}}}}
    assert made.owned("kubectl-label", "Update") is None
    assert api.admin.apply(own_node, labels(gate="true", state="ready")).done().labels[GATE] == "true"


def test_without_a_field_manager_an_update_is_its_user_agents(api: Api, own_node: str) -> None:
    made = api.admin.merge(own_node, {"metadata": {"labels": {"a": "1"}}}).done()
    assert made.owned("katanode-test", "Update") == {"f:metadata": {"f:labels": {"f:a": {}}}}


# what changes nothing


def test_an_apply_that_changes_nothing_keeps_the_resource_version(api: Api, own_node: str) -> None:
    first, second = settled(api.admin, own_node, labels(gate="true"))
    assert second.revision == first.revision


def test_a_status_apply_that_changes_nothing_keeps_the_resource_version(api: Api, own_node: str) -> None:
    first, second = settled(api.admin, f"{own_node}/status", condition(lastHeartbeatTime="2026-01-01T00:00:00Z"))
    assert second.revision == first.revision


def test_an_update_that_changes_nothing_keeps_the_resource_version(api: Api, own_lease: str) -> None:
    before = api.admin.get(own_lease)
    assert api.admin.update(own_lease, before.body, manager="other").done().revision == before.revision
    assert api.admin.merge(own_lease, {"spec": {"holderIdentity": "node-1"}}).done().revision == before.revision


# conditions, taints, status


def test_a_condition_is_owned_by_its_type(api: Api, own_node: str) -> None:
    made = api.admin.apply(f"{own_node}/status", condition()).done()
    fields = {".": {}, "f:message": {}, "f:reason": {}, "f:status": {}, "f:type": {}}
    owned = {"f:status": {"f:conditions": {'k:{"type":"KataReady"}': fields}}}
    assert made.owned("katanode", subresource="status") == owned
    assert made.owned("katanode") is None


def test_conditions_of_other_managers_stay_as_they_are(api: Api, own_node: str) -> None:
    status = f"{own_node}/status"
    others = {"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}}
    api.admin("PATCH", status, others, "application/strategic-merge-patch+json", manager="kubelet").done()
    made = api.admin.apply(status, condition()).done()
    assert (made.condition("Ready") or {})["reason"] == "KubeletReady"
    made = api.admin.apply(status, condition(status="False", reason="KVMHangs")).done()
    assert (made.condition("KataReady") or {})["reason"] == "KVMHangs"
    assert (made.condition("Ready") or {})["reason"] == "KubeletReady"
    nothing = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": own_node.rpartition("/")[2]}}
    made = api.admin.apply(status, nothing).done()
    assert made.condition("KataReady") is None
    assert (made.condition("Ready") or {})["reason"] == "KubeletReady"


def test_a_condition_of_another_manager_is_a_conflict(api: Api, own_node: str) -> None:
    api.admin.apply(f"{own_node}/status", condition()).done()
    refused = api.admin.apply(f"{own_node}/status", condition(status="False"), "other")
    where = '.status.conditions[type="KataReady"].status'
    refused.refused(409, "Conflict", f'conflict with "katanode" with subresource "status": {where}')


def test_a_condition_may_be_applied_once_only(api: Api, own_node: str) -> None:
    twice = {**condition(), "status": {"conditions": [READY, READY]}}
    api.admin.apply(f"{own_node}/status", twice).refused(500, "", 'duplicate entries for key [type="KataReady"]')


def test_taints_are_owned_whole(api: Api, own_node: str) -> None:
    wanted = {"apiVersion": "v1", "kind": "Node", "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    made = api.admin.apply(own_node, wanted, force="true").done()
    assert made.owned("katanode") == {"f:spec": {"f:taints": {}}}
    wanted["spec"] = {"taints": [{"key": "b", "effect": "NoSchedule"}]}
    refused = api.admin.apply(own_node, wanted, "other")
    refused.refused(409, "Conflict", 'conflict with "katanode": .spec.taints')
    made = api.admin.apply(own_node, wanted, "other", force="true").done()
    assert [taint["key"] for taint in made.body["spec"]["taints"]] == ["b"]


def test_the_status_in_an_apply_of_the_main_resource_is_neither_taken_nor_owned(api: Api, own_node: str) -> None:
    made = api.admin.apply(own_node, {**condition(), **labels(gate="true")}).done()
    assert made.condition("KataReady") is None
    assert made.owned("katanode") == {"f:metadata": {"f:labels": {f"f:{GATE}": {}}}}
    patched = api.admin.merge(own_node, {"status": {"phase": "Running"}}).done()
    assert "phase" not in patched.body["status"]


def test_the_spec_in_an_apply_of_the_status_is_neither_taken_nor_owned(api: Api, own_node: str) -> None:
    made = api.admin.apply(f"{own_node}/status", {**condition(), "spec": {"unschedulable": True}}).done()
    assert "unschedulable" not in made.body["spec"]
    assert set(made.owned("katanode", subresource="status") or {}) == {"f:status"}
    patched = api.admin.patch(f"{own_node}/status", {"op": "add", "path": "/spec/unschedulable", "value": True}).done()
    assert "unschedulable" not in patched.body["spec"]


def test_labels_of_a_node_can_be_changed_through_its_status(api: Api, own_node: str) -> None:
    made = api.admin.merge(f"{own_node}/status", {"metadata": {"labels": {"a": "1"}}}, manager="sly").done()
    assert made.labels["a"] == "1"
    assert made.owned("sly", "Update", "status") == {"f:metadata": {"f:labels": {"f:a": {}}}}


def test_a_manager_has_one_entry_for_each_operation_and_subresource(api: Api, own_node: str) -> None:
    api.admin.apply(own_node, labels(gate="true")).done()
    api.admin.apply(f"{own_node}/status", condition()).done()
    made = api.admin.merge(own_node, {"metadata": {"labels": {"a": "1"}}}, manager="katanode").done()
    entries = [e for e in made.body["metadata"]["managedFields"] if e["manager"] == "katanode"]
    kinds = [(entry["operation"], entry.get("subresource", "")) for entry in entries]
    assert sorted(kinds) == [("Apply", ""), ("Apply", "status"), ("Update", "")]


# what does not exist, or is another


def test_an_apply_creates_what_does_not_exist(api: Api) -> None:
    name = unique()
    wanted = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
    made = api.admin.apply(f"{api.leases}/{name}", {**wanted, "spec": {"holderIdentity": "node-1"}}).done(201)
    assert made.owned("katanode") == {"f:spec": {"f:holderIdentity": {}}}
    assert api.admin.delete(f"{api.leases}/{name}").done().body["status"] == "Success"


def test_an_apply_to_a_missing_node_needs_the_right_to_create(api: Api) -> None:
    agent = api.user(Rule(("get", "patch"), ("",), ("nodes", "nodes/status")))
    name = unique()
    wanted = {**labels(gate="true"), "metadata": {"name": name, "labels": {GATE: "true"}}}
    cannot = f'User "{agent.name}" cannot create resource "nodes" in API group "" at the cluster scope'
    details = agent.apply(f"/api/v1/nodes/{name}", wanted).refused(403, "Forbidden", cannot)
    assert (details["kind"], details["name"]) == ("nodes", name)
    agent.get(f"/api/v1/nodes/{name}").refused(404, "NotFound", f'nodes "{name}" not found')


def test_an_apply_with_a_uid_creates_nothing(api: Api) -> None:
    name = unique()
    wanted = {**labels(), "metadata": {"name": name, "uid": "0b29d9e5", "labels": {GATE: "true"}}}
    refused = api.admin.apply(f"/api/v1/nodes/{name}", wanted)
    says = "uid mismatch: the provided object specified uid 0b29d9e5, and no existing object was found"
    refused.refused(409, "Conflict", f'Operation cannot be fulfilled on nodes "{name}": {says}')


def test_an_apply_with_its_own_uid_is_as_one_without(api: Api, own_node: str) -> None:
    uid = api.admin.get(own_node).body["metadata"]["uid"]
    wanted = labels(gate="true")
    wanted["metadata"]["uid"] = uid
    made = api.admin.apply(own_node, wanted).done()
    assert made.owned("katanode") == {"f:metadata": {"f:labels": {f"f:{GATE}": {}}}}


def test_an_apply_with_anothers_uid_is_invalid(api: Api, own_node: str) -> None:
    wanted = labels(gate="true")
    wanted["metadata"]["uid"] = "0b29d9e5"
    details = api.admin.apply(own_node, wanted).refused(422, "Invalid", 'Invalid value: "0b29d9e5": field is immutable')
    assert {cause["field"] for cause in details["causes"]} == {"metadata.uid"}
    assert GATE not in api.admin.get(own_node).labels


def test_a_status_apply_creates_nothing(api: Api) -> None:
    path = f"/api/v1/nodes/{unique()}/status"
    api.admin.apply(path, condition()).refused(404, "NotFound")


# what is not understood


def test_an_apply_needs_a_field_manager(api: Api, own_node: str) -> None:
    refused = api.admin("PATCH", own_node, labels(gate="true"), "application/apply-patch+yaml")
    details = refused.refused(422, "Invalid", "fieldManager: Required value: is required for apply patch")
    assert details["kind"] == "PatchOptions"


def test_an_apply_of_a_field_that_the_schema_lacks_is_refused(api: Api, own_node: str) -> None:
    wanted = {"apiVersion": "v1", "kind": "Node", "spec": {"gate": "x"}}
    api.admin.apply(own_node, wanted).refused(500, "", ".spec.gate: field not declared in schema")


def test_an_apply_must_say_what_it_is(api: Api, own_node: str) -> None:
    api.admin.apply(own_node, {"apiVersion": "v1", "kind": "Pod"}).refused(400, "BadRequest", "invalid object type")
    other = {**labels(), "metadata": {"name": "other"}}
    api.admin.apply(own_node, other).refused(400, "BadRequest", "does not match the name on the URL")
    managed = {**labels(), "metadata": {"managedFields": []}}
    api.admin.apply(own_node, managed).refused(400, "BadRequest", "metadata.managedFields must be nil")
    api.admin("PATCH", own_node, "a: [", "application/apply-patch+yaml", manager="x").refused(400, "BadRequest")


def test_only_an_apply_may_force(api: Api, own_node: str) -> None:
    refused = api.admin.merge(own_node, {"metadata": {"labels": {"a": "1"}}}, force="true")
    refused.refused(422, "Invalid", "may not be specified for non-apply patch")


def test_an_apply_is_yaml(api: Api, own_config_map: str) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\ndata:\n  date: '2026-01-01'\n  text: |\n    a: b\n"
    made = api.admin("PATCH", own_config_map, text, "application/apply-patch+yaml", manager="yaml").done()
    assert made.body["data"] == {"a": "1", "date": "2026-01-01", "text": "a: b\n"}
