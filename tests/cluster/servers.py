"""What the tests of the API's semantics ask a server with, be it the stand-in or a real one."""

from __future__ import annotations

import json
import os
import secrets
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import kubernetes
import pytest
import urllib3

from hack.apistandin import ApiStandin, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
NODES = "/api/v1/nodes"
EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
CORE_EVENTS = "/api/v1/namespaces/default/events"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"


def unique() -> str:
    """A name that nobody else has."""
    return f"katanode-test-{secrets.token_hex(4)}"


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

    def owned(self, manager: str, operation: str = "Apply", subresource: str = "") -> Json | None:
        """FieldsV1 of a manager; None when it owns nothing."""
        for entry in self.body["metadata"].get("managedFields", []):
            if (entry["manager"], entry["operation"], entry.get("subresource", "")) == (
                manager,
                operation,
                subresource,
            ):
                return dict(entry["fieldsV1"])
        return None

    def condition(self, kind: str) -> Json | None:
        """A condition of its status."""
        found = [one for one in self.body["status"].get("conditions", []) if one["type"] == kind]
        return found[0] if found else None

    def refused(self, status: int, reason: str, says: str = "") -> Json:
        """The details of a refusal, which this must be."""
        assert self.status == status, self.body
        assert (self.body["kind"], self.body["apiVersion"], self.body["status"]) == ("Status", "v1", "Failure")
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
    """One user of a server. Its query's `manager` is the fieldManager."""

    base: str
    pool: urllib3.PoolManager
    headers: dict[str, str]
    name: str = ""

    def __call__(
        self, method: str, path: str, body: object = None, kind: str = "application/json", **query: str
    ) -> Answer:
        """Ask; `kind` is the body's content type."""
        sent = body if body is None or isinstance(body, bytes | str) else json.dumps(body)
        headers = {"Accept": "application/json", "User-Agent": "katanode-test/1", **self.headers}
        if sent is not None:
            headers["Content-Type"] = kind
        url = self.base + path + _encoded(query)
        said = self.pool.request(method, url, body=sent, headers=headers, retries=False, timeout=40)
        text = json.loads(said.data) if said.data[:1] == b"{" else {"text": said.data.decode()}
        return Answer(said.status, text, said.headers.get("Warning", ""))

    def get(self, path: str, **query: str) -> Answer:
        return self("GET", path, **query)

    def create(self, path: str, made: Json, **query: str) -> Answer:
        return self("POST", path, made, **query)

    def update(self, path: str, made: Json, **query: str) -> Answer:
        return self("PUT", path, made, **query)

    def apply(self, path: str, wanted: Json, manager: str = "katanode", **query: str) -> Answer:
        return self("PATCH", path, wanted, APPLY, manager=manager, **query)

    def merge(self, path: str, patch: Json, **query: str) -> Answer:
        return self("PATCH", path, patch, MERGE_PATCH, **query)

    def patch(self, path: str, *operations: Json, **query: str) -> Answer:
        return self("PATCH", path, list(operations), JSON_PATCH, **query)

    def delete(self, path: str, options: Json | None = None) -> Answer:
        return self("DELETE", path, options)

    @contextmanager
    def watch(self, path: str, **query: str) -> Iterator[Iterator[Json]]:
        """Watch; the events come as they come, until the stream ends."""
        url = self.base + path + _encoded({"watch": "true", "timeoutSeconds": "20", **query})
        headers = {"Accept": "application/json", **self.headers}
        said = self.pool.request("GET", url, headers=headers, retries=False, preload_content=False, timeout=30)
        try:
            assert said.status == 200, said.data
            yield _lines(said)
        finally:
            said.close()


def _lines(said: urllib3.BaseHTTPResponse) -> Iterator[Json]:
    left = b""
    for chunk in said.read_chunked():
        *whole, left = (left + chunk).split(b"\n")
        yield from map(json.loads, whole)


def _encoded(query: dict[str, str]) -> str:
    names = {"manager": "fieldManager"}
    return "?" + urlencode({names.get(name, name): value for name, value in query.items()}) if query else ""


@dataclass
class Api:
    """A server under test.

    Attributes:
        admin: who may do all.
        namespace: of the tests' own.
        standin: None on a real cluster.
        undo: what is to be taken back at the end.
    """

    admin: Client
    namespace: str
    standin: ApiStandin | None
    undo: ExitStack = field(default_factory=ExitStack)

    @property
    def leases(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"

    @property
    def config_maps(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/configmaps"

    @contextmanager
    def made(self, collection: str, made: Json) -> Iterator[str]:
        """The path of an object that a manager called maker creates, for a while."""
        name = unique()
        made = {**made, "metadata": {"name": name, **made.get("metadata", {})}}
        self.admin.create(collection, made, manager="maker").done(201)
        try:
            yield f"{collection}/{name}"
        finally:
            self.admin.delete(f"{collection}/{name}")

    def user(self, *rules: Rule) -> Client:
        """A user with these rights, in the whole cluster, and no others."""
        name = unique()
        if self.standin is not None:
            self.standin.add_token(name, name, rules=rules)
            return Client(self.admin.base, self.admin.pool, {"Authorization": f"Bearer {name}"}, name)
        wanted = [
            {
                "verbs": list(rule.verbs),
                "apiGroups": list(rule.groups),
                "resources": list(rule.resources),
                **({"resourceNames": list(rule.names)} if rule.names else {}),
            }
            for rule in rules
        ]
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        self._for_now("clusterroles", {"metadata": {"name": name}, "rules": wanted})
        binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
        self._for_now("clusterrolebindings", binding)
        client = Client(self.admin.base, self.admin.pool, {**self.admin.headers, "Impersonate-User": name}, name)
        for rule in rules:
            _await(client, rule)
        return client

    def _for_now(self, plural: str, made: Json) -> None:
        self.admin.create(f"{_RBAC}/{plural}", made).done(201)
        self.undo.callback(self.admin.delete, f"{_RBAC}/{plural}/{made['metadata']['name']}")


def _await(client: Client, rule: Rule) -> None:
    """A role holds from when the authorizer has seen it."""
    resource, _, subresource = rule.resources[0].partition("/")
    asked = {"verb": rule.verbs[0], "group": rule.groups[0], "resource": resource, "subresource": subresource}
    if rule.names:
        asked["name"] = rule.names[0]
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    review |= {"spec": {"resourceAttributes": asked}}
    deadline = time.monotonic() + 10
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    while not client.create(path, review).done(201).body["status"]["allowed"]:
        assert time.monotonic() < deadline, f"the role does not hold: {rule}"
        time.sleep(0.05)


@contextmanager
def standin_server() -> Iterator[tuple[Client, ApiStandin | None]]:
    """The stand-in and its administrator."""
    with ApiStandin() as standin:
        yield client_of(standin), standin


@contextmanager
def real_server() -> Iterator[tuple[Client, ApiStandin | None]]:
    """The cluster of KUBECONFIG and whom that file names."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip(reason="KUBECONFIG names no real cluster")
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(client_configuration=configuration)
    pool = urllib3.PoolManager(
        ca_certs=configuration.ssl_ca_cert,
        cert_file=configuration.cert_file,
        key_file=configuration.key_file,
        cert_reqs="CERT_REQUIRED" if configuration.verify_ssl else "CERT_NONE",
    )
    token = configuration.get_api_key_with_prefix("authorization")
    yield Client(configuration.host, pool, {"Authorization": token} if token else {}), None


def client_of(standin: ApiStandin, token: str = "") -> Client:
    """A client of a stand-in; the administrator's unless a token is given."""
    headers = {"Authorization": f"Bearer {token or standin.admin_token}"}
    return Client(standin.url, urllib3.PoolManager(), headers)
