"""The YAML of `manifests/`: what is there, and what it refers to."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
DEFAULT_SET = sorted(MANIFESTS.glob("*.yaml"))
"""What `kubectl apply -f manifests/` reads, in its order."""

Object = Mapping[str, Any]

CLUSTER_WIDE = frozenset(
    {
        "Namespace",
        "ClusterRole",
        "ClusterRoleBinding",
        "PriorityClass",
        "RuntimeClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    }
)


class Name(NamedTuple):
    """What one object is known by; the namespace is empty for what has none, or comes with `kubectl -n`."""

    kind: str
    namespace: str
    name: str


def files() -> list[Path]:
    """Every file of Kubernetes objects, those of the subfolders too."""
    return sorted(path for path in MANIFESTS.rglob("*") if path.suffix in {".yaml", ".yml"})


def documents(path: Path) -> list[Object]:
    """The objects of a file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def objects() -> Iterator[tuple[Path, Object]]:
    """Every object that is Kubernetes' or a custom resource; a rule file of Prometheus, for one, is neither."""
    for path in files():
        for document in documents(path):
            if isinstance(document, dict) and "apiVersion" in document and "kind" in document:
                yield path, document


def name(document: Object) -> Name:
    """What an object is known by."""
    metadata = document["metadata"]
    return Name(document["kind"], metadata.get("namespace", ""), metadata["name"])


def find(kind: str, wanted: str) -> dict[str, Any]:
    """The one object of that kind and name in the whole of `manifests/`."""
    (found,) = (d for _, d in objects() if d["kind"] == kind and d["metadata"]["name"] == wanted)
    return dict(found)


def pod_template(document: Object) -> Object | None:
    """The pod that an object is or makes."""
    match document["kind"]:
        case "Pod":
            return document
        case "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "Job":
            template: Object = document["spec"]["template"]
            return template
        case "CronJob":
            return dict(document["spec"]["jobTemplate"]["spec"]["template"])
    return None


def references(document: Object) -> Iterator[Name]:
    """What an object needs to be there by name."""
    kind, namespace, _ = name(document)
    spec = document.get("spec") or {}
    if namespace and namespace not in {"default", "kube-system"}:
        yield Name("Namespace", "", namespace)
    if "roleRef" in document:
        ref = document["roleRef"]
        yield Name(ref["kind"], "" if ref["kind"] == "ClusterRole" else namespace, ref["name"])
        for subject in document["subjects"]:
            yield Name(subject["kind"], subject.get("namespace", ""), subject["name"])
    if kind == "ValidatingAdmissionPolicyBinding":
        yield Name("ValidatingAdmissionPolicy", "", spec["policyName"])
    template = pod_template(document)
    if template is not None:
        yield from _of_pod(template["spec"], namespace, _claims(document))


def _claims(document: Object) -> set[str]:
    """Volumes that a StatefulSet makes itself."""
    return {c["metadata"]["name"] for c in document.get("spec", {}).get("volumeClaimTemplates", ())}


def _of_pod(pod: Object, namespace: str, own: set[str]) -> Iterator[Name]:
    if account := pod.get("serviceAccountName"):
        yield Name("ServiceAccount", namespace, account)
    if handler := pod.get("runtimeClassName"):
        yield Name("RuntimeClass", "", handler)
    priority = pod.get("priorityClassName", "")
    if priority and not priority.startswith("system-"):
        yield Name("PriorityClass", "", priority)
    yield from _of_volumes(pod, namespace)
    there = {volume["name"] for volume in pod.get("volumes", ())} | own
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        for mount in container.get("volumeMounts", ()):
            assert mount["name"] in there, f"{container['name']} mounts {mount['name']}, which is no volume"
        yield from _of_environment(container, namespace)


def _of_volumes(pod: Object, namespace: str) -> Iterator[Name]:
    for volume in pod.get("volumes", ()):
        for field, kind, key in (
            ("configMap", "ConfigMap", "name"),
            ("secret", "Secret", "secretName"),
            ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
        ):
            if field in volume:
                yield Name(kind, namespace, volume[field][key])


def _of_environment(container: Object, namespace: str) -> Iterator[Name]:
    sources = [entry["valueFrom"] for entry in container.get("env", ()) if "valueFrom" in entry]
    for source in (*sources, *container.get("envFrom", ())):
        for field, ref in source.items():
            if field.startswith(("secret", "configMap")):
                yield Name("Secret" if field.startswith("secret") else "ConfigMap", namespace, ref["name"])
