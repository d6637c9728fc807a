"""The examples: each stands alone, is wired up in itself, and runs as a user and with files that its image can."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from agent.settings import Kata

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "manifests/examples"
FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))
README = (FOLDER / "README.md").read_text()
ANNOTATION = "io.katacontainers.config.hypervisor."


@dataclass(frozen=True)
class Image:
    """What is known of an image: the users it runs as, and the folders that its own program writes."""

    users: tuple[int, ...]
    writes: frozenset[str] = frozenset()


ANYBODY = tuple(range(1, 2000))
IMAGES = {
    "docker.io/library/nginx:1.28-alpine": Image((101,), frozenset({"/run", "/var/cache/nginx"})),
    "docker.io/nginxinc/nginx-unprivileged:1.28-alpine": Image((101,), frozenset({"/tmp"})),
    "docker.io/library/postgres:17-trixie": Image(
        (999,), frozenset({"/var/lib/postgresql/data", "/var/run/postgresql", "/tmp"})
    ),
    "docker.io/library/python:3.13-slim": Image(ANYBODY),
}
SERVED = {"docker.io/nginxinc/nginx-unprivileged:1.28-alpine": 8080, "docker.io/library/postgres:17-trixie": 5432}
"""The port that an image's own program listens on."""


@dataclass(frozen=True)
class Pod:
    """A pod of an example, alone or out of its workload's template."""

    owner: dict[str, Any]
    metadata: dict[str, Any]
    spec: dict[str, Any]

    @property
    def namespace(self) -> str:
        return str(self.owner["metadata"]["namespace"])

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for c in self.containers for port in c.get("ports", ())}

    def selected_by(self, selector: dict[str, Any], namespace: str) -> bool:
        assert set(selector) <= {"matchLabels"}, "expressions are not looked at here"
        wanted = selector.get("matchLabels", {})
        return namespace == self.namespace and wanted.items() <= self.metadata.get("labels", {}).items()


def documents(file: str, *kinds: str) -> list[dict[str, Any]]:
    made = list(yaml.safe_load_all((FOLDER / file).read_text()))
    return [document for document in made if not kinds or document["kind"] in kinds]


def pods(file: str) -> list[Pod]:
    made = []
    for document in documents(file):
        if document["kind"] == "Pod":
            made.append(Pod(document, document["metadata"], document["spec"]))
        elif "template" in document.get("spec", {}):
            template = document["spec"]["template"]
            made.append(Pod(document, template.get("metadata", {}), template["spec"]))
    return made


def containers() -> Iterator[tuple[str, Pod, dict[str, Any]]]:
    for file in FILES:
        for pod in pods(file):
            for container in pod.containers:
                yield f"{file}: {container['name']}", pod, container


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number."""
    factors = {"m": 0.001, "": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    match = re.fullmatch(r"([\d.]+)(m|Ki|Mi|Gi|)", str(text))
    assert match, text
    return float(match[1]) * factors[match[2]]


each_file = pytest.mark.parametrize("file", FILES)


# --- as files


@each_file
def test_a_file_begins_with_a_line_on_what_it_shows_and_at_most_one_on_what_differs(file: str) -> None:
    first, second, third = (FOLDER / file).read_text().splitlines()[:3]
    assert re.fullmatch(r"# Shows [^.]+\.", first)
    assert second.startswith(("# Unlike the article: ", "apiVersion: "))
    assert not third.startswith("#")
    assert len(first) <= 120 >= len(second)


def test_the_readme_lists_the_files_that_there_are() -> None:
    assert sorted(re.findall(r"^\| `([\w-]+\.yaml)` \|", README, re.MULTILINE)) == FILES


def test_every_workload_of_the_article_is_here_under_its_name(shared: Path) -> None:
    article = (shared / "seed-article.txt").read_text()
    named = set(re.findall(r"^kind: (?:Deployment|Job|Pod)\nmetadata:\n  name: ([\w-]+)$", article, re.MULTILINE))
    assert len(named) == 8
    assert named <= {pod.owner["metadata"]["name"] for file in FILES for pod in pods(file)}


@each_file
def test_a_file_makes_the_namespaces_it_uses_before_it_uses_them(file: str) -> None:
    made: set[str] = set()
    for document in documents(file):
        if document["kind"] == "Namespace":
            made.add(document["metadata"]["name"])
        else:
            assert document["metadata"]["namespace"] in made, document["metadata"]["name"]


def test_no_two_files_share_a_namespace_so_that_deleting_one_leaves_the_other() -> None:
    names = [document["metadata"]["name"] for file in FILES for document in documents(file, "Namespace")]
    assert len(names) == len(set(names))


def test_no_password_is_written_down() -> None:
    for file in FILES:
        assert not any({"data", "stringData"} & secret.keys() for secret in documents(file, "Secret")), file
    for where, _, container in containers():
        for variable in container.get("env", ()):
            secret = re.search("PASS|SECRET|TOKEN|KEY", variable["name"])
            assert not secret or "secretKeyRef" in variable["valueFrom"], f"{where}: {variable['name']}"


# --- as wired up


@each_file
def test_what_pods_mount_and_read_is_in_the_file(file: str) -> None:
    there = {(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents(file)}
    for pod in pods(file):
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", ())}
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", pod.namespace, claim) in there
            elif "configMap" in volume:
                assert ("ConfigMap", pod.namespace, volume["configMap"]["name"]) in there
            else:
                assert "emptyDir" in volume
                assert volume["emptyDir"]["sizeLimit"]
        mounted = [mount["name"] for container in pod.containers for mount in container.get("volumeMounts", ())]
        assert set(mounted) == set(volumes)
        for container in pod.containers:
            for variable in container.get("env", ()):
                if "valueFrom" in variable:
                    assert ("Secret", pod.namespace, variable["valueFrom"]["secretKeyRef"]["name"]) in there
        account = pod.spec.get("serviceAccountName")
        assert not account or ("ServiceAccount", pod.namespace, account) in there
        # Whoever needs no token has none.
        assert pod.spec["automountServiceAccountToken"] is bool(account)


@each_file
def test_services_lead_to_ports_that_pods_have(file: str) -> None:
    for service in documents(file, "Service"):
        selector, namespace = {"matchLabels": service["spec"]["selector"]}, service["metadata"]["namespace"]
        behind = [pod for pod in pods(file) if pod.selected_by(selector, namespace)]
        assert behind
        for port in service["spec"]["ports"]:
            assert all(port["targetPort"] in pod.ports for pod in behind)


@each_file
def test_network_policies_name_the_ports_that_pods_listen_on_and_peers_that_exist(file: str) -> None:
    for policy in documents(file, "NetworkPolicy"):
        spec, namespace = policy["spec"], policy["metadata"]["namespace"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert "egress" not in spec, "ports of egress are not looked at here"
        guarded = [pod for pod in pods(file) if pod.selected_by(spec["podSelector"], namespace)]
        assert guarded
        for rule in spec.get("ingress", ()):
            for peer in rule["from"]:
                assert any(pod.selected_by(peer["podSelector"], namespace) for pod in pods(file))
            for port in rule["ports"]:
                assert all(port["port"] in pod.ports.values() for pod in guarded)


def test_every_server_is_guarded_by_a_policy_or_reached_by_nobody() -> None:
    for file in FILES:
        for service in documents(file, "Service"):
            selected = service["spec"]["selector"].items()
            policies = documents(file, "NetworkPolicy")
            assert any(selected == policy["spec"]["podSelector"]["matchLabels"].items() for policy in policies), file


def test_workloads_select_the_pods_that_they_make() -> None:
    for file in FILES:
        for pod in pods(file):
            if selector := pod.owner["spec"].get("selector"):
                assert pod.selected_by(selector, pod.namespace), file


def test_replicas_that_avoid_each_other_carry_the_label_by_which_they_do() -> None:
    (pod,) = pods("anti-affinity.yaml")
    assert pod.owner["spec"]["replicas"] > 1
    (term,) = pod.spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert pod.selected_by(term["podAffinityTerm"]["labelSelector"], pod.namespace)


# --- as pods


@each_file
def test_every_pod_names_a_runtime_class_that_the_manifests_make(file: str) -> None:
    made = yaml.safe_load_all((REPOSITORY / "manifests/60-runtime-classes.yaml").read_text())
    known = {document["metadata"]["name"] for document in made}
    assert pods(file)
    for pod in pods(file):
        assert pod.spec["runtimeClassName"] in known


def test_images_have_a_registry_and_a_version() -> None:
    for where, _, container in containers():
        registry, _, rest = container["image"].partition("/")
        assert "." in registry, where
        assert re.fullmatch(r"[\w./-]+:\d[\w.-]*", rest), where
        assert container["image"] in IMAGES, f"{where}: say in IMAGES what this image needs"


@each_file
def test_pods_are_as_the_restricted_standard_of_their_namespace_wants_them(file: str) -> None:
    for namespace in documents(file, "Namespace"):
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in pods(file):
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()
        assert pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        for container in pod.containers:
            context = container["securityContext"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert set(context) <= {"capabilities", "allowPrivilegeEscalation", "readOnlyRootFilesystem"}


def test_containers_run_as_a_user_of_their_image_and_write_where_they_can() -> None:
    for where, pod, container in containers():
        image = IMAGES[container["image"]]
        assert pod.spec["securityContext"]["runAsUser"] in image.users, where
        if "command" not in container:
            writable = {mount["mountPath"] for mount in container.get("volumeMounts", ())}
            assert image.writes <= writable, where
        for port in container.get("ports", ()):
            assert port["containerPort"] >= 1024, where
            if "command" not in container:
                assert port["containerPort"] == SERVED[container["image"]], where


def test_volumes_that_a_user_writes_belong_to_its_group() -> None:
    for file in FILES:
        for pod in pods(file):
            if any("persistentVolumeClaim" in volume for volume in pod.spec.get("volumes", ())):
                assert pod.spec["securityContext"]["fsGroup"], file


def test_limits_are_both_there_or_none_since_the_machine_is_sized_by_them() -> None:
    for where, _, container in containers():
        resources = container["resources"]
        limits = resources.get("limits", {})
        assert ("cpu" in limits) == ("memory" in limits), where
        for name, limit in limits.items():
            assert quantity(resources["requests"][name]) <= quantity(limit), where
        # A guest needs some memory for itself before it runs anything.
        assert not limits or quantity(limits["memory"]) >= 256 * 2**20, where


def test_annotations_are_those_that_the_default_release_lets_through() -> None:
    version = Kata().version
    base = REPOSITORY / f"hack/standin/defaults/{version}/runtime-rs/configuration-clh-runtime-rs.toml"
    allowed = tomllib.loads(base.read_text())["hypervisor"]["clh"]["enable_annotations"]
    seen = []
    for file in FILES:
        for pod in pods(file):
            annotations = pod.metadata.get("annotations", {})
            assert all(name.removeprefix(ANNOTATION) in allowed for name in annotations), file
            assert not annotations or pod.spec["runtimeClassName"] == "kata-clh"
            if annotations:
                seen.append(pod)
    (pod,) = seen
    (container,) = pod.containers
    # With limits the annotations would count for nothing; without requests the scheduler would not know of the size.
    assert "limits" not in container["resources"]
    requests = container["resources"]["requests"]
    annotations = pod.metadata["annotations"]
    assert quantity(requests["cpu"]) == int(annotations[f"{ANNOTATION}default_vcpus"])
    assert quantity(requests["memory"]) == int(annotations[f"{ANNOTATION}default_memory"]) * 2**20


def test_postgresql_keeps_its_data_below_the_mount_where_initdb_finds_an_empty_folder() -> None:
    pod = next(pod for pod in pods("postgresql.yaml") if pod.owner["kind"] == "StatefulSet")
    (container,) = pod.containers
    (data,) = [variable["value"] for variable in container["env"] if variable["name"] == "PGDATA"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    claims = [volume["name"] for volume in pod.spec["volumes"] if "persistentVolumeClaim" in volume]
    assert [Path(mounts[name]) for name in claims] == [Path(data).parent]
