"""Creates, updates, patches, applies and deletes.

The order of the checks is that of ``k8s.io/apiserver/pkg/endpoints/handlers`` (create.go, update.go, patch.go,
delete.go) and ``pkg/registry/generic/registry/store.go`` (v1.36).
"""

from __future__ import annotations

import json
import random
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hack.apistandin import bodies, errors, kinds, managedfields, ownership, patches, strategies, typed
from hack.apistandin.decoding import DecodeError, decode
from hack.apistandin.managedfields import Managed

if TYPE_CHECKING:
    from collections.abc import Callable

    from hack.apistandin.access import User
    from hack.apistandin.bodies import Options
    from hack.apistandin.kinds import Kind, Object, Target
    from hack.apistandin.store import Store

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_SYSTEM_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")


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


class Writer:
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
            _now(),
        )

    def _converted(self, made: Object, version: str) -> Object:
        """An object of the request's version or of any other one, in `version`: fields are told by their names."""
        view = self._views[version]
        source = next((v for v in self._views.values() if v is not view), view)
        return view.from_hub(source.to_hub(made))

    # create

    def create(self, body: bytes, content_type: str) -> Done:
        """POST."""
        made = bodies.whole_object(self._kind, body, content_type, self._chosen)
        self._place(made)
        meta = made["metadata"]
        for name in _SYSTEM_FIELDS:
            meta.pop(name, None)
        managed = _live_or_new({}, made) or Managed()
        meta.pop("managedFields", None)
        strategies.default(self._kind, made)
        managed = ownership.update(self._scope, self._empty(), made, managed, self._chosen.manager)
        return self._create(made, managed, check=False)

    def _create(self, made: Object, managed: Managed, *, check: bool) -> Done:
        """Store a new object; `check` asks for the right to create, for those who came another way than by POST."""
        kind, meta = self._kind, made["metadata"]
        self._namespace_exists()
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + "".join(random.choices(_SUFFIX, k=5))
        for name in _SYSTEM_FIELDS:
            meta.pop(name, None)
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = _now()
        new = self._finished(made, managed)
        change = strategies.Change(kind, new, None, self._target.subresource)
        strategies.prepare(change)
        self._refuse(strategies.problems(change), meta.get("name", ""))
        name = meta["name"]
        if check and not self._user.may("create", kind, "", self._target.namespace, name):
            why = self._user.cannot("create", kind, "", self._target.namespace)
            raise errors.forbidden(kind.group, kind.plural, name, why)
        if self._store.get(kind, self._target.namespace, name) is not None:
            raise errors.already_exists(kind.group, kind.plural, name)
        if meta.pop("resourceVersion", "0") != "0" and not check:
            raise errors.unexplained("resourceVersion should not be set on objects to be created")
        return Done(201, self._stored(new), changed=True)

    # update

    def update(self, body: bytes, content_type: str) -> Done:
        """PUT."""
        made = bodies.whole_object(self._kind, body, content_type, self._chosen)
        self._place(made)
        self._right_name(made)
        strategies.default(self._kind, made)
        target, kind = self._target, self._kind
        old = self._store.get(kind, target.namespace, target.name)
        uid = made["metadata"].get("uid")
        if old is None:
            if not kind.create_by_put or target.subresource:
                raise errors.not_found(kind.group, kind.plural, target.name)
            if uid:
                self._precondition("UID", uid, "")
            managed = ownership.update(self._scope, self._empty(), made, Managed(), self._chosen.manager)
            made["metadata"].pop("managedFields", None)
            return self._create(made, managed, check=True)
        if uid:
            self._precondition("UID", uid, old["metadata"]["uid"])
        return self._change(old, lambda _live: made)

    def _precondition(self, what: str, wanted: str, found: str) -> None:
        if wanted != found:
            key = self._kind.storage_key(self._target.namespace, self._target.name)
            words = f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            storage = f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {words}"
            raise errors.conflict(self._kind.group, self._kind.plural, self._target.name, storage)

    def _change(self, old: Object, make: Callable[[Object], Object]) -> Done:
        """Store what `make` makes of the live object, and let the writer own what it changed."""
        live = self._kind.from_hub(old)
        made = make(live)
        managed = _live_or_new(live, made, subresource=bool(self._target.subresource)) or Managed()
        made["metadata"].pop("managedFields", None)
        if managed.owners:
            # An object of which nobody's fields are known stays so until its first apply (internal/skipnonapplied.go).
            bare = {**live, "metadata": {k: v for k, v in live["metadata"].items() if k != "managedFields"}}
            managed = ownership.update(self._scope, bare, made, managed, self._chosen.manager)
        self._place(made)
        self._right_name(made)
        return self._replace(old, self._finished(made, managed))

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
        if not kinds.versions_differ(old, new):
            return Done(200, old, changed=False)
        if "deletionTimestamp" in meta and not meta.get("finalizers") and not meta.get("deletionGracePeriodSeconds"):
            if not self._chosen.dry_run:
                self._store.delete(kind, self._target.namespace, self._target.name)
            return Done(200, new, changed=True)
        return Done(200, self._stored(new), changed=True)

    # patch

    def patch(self, body: bytes, content_type: str) -> Done:
        """PATCH of the four kinds."""
        kind, target = self._kind, self._target
        old = self._store.get(kind, target.namespace, target.name)
        media = bodies.media_type(content_type)
        if media == bodies.APPLY:
            return self._apply(body, old)
        if old is None:
            raise errors.not_found(kind.group, kind.plural, target.name)

        def patched(live: Object) -> Object:
            whole = {"apiVersion": kind.version, "kind": kind.kind, **live}
            odd: list[str] = []
            match media:
                case bodies.JSON_PATCH:
                    made = patches.json_patch(whole, body, odd)
                case bodies.MERGE_PATCH:
                    made = patches.merge_patch(whole, body)
                case _:
                    made = patches.strategic_merge(whole, body, kind.type)
            return self._redecoded(made, odd)

        return self._change(old, patched)

    def _redecoded(self, made: Any, odd: list[str]) -> Object:
        """A patched object, decoded again.

        Raises:
            ApiError: 422 of no kind, about the field "patch": a wrong type, or an unknown field when that is refused.
        """
        try:
            if not isinstance(made, dict):
                raise DecodeError("json: cannot unmarshal into Go value of type struct")
            version, name = made.get("apiVersion") or self._kind.version, made.get("kind") or self._kind.kind
            if (version, name) != (self._kind.version, self._kind.kind):
                found = f'no kind "{name}" is registered for version "{version}"'
                raise DecodeError(f'{found} in scheme "pkg/runtime/scheme.go:111"')
            unknown: list[str] = []
            new: Object = decode(bodies.untyped(made), self._kind.type, "", unknown)
            bodies.note_unknown(odd, self._chosen, "json patch ")
            bodies.note_unknown(unknown, self._chosen)
        except DecodeError as error:
            shown = json.dumps(made, separators=(",", ":"), ensure_ascii=False)
            raise errors.invalid("", "", "", [errors.invalid_value("patch", shown, str(error))]) from None
        strategies.default(self._kind, new)
        return new

    def _apply(self, body: bytes, old: Object | None) -> Done:
        """Server-side apply."""
        kind, target = self._kind, self._target
        applied = self._applied(body)
        if old is None and target.subresource:
            raise errors.not_found(kind.group, kind.plural, target.name)
        live = self._empty() if old is None else kind.from_hub(old)
        managed = managedfields.read(live["metadata"].get("managedFields")) or Managed()
        bare = {**live, "metadata": {k: v for k, v in live["metadata"].items() if k != "managedFields"}}
        merged, managed = ownership.apply(
            self._scope, bare, applied, managed, self._chosen.manager, force=self._chosen.force
        )
        try:
            # Who applies nothing of all that they alone applied before loses metadata too, and with it the name.
            made: Object = decode(merged or {}, kind.type, "", [])
        except DecodeError as error:
            shown = kind.version if kind.group else f"/{kind.version}"
            gvk = f"{shown}, Kind={kind.kind}"
            where = f"{applied.get('metadata', {}).get('namespace', '')}/{applied.get('metadata', {}).get('name', '')}"
            why = f"to proper version: unable to convert unstructured object to {gvk}: {error}"
            raise errors.unexplained(f"failed to convert new object ({where}; {gvk}) {why}") from None
        uid = made["metadata"].get("uid")
        if old is None and uid:
            words = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            raise errors.conflict(kind.group, kind.plural, target.name, words)
        self._place(made)
        self._right_name(made)
        strategies.default(kind, made)
        if old is None:
            return self._create(made, managed, check=True)
        return self._replace(old, self._finished(made, managed))

    def _applied(self, body: bytes) -> Object:
        """What an apply wants, checked against the schema.

        Raises:
            ApiError: 400: not parsed, another kind; 500 without a reason: not of the schema, as a real server has it.
        """
        kind = self._kind
        try:
            raw = bodies.load_yaml(body)
        except ValueError as error:
            raise errors.bad_request(f"error decoding YAML: error converting YAML to JSON: {error}") from None
        if not isinstance(raw, dict):
            words = "json: cannot unmarshal array into Go value of type map[string]interface {}"
            raise errors.bad_request(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: {words}")
        version, name = raw.get("apiVersion", ""), raw.get("kind", "")
        if (version, name) != (kind.version, kind.kind):
            group, slash, short = version.rpartition("/")
            shown = f"{group}{slash}{short}" if slash else f"/{version}"
            raise errors.bad_request(f"invalid object type: {shown}, Kind={name}")
        applied = bodies.untyped(raw)
        meta = applied.get("metadata")
        meta = meta if isinstance(meta, dict) else {}
        if meta.get("managedFields") is not None:
            raise errors.bad_request("metadata.managedFields must be nil")
        found = typed.problems(applied, kind.type)
        if found:
            said = found[0] if len(found) == 1 else "errors:\n" + "\n".join(f"  {one}" for one in found)
            shown = version if "/" in version else f"/{version}"
            what = f"{meta.get('namespace', '')}/{meta.get('name', '')}; {shown}, Kind={name}"
            raise errors.unexplained(f"failed to create typed patch object ({what}): {said}")
        return applied

    # delete

    def delete(self, preconditions: dict[str, str], grace: int | None) -> Done:
        """DELETE.

        Args:
            preconditions: uid and resourceVersion that the object must have.
            grace: seconds; None for the object's own.
        """
        kind, target = self._kind, self._target
        old = self._store.get(kind, target.namespace, target.name)
        if old is None:
            raise errors.not_found(kind.group, kind.plural, target.name)
        self._still_the_one(old["metadata"], preconditions)
        gone = old if self._chosen.dry_run else self._deleted(old, grace)
        details = {"name": target.name, "group": kind.group, "kind": kind.plural, "uid": old["metadata"]["uid"]}
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {name: value for name, value in details.items() if value},
        }
        stays = "deletionTimestamp" in gone["metadata"]
        return Done(200, gone, changed=True, status=None if kind.returns_deleted or stays else status)

    def _still_the_one(self, meta: Object, preconditions: dict[str, str]) -> None:
        """``BeforeDelete`` of ``pkg/registry/rest/delete.go``."""
        kind, name = self._kind, self._target.name
        uid, revision = preconditions.get("uid"), preconditions.get("resourceVersion")
        if uid is not None and uid != meta["uid"]:
            words = (
                f"the UID in the precondition ({uid}) does not match the UID in record ({meta['uid']})."
                " The object might have been deleted and then recreated"
            )
            raise errors.conflict(kind.group, kind.kind, name, words)
        if revision is not None and revision != meta["resourceVersion"]:
            words = (
                f"the ResourceVersion in the precondition ({revision}) does not match the ResourceVersion in record"
                f" ({meta['resourceVersion']}). The object might have been modified"
            )
            raise errors.conflict(kind.group, kind.kind, name, words)

    def _deleted(self, old: Object, grace: int | None) -> Object:
        """The object after its deletion: gone, or marked for a kubelet or a finalizer to let it go."""
        kind, store = self._kind, self._store
        meta = dict(old["metadata"])
        own = old["spec"].get("terminationGracePeriodSeconds", 30) if kind is kinds.PODS else 0
        wanted = own if grace is None else grace
        graceful = kind is kinds.PODS and bool(old["spec"].get("nodeName")) and wanted > 0
        if graceful or meta.get("finalizers"):
            if "deletionTimestamp" in meta and wanted >= meta.get("deletionGracePeriodSeconds", 0):
                return old
            meta["deletionTimestamp"] = _now()
            meta["deletionGracePeriodSeconds"] = wanted if graceful else 0
            return store.put(kind, {**old, "metadata": meta})
        if kind is kinds.NAMESPACES:
            # No controller here: what is in the namespace goes with it.
            for other in {one.storage: one for one in kinds.KINDS if one.namespaced}.values():
                for inside in store.list(other, self._target.name):
                    store.delete(other, self._target.name, inside["metadata"]["name"])
            gone = store.delete(kind, "", self._target.name)
            meta = {**gone["metadata"], "deletionTimestamp": _now()}
            return {**gone, "metadata": meta, "status": {**gone["status"], "phase": "Terminating"}}
        return store.delete(kind, self._target.namespace, self._target.name)

    # what they share

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


def _live_or_new(live: Object, new: Object, *, subresource: bool = False) -> Managed | None:
    """Owners that the request sends are taken, except through a subresource (``internal/fieldmanager.go``).

    Sending an empty list, or one empty entry, resets them.
    """
    before = managedfields.read(live.get("metadata", {}).get("managedFields"))
    if subresource:
        return before
    sent = new["metadata"].get("managedFields")
    if sent in ([], [{}]):
        return Managed()
    managed = managedfields.read(sent)
    return managed if managed is not None and managed.owners else before


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
