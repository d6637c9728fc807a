"""Creates, updates, patches and applies.

The order of the checks is that of ``k8s.io/apiserver/pkg/endpoints/handlers`` (create.go, update.go, patch.go) and of
`hack.apistandin.writing`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hack.apistandin import bodies, errors, managedfields, ownership, patches, strategies, typed
from hack.apistandin.decoding import DecodeError, decode
from hack.apistandin.managedfields import Managed
from hack.apistandin.writing import SYSTEM_FIELDS, Done, Writing

if TYPE_CHECKING:
    from collections.abc import Callable

    from hack.apistandin.kinds import Object


class Writer(Writing):
    """A write of an object that the request carries or changes."""

    def create(self, body: bytes, content_type: str) -> Done:
        """POST."""
        made = bodies.whole_object(self._kind, body, content_type, self._chosen)
        self._place(made)
        meta = made["metadata"]
        for name in SYSTEM_FIELDS:
            meta.pop(name, None)
        managed = _live_or_new({}, made) or Managed()
        meta.pop("managedFields", None)
        strategies.default(self._kind, made)
        managed = ownership.update(self._scope, self._empty(), made, managed, self._chosen.manager)
        return self._create(made, managed, check=False)

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
            storage = (
                f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {words}"
            )
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
