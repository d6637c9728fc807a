"""The YAML of `manifests/`: valid in every version of Kubernetes that it is for, whole, and as narrow as it says."""

import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from manifests_helpers import (
    CLUSTER_WIDE,
    DEFAULT_SET,
    MANIFESTS,
    Name,
    Object,
    documents,
    files,
    find,
    name,
    objects,
    pod_template,
    references,
)

from agent.cluster import names
from agent.report import State
from agent.settings import Settings, parse
from hack import settings_table

REPOSITORY = MANIFESTS.parent
VERSIONS = [f"1.{minor}" for minor in range(28, 37)]
NOT_YET = {"ValidatingAdmissionPolicy": {"1.28", "1.29"}, "ValidatingAdmissionPolicyBinding": {"1.28", "1.29"}}
"""Kinds that old versions lack. Without these nothing but RBAC bounds the agents: 1.30 is the floor of the whole."""
CUSTOM = {"PodMonitor": "monitoring.coreos.com/v1", "PrometheusRule": "monitoring.coreos.com/v1"}
"""Kinds of the Prometheus operator: no version of Kubernetes has schemas for them."""
OUTSIDE = {Name("Namespace", "", "security"), Name("Service", "security", "image-validator")}
"""What a reader of policies/image-webhook.yaml brings along."""

BUILT_IN = [(path, it) for path, it in objects() if it["kind"] not in CUSTOM]
CUSTOM_OBJECTS = [(path, it) for path, it in objects() if it["kind"] in CUSTOM]
DEFAULTS = [(path, it) for path, it in objects() if path in DEFAULT_SET]


def each(found: list[tuple[Path, Object]]) -> dict[str, Any]:
    ids = [f"{path.relative_to(MANIFESTS)}:{it['kind']}/{it['metadata']['name']}" for path, it in found]
    return {"argvalues": found, "ids": ids}


@pytest.fixture(scope="module", autouse=True)
def _schemas_read_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        read = kubernetes_validate.utils.schema_contents
        patch.setattr(kubernetes_validate.utils, "schema_contents", functools.cache(read))
        yield


def test_the_validator_carries_every_version_that_is_asked_of_it() -> None:
    carried = {kubernetes_validate.utils.major_minor(v) for v in kubernetes_validate.utils.all_versions()}
    assert set(VERSIONS) <= carried


@pytest.mark.parametrize(("path", "it"), **each(BUILT_IN))
def test_every_object_is_valid_in_every_version(path: Path, it: Object) -> None:
    missing = set()
    for version in VERSIONS:
        try:
            # It takes the nearest version that it has and says which: that must be the one that was asked for.
            assert kubernetes_validate.validate(dict(it), version, strict=True) == version
        except kubernetes_validate.SchemaNotFoundError:
            missing.add(version)
    assert missing == NOT_YET.get(it["kind"], set())


@pytest.mark.parametrize(("path", "it"), **each(CUSTOM_OBJECTS))
def test_custom_resources_are_of_the_version_that_their_operator_serves(path: Path, it: Object) -> None:
    assert it["apiVersion"] == CUSTOM[it["kind"]]
    assert it["spec"]


def test_the_pod_monitor_finds_the_agents() -> None:
    (monitor,) = (it for _, it in CUSTOM_OBJECTS if it["kind"] == "PodMonitor")
    daemons = find("DaemonSet", "katanode")
    template = daemons["spec"]["template"]
    assert name(monitor).namespace == name(daemons).namespace
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    ports = {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports


def test_a_wrong_key_would_be_found() -> None:
    it = find("DaemonSet", "katanode")
    it["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="hostPid"):
        kubernetes_validate.validate(it, "1.36", strict=True)


def test_no_object_is_defined_twice() -> None:
    seen = [(path.parent if path in DEFAULT_SET else path, name(it)) for path, it in objects()]
    assert len(seen) == len(set(seen))


def test_the_default_set_is_numbered_and_each_file_needs_only_what_comes_before() -> None:
    assert DEFAULT_SET
    there: set[Name] = set()
    for path in DEFAULT_SET:
        assert re.fullmatch(r"\d\d-[a-z-]+\.yaml", path.name)
        for it in documents(path):
            there.add(name(it))
            assert set(references(it)) <= there, path.name
    # kubectl would read these too, in an order that nobody thought about.
    assert {p.suffix for p in MANIFESTS.iterdir() if p.is_file()} == {".yaml", ".md"}


def test_the_bounds_of_the_agent_stand_before_its_rights() -> None:
    order = [it["kind"] for _, it in DEFAULTS]
    assert order.index("ClusterRoleBinding") > max(i for i, kind in enumerate(order) if kind.startswith("Validating"))


@pytest.mark.parametrize("path", [p for p in files() if p not in DEFAULT_SET], ids=lambda p: p.name)
def test_every_other_file_stands_alone_beside_the_default_set(path: Path) -> None:
    its_own = [it for it in documents(path) if isinstance(it, dict) and "kind" in it]
    there = {name(it) for it in its_own} | {name(it) for _, it in DEFAULTS} | OUTSIDE
    for it in its_own:
        assert set(references(it)) <= there, name(it)


@pytest.mark.parametrize(("path", "it"), **each(BUILT_IN))
def test_what_has_a_namespace_says_which_or_is_for_any(path: Path, it: Object) -> None:
    namespace = it["metadata"].get("namespace")
    if it["kind"] in CLUSTER_WIDE:
        assert namespace is None
    elif path in DEFAULT_SET:
        assert namespace in {"katanode", "default"}
    elif path.parent.name == "policies":
        assert namespace in {"katanode", None}
        assert namespace or "kubectl apply -n " in path.read_text()


@pytest.mark.parametrize(("path", "it"), **each([(p, it) for p, it in BUILT_IN if it["kind"] == "Service"]))
def test_a_service_finds_its_pods(path: Path, it: Object) -> None:
    templates = [t for d in documents(path) if (t := pod_template(d)) is not None]
    selector = it["spec"]["selector"].items()
    assert any(selector <= t["metadata"].get("labels", {}).items() for t in templates)


def test_the_image_is_named_in_one_place_and_is_this_version() -> None:
    # Not tests/: they say what must hold.
    places = [
        path
        for folder in ("manifests", "image", "hack")
        for path in sorted((REPOSITORY / folder).rglob("*"))
        if path.is_file() and b"ghcr.io/katanode/katanode:" in path.read_bytes() and "__pycache__" not in path.parts
    ]
    assert places == [MANIFESTS / "50-daemonset.yaml"]
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    (container,) = find("DaemonSet", "katanode")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"ghcr.io/katanode/katanode:{version}"


def test_the_agent_may_make_these_requests_and_no_others() -> None:
    granted = {
        (it["metadata"].get("namespace", "everywhere"), group, resource, verb)
        for _, it in DEFAULTS
        if it["kind"] in {"ClusterRole", "Role"}
        for rule in it["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == {
        ("everywhere", "", "nodes", "get"),
        ("everywhere", "", "nodes", "watch"),
        ("everywhere", "", "nodes", "patch"),
        ("everywhere", "", "nodes/status", "patch"),
        ("katanode", "coordination.k8s.io", "leases", "list"),
        ("katanode", "coordination.k8s.io", "leases", "watch"),
        ("katanode", "coordination.k8s.io", "leases", "create"),
        ("katanode", "coordination.k8s.io", "leases", "get"),
        ("katanode", "coordination.k8s.io", "leases", "update"),
        (names.EVENT_NAMESPACE, "events.k8s.io", "events", "create"),
    }


def test_rights_are_given_to_the_agent_alone() -> None:
    bindings = [it for _, it in DEFAULTS if it["kind"] in {"ClusterRoleBinding", "RoleBinding"}]
    assert {it["kind"] for it in bindings} == {"ClusterRoleBinding", "RoleBinding"}
    for it in bindings:
        assert it["subjects"] == [{"kind": "ServiceAccount", "name": "katanode", "namespace": "katanode"}]


def test_every_policy_fails_closed_and_is_bound() -> None:
    policies = {it["metadata"]["name"]: it for _, it in objects() if it["kind"] == "ValidatingAdmissionPolicy"}
    bindings = [it for _, it in objects() if it["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert {it["spec"]["policyName"] for it in bindings} == set(policies)
    for it in policies.values():
        assert it["spec"]["failurePolicy"] == "Fail"
    for it in bindings:
        assert "Deny" in it["spec"]["validationActions"]
        assert "matchResources" not in it["spec"]  # it would narrow down what is guarded


def test_the_agents_policies_say_the_names_that_the_agent_uses() -> None:
    policies = [it for _, it in DEFAULTS if it["kind"] == "ValidatingAdmissionPolicy"]
    code = [e["expression"] for it in policies for e in (*it["spec"]["variables"], *it["spec"]["validations"])]
    said = {word for expression in code for word in re.findall(r"'([^']*)'", expression)}
    assert said >= {names.GATE, names.HANDLER_PREFIX, names.VERSION, names.STATE, names.CONDITION, names.TAINT}
    assert said >= {names.TAINT_EFFECT, names.TAINT_WITHDRAWN, names.FAILED_PREFIX, names.CONTROLLER}
    assert f"^{names.SLOT_PREFIX}[0-9]+$" in said
    assert said >= set(State)


def test_the_settings_are_the_defaults_each_with_its_comment() -> None:
    text = find("ConfigMap", "katanode-settings")["data"]["katanode.toml"]
    assert parse(text) == Settings()
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"[a-z_]+ = ", line) or line.startswith("["):
            assert lines[number - 1].startswith("# "), line


def test_what_is_made_of_the_settings_is_current() -> None:
    for path, made in (
        (settings_table.README, settings_table.with_table),
        (settings_table.CONFIG_MAP, settings_table.with_defaults),
    ):
        assert made(path.read_text()) == path.read_text(), f"run hack/settings-table: {path.name} is not current"


def test_the_table_of_settings_has_every_key_of_the_code() -> None:
    found = {(key.section, key.name) for key in settings_table.every_key()}
    assert {("", "state"), ("kata", "version"), ("rollout", "slots"), ("handlers.NAME", "annotations")} <= found
    assert all(key.text for key in settings_table.every_key())


def test_the_daemonset_is_probed_scraped_and_configured_where_the_agent_serves_and_reads() -> None:
    template = find("DaemonSet", "katanode")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    serve = Settings().serve
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"host": "127.0.0.1", "port": serve.port, "path": path}
    assert container["ports"] == [{"name": "metrics", "containerPort": serve.port}]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(serve.port)
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert set(environment) == {"NODE_NAME", "POD_NAME", "POD_NAMESPACE", "KATANODE_SETTINGS"}
    assert environment["KATANODE_SETTINGS"] == mounts["settings"]["mountPath"] + "/katanode.toml"
    assert "subPath" not in mounts["settings"]  # changes would not arrive
    assert mounts["host"]["mountPath"] == "/host"


def test_the_agent_writes_nowhere_but_on_the_host_and_in_tmp() -> None:
    (container,) = find("DaemonSet", "katanode")["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")} == {"/host", "/tmp"}


def test_the_agent_runs_on_every_node_before_the_network_does() -> None:
    pod = find("DaemonSet", "katanode")["spec"]["template"]["spec"]
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["hostNetwork"] is True
    assert pod["dnsPolicy"] == "Default"
    # Sent away by nobody, and gone within what SIGTERM takes.
    assert pod["priorityClassName"] == "system-node-critical"
    assert 5 < pod["terminationGracePeriodSeconds"] <= 30


def test_each_default_handler_has_a_runtime_class_that_selects_its_nodes() -> None:
    classes = {it["metadata"]["name"]: it for _, it in DEFAULTS if it["kind"] == "RuntimeClass"}
    assert set(classes) == set(Settings().kata.handlers)
    for handler, it in classes.items():
        assert it["handler"] == handler
        assert it["scheduling"]["nodeSelector"] == {names.GATE: "true", names.HANDLER_PREFIX + handler: "true"}
        # Pods must not come to a node that was withdrawn by its taint.
        assert all(t.get("key") not in {None, names.TAINT} for t in it["scheduling"].get("tolerations", ()))
        assert set(it["overhead"]["podFixed"]) == {"cpu", "memory"}
