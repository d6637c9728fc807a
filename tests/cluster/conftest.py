"""Both servers that the API's semantics are tested on: the stand-in always, a real cluster when KUBECONFIG names one.

On the real one everything is done to a Node, a namespace and ClusterRoles of the tests' own, which go afterwards. Who
runs them must be allowed all of that, and to impersonate. The Node has no kubelet: no pod of a Deployment gets there,
but DaemonSets that tolerate everything may bind one to it for the seconds that it lives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from servers import NODES, Api, real_server, standin_server, unique

from hack.apistandin import ApiStandin

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", params=["standin", pytest.param("real", marks=pytest.mark.cluster)])
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    """The server, with a namespace of the tests' own."""
    with (standin_server if request.param == "standin" else real_server)() as (admin, standin):
        namespace = unique()
        admin.create("/api/v1/namespaces", {"metadata": {"name": namespace}}).done(201)
        made = Api(admin, namespace, standin)
        try:
            with made.undo:
                yield made
        finally:
            admin.delete(f"/api/v1/namespaces/{namespace}")


@pytest.fixture
def own_node(api: Api) -> Iterator[str]:
    """The path of a Node that has one label, example.com/old = 1, of a manager called maker."""
    with api.made(NODES, {"metadata": {"labels": {"example.com/old": "1"}}}) as path:
        yield path


@pytest.fixture
def own_lease(api: Api) -> Iterator[str]:
    """The path of a Lease that node-1 holds for 30 s."""
    with api.made(api.leases, {"spec": {"holderIdentity": "node-1", "leaseDurationSeconds": 30}}) as path:
        yield path


@pytest.fixture
def own_config_map(api: Api) -> Iterator[str]:
    """The path of a ConfigMap with the data a = 1."""
    with api.made(api.config_maps, {"data": {"a": "1"}}) as path:
        yield path


@pytest.fixture
def own_standin() -> Iterator[ApiStandin]:
    """A stand-in of the test's own, to do harm to."""
    with ApiStandin() as own:
        yield own
