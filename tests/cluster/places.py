"""Where the cluster side is tested: the stand-in always, and the cluster of KUBECONFIG where one is named."""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes.client import ApiClient, Configuration

from agent.cluster.api import Api, ApiError
from hack.apistandin import ApiStandin
from hack.lab.apiserver import AGENT

if TYPE_CHECKING:
    from collections.abc import Iterator

REAL = pytest.param(
    "real",
    marks=[
        pytest.mark.cluster,
        pytest.mark.skipif("KUBECONFIG" not in os.environ, reason="KUBECONFIG names no cluster to try this on"),
    ],
)
both = pytest.mark.parametrize("place", ["standin", REAL], indirect=True)


def client(url: str, token: str) -> ApiClient:
    """A client for the stand-in."""
    configuration = Configuration(host=url)
    configuration.api_key["BearerToken"] = f"Bearer {token}"
    return ApiClient(configuration)


class Place:
    """A cluster, with what a test makes in it.

    Args:
        standin: the stand-in; None for the real cluster.

    Attributes:
        admin: the API as somebody who may do everything.
        namespace: one that agents' Leases are in.
    """

    def __init__(self, standin: ApiStandin | None) -> None:
        self.standin = standin
        self._made: list[str] = []
        if standin is None:
            self.admin = Api.from_surroundings()
            self.namespace = f"katanode-test-{uuid.uuid4().hex[:8]}"
            self.admin.create("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
            self._made.append(f"/api/v1/namespaces/{self.namespace}")
        else:
            self.admin = Api(lambda: client(standin.url, standin.admin_token))
            self.namespace = "katanode"

    def node(self, taints: list[dict[str, str]] | None = None, labels: dict[str, str] | None = None) -> str:
        """Makes a Node; gives its name."""
        name = f"katanode-test-{uuid.uuid4().hex[:8]}"
        body = {"metadata": {"name": name, "labels": labels or {}}, "spec": {"taints": taints or []}}
        self.admin.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", **body})
        self._made.append(f"/api/v1/nodes/{name}")
        return name

    def agent(self, node: str) -> Api:
        """The API as the agent of a node has it; on a real cluster, the same user's as this process."""
        if self.standin is None:
            return Api.from_surroundings()
        standin, token = self.standin, f"token-{node}"
        standin.add_token(token, "system:serviceaccount:katanode:katanode", node=node, rules=AGENT)
        return Api(lambda: client(standin.url, token))

    def read(self, node: str) -> dict[str, Any]:
        """A Node as it is."""
        return self.admin.get(f"/api/v1/nodes/{node}")

    def label(self, node: str, who: str, **labels: str | None) -> None:
        """Somebody else writes labels, `katanode__state` for `katanode.io/state` and so on, as kubectl does."""
        given = {name.replace("__", ".io/").replace("_", "-"): value for name, value in labels.items()}
        body = {"metadata": {"labels": given}}
        kind = "application/merge-patch+json"
        self.admin._json("PATCH", f"/api/v1/nodes/{node}", {"fieldManager": who}, body, kind)

    def clear(self) -> None:
        """Leaves the cluster as it was."""
        for path in self._made:
            with contextlib.suppress(ApiError):
                delete(self.admin, path)


def delete(api: Api, path: str) -> None:
    """Deletes an object: katanode itself deletes nothing, so its own class cannot."""
    api._json("DELETE", path, {})


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """The stand-in, or the real cluster for a test that runs on both."""
    with contextlib.ExitStack() as stack:
        kind = getattr(request, "param", "standin")
        made = Place(None if kind == "real" else stack.enter_context(ApiStandin()))
        yield made
        made.clear()
