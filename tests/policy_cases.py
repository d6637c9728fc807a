"""What the admission policies in `manifests/` must allow and deny: asked of an evaluator offline and of a real API.

A case changes an object in place. An agent may only patch Nodes, so each case can also be sent as a merge patch.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

AGENT = "system:serviceaccount:katanode:katanode"
NODE_CLAIM = "authentication.kubernetes.io/node-name"
OWN, OTHER = "katanode-policy-test-a", "katanode-policy-test-b"
"""Two Nodes: that of the agent, and another one."""
SLOT = "katanode-restart-999"
"""No fleet has so many slots: the tests on a cluster touch none that is in use."""

DIGEST = "@sha256:" + 64 * "a"
IMAGE = "registry.example.com/tenants/app" + DIGEST
ANNOTATION = "io.katacontainers.config.hypervisor."


@dataclass(frozen=True, slots=True)
class Case:
    """One request.

    Attributes:
        words: what it does.
        allowed: whether the policy lets it through.
        change: changes the object; for a creation the whole of it.
        subresource: that it goes to; "" for the object itself.
    """

    words: str
    allowed: bool
    change: Callable[[Object], object]
    subresource: str = ""


def allow(words: str, change: Callable[[Object], object], subresource: str = "") -> Case:
    """A request that must pass."""
    return Case(words, True, change, subresource)  # noqa: FBT003


def deny(words: str, change: Callable[[Object], object], subresource: str = "") -> Case:
    """A request that must not."""
    return Case(words, False, change, subresource)  # noqa: FBT003


def node(name: str) -> Object:
    """A Node as kubelets make them, with something of everything that an agent must leave alone."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            # Without the label of an operating system no DaemonSet of a real cluster finds it.
            "labels": {"kubernetes.io/hostname": name, "katanode.io/install": "disabled", "pool": "a"},
            "annotations": {"example.com/note": "x"},
        },
        "spec": {"podCIDR": "10.99.0.0/24", "taints": [{"key": "pool", "value": "a", "effect": "NoSchedule"}]},
        "status": {
            "capacity": {"cpu": "4"},
            "conditions": [_condition("DiskPressure"), _condition("KataReady", reason="Ready")],
        },
    }


def _condition(kind: str, status: str = "False", reason: str = "Fine", message: str = "well") -> Object:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": "2026-01-01T00:00:00Z",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def _label(key: str, value: str | None) -> Callable[[Object], object]:
    def change(it: Object) -> None:
        it["metadata"]["labels"].pop(key, None)
        if value is not None:
            it["metadata"]["labels"][key] = value

    return change


def _taint(key: str, effect: str = "NoSchedule", value: str = "withdrawn") -> Callable[[Object], object]:
    return lambda it: it["spec"]["taints"].append({"key": key, "effect": effect, "value": value})


def _condition_of(kind: str, **fields: str) -> Callable[[Object], object]:
    def change(it: Object) -> None:
        conditions = it["status"].setdefault("conditions", [])
        here = next((c for c in conditions if c["type"] == kind), None)
        if here is None:
            conditions.append(here := _condition(kind))
        here.update(fields)

    return change


def _without(kind: str) -> Callable[[Object], object]:
    def change(it: Object) -> None:
        it["status"]["conditions"] = [c for c in it["status"]["conditions"] if c["type"] != kind]

    return change


def _owner(it: Object) -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "00000000-0000-0000-0000-000000000001"}
    it["metadata"]["ownerReferences"] = [owner]


def _everything(it: Object) -> None:
    labels = it["metadata"]["labels"]
    labels |= {"katacontainers.io/kata-runtime": "true", "handler.katanode.io/kata-clh": "true"}
    labels |= {"katanode.io/kata-version": "4.1.0", "katanode.io/state": "ready"}


NODE_CASES = (
    allow("publishes all its labels", _everything),
    *(
        allow(f"says the state {s}", _label("katanode.io/state", s))
        for s in ("degraded", "installing", "blocked", "absent")
    ),
    allow("says that a handler is not ready", _label("handler.katanode.io/kata-fc", "false")),
    allow("sets the taint that withdraws it", _taint("katanode.io/not-ready")),
    allow("labels by way of the status", _label("katanode.io/state", "ready"), "status"),
    allow("says its condition", _condition_of("KataReady", status="True", reason="Ready"), "status"),
    allow("says that it does not know", _condition_of("KataReady", status="Unknown"), "status"),
    allow("takes its condition back", _without("KataReady"), "status"),
    allow("says a long message", _condition_of("KataReady", message="ä" * 1024), "status"),
    allow("changes nothing", lambda _: None),
    deny("writes the operator's wish", _label("katanode.io/install", "absent")),
    deny("removes the operator's wish", _label("katanode.io/install", None)),
    deny("writes a label of others", _label("pool", "b")),
    deny("removes a label of others", _label("pool", None)),
    deny("adds a label of others", _label("node-role.kubernetes.io/control-plane", "")),
    deny("adds a label that only looks like its own", _label("handler.katanode.io.example.com/kata-clh", "true")),
    deny("labels others by way of the status", _label("pool", "b"), "status"),
    deny("says a state that there is not", _label("katanode.io/state", "splendid")),
    deny("says neither true nor false of the gate", _label("katacontainers.io/kata-runtime", "maybe")),
    deny("says neither true nor false of a handler", _label("handler.katanode.io/kata-clh", "maybe")),
    deny("says a version that is none", _label("katanode.io/kata-version", "Newest_One")),
    deny("writes an annotation", lambda it: it["metadata"]["annotations"].update({"example.com/note": "y"})),
    deny("removes an annotation", lambda it: it["metadata"].pop("annotations")),
    deny("adds an annotation", lambda it: it["metadata"]["annotations"].update({"katanode.io/x": "y"})),
    deny("adds a finalizer", lambda it: it["metadata"].update({"finalizers": ["example.com/keep"]})),
    deny("gives the Node an owner", _owner),
    deny("cordons the node", lambda it: it["spec"].update({"unschedulable": True})),
    deny("says where the machine is", lambda it: it["spec"].update({"providerID": "x://y"})),
    deny("sets a taint of others", _taint("example.com/broken")),
    deny("sets its taint with an effect that evicts", _taint("katanode.io/not-ready", "NoExecute")),
    deny("sets its taint as a startup taint", _taint("katanode.io/not-ready", value="starting")),
    deny("removes a taint of others", lambda it: it["spec"].pop("taints")),
    deny("changes a taint of others", lambda it: it["spec"]["taints"][0].update({"value": "b"})),
    deny("says another condition", _condition_of("DiskPressure", status="True"), "status"),
    deny("adds another condition", _condition_of("Ready", status="True"), "status"),
    deny("removes another condition", _without("DiskPressure"), "status"),
    deny("says its condition in a way that is none", _condition_of("KataReady", status="Perhaps"), "status"),
    deny("says its condition at length", _condition_of("KataReady", message="x" * 1025), "status"),
    deny("says what the node has", lambda it: it["status"].update({"capacity": {"cpu": "1000"}}), "status"),
    deny("says that the node has nothing", lambda it: it["status"].pop("capacity"), "status"),
    deny("says where the node is", lambda it: it["status"].update({"addresses": [_ADDRESS]}), "status"),
)
_ADDRESS = {"type": "InternalIP", "address": "10.0.0.1"}


def with_startup_taint(it: Object) -> Object:
    """A Node that its autoscaler keeps free until Kata is there."""
    it = deepcopy(it)
    it["spec"]["taints"].append({"key": "katanode.io/not-ready", "effect": "NoSchedule"})
    it["spec"]["taints"].append({"key": "katanode.io/not-ready", "effect": "NoExecute"})
    return it


def _drop(effect: str) -> Callable[[Object], object]:
    gone = ("katanode.io/not-ready", effect)
    return lambda it: it["spec"].update(
        {"taints": [t for t in it["spec"]["taints"] if (t["key"], t["effect"]) != gone]}
    )


STARTUP_CASES = (
    allow("removes the startup taint", _drop("NoSchedule")),
    allow("leaves the startup taint and labels", _label("katanode.io/state", "installing")),
    deny("removes the taint that evicts", _drop("NoExecute")),
)


def lease(holder: str = "", name: str = SLOT, **spec: Any) -> Object:
    """A restart slot."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": "katanode"},
        "spec": {"leaseDurationSeconds": 120, **({"holderIdentity": holder} if holder else {}), **spec},
    }


def _held_by(holder: str | None, **spec: Any) -> Callable[[Object], object]:
    def change(it: Object) -> None:
        it["spec"].pop("holderIdentity", None)
        it["spec"] |= spec if holder is None else {"holderIdentity": holder, **spec}

    return change


def _annotate(key: str) -> Callable[[Object], object]:
    return lambda it: it["metadata"].setdefault("annotations", {}).update({key: "x"})


def _labelled(it: Object) -> None:
    it["metadata"]["labels"] = {"katanode.io/failed": "true"}


def _called(name: str) -> Callable[[Object], object]:
    return lambda it: it["metadata"].update({"name": name})


def _finalized(it: Object) -> None:
    it["metadata"]["finalizers"] = ["example.com/keep"]


def _note(reason: str) -> Callable[[Object], object]:
    def change(it: Object) -> None:
        it["metadata"] |= {
            "labels": {"katanode.io/failed": "true"} if reason else {},
            "annotations": {"katanode.io/failed": reason, "katanode.io/settings": "x"} if reason else {},
        }

    return change


_RENEWED = {"renewTime": "2026-01-01T00:00:00.000000Z"}

LEASE_CREATIONS = (
    allow("makes a free slot", _held_by(None)),
    allow("makes a slot and takes it", _held_by(OWN)),
    allow("makes its node's note", _called(f"katanode-failed-{OWN}")),
    deny("makes a slot for another", _held_by(OTHER)),
    deny("makes a slot that hardly ends", _held_by(OWN, leaseDurationSeconds=86400)),
    deny("makes a slot with a finalizer", _finalized),
    deny("makes a slot with an owner", _owner),
    deny("makes a slot with an annotation", _annotate("example.com/x")),
    deny("makes a slot with a label", _labelled),
    deny("makes a Lease of another name", _called("katanode-leader")),
    deny("makes a slot that is none", _called("katanode-restart-x")),
    deny("makes another node's note", _called(f"katanode-failed-{OTHER}")),
)
LEASE_UPDATES = (
    ("", allow("takes a free slot", _held_by(OWN, **_RENEWED))),
    ("", deny("gives a free slot to another", _held_by(OTHER))),
    (OWN, allow("renews its slot", _held_by(OWN, **_RENEWED))),
    (OWN, allow("gives its slot back", _held_by(None))),
    (OWN, deny("hands its slot to another", _held_by(OTHER))),
    (OTHER, allow("takes over a slot that ran out", _held_by(OWN, **_RENEWED))),
    (OTHER, deny("renews another's slot", _held_by(OTHER, **_RENEWED))),
    (OTHER, deny("releases another's slot", _held_by(None))),
    (OTHER, deny("prolongs another's slot", _held_by(OTHER, leaseDurationSeconds=3600))),
    (OWN, deny("annotates its slot", _annotate("katanode.io/failed"))),
    (OWN, deny("labels its slot", _labelled)),
    (OWN, deny("puts a finalizer on its slot", _finalized)),
)
NOTE_UPDATES = (
    allow("notes that its node failed", _note("RestartFailed")),
    allow("notes that its node did not", _note("")),
    deny("puts a finalizer on its note", _finalized),
)


def event(regarding: str = OWN) -> Object:
    """An event about a Node."""
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "katanode-policy-test", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "type": "Normal",
        "reason": "Ready",
        "action": "Publish",
        "note": "a test",
        "reportingController": "katanode",
        "reportingInstance": "katanode-x",
        "regarding": {"apiVersion": "v1", "kind": "Node", "name": regarding},
    }


EVENT_CASES = (
    allow("tells of its Node", lambda _: None),
    deny("tells of another Node", lambda it: it["regarding"].update({"name": OTHER})),
    deny("tells of something else", lambda it: it["regarding"].update({"kind": "PersistentVolume"})),
    deny("tells as the kubelet", lambda it: it.update({"reportingController": "kubelet"})),
)


def pod() -> Object:
    """A tenant's pod that the policy takes."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "app", "namespace": "katanode-policy-test"},
        "spec": {
            "runtimeClassName": "kata-clh",
            "containers": [{"name": "app", "image": IMAGE}],
            "automountServiceAccountToken": False,
        },
    }


def _image(image: str) -> Callable[[Object], object]:
    return lambda it: it["spec"]["containers"][0].update({"image": image})


def _more(field: str, image: str) -> Callable[[Object], object]:
    return lambda it: it["spec"].update({field: [{"name": "more", "image": image}]})


def _pod_annotation(key: str, value: str = "2") -> Callable[[Object], object]:
    return lambda it: it["metadata"].setdefault("annotations", {}).update({key: value})


def _volume(reference: str) -> Callable[[Object], object]:
    return lambda it: it["spec"].update({"volumes": [{"name": "v", "image": {"reference": reference}}]})


POD_CREATIONS = (
    allow("is as it must be", lambda _: None),
    allow("takes the other RuntimeClass", lambda it: it["spec"].update({"runtimeClassName": "kata-qemu"})),
    allow("has an init container", _more("initContainers", IMAGE)),
    allow("sets an option that is allowed", _pod_annotation(ANNOTATION + "default_vcpus")),
    allow("has annotations of others", _pod_annotation("example.com/x")),
    allow("brings files of an image", _volume(IMAGE)),
    deny("names no RuntimeClass", lambda it: it["spec"].pop("runtimeClassName")),
    deny("has an image by tag", _image("registry.example.com/tenants/app:1")),
    deny("has an image by tag of that form", _image("registry.example.com/tenants/app:sha256-" + 64 * "a")),
    deny("has an image with a digest cut short", _image(IMAGE[:-1])),
    deny("has an image of another registry", _image("registry.example.org/tenants/app" + DIGEST)),
    deny("has an image of another folder", _image("registry.example.com/tenants-evil/app" + DIGEST)),
    deny(
        "has an image of a registry that only begins alike",
        _image("registry.example.com.evil.org/tenants/app" + DIGEST),
    ),
    deny("has an image of Docker Hub in short", _image("nginx" + DIGEST)),
    deny("has a second container", lambda it: it["spec"]["containers"].append({"name": "b", "image": "nginx:1"})),
    deny("has an init container from elsewhere", _more("initContainers", "nginx:1")),
    deny("brings files of an image from elsewhere", _volume("nginx:1")),
    deny("names a hypervisor", _pod_annotation(ANNOTATION + "path", "/tmp/x")),
    deny("sets any other option", _pod_annotation("io.katacontainers.config.runtime.sandbox_cgroup_only", "true")),
)
POD_UPDATES = (
    allow("gets a label", lambda it: it["metadata"].update({"labels": {"a": "b"}})),
    allow("gets a new image that is allowed", _image("registry.example.com/tenants/app@sha256:" + 64 * "b")),
    allow("gets a container to debug it", _more("ephemeralContainers", IMAGE), "ephemeralcontainers"),
    deny("gets an image from elsewhere", _image("nginx:1")),
    deny("gets an option that is not allowed", _pod_annotation(ANNOTATION + "kernel_params", "x")),
    deny("gets a container from elsewhere to debug it", _more("ephemeralContainers", "nginx:1"), "ephemeralcontainers"),
)


def old_pod() -> Object:
    """A pod from before its namespace got the label: nothing about it is as it must be."""
    it = pod()
    it["spec"]["containers"][0]["image"] = "nginx:1"
    del it["spec"]["runtimeClassName"]
    it["metadata"] |= {"annotations": {ANNOTATION + "path": "/tmp/x"}, "finalizers": ["example.com/keep"]}
    return it


OLD_POD_UPDATES = (
    allow("is finished", lambda it: it["metadata"].pop("finalizers")),
    allow("gets a label", lambda it: it["metadata"].update({"labels": {"a": "b"}})),
    deny("gets another image from elsewhere", _image("nginx:2")),
    deny("changes an option that is not allowed", _pod_annotation(ANNOTATION + "path", "/tmp/y")),
)


def changed(it: Object, case: Case) -> Object:
    """The object after the case, the given one left alone."""
    after = deepcopy(it)
    case.change(after)
    return after


def merge_patch(before: Any, after: Any) -> Any:
    """The JSON merge patch (RFC 7386) that leads from one object to the other."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    patch: dict[str, Any] = dict.fromkeys(before.keys() - after.keys())
    for key, value in after.items():
        if key not in before or before[key] != value:
            patch[key] = merge_patch(before.get(key), value)
    return patch
