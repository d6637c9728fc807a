"""The resources of this server, and how a URL names one.

What may be created by PUT and updated without a resourceVersion is ``AllowCreateOnUpdate`` and
``AllowUnconditionalUpdate`` of each strategy below ``k8s.io/kubernetes/pkg/registry`` (v1.36); the path in storage,
which messages show, is that of etcd.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hack.apistandin import errors, schemas
from hack.apistandin.decoding import decode
from hack.apistandin.managedfields import same_but_times

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hack.apistandin.fieldsets import Path
    from hack.apistandin.schema import Type

Object = dict[str, Any]

_STATUS: tuple[Path, ...] = (("f:status",),)
_SPEC: tuple[Path, ...] = (("f:spec",),)


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource in one version.

    Attributes:
        group: "" for core.
        plural: as URLs have it.
        kind: as objects have it.
        type: of its objects.
        namespaced: whether they live in a namespace.
        stored: the name in storage; kinds with the same one are views of the same objects.
        hub: whether storage keeps objects in this form.
        create_by_put: whether a PUT may create.
        unconditional: whether an update may come without resourceVersion.
        returns_deleted: whether a DELETE answers with the object instead of a Status.
        subresources: those that can be read and written.
        reset: fields that a write to the main resource ("") or a subresource does not change.
        renamed: for a view, its field names to those of the hub.
    """

    group: str
    plural: str
    kind: str
    type: Type
    namespaced: bool = True
    stored: str = ""
    hub: bool = True
    create_by_put: bool = False
    unconditional: bool = True
    returns_deleted: bool = False
    subresources: tuple[str, ...] = ()
    reset: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The apiVersion."""
        return f"{self.group}/v1" if self.group else "v1"

    @property
    def storage(self) -> str:
        """The name in storage."""
        return self.stored or self.plural

    def storage_key(self, namespace: str, name: str) -> str:
        """The path in storage."""
        return "/registry/" + "/".join(filter(None, (self.storage, namespace, name)))

    def from_hub(self, stored: Object) -> Object:
        """A stored object in this version's form."""
        if not self.renamed:
            return stored
        back = {hub: own for own, hub in self.renamed.items()}
        made: Object = decode({back.get(name, name): value for name, value in stored.items()}, self.type, "", [])
        return made

    def to_hub(self, made: Object) -> Object:
        """An object of this version as storage keeps it."""
        if not self.renamed:
            return made
        hub = next(kind for kind in KINDS if kind.storage == self.storage and kind.hub)
        stored: Object = decode({self.renamed.get(n, n): value for n, value in made.items()}, hub.type, "", [])
        return stored


_WITH_STATUS: Mapping[str, tuple[Path, ...]] = {"": _STATUS, "status": _SPEC}

NODES = Kind(
    "",
    "nodes",
    "Node",
    schemas.NODE,
    namespaced=False,
    stored="minions",
    subresources=("status",),
    reset=_WITH_STATUS,
)
PODS = Kind(
    "",
    "pods",
    "Pod",
    schemas.POD,
    subresources=("status",),
    returns_deleted=True,
    reset={
        "": _STATUS,
        "status": (*_SPEC, ("f:metadata", "f:deletionTimestamp"), ("f:metadata", "f:ownerReferences")),
    },
)
NAMESPACES = Kind(
    "",
    "namespaces",
    "Namespace",
    schemas.NAMESPACE,
    namespaced=False,
    subresources=("status",),
    returns_deleted=True,
    reset=_WITH_STATUS,
)
CONFIG_MAPS = Kind("", "configmaps", "ConfigMap", schemas.CONFIG_MAP)
EVENTS_CORE = Kind("", "events", "Event", schemas.EVENT_CORE, create_by_put=True)
EVENTS = Kind(
    "events.k8s.io",
    "events",
    "Event",
    schemas.EVENT,
    hub=False,
    create_by_put=True,
    renamed={
        "regarding": "involvedObject",
        "note": "message",
        "reportingController": "reportingComponent",
        "deprecatedSource": "source",
        "deprecatedFirstTimestamp": "firstTimestamp",
        "deprecatedLastTimestamp": "lastTimestamp",
        "deprecatedCount": "count",
    },
)
LEASES = Kind("coordination.k8s.io", "leases", "Lease", schemas.LEASE, create_by_put=True, unconditional=False)
RUNTIME_CLASSES = Kind(
    "node.k8s.io",
    "runtimeclasses",
    "RuntimeClass",
    schemas.RUNTIME_CLASS,
    namespaced=False,
    create_by_put=True,
    unconditional=False,
)

KINDS = (NODES, PODS, NAMESPACES, CONFIG_MAPS, EVENTS_CORE, EVENTS, LEASES, RUNTIME_CLASSES)
_BY_URL = {(kind.group, kind.plural): kind for kind in KINDS}


def views(kind: Kind) -> dict[str, Kind]:
    """All versions of the same stored objects, by apiVersion."""
    return {other.version: other for other in KINDS if other.storage == kind.storage}


def versions_differ(before: Object, after: Object) -> bool:
    """Whether two stored objects differ in more than the times of their managers."""
    old, new = before.get("metadata", {}), after.get("metadata", {})
    left = {k: v for k, v in old.items() if k != "managedFields"}
    right = {k: v for k, v in new.items() if k != "managedFields"}
    if left != right or not same_but_times(old.get("managedFields", []), new.get("managedFields", [])):
        return True
    return {k: v for k, v in before.items() if k != "metadata"} != {k: v for k, v in after.items() if k != "metadata"}


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL names.

    Attributes:
        kind: the resource.
        namespace: "" for cluster scope or all namespaces.
        name: "" for a collection.
        subresource: "" for the main resource.
    """

    kind: Kind
    namespace: str
    name: str
    subresource: str


def target(path: str) -> Target:
    """What `path` names.

    Raises:
        ApiError: 404: nothing here is called so.
    """
    parts = path.strip("/").split("/")
    if parts[:2] == ["api", "v1"]:
        group, rest = "", parts[2:]
    elif len(parts) >= 3 and parts[0] == "apis" and parts[2] == "v1":
        group, rest = parts[1], parts[3:]
    else:
        raise errors.no_such_path()
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces" and (group, rest[2]) in _BY_URL:
        namespace, rest = rest[1], rest[2:]
    kind = _BY_URL.get((group, rest[0])) if rest else None
    if kind is None or bool(namespace) > kind.namespaced or len(rest) > 3 or "" in rest:
        raise errors.no_such_path()
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if (subresource and subresource not in kind.subresources) or (kind.namespaced and name and not namespace):
        raise errors.no_such_path()
    return Target(kind, namespace, name, subresource)
