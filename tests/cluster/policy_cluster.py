"""Requests to a real cluster, made by hand so that nothing hides what was sent, and objects in it that go again."""

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
import yaml
from kubernetes.client import ApiClient, Configuration

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
MERGE = "application/merge-patch+json"
TENANT, PLAIN = "katanode-policy-test", "katanode-policy-test-plain"
"""Two namespaces of the tests: a tenant's, and one that no policy concerns."""

Object = dict[str, Any]


class Answer(NamedTuple):
    """What the API said."""

    status: int
    body: Object

    @property
    def words(self) -> str:
        return str(self.body.get("message", ""))

    def denied_by(self, policy: str) -> bool:
        return self.status in {403, 422} and f"ValidatingAdmissionPolicy '{policy}'" in self.words


class Api:
    """The API as one user of it.

    Args:
        client: with that user's credentials.
    """

    def __init__(self, client: ApiClient) -> None:
        self.client = client

    def ask(
        self, method: str, path: str, body: object = None, kind: str = "application/json", **query: object
    ) -> Answer:
        """One request; a dry run when `dryRun="All"` is among the query."""
        headers = {"Content-Type": kind, "Accept": "application/json"}
        impersonate = query.pop("impersonate", None)
        if impersonate:
            headers["Impersonate-User"] = str(impersonate)
        self.client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{self.client.configuration.host}{path}?{urlencode(query)}"
        data = None if body is None else json.dumps(body)
        answer = self.client.rest_client.pool_manager.request(method, url, body=data, headers=headers, timeout=30)
        with contextlib.suppress(ValueError):
            return Answer(answer.status, json.loads(answer.data))
        return Answer(answer.status, {"message": answer.data.decode(errors="replace")})

    def must(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Object:
        """A request that has to succeed for the test to mean anything."""
        answer = self.ask(method, path, body, kind)
        assert answer.status < 300, f"{method} {path}: {answer}"
        return answer.body

    def withtoken(self, token: str) -> "Api":
        """The same API for the owner of a token."""
        mine = self.client.configuration
        configuration = Configuration()
        configuration.host, configuration.ssl_ca_cert = mine.host, mine.ssl_ca_cert
        configuration.verify_ssl, configuration.proxy = mine.verify_ssl, mine.proxy
        configuration.api_key = {"BearerToken": f"Bearer {token}"}
        return Api(ApiClient(configuration))

    @functools.cache  # noqa: B019 - as many as there are users, for a session
    def _resources(self, group: str) -> dict[str, tuple[str, bool]]:
        made = self.must("GET", group)["resources"]
        return {r["kind"]: (r["name"], r["namespaced"]) for r in made if "/" not in r["name"]}

    def collection(self, it: Object, namespace: str = "") -> str:
        """Where objects of that kind are."""
        group = f"/apis/{it['apiVersion']}" if "/" in it["apiVersion"] else f"/api/{it['apiVersion']}"
        plural, namespaced = self._resources(group)[it["kind"]]
        within = namespace or it["metadata"].get("namespace", "default")
        return f"{group}/namespaces/{within}/{plural}" if namespaced else f"{group}/{plural}"


def documents(*files: str) -> list[Object]:
    """The objects of some files of `manifests/`."""
    return [it for file in files for it in yaml.safe_load_all((MANIFESTS / file).read_text()) if it]


def eventually(holds: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Waits for what a cluster does in its own time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what} did not come within {seconds:g} s"
        time.sleep(0.2)


def _same(wanted: Any, there: Any) -> bool:
    """Whether what is there is what is wanted, defaults of the server aside."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(_same(value, there.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(there, list) and len(wanted) == len(there) and all(map(_same, wanted, there))
    return bool(wanted == there)


@contextlib.contextmanager
def present(api: Api, wanted: list[Object]) -> Iterator[None]:
    """Has objects in the cluster; what was not there before is not there after."""
    with contextlib.ExitStack() as stack:
        for it in wanted:
            path = api.collection(it)
            one = f"{path}/{it['metadata']['name']}"
            answer = api.ask("POST", path, it)
            if answer.status == 409:
                there = api.must("GET", one)
                if not _same(it, there):
                    pytest.fail(f"the cluster has another {it['kind']} {it['metadata']['name']} than manifests/")
                continue
            assert answer.status == 201, answer
            stack.callback(_delete, api, one)
        yield


def _delete(api: Api, path: str) -> None:
    options = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
    answer = api.ask("DELETE", path, options)
    assert answer.status in {200, 202, 404}, answer
    # A namespace goes when its controller has emptied it, and without a controller never.
    if "/namespaces/" not in path.replace("/api/v1/namespaces/", "", 1) and path.startswith("/api/v1/namespaces/"):
        with contextlib.suppress(AssertionError):
            eventually(lambda: api.ask("GET", path).status == 404, "its end", 60)


@contextlib.contextmanager
def agent_on(admin: Api, node: str) -> Iterator[Api]:
    """The agent of a node: its token is bound to a pod that is bound to the node; no kubelet has to run it."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": node, "namespace": "katanode"},
        "spec": {
            "nodeName": node,
            "serviceAccountName": "katanode",
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "agent", "image": "registry.invalid/none:1"}],
        },
    }
    with present(admin, [pod]):
        uid = admin.must("GET", f"/api/v1/namespaces/katanode/pods/{node}")["metadata"]["uid"]
        yield admin.withtoken(token(admin, {"kind": "Pod", "apiVersion": "v1", "name": node, "uid": uid}))


def token(admin: Api, bound: Object | None) -> str:
    spec = {"expirationSeconds": 600, "audiences": [], **({"boundObjectRef": bound} if bound else {})}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    made = admin.must("POST", "/api/v1/namespaces/katanode/serviceaccounts/katanode/token", body)
    return str(made["status"]["token"])
