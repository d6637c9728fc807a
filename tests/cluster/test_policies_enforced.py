"""What a real API server lets an agent do with a real token, and tenants with their pods; leaves the cluster as it was.

Whatever is only judged is sent as a dry run, which admission sees as any other request.
"""

import policy_cases as p
import pytest
from policy_cases import OTHER, OWN, Case, changed, merge_patch
from policy_cluster import MERGE, PLAIN, Answer, Api, agent_on, documents, eventually, present

pytest_plugins = ["policy_fixtures"]
pytestmark = pytest.mark.cluster

NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/katanode/leases"
EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"


def named(cases: tuple[Case, ...]) -> dict[str, object]:
    return {"argvalues": cases, "ids": [case.words for case in cases]}


def judged(answer: Answer, case: Case, policy: str) -> None:
    if case.allowed:
        assert answer.status < 300, answer
    else:
        assert answer.denied_by(policy), answer


def patched(admin: Api, user: Api, name: str, case: Case) -> Answer:
    now = admin.must("GET", f"{NODES}/{name}")
    patch = merge_patch(now, changed(now, case))
    path = f"{NODES}/{name}" + (f"/{case.subresource}" if case.subresource else "")
    return user.ask("PATCH", path, patch, MERGE, dryRun="All")


@pytest.mark.parametrize("case", **named(p.NODE_CASES))
def test_an_agent_changes_of_its_node_what_is_its_own(admin: Api, agent: Api, case: Case) -> None:
    judged(patched(admin, agent, OWN, case), case, "katanode-nodes")


@pytest.mark.parametrize("case", **named(tuple(c for c in p.NODE_CASES if c.allowed)))
def test_what_an_agent_may_do_to_its_node_it_may_not_do_to_another(admin: Api, agent: Api, case: Case) -> None:
    answer = patched(admin, agent, OTHER, case)
    assert answer.denied_by("katanode-nodes")
    assert f"an agent on {OWN} may only update that Node" in answer.words


@pytest.mark.parametrize("case", **named(p.STARTUP_CASES))
def test_an_agent_removes_the_startup_taint_and_no_other(admin: Api, agent: Api, case: Case) -> None:
    before = admin.must("GET", f"{NODES}/{OWN}")
    admin.must("PATCH", f"{NODES}/{OWN}", merge_patch(before, p.with_startup_taint(before)), MERGE)
    try:
        judged(patched(admin, agent, OWN, case), case, "katanode-nodes")
    finally:
        admin.must("PATCH", f"{NODES}/{OWN}", {"spec": {"taints": before["spec"]["taints"]}}, MERGE)


def test_an_agent_publishes_as_it_does(admin: Api, agent: Api) -> None:
    uid = admin.must("GET", f"{NODES}/{OWN}")["metadata"]["uid"]
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": OWN, "uid": uid}}
    labels = {"katacontainers.io/kata-runtime": "true", "katanode.io/state": "ready"}
    labelled = body | {"metadata": body["metadata"] | {"labels": labels}}  # type: ignore[operator]
    manager = {"fieldManager": "katanode", "force": "true"}
    assert agent.ask("PATCH", f"{NODES}/{OWN}", labelled, APPLY, **manager).status == 200
    condition = {"type": "KataReady", "status": "True", "reason": "Ready", "message": "all is well"}
    said = body | {"status": {"conditions": [condition]}}
    assert agent.ask("PATCH", f"{NODES}/{OWN}/status", said, APPLY, **manager).status == 200
    taints = admin.must("GET", f"{NODES}/{OWN}")["spec"]["taints"]
    taint = {"key": "katanode.io/not-ready", "value": "withdrawn", "effect": "NoSchedule"}
    for old, new in ((taints, [*taints, taint]), ([*taints, taint], taints)):
        change = [{"op": "test", "path": "/spec/taints", "value": old}]
        change.append({"op": "add", "path": "/spec/taints", "value": new})
        assert agent.ask("PATCH", f"{NODES}/{OWN}", change, JSON_PATCH).status == 200
    node = admin.must("GET", f"{NODES}/{OWN}")
    assert labels.items() <= node["metadata"]["labels"].items()
    assert condition.items() <= {c["type"]: c for c in node["status"]["conditions"]}["KataReady"].items()
    assert "DiskPressure" in {c["type"] for c in node["status"]["conditions"]}
    assert node["spec"]["taints"] == taints


def test_an_agent_reads_what_it_needs(agent: Api) -> None:
    assert agent.ask("GET", f"{NODES}/{OWN}").status == 200
    assert agent.ask("GET", f"{NODES}/{OTHER}").status == 200
    version = agent.ask("GET", f"{NODES}/{OWN}").body["metadata"]["resourceVersion"]
    watch = {"watch": "1", "timeoutSeconds": "1", "fieldSelector": f"metadata.name={OWN}", "resourceVersion": version}
    assert agent.ask("GET", NODES, **watch).status == 200
    assert agent.ask("GET", LEASES).status == 200
    assert agent.ask("GET", LEASES, watch="1", timeoutSeconds="1").status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", NODES),
        ("POST", NODES),
        ("PUT", f"{NODES}/{OWN}"),
        ("DELETE", f"{NODES}/{OWN}"),
        ("GET", f"{NODES}/{OWN}/proxy/configz"),
        ("DELETE", f"{LEASES}/{p.SLOT}"),
        ("PATCH", f"{LEASES}/{p.SLOT}"),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"),
        ("PUT", f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{OWN}"),
        ("GET", EVENTS),
        ("POST", "/api/v1/namespaces/default/events"),
        ("POST", "/apis/events.k8s.io/v1/namespaces/kube-system/events"),
        ("GET", "/api/v1/pods"),
        ("POST", "/api/v1/namespaces/katanode/pods"),
        ("GET", "/api/v1/namespaces/katanode/secrets"),
        ("GET", "/api/v1/namespaces/katanode/configmaps/katanode-settings"),
        ("POST", "/api/v1/namespaces/katanode/serviceaccounts/katanode/token"),
        ("GET", "/apis/node.k8s.io/v1/runtimeclasses"),
    ],
)
def test_an_agent_has_no_other_rights(agent: Api, method: str, path: str) -> None:
    kind = MERGE if method == "PATCH" else "application/json"
    answer = agent.ask(method, path, {"metadata": {"name": OWN}} if method != "GET" else None, kind, dryRun="All")
    assert answer.status == 403, answer
    assert "ValidatingAdmissionPolicy" not in answer.words  # RBAC says no before


def test_an_agent_cannot_make_a_node_by_applying_to_one_that_is_gone(agent: Api) -> None:
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "katanode-policy-test-gone"}}
    answer = agent.ask("PATCH", f"{NODES}/katanode-policy-test-gone", body, APPLY, fieldManager="katanode")
    assert answer.status in {403, 404}, answer


@pytest.mark.parametrize("case", **named(tuple(c for c in p.NODE_CASES if c.allowed)))
def test_a_token_that_names_no_node_may_do_nothing(admin: Api, unbound: Api, case: Case) -> None:
    answer = patched(admin, unbound, OWN, case)
    assert answer.denied_by("katanode-nodes")
    assert "this token says no node" in answer.words


def test_who_impersonates_the_agent_may_do_nothing(admin: Api, agent: Api) -> None:
    label = {"metadata": {"labels": {"katanode.io/state": "ready"}}}
    answer = admin.ask("PATCH", f"{NODES}/{OWN}", label, MERGE, dryRun="All", impersonate=p.AGENT)
    assert answer.denied_by("katanode-nodes")


def test_everybody_else_works_as_before(admin: Api, agent: Api) -> None:
    change = {"metadata": {"labels": {"katanode.io/install": "absent"}, "annotations": {"a": "b"}}}
    assert admin.ask("PATCH", f"{NODES}/{OTHER}", change, MERGE, dryRun="All").status == 200


@pytest.mark.parametrize("case", **named(p.LEASE_CREATIONS))
def test_an_agent_makes_slots_only(agent: Api, case: Case) -> None:
    judged(agent.ask("POST", LEASES, changed(p.lease(), case), dryRun="All"), case, "katanode-leases")


@pytest.mark.parametrize(("holder", "case"), p.LEASE_UPDATES, ids=[case.words for _, case in p.LEASE_UPDATES])
def test_an_agent_holds_slots_in_its_own_name(admin: Api, agent: Api, holder: str, case: Case) -> None:
    with present(admin, [p.lease(holder)]):
        now = admin.must("GET", f"{LEASES}/{p.SLOT}")
        judged(agent.ask("PUT", f"{LEASES}/{p.SLOT}", changed(now, case), dryRun="All"), case, "katanode-leases")


@pytest.mark.parametrize("case", **named(p.NOTE_UPDATES))
def test_an_agent_notes_that_its_own_node_failed(admin: Api, agent: Api, case: Case) -> None:
    notes = {node: p.lease(node, f"katanode-failed-{node}") for node in (OWN, OTHER)}
    with present(admin, list(notes.values())):
        for node, it in notes.items():
            path = f"{LEASES}/{it['metadata']['name']}"
            answer = agent.ask("PUT", path, changed(admin.must("GET", path), case), dryRun="All")
            if node == OWN:
                judged(answer, case, "katanode-leases")
            else:
                assert answer.denied_by("katanode-leases"), answer


@pytest.mark.parametrize("case", **named(p.EVENT_CASES))
def test_an_agent_tells_of_its_own_node(agent: Api, case: Case) -> None:
    judged(agent.ask("POST", EVENTS, changed(p.event(), case), dryRun="All"), case, "katanode-events")


def test_tokens_without_a_node_take_no_slot_and_tell_nothing(unbound: Api) -> None:
    assert unbound.ask("POST", LEASES, p.lease(OWN), dryRun="All").denied_by("katanode-leases")
    assert unbound.ask("POST", EVENTS, p.event(), dryRun="All").denied_by("katanode-events")


def image_volumes(admin: Api) -> bool:
    version = admin.must("GET", "/version")
    return (int(version["major"]), int(version["minor"].rstrip("+"))) >= (1, 35)


@pytest.mark.parametrize("case", **named(p.POD_CREATIONS))
def test_a_tenants_new_pod(admin: Api, tenant: str, case: Case) -> None:
    it = changed(p.pod(), case)
    it["metadata"]["name"] = "another"
    if "volumes" in it["spec"] and not image_volumes(admin):
        pytest.skip("this version of Kubernetes has no image volumes by default")
    judged(admin.ask("POST", tenant, it, dryRun="All"), case, "katanode-require-kata")


LATER = [("app", case) for case in p.POD_UPDATES] + [("old", case) for case in p.OLD_POD_UPDATES]


@pytest.mark.parametrize(("name", "case"), LATER, ids=[f"{name}: {case.words}" for name, case in LATER])
def test_a_tenants_pod_later(admin: Api, tenant: str, name: str, case: Case) -> None:
    now = admin.must("GET", f"{tenant}/{name}")
    path = f"{tenant}/{name}" + (f"/{case.subresource}" if case.subresource else "")
    judged(admin.ask("PUT", path, changed(now, case), dryRun="All"), case, "katanode-require-kata")


def test_other_namespaces_are_not_concerned(admin: Api, tenant: str) -> None:
    it = p.old_pod()
    it["metadata"]["namespace"] = PLAIN
    assert admin.ask("POST", f"/api/v1/namespaces/{PLAIN}/pods", it, dryRun="All").status == 201


def test_a_quota_that_counts_one_class_lets_no_other_pod_in(admin: Api, namespaces: None) -> None:
    wanted = [it | {"metadata": it["metadata"] | {"namespace": PLAIN}} for it in documents("policies/quota.yaml")]
    wanted[0]["metadata"].pop("namespace")
    path = f"/api/v1/namespaces/{PLAIN}"
    resources = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    container = {"name": "a", "image": "x", "resources": resources}
    it = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [container]}}
    with present(admin, wanted):
        quota = f"{path}/resourcequotas/kata-no-others"
        eventually(lambda: "hard" in admin.must("GET", quota)["status"], "the quota controller")
        answer = admin.ask("POST", f"{path}/pods", it, dryRun="All")
        assert (answer.status, "kata-no-others" in answer.words) == (403, True), answer
        it["spec"]["priorityClassName"] = "kata-high-security"  # type: ignore[index]
        eventually(lambda: admin.ask("POST", f"{path}/pods", it, dryRun="All").status == 201, "a place")


@pytest.mark.parametrize("file", ["image-webhook", "limit-range", "network-policy", "quota", "require-kata"])
def test_every_policy_is_taken_as_it_stands(admin: Api, namespaces: None, installed: None, file: str) -> None:
    for it in documents(f"policies/{file}.yaml"):
        path = admin.collection(it, PLAIN)
        placed = it
        if "/namespaces/" in path:
            placed = it | {"metadata": it["metadata"] | {"namespace": PLAIN}}
        answer = admin.ask("POST", path, placed, dryRun="All", fieldValidation="Strict")
        assert answer.status in {201, 409}, answer


def test_the_largest_node_is_judged_within_the_cost_that_the_api_allows(admin: Api, agent: Api) -> None:
    text = 200 * "x"
    images = [{"names": [f"registry.example.com/{i}/{text}:1", f"{i}/{text}:2"], "sizeBytes": i} for i in range(100)]
    labels = {f"example.com/{i}": "x" for i in range(200)} | {f"handler.katanode.io/h{i}": "true" for i in range(50)}
    taints = [{"key": f"example.com/{i}", "effect": "NoSchedule"} for i in range(50)]
    conditions = [{"type": f"C{i}", "status": "True", "reason": "R", "message": 5 * text} for i in range(50)]
    it = p.node("katanode-policy-test-large")
    it["metadata"]["labels"] |= labels
    it["metadata"]["annotations"] |= {f"example.com/{i}": 1000 * "x" for i in range(200)}
    it["spec"]["taints"] += taints
    it["status"]["images"] = images
    it["status"]["conditions"] += conditions
    name = it["metadata"]["name"]
    with present(admin, [it]), agent_on(admin, name) as user:
        for case in p.NODE_CASES:
            judged(patched(admin, user, name, case), case, "katanode-nodes")


def test_the_api_server_finds_no_fault_with_the_policies_types(admin: Api, agent: Api, tenant: str) -> None:
    for name in ("katanode-nodes", "katanode-leases", "katanode-events", "katanode-require-kata"):
        path = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{name}"
        eventually(lambda path=path: "typeChecking" in admin.must("GET", path).get("status", {}), "the type checker")
        assert admin.must("GET", path)["status"]["typeChecking"] == {}
