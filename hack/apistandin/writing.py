"""What all writes have in common: where they go, and how a new version of an object is stored.

The order of the checks is that of ``pkg/registry/generic/registry/store.go`` of ``k8s.io/apiserver`` (v1.36).
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hack.apistandin import errors, kinds, managedfields, ownership, strategies
from hack.apistandin.decoding import decode

if TYPE_CHECKING:
    from hack.apistandin.access import User
    from hack.apistandin.bodies import Options
    from hack.apistandin.kinds import Kind, Object, Target
    from hack.apistandin.managedfields import Managed
    from hack.apistandin.store import Store

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
SYSTEM_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")


@dataclass(frozen=True, slots=True)
class Done:
    """What a write came to.

    Attributes:
        code: the HTTP status.
        stored: the object, as stored.
        changed: whether it changed anything.
        status: answered instead of the object, where a server does so.
    """

    code: int
    stored: Object
    changed: bool
    status: Object | None = None


class Writing:
    """One request's write.

    Args:
        store: where to.
        target: what is written.
        user: who writes.
        chosen: the request's options.
    """

    def __init__(self, store: Store, target: Target, user: User, chosen: Options) -> None:
        self._store = store
        self._target = target
        self._kind: Kind = target.kind
        self._user = user
        self._chosen = chosen
        views = kinds.views(self._kind)
        self._views = views
        self._scope = ownership.Scope(
            self._kind.version,
            {version: view.type for version, view in views.items()},
            self._converted,
            self._kind.reset.get(target.subresource, ()),
            target.subresource,
            now(),
        )

    def _converted(self, made: Object, version: str) -> Object:
        """An object of the request's version or of any other one, in `version`: fields are told by their names."""
        view = self._views[version]
        source = next((v for v in self._views.values() if v is not view), view)
        return view.from_hub(source.to_hub(made))

    def _create(self, made: Object, managed: Managed, *, check: bool) -> Done:
        """Store a new object; `check` asks for the right to create, for those who came another way than by POST."""
        kind, meta = self._kind, made["metadata"]
        self._namespace_exists()
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + "".join(random.choices(_SUFFIX, k=5))
        for name in SYSTEM_FIELDS:
            meta.pop(name, None)
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = now()
        new = self._finished(made, managed)
        change = strategies.Change(kind, new, None, self._target.subresource)
        strategies.prepare(change)
        self._refuse(strategies.problems(change), meta.get("name", ""))
        self._chosen.warnings += strategies.warnings(change)
        name = meta["name"]
        if check and not self._user.may("create", kind, "", self._target.namespace, name):
            why = self._user.cannot("create", kind, "", self._target.namespace)
            raise errors.forbidden(kind.group, kind.plural, name, why)
        if self._store.get(kind, self._target.namespace, name) is not None:
            raise errors.already_exists(kind.group, kind.plural, name)
        if meta.pop("resourceVersion", "0") != "0" and not check:
            raise errors.unexplained("resourceVersion should not be set on objects to be created")
        return Done(201, self._stored(new), changed=True)

    def _replace(self, old: Object, new: Object) -> Done:
        """Store `new`, in the storage's form, in the place of `old`."""
        kind, meta, before = self._kind, new["metadata"], old["metadata"]
        revision = meta.get("resourceVersion", "")
        if revision in ("", "0"):
            if not kind.unconditional:
                words = "must be specified for an update"
                group, plural = kind.group, kind.plural
                wrong = [errors.invalid_value("metadata.resourceVersion", 0, words)]
                raise errors.invalid(group, plural, self._target.name, wrong)
        elif revision != before["resourceVersion"]:
            raise errors.conflict(kind.group, kind.plural, self._target.name, errors.OPTIMISTIC_LOCK)
        meta["resourceVersion"] = before["resourceVersion"]
        meta.setdefault("uid", before["uid"])
        for name in ("creationTimestamp", "deletionTimestamp", "generation"):
            meta.pop(name, None)
            if name in before:
                meta[name] = before[name]
        if "deletionGracePeriodSeconds" in before:
            meta.setdefault("deletionGracePeriodSeconds", before["deletionGracePeriodSeconds"])
        change = strategies.Change(kind, new, old, self._target.subresource)
        strategies.prepare(change)
        self._refuse(strategies.problems(change), self._target.name)
        self._chosen.warnings += strategies.warnings(change)
        if not kinds.versions_differ(old, new):
            return Done(200, old, changed=False)
        if "deletionTimestamp" in meta and not meta.get("finalizers") and not meta.get("deletionGracePeriodSeconds"):
            if not self._chosen.dry_run:
                self._store.delete(kind, self._target.namespace, self._target.name)
            return Done(200, new, changed=True)
        return Done(200, self._stored(new), changed=True)

    def _empty(self) -> Object:
        """An object of the kind with nothing in it."""
        made: Object = decode({}, self._kind.type, "", [])
        return made

    def _place(self, made: Object) -> None:
        """The object goes where the URL says."""
        meta, wanted = made["metadata"], self._target.namespace
        found = meta.get("namespace", "")
        if self._kind.namespaced and found not in ("", wanted):
            words = "the namespace of the provided object does not match the namespace sent on the request"
            raise errors.bad_request(words)
        if self._kind.namespaced:
            meta["namespace"] = wanted

    def _right_name(self, made: Object) -> None:
        found, wanted = made["metadata"].get("name", ""), self._target.name
        if not found:
            words = f"the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
            raise errors.bad_request(words)
        if found != wanted:
            words = f"the name of the object ({found}) does not match the name on the URL ({wanted})"
            raise errors.bad_request(words)

    def _namespace_exists(self) -> None:
        """Admission plugin NamespaceLifecycle."""
        namespace = self._target.namespace
        if self._kind.namespaced and self._store.get(kinds.NAMESPACES, "", namespace) is None:
            raise errors.not_found("", "namespaces", namespace)

    def _finished(self, made: Object, managed: Managed) -> Object:
        """The object in the storage's form, with its owners."""
        entries = managedfields.write(managed)
        meta = {name: value for name, value in made["metadata"].items() if name != "selfLink"}
        if entries:
            meta["managedFields"] = entries
        return self._kind.to_hub({**made, "metadata": meta})

    def _refuse(self, found: list[errors.FieldError], name: str) -> None:
        if found:
            # Both versions of an event are told apart from no other: refusals name the one in storage.
            group = self._kind.group if self._kind.hub else ""
            raise errors.invalid(group, self._kind.kind, name, found)

    def _stored(self, new: Object) -> Object:
        return new if self._chosen.dry_run else self._store.put(self._kind, new)


def now() -> str:
    """The time, as metadata has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
