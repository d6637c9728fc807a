"""What each kind does to an object before it is stored, and what it refuses.

From the strategies below ``k8s.io/kubernetes/pkg/registry`` and ``pkg/apis/*/validation`` (v1.36), and from the
admission plugins that are on by default: TaintNodesByCondition (a new Node is tainted not-ready).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hack.apistandin import kinds, validation
from hack.apistandin.errors import FieldError, duplicate, forbidden_value, invalid_value, not_supported, required

if TYPE_CHECKING:
    from hack.apistandin.kinds import Kind, Object

NOT_READY = "node.kubernetes.io/not-ready"
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_LIMITS = {"reportingInstance": 128, "action": 128, "reason": 128, "message": 1024}


@dataclass(frozen=True, slots=True)
class Change:
    """One write on its way to storage, in the storage's form.

    Attributes:
        kind: the version that the request speaks.
        new: the object to be.
        old: the object that is; None for a create.
        subresource: "" for the main resource.
    """

    kind: Kind
    new: Object
    old: Object | None
    subresource: str


def default(kind: Kind, made: Object) -> None:
    """Fill in what a server defaults while it decodes, so that the writer owns it."""
    if kind is kinds.NAMESPACES:
        made["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = made["metadata"].get("name", "")
    if kind is kinds.NODES:
        status = made["status"]
        if "capacity" in status:
            status.setdefault("allocatable", dict(status["capacity"]))
    if kind is kinds.PODS:
        spec = made["spec"]
        for name, value in (
            ("restartPolicy", "Always"),
            ("terminationGracePeriodSeconds", 30),
            ("dnsPolicy", "ClusterFirst"),
            ("securityContext", {}),
            ("schedulerName", "default-scheduler"),
            ("enableServiceLinks", True),
        ):
            spec.setdefault(name, value)
        for container in spec.get("containers") or []:
            container.setdefault("terminationMessagePath", "/dev/termination-log")
            container.setdefault("terminationMessagePolicy", "File")
            image = container.get("image", "")
            untagged = ":" not in image.rsplit("/", 1)[-1] and "@" not in image
            latest = untagged or image.endswith(":latest")
            container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")


def prepare(change: Change) -> None:
    """Put back what this write may not change, and set what the server itself keeps (``PrepareFor*``)."""
    new, old = change.new, change.old
    if old is None:
        _prepare_create(change.kind, new)
        return
    if change.kind is kinds.NODES and "podCIDRs" in new["spec"]:
        # The conversion to and from the form in storage keeps the two in step.
        new["spec"]["podCIDR"] = new["spec"]["podCIDRs"][0]
    if change.kind in (kinds.NODES, kinds.PODS, kinds.NAMESPACES):
        part = "spec" if change.subresource == "status" else "status"
        new[part] = old[part]
    if change.kind is kinds.PODS:
        if change.subresource == "status":
            _put_back(new["metadata"], old["metadata"], "ownerReferences")
        elif new["spec"] != old["spec"]:
            new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1


def _prepare_create(kind: Kind, new: Object) -> None:
    if kind is kinds.NODES:
        taints = new["spec"].setdefault("taints", [])
        if not any(taint["key"] == NOT_READY and taint["effect"] == "NoSchedule" for taint in taints):
            taints.append({"key": NOT_READY, "effect": "NoSchedule"})
    elif kind is kinds.PODS:
        new["metadata"]["generation"] = 1
        new["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    elif kind is kinds.NAMESPACES:
        new["spec"] = {"finalizers": ["kubernetes"]}
        new["status"] = {"phase": "Active"}


def _put_back(new: Object, old: Object, name: str) -> None:
    new.pop(name, None)
    if name in old:
        new[name] = old[name]


def warnings(change: Change) -> list[str]:
    """What is let through with a warning (``pkg/api/node/warnings.go``)."""
    if change.kind is kinds.NODES and not change.subresource and change.new["spec"].get("externalID"):
        return ["spec.externalID: this field is deprecated, and is unused by Kubernetes"]
    return []


def problems(change: Change) -> list[FieldError]:
    """Why this write is refused; empty when it is not."""
    kind, new, old = change.kind, change.new, change.old
    found: list[FieldError] = []
    if kind.storage != "events":
        found += validation.metadata(new["metadata"], namespaced=kind.namespaced, label_name=kind is kinds.NAMESPACES)
    found += {
        "minions": _node,
        "leases": _lease,
        "configmaps": _config_map,
        "runtimeclasses": _runtime_class,
        "events": _event,
        "pods": _pod,
    }.get(kind.storage, lambda _change: [])(change)
    if old is not None:
        # A real server looks at metadata twice, in common and in the kind's own validation: causes repeat.
        again = validation.metadata_update(new["metadata"], old["metadata"])
        found = again + again + found
    return found


def _node(change: Change) -> list[FieldError]:
    found: list[FieldError] = []
    spec, old = change.new["spec"], (change.old or {}).get("spec", {})
    seen: set[tuple[str, str]] = set()
    for i, taint in enumerate(spec.get("taints", [])):
        # The real path is metadata.taints, although the taints are in spec.
        at = f"metadata.taints[{i}]"
        found += [invalid_value(f"{at}.key", taint["key"], why) for why in validation.qualified_name(taint["key"])]
        value = taint.get("value", "")
        wrong = validation.label_value(value)
        if wrong:
            found.append(invalid_value(f"{at}.value", value, ";".join(wrong)))
        if not taint["effect"]:
            found.append(required(f"{at}.effect"))
        elif taint["effect"] not in _EFFECTS:
            found.append(not_supported(f"{at}.effect", taint["effect"], _EFFECTS))
        pair = (taint["key"], taint["effect"])
        if pair in seen:
            shown = {
                "Key": pair[0],
                "Value": value,
                "Effect": pair[1],
                "TimeAdded": taint.get("timeAdded"),
            }
            found.append(duplicate(at, shown, "taints must be unique by key and effect pair"))
        seen.add(pair)
    for name, said in (("podCIDRs", "podCIDR"), ("providerID", "providerID")):
        if old.get(name) and spec.get(name) != old[name]:
            words = f'node updates may not change {said} except from "" to valid'
            found.append(forbidden_value(f"spec.{name}", words))
    if change.old is not None and spec.get("externalID") != old.get("externalID"):
        found.append(forbidden_value("spec.externalID", "may not be updated"))
    return found


def _lease(change: Change) -> list[FieldError]:
    spec = change.new["spec"]
    found = []
    if spec.get("leaseDurationSeconds", 1) <= 0:
        found.append(invalid_value("spec.leaseDurationSeconds", spec["leaseDurationSeconds"], "must be greater than 0"))
    if spec.get("leaseTransitions", 0) < 0:
        words = "must be greater than or equal to 0"
        found.append(invalid_value("spec.leaseTransitions", spec["leaseTransitions"], words))
    return found


def _config_map(change: Change) -> list[FieldError]:
    new, old = change.new, change.old
    found = []
    for part in ("data", "binaryData"):
        for key in new.get(part, {}):
            found += [invalid_value(f"{part}[{key}]", key, why) for why in validation.config_key(key)]
    if old is not None and old.get("immutable"):
        words = "field is immutable when `immutable` is set"
        found += [
            forbidden_value(part, words)
            for part in ("immutable", "data", "binaryData")
            if new.get(part) != old.get(part)
        ]
    return found


def _runtime_class(change: Change) -> list[FieldError]:
    new, old = change.new, change.old
    handler = new["handler"]
    found = (
        [invalid_value("handler", handler, why) for why in validation.dns_label(handler)]
        if handler
        else [required("handler")]
    )
    if old is not None and handler != old["handler"]:
        found.append(invalid_value("handler", handler, "field is immutable"))
    return found


def _pod(change: Change) -> list[FieldError]:
    found = []
    containers = change.new["spec"].get("containers") or []
    if not containers:
        found.append(required("spec.containers"))
    for i, container in enumerate(containers):
        if not container["name"]:
            found.append(required(f"spec.containers[{i}].name"))
        if not container.get("image"):
            found.append(required(f"spec.containers[{i}].image"))
    return found


def _event(change: Change) -> list[FieldError]:
    """``pkg/apis/core/validation/events.go``: strict by events.k8s.io, lenient by core."""
    new = change.new
    strict = change.kind is kinds.EVENTS
    namespace, involved = new["metadata"].get("namespace", ""), new["involvedObject"].get("namespace", "")
    found = []
    fits = ("default", "kube-system") if new.get("eventTime") else ("", "default")
    if namespace != involved and (involved or namespace not in fits) and not (new.get("eventTime") and involved):
        found.append(invalid_value("involvedObject.namespace", involved, "does not match event.namespace"))
    if new.get("eventTime"):
        shown = "reportingController" if strict else "reportingComponent"
        controller = new["reportingComponent"]
        if not controller:
            found.append(required(shown))
        found += [invalid_value(shown, controller, why) for why in validation.qualified_name(controller)]
        found += [required(name) for name in ("reportingInstance", "action", "reason") if not new.get(name)]
        found += [
            invalid_value(name, "", f"can have at most {limit} characters")
            for name, limit in _LIMITS.items()
            if len(new.get(name, "")) > limit
        ]
    if strict:
        found += _event_strict(change)
    return found


def _event_strict(change: Change) -> list[FieldError]:
    new, old = change.new, change.old
    found: list[FieldError] = []
    series: Any = new.get("series")
    if series is not None and (old is None or series != old.get("series")):
        if series.get("count", 0) < 2:
            found.append(invalid_value("series.count", "", "should be at least 2"))
        if not series.get("lastObservedTime"):
            found.append(required("series.lastObservedTime"))
    if old is not None:
        kept = (
            "involvedObject reason message source firstTimestamp lastTimestamp count type eventTime action related"
            " reportingComponent reportingInstance"
        )
        return found + [
            invalid_value(name, new.get(name), "field is immutable")
            for name in kept.split()
            if new.get(name) != old.get(name)
        ]
    found += validation.metadata(new["metadata"], namespaced=True)
    if not new.get("eventTime"):
        found.append(required("eventTime"))
    if new.get("type") not in ("Normal", "Warning"):
        found.append(invalid_value("type", "", f"has invalid value: {new.get('type', '')}"))
    found += [
        invalid_value(name, "", "needs to be unset")
        for name in ("firstTimestamp", "lastTimestamp", "count", "source")
        if new.get(name)
    ]
    return found
