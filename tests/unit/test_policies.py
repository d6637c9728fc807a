"""What the admission policies decide, asked of CEL's own implementation; tests/cluster asks a real API the same."""

import policy_cases as p
import pytest
from cel_policy import Policy
from manifests_helpers import find
from policy_cases import OTHER, OWN, Case, Object, changed


def policy(name: str) -> Policy:
    return Policy(find("ValidatingAdmissionPolicy", name))


NODES = policy("katanode-nodes")
LEASES = policy("katanode-leases")
EVENTS = policy("katanode-events")
PODS = policy("katanode-require-kata")


def request(it: Object, operation: str, *, by: str = p.AGENT, on: str = OWN, subresource: str = "") -> Object:
    made: Object = {
        "operation": operation,
        "name": it["metadata"]["name"],
        "userInfo": {"username": by, "extra": {p.NODE_CLAIM: [on]}},
    }
    if "namespace" in it["metadata"]:
        made["namespace"] = it["metadata"]["namespace"]
    if subresource:
        made["subResource"] = subresource
    return made


def judge(policy: Policy, case: Case, old: Object, *, on: str = OWN) -> list[str]:
    new = changed(old, case)
    return policy.denials(request(old, "UPDATE", on=on, subresource=case.subresource), new, old)


def judge_creation(policy: Policy, case: Case, base: Object) -> list[str]:
    new = changed(base, case)
    return policy.denials(request(new, "CREATE"), new, None)


def named(cases: object) -> dict[str, object]:
    cases = list(cases)  # type: ignore[call-overload]
    return {"argvalues": cases, "ids": [case.words for case in cases]}


@pytest.mark.parametrize("case", **named(p.NODE_CASES))
def test_an_agent_changes_of_its_node_what_is_its_own(case: Case) -> None:
    denials = judge(NODES, case, p.node(OWN))
    assert (not denials) == case.allowed, denials
    assert all(denials)


def test_an_agent_changes_nothing_of_the_spec_that_stands_there() -> None:
    # Not among the cases: the API itself refuses a change of this field before any policy is asked.
    moved = p.deny("moves the pods", lambda it: it["spec"].update({"podCIDR": "10.98.0.0/24"}))
    assert judge(NODES, moved, p.node(OWN)) == ["an agent may not change the spec of a Node beyond its taint"]


@pytest.mark.parametrize("case", **named(p.STARTUP_CASES))
def test_an_agent_removes_the_startup_taint_and_no_other(case: Case) -> None:
    denials = judge(NODES, case, p.with_startup_taint(p.node(OWN)))
    assert (not denials) == case.allowed, denials


@pytest.mark.parametrize("case", **named(c for c in p.NODE_CASES if c.allowed))
def test_what_an_agent_may_do_to_its_node_it_may_not_do_to_another(case: Case) -> None:
    assert judge(NODES, case, p.node(OTHER)) == [f"an agent on {OWN} may only update that Node"]


@pytest.mark.parametrize("policy", [NODES, LEASES, EVENTS], ids=["nodes", "leases", "events"])
@pytest.mark.parametrize(
    "user",
    [
        {"username": p.AGENT},
        {"username": p.AGENT, "extra": {}},
        {"username": p.AGENT, "extra": {p.NODE_CLAIM: []}},
        {"username": p.AGENT, "extra": {"authentication.kubernetes.io/pod-name": [OWN]}},
    ],
    ids=["no claims", "claims without entries", "a claim without value", "only other claims"],
)
def test_a_token_that_names_no_node_may_do_nothing(policy: Policy, user: Object) -> None:
    for it in (p.node(OWN), p.lease(), p.event()):
        for operation in ("CREATE", "UPDATE"):
            denials = policy.denials(request(it, operation) | {"userInfo": user}, it, it)
            assert denials[0] == "this token says no node that its pod runs on"


@pytest.mark.parametrize("operation", ["CREATE", "DELETE", "CONNECT"])
def test_an_agent_neither_makes_nor_deletes_a_node(operation: str) -> None:
    new = None if operation == "DELETE" else p.node(OWN)
    assert NODES.denials(request(p.node(OWN), operation), new, p.node(OWN))


@pytest.mark.parametrize("policy", [NODES, LEASES, EVENTS], ids=["nodes", "leases", "events"])
def test_nobody_else_is_concerned(policy: Policy) -> None:
    for by in ("system:node:x", "kubernetes-admin", "system:serviceaccount:katanode:default", p.AGENT + "2"):
        assert not policy.denials(request(p.node(OTHER), "DELETE", by=by), None, p.node(OTHER))


@pytest.mark.parametrize("case", **named(p.LEASE_CREATIONS))
def test_an_agent_makes_slots_only(case: Case) -> None:
    denials = judge_creation(LEASES, case, p.lease())
    assert (not denials) == case.allowed, denials


@pytest.mark.parametrize(("holder", "case"), p.LEASE_UPDATES, ids=[case.words for _, case in p.LEASE_UPDATES])
def test_an_agent_holds_slots_in_its_own_name(holder: str, case: Case) -> None:
    denials = judge(LEASES, case, p.lease(holder))
    assert (not denials) == case.allowed, denials


@pytest.mark.parametrize("case", **named(p.NOTE_UPDATES))
def test_an_agent_notes_that_its_own_node_failed(case: Case) -> None:
    denials = judge(LEASES, case, p.lease(OWN, f"katanode-failed-{OWN}"))
    assert (not denials) == case.allowed, denials
    assert judge(LEASES, case, p.lease(OTHER, f"katanode-failed-{OTHER}"))


def test_an_agent_writes_no_lease_elsewhere_and_deletes_none() -> None:
    elsewhere = p.lease()
    elsewhere["metadata"]["namespace"] = "kube-node-lease"
    assert LEASES.denials(request(elsewhere, "CREATE"), elsewhere, None)
    assert LEASES.denials(request(p.lease(OWN), "DELETE"), None, p.lease(OWN))


@pytest.mark.parametrize("case", **named(p.EVENT_CASES))
def test_an_agent_tells_of_its_own_node(case: Case) -> None:
    denials = judge_creation(EVENTS, case, p.event())
    assert (not denials) == case.allowed, denials


def test_an_agent_leaves_events_as_they_are() -> None:
    assert EVENTS.denials(request(p.event(), "UPDATE"), p.event(), p.event())
    assert EVENTS.denials(request(p.event(), "DELETE"), None, p.event())


@pytest.mark.parametrize("case", **named(p.POD_CREATIONS))
def test_a_tenants_new_pod(case: Case) -> None:
    denials = judge_creation(PODS, case, p.pod())
    assert (not denials) == case.allowed, denials


@pytest.mark.parametrize("case", **named(p.POD_UPDATES))
def test_a_tenants_pod_later(case: Case) -> None:
    denials = judge(PODS, case, p.pod())
    assert (not denials) == case.allowed, denials


@pytest.mark.parametrize("case", **named(p.OLD_POD_UPDATES))
def test_a_pod_from_before_the_policy(case: Case) -> None:
    denials = judge(PODS, case, p.old_pod())
    assert (not denials) == case.allowed, denials


def test_a_denial_says_what_is_wrong_and_what_would_be_right() -> None:
    it = p.pod()
    it["spec"]["containers"][0]["image"] = "nginx:1"
    del it["spec"]["runtimeClassName"]
    assert PODS.denials(request(it, "CREATE"), it, None) == [
        "pods in this namespace run in virtual machines: set runtimeClassName to one of kata-clh, kata-qemu",
        "images are named by digest here (NAME@sha256:DIGEST), these are not: nginx:1",
        "images come from registry.example.com/tenants here, these do not: nginx:1",
    ]
