"""Both servers that the tests of this folder run against: the stand-in always, a real cluster when there is one.

On the real one everything is done to a Node, a namespace and a ClusterRole of the tests' own, which go afterwards. Who
runs them must be allowed all of it, and to impersonate. The Node has no kubelet: no pod of a Deployment gets there, but
DaemonSets that tolerate everything may bind one to it for the seconds that it lives.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import kubernetes
import pytest
import urllib3

from hack.apistandin import ApiStandin, Rule

Json = dict[str, Any]

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"

NODES = "/api/v1/nodes"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    body: Json
    warning: str

    @property
    def revision(self) -> str:
        return str(self.body["metadata"]["resourceVersion"])

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.body["metadata"].get("labels", {}))

    def managers(self) -> dict[tuple[str, str, str], Json]:
        """The owned fields by manager, operation and subresource."""
        entries = self.body["metadata"].get("managedFields", [])
        return {(e["manager"], e["operation"], e.get("subresource", "")): e["fieldsV1"] for e in entries}

    def refused(self, status: int, reason: str, *, says: str = "") -> Json:
        """The Status object of a refusal, which this must be."""
        assert self.status == status, self.body
        assert self.body["kind"] == "Status", self.body
        assert self.body["status"] == "Failure"
        assert self.body["code"] == status
        assert self.body.get("reason", "") == reason, self.body
        assert says in self.body["message"], self.body["message"]
        return dict(self.body.get("details", {}))

    def done(self, status: int = 200) -> Answer:
        """Itself, which must be a success."""
        assert self.status == status, self.body
        return self


@dataclass(frozen=True)
class Client:
    """One user of a server."""

    base: str
    pool: urllib3.PoolManager
    headers: dict[str, str]
    name: str = ""

    def __call__(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
        **query: str,
    ) -> Answer:
        """Ask; keyword arguments are the URL's query, and a `manager` its fieldManager."""
        sent = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
        headers = {**self.headers, "Accept": "application/json", "User-Agent": "katanode-test/1"}
        if sent is not None:
            headers["Content-Type"] = content_type
        url = self.base + path + _query(query)
        said = self.pool.request(method, url, body=sent, headers=headers, retries=False, timeout=40)
        text = json.loads(said.data) if said.data[:1] == b"{" else {"text": said.data.decode()}
        return Answer(said.status, text, said.headers.get("Warning", ""))

    def apply(self, path: str, wanted: Json, manager: str = "katanode", **query: str) -> Answer:
        """Server-side apply."""
        return self("PATCH", path, wanted, APPLY, manager=manager, **query)

    def merge(self, path: str, patch: Json, **query: str) -> Answer:
        """Merge patch."""
        return self("PATCH", path, patch, MERGE_PATCH, **query)

    @contextmanager
    def watch(self, path: str, **query: str) -> Iterator[Iterator[Json]]:
        """Watch; the events come as they come, until the stream ends."""
        headers = {**self.headers, "Accept": "application/json"}
        query = {"watch": "true", "timeoutSeconds": "20", **query}
        said = self.pool.request(
            "GET", self.base + path + _query(query), headers=headers, retries=False, preload_content=False, timeout=30
        )
        try:
            assert said.status == 200, said.data
            yield _lines(said)
        finally:
            said.close()


def _lines(said: urllib3.BaseHTTPResponse) -> Iterator[Json]:
    left = b""
    for chunk in said.stream(amt=None):
        *whole, left = (left + chunk).split(b"\n")
        yield from map(json.loads, whole)


def _query(query: dict[str, str]) -> str:
    if "manager" in query:
        query = {**query, "fieldManager": query["manager"]}
        del query["manager"]
    return "?" + "&".join(f"{name}={urllib3.util.parse_url('/' + str(value)).url[1:]}" for name, value in query.items())


@dataclass
class Api:
    """A server under test.

    Attributes:
        admin: who may do all.
        namespace: of the tests' own.
        standin: None on a real cluster.
    """

    admin: Client
    namespace: str
    standin: ApiStandin | None
    _undo: ExitStack = field(default_factory=ExitStack)

    @property
    def leases(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"

    @property
    def config_maps(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/configmaps"

    def user(self, *rules: Rule) -> Client:
        """A user with these rights and no others; rules without namespaces hold in the whole cluster."""
        name = f"katanode-test-{secrets.token_hex(4)}"
        if self.standin is not None:
            self.standin.add_token(name, name, rules=rules)
            headers = {"Authorization": f"Bearer {name}"}
            return Client(self.admin.base, self.admin.pool, headers, name)
        role = {
            "metadata": {"name": name},
            "rules": [
                {
                    "verbs": list(rule.verbs),
                    "apiGroups": list(rule.groups),
                    "resources": list(rule.resources),
                    "resourceNames": list(rule.names),
                }
                for rule in rules
            ],
        }
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}],
        }
        for plural, made in (("clusterroles", role), ("clusterrolebindings", binding)):
            self.admin("POST", f"{_RBAC}/{plural}", made).done(201)
            self._undo.callback(self.admin, "DELETE", f"{_RBAC}/{plural}/{name}")
        client = Client(self.admin.base, self.admin.pool, {**self.admin.headers, "Impersonate-User": name}, name)
        self._until_allowed(client)
        return client

    def _until_allowed(self, client: Client) -> None:
        """A role holds once the authorizer's cache has seen it."""
        review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "nodes"}}}
        for _ in range(50):
            path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
            seen = client("POST", path, {"spec": {"namespace": self.namespace}, **({} and review)})
            rules = seen.body.get("status", {}).get("resourceRules", [])
            if any("katanode" in str(rule) or "nodes" in str(rule) for rule in rules):
                return
            time.sleep(0.1)


def _from_kubeconfig() -> Client:
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(client_configuration=configuration)
    pool = urllib3.PoolManager(
        ca_certs=configuration.ssl_ca_cert,
        cert_file=configuration.cert_file,
        key_file=configuration.key_file,
        cert_reqs="CERT_REQUIRED" if configuration.verify_ssl else "CERT_NONE",
        maxsize=4,
    )
    token = configuration.get_api_key_with_prefix("authorization")
    return Client(configuration.host, pool, {"Authorization": token} if token else {})


@contextmanager
def _server(which: str) -> Iterator[tuple[Client, ApiStandin | None]]:
    if which == "cluster":
        if not os.environ.get("KUBECONFIG"):
            pytest.skip(reason="KUBECONFIG names no real cluster")
        yield _from_kubeconfig(), None
        return
    with ApiStandin() as standin:
        headers = {"Authorization": f"Bearer {standin.admin_token}"}
        yield Client(standin.url, urllib3.PoolManager(maxsize=4), headers), standin


@pytest.fixture(scope="session", params=["standin", pytest.param("cluster", marks=pytest.mark.cluster)])
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    """The server, with a namespace of the tests' own."""
    with _server(request.param) as (admin, standin):
        namespace = f"katanode-test-{secrets.token_hex(4)}"
        admin("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}}).done(201)
        made = Api(admin, namespace, standin)
        try:
            with made._undo:
                yield made
        finally:
            admin("DELETE", f"/api/v1/namespaces/{namespace}")


@pytest.fixture
def admin(api: Api) -> Client:
    """Who may do all."""
    return api.admin


@contextmanager
def _made(admin: Client, collection: str, made: Json) -> Iterator[str]:
    name = f"katanode-test-{secrets.token_hex(4)}"
    made = {**made, "metadata": {"name": name, **made.get("metadata", {})}}
    admin("POST", collection, made, manager="maker").done(201)
    try:
        yield f"{collection}/{name}"
    finally:
        admin("DELETE", f"{collection}/{name}")


@pytest.fixture
def node(api: Api) -> Iterator[str]:
    """The path of a Node that has one label, `example.com/old` = 1, by a manager called maker."""
    with _made(api.admin, NODES, {"metadata": {"labels": {"example.com/old": "1"}}}) as path:
        yield path


@pytest.fixture
def lease(api: Api) -> Iterator[str]:
    """The path of a Lease that node-1 holds."""
    with _made(api.admin, api.leases, {"spec": {"holderIdentity": "node-1", "leaseDurationSeconds": 30}}) as path:
        yield path


@pytest.fixture
def config_map(api: Api) -> Iterator[str]:
    """The path of a ConfigMap with the data a = 1."""
    with _made(api.admin, api.config_maps, {"data": {"a": "1"}}) as path:
        yield path


@pytest.fixture
def standin() -> Iterator[ApiStandin]:
    """A stand-in of the test's own, to do harm to."""
    with ApiStandin() as own:
        yield own


def client_of(standin: ApiStandin, token: str = "", **pool: Any) -> Client:
    """A client of a stand-in; the administrator unless a token is given."""
    headers = {"Authorization": f"Bearer {token or standin.admin_token}"}
    return Client(standin.url, urllib3.PoolManager(**pool), headers)


Made = AbstractContextManager[str]
