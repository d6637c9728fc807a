"""A real cluster with the manifests under test on it; test modules name this file in `pytest_plugins`."""

import os
from collections.abc import Iterator

import policy_cases as p
import pytest
from kubernetes.config import new_client_from_config
from policy_cluster import MANIFESTS, MERGE, PLAIN, TENANT, Api, Object, agent_on, documents, eventually, present, token


@pytest.fixture(scope="session")
def admin() -> Api:
    """The cluster's administrator, from KUBECONFIG."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster")
    return Api(new_client_from_config())


@pytest.fixture(scope="module")
def installed(admin: Api) -> Iterator[None]:
    """The default set without the agents themselves."""
    files = sorted(path.name for path in MANIFESTS.glob("*.yaml") if "daemonset" not in path.name)
    with present(admin, documents(*files)):
        yield


@pytest.fixture(scope="module")
def nodes(admin: Api) -> Iterator[None]:
    """Two Nodes without machines."""
    with present(admin, [p.node(p.OWN), p.node(p.OTHER)]):
        yield


@pytest.fixture(scope="module")
def agent(admin: Api, installed: None, nodes: None) -> Iterator[Api]:
    """The agent on the Node `policy_cases.OWN`."""
    with agent_on(admin, p.OWN) as api:
        other = {"metadata": {"annotations": {"example.com/note": "y"}}}
        path = f"/api/v1/nodes/{p.OTHER}"
        eventually(lambda: api.ask("PATCH", path, other, MERGE, dryRun="All").status in {403, 422}, "the policy")
        yield api


@pytest.fixture(scope="module")
def unbound(admin: Api, agent: Api) -> Api:
    """Who has a token of the agents' service account that is bound to no pod."""
    return admin.withtoken(token(admin, None))


@pytest.fixture(scope="module")
def namespaces(admin: Api) -> Iterator[None]:
    """A tenant's namespace, not yet labelled, and another one."""
    made: list[Object] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}} for n in (TENANT, PLAIN)]
    with present(admin, made):
        for name in (TENANT, PLAIN):
            # Made by a controller, where one runs.
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            assert admin.ask("POST", f"/api/v1/namespaces/{name}/serviceaccounts", account).status in {201, 409}
        yield


@pytest.fixture(scope="module")
def tenant(admin: Api, installed: None, namespaces: None) -> Iterator[str]:
    """The path of the pods in a tenant's namespace: `old` is from before the policy, `app` from after it."""
    path = f"/api/v1/namespaces/{TENANT}/pods"
    never = {"schedulingGates": [{"name": "example.com/never"}]}
    old, new = p.old_pod(), p.pod()
    old["metadata"]["name"] = "old"
    for it in (old, new):
        it["spec"] |= never
    with present(admin, documents("policies/require-kata.yaml")), present(admin, [old]):
        try:
            label = {"metadata": {"labels": {"katanode.io/require-kata": "true"}}}
            admin.must("PATCH", f"/api/v1/namespaces/{TENANT}", label, MERGE)
            bad = p.pod()
            bad["metadata"] |= {"name": "bad", "annotations": {"io.katacontainers.x": "y"}}
            eventually(lambda: admin.ask("POST", path, bad, dryRun="All").status == 403, "the policy")
            with present(admin, [new]):
                yield path
        finally:
            admin.must("PATCH", f"{path}/old", {"metadata": {"finalizers": None}}, MERGE)
