"""JSON patch, merge patch and strategic merge patch.

JSON patch is the `jsonpatch` package with what the server's own (``gopkg.in/evanphx/json-patch.v4``) does otherwise: a
missing field is null to a test and a copy, a missing value is null, and replacing a missing field adds it. Merge patch
is RFC 7396. Strategic merge is ``k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`` (v1.36) without
``$retainKeys``.
"""

from __future__ import annotations

import copy
import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import jsonpatch
import jsonpointer

from hack.apistandin import errors
from hack.apistandin.schema import AnyType, ListType, MapType

if TYPE_CHECKING:
    from hack.apistandin.schema import Type

MAX_OPERATIONS = 10000
_DIRECTIVE = "$patch"
_ORDER = "$setElementOrder/"
_DROP = "$deleteFromPrimitiveList/"


class _Test(jsonpatch.TestOperation):
    """A test for which a missing field is null."""

    def apply(self, obj: Any) -> Any:
        try:
            return super().apply(obj)
        except (jsonpatch.JsonPatchTestFailed, jsonpointer.JsonPointerException):
            if self.operation.get("value", ...) is None and self._missing(obj):
                return obj
            raise

    def _missing(self, obj: Any) -> bool:
        try:
            parent, key = self.pointer.to_last(obj)
        except jsonpointer.JsonPointerException:
            return False
        return isinstance(parent, dict) and key not in parent


class _Replace(jsonpatch.ReplaceOperation):
    """A replacement that adds a field which is not there, if what it would be in is."""

    def apply(self, obj: Any) -> Any:
        parent, key = self.pointer.to_last(obj)
        if isinstance(parent, dict) and key is not None and key not in parent:
            parent[key] = self.operation["value"]
            return obj
        return super().apply(obj)


class _Copy(jsonpatch.CopyOperation):
    """A copy for which a missing field is null."""

    def apply(self, obj: Any) -> Any:
        parent, key = self.pointer_cls(self.operation["from"]).to_last(obj)
        if isinstance(parent, dict) and key is not None and key not in parent:
            return jsonpatch.AddOperation({"op": "add", "path": self.location, "value": None}).apply(obj)
        return super().apply(obj)


class _Patch(jsonpatch.JsonPatch):
    operations = MappingProxyType({**jsonpatch.JsonPatch.operations, "copy": _Copy, "replace": _Replace, "test": _Test})


def json_patch(current: Any, body: bytes, unknown: list[str]) -> Any:
    """`current` after a JSON patch.

    Args:
        current: stays as it is.
        body: of the request.
        unknown: gets the members of operations that nobody knows.

    Raises:
        ApiError: 400 for what is no JSON patch, 413 for more than 10000 operations, 422 for one that does not apply.
    """
    operations = _parsed(body)
    if not isinstance(operations, list):
        got = {dict: "object", str: "string", bool: "bool"}.get(type(operations), "number")
        words = f"json: cannot unmarshal {got} into Go value of type []handlers.jsonPatchOp"
        raise errors.bad_request(f"error decoding patch: {words}")
    if len(operations) > MAX_OPERATIONS:
        message = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        raise errors.ApiError(413, "RequestEntityTooLarge", f"Request entity too large: {message}")
    for i, operation in enumerate(operations):
        if isinstance(operation, dict):
            unknown += [f"[{i}].{name}" for name in operation if name not in ("op", "path", "from", "value")]
            if operation.get("op") in ("add", "replace", "test"):
                operation.setdefault("value", None)
    try:
        return _Patch(operations).apply(current)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, KeyError):
        raise errors.rejected_patch() from None


def merge_patch(current: Any, body: bytes) -> Any:
    """`current` after a merge patch.

    Raises:
        ApiError: 400 for what is no JSON object.
    """
    return _merged(current, _object(body))


def _merged(current: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    out = dict(current) if isinstance(current, dict) else {}
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = _merged(out.get(name), value)
    return out


def strategic_merge(current: Any, body: bytes, kind: Type) -> Any:
    """`current` after a strategic merge patch, by the merge keys of `kind`.

    Raises:
        ApiError: 400 for what is no JSON object, 500 for an item without its merge key.
    """
    return _strategic_map(copy.deepcopy(current), _object(body, ""), kind)


def _strategic_map(current: Any, patch: dict[str, Any], kind: Type) -> Any:
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != _DIRECTIVE}
    if directive == "delete":
        return {}
    out = dict(current) if isinstance(current, dict) else {}
    for name, value in patch.items():
        if name.startswith(_DROP):
            field = name.removeprefix(_DROP)
            out[field] = [item for item in out.get(field) or [] if item not in value]
        elif value is None:
            out.pop(name, None)
        elif name != _DIRECTIVE and not name.startswith(_ORDER):
            out[name] = _strategic_value(out.get(name), value, _child(kind, name), patch.get(_ORDER + name))
    for name, order in patch.items():
        field = name.removeprefix(_ORDER)
        if name.startswith(_ORDER) and field not in patch and isinstance(out.get(field), list):
            key = getattr(_child(kind, field), "merge_key", "")
            out[field] = _ordered(out[field], order, out[field], key)
    return out


def _strategic_value(current: Any, value: Any, kind: Type, order: Any) -> Any:
    if isinstance(value, dict):
        return _strategic_map(current, value, kind)
    if isinstance(value, list):
        return _strategic_list(current or [], value, kind, order)
    return value


def _child(kind: Type, name: str) -> Type:
    if isinstance(kind, MapType):
        known = kind.fields.get(name)
        return known.type if known is not None else kind.element or AnyType()
    return AnyType()


def _strategic_list(current: list[Any], patch: list[Any], kind: Type, order: Any) -> list[Any]:
    if not isinstance(kind, ListType) or not (kind.merge_key or kind.merge):
        return patch
    if kind.merge:
        joined = current + [item for item in patch if item not in current]
        return _ordered(joined, order or patch, current, "")
    key = kind.merge_key
    whole = [item for item in patch if isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" and key not in item]
    items = [item for item in patch if item not in whole]
    out = [] if whole else list(current)
    for item in items:
        if not isinstance(item, dict) or key not in item:
            raise errors.unexplained(f"map: {item} does not contain declared merge key: {key}")
        at = next((i for i, old in enumerate(out) if old.get(key) == item[key]), None)
        if item.get(_DIRECTIVE) == "delete":
            out = [old for old in out if old.get(key) != item[key]]
        elif at is None:
            out.append(_strategic_map({}, item, kind.element))
        else:
            out[at] = _strategic_map(out[at], item, kind.element)
    return _ordered(out, order or items, current, key)


def _ordered(items: list[Any], order: list[Any], before: list[Any], key: str) -> list[Any]:
    """The items in the patch's order, those that it does not name where they were (``normalizeElementOrder``).

    Args:
        items: the merged ones.
        order: of the patch.
        before: the items before it.
        key: the merge key; "" for scalars.
    """

    def name(item: Any) -> Any:
        return item.get(key) if key and isinstance(item, dict) else item

    wanted, was = [name(item) for item in order], [name(item) for item in before]
    right = sorted((item for item in items if name(item) in wanted), key=lambda item: wanted.index(name(item)))
    left = [item for item in items if name(item) not in wanted]
    out: list[Any] = []
    while left and right:
        one, other = name(left[0]), name(right[0])
        first = one in was and other in was and was.index(one) < was.index(other)
        out.append(left.pop(0) if first else right.pop(0))
    return out + left + right


def _object(body: bytes, said_before: str = "error decoding patch: ") -> dict[str, Any]:
    patch = _parsed(body)
    if not isinstance(patch, dict):
        got = {list: "array", str: "string", bool: "bool"}.get(type(patch), "number")
        words = f"json: cannot unmarshal {got} into Go value of type map[string]interface {{}}"
        raise errors.bad_request(f"{said_before}{words}")
    return patch


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise errors.bad_request(f"error decoding patch: {error}") from None
