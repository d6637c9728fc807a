"""Structured merge and diff of objects by schema.

What ``sigs.k8s.io/structured-merge-diff`` (v6) does in ``typed/validate.go``, ``typed/tofieldset.go``,
``typed/compare.go``, ``typed/merge.go`` and ``typed/remove.go``, for the types of `hack.apistandin.schema`. A value
that is not there is `MISSING`; None is JSON's null, which counts as an empty map or list.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from hack.apistandin.fieldsets import field_element, item_element
from hack.apistandin.schema import ANY, AnyType, ListType, MapType, Scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hack.apistandin.fieldsets import FieldSet, Path
    from hack.apistandin.schema import Type

MISSING: Final = object()
_GRANULAR = MapType(element=ANY)
_ATOMIC = ListType(ANY)
_LEAF = Scalar("string")


def _deduced(kind: Type, *values: object) -> Type:
    """The type, with what is not declared deduced from the values."""
    if not isinstance(kind, AnyType):
        return kind
    for value in reversed(values):
        if isinstance(value, dict):
            return _GRANULAR
        if isinstance(value, list):
            return _ATOMIC
    return _LEAF


def _child(kind: MapType, name: str) -> Type:
    known = kind.fields.get(name)
    return known.type if known is not None else kind.element or ANY


def problems(value: object, kind: Type, path: str = "") -> list[str]:
    """Why the value cannot be applied; empty when it can."""
    kind = _deduced(kind, value)
    at = f"{path}: " if path else ""
    match kind:
        case Scalar():
            return _scalar_problems(value, kind.kind, at)
        case MapType():
            if value is None:
                return []
            if not isinstance(value, dict):
                return [f"{at}expected map, got &{{{json.dumps(value)}}}"]
            found: list[str] = []
            for name, item in value.items():
                if name not in kind.fields and kind.element is None:
                    found.append(f"{path}.{name}: field not declared in schema")
                else:
                    found += problems(item, _child(kind, name), f"{path}.{name}")
            return found
        case ListType():
            return _list_problems(value, kind, path, at)
    return []


def _scalar_problems(value: object, kind: str, at: str) -> list[str]:
    shown = f"&value.valueUnstructured{{Value:{json.dumps(value)}}}"
    if kind == "string" and not isinstance(value, str | None):
        return [f"{at}expected string, got {shown}"]
    if kind == "boolean" and not isinstance(value, bool | None):
        return [f"{at}expected boolean, got {shown}"]
    if kind == "integer" and (isinstance(value, bool) or not isinstance(value, int | float | None)):
        return [f"{at}expected numeric (int or float), got {type(value).__name__}"]
    if isinstance(value, (dict, list)):
        return [f"{at}expected any scalar, got {shown}"]
    return []


def _list_problems(value: object, kind: ListType, path: str, at: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        return [f"{at}expected list, got &{{{json.dumps(value)}}}"]
    found: list[str] = []
    seen: set[str] = set()
    for i, item in enumerate(value):
        where = f"{path}[{i}]"
        if kind.relation != "atomic":
            if kind.relation == "map" and not (isinstance(item, dict) and any(key in item for key in kind.keys)):
                keys = " ".join(json.dumps(key) for key in kind.keys)
                why = "associative list with keys has an element that omits all key fields"
                found.append(f"{at}element {i}: {why} [{keys}] (and doesn't have default values for any key fields)")
                return found
            element = item_element(item, kind)
            where = path + _bracketed(element)
            if element in seen:
                found.append(f"{at}duplicate entries for key {_bracketed(element)}")
            seen.add(element)
        found += problems(item, kind.element, where)
    return found


def _bracketed(element: str) -> str:
    if element.startswith("k:"):
        pairs = json.loads(element[2:]).items()
        return "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in pairs) + "]"
    return f"[={element[2:]}]"


def field_set(value: object, kind: Type) -> FieldSet:
    """The fields that a value names."""
    paths: set[Path] = set()
    _collect(value, kind, (), paths)
    return frozenset(paths - {()})


def _collect(value: object, kind: Type, path: Path, paths: set[Path]) -> None:
    kind = _deduced(kind, value)
    match kind:
        case MapType(atomic=False):
            if not isinstance(value, dict):
                return
            for name, item in value.items():
                below = (*path, field_element(name))
                _collect(item, _child(kind, name), below, paths)
                if item is None or item == {} or name not in kind.fields:
                    paths.add(below)
        case ListType(relation="set" | "map"):
            for element, items in _indexed(value, kind).items():
                below = (*path, element)
                if len(items) == 1:
                    _collect(items[0], kind.element, below, paths)
                paths.add(below)
        case _:
            paths.add(path)


class Comparison:
    """What became of the fields between two values: `removed`, `modified`, `added`."""

    def __init__(self) -> None:
        self.removed: set[Path] = set()
        self.modified: set[Path] = set()
        self.added: set[Path] = set()

    def filtered(self, keep: Callable[[Iterable[Path]], FieldSet]) -> tuple[FieldSet, FieldSet, FieldSet]:
        """The three sets through a filter."""
        return keep(self.removed), keep(self.modified), keep(self.added)


def compare(old: object, new: object, kind: Type) -> Comparison:
    """How `new` differs from `old`."""
    found = Comparison()
    _compare(old, new, kind, (), found)
    for paths in (found.removed, found.modified, found.added):
        paths.discard(())
    return found


def _compare(old: Any, new: Any, kind: Type, path: Path, found: Comparison) -> None:
    kind = _deduced(kind, old, new)
    match kind:
        case MapType(atomic=False) if _both(old, new, dict) and (_some(old) or _some(new)):
            before, after = old if isinstance(old, dict) else {}, new if isinstance(new, dict) else {}
            for name in before.keys() | after.keys():
                pair = before.get(name, MISSING), after.get(name, MISSING)
                _compare(*pair, _child(kind, name), (*path, field_element(name)), found)
            _whole(old, new, path, found)
            return
        case ListType(relation="set" | "map") if _filled(old) or _filled(new):
            lefts, rights = _indexed(old, kind), _indexed(new, kind)
            for element in lefts.keys() | rights.keys():
                _compare_items(lefts.get(element, []), rights.get(element, []), kind, (*path, element), found)
            _whole(old, new, path, found)
            return
    if old is not MISSING and new is not MISSING:
        if old != new:
            found.modified.add(path)
    else:
        _whole(old, new, path, found)


def _compare_items(lefts: list[Any], rights: list[Any], kind: ListType, path: Path, found: Comparison) -> None:
    """One key's items; several of the same key are compared as one (``compareWalker.visitListItems``)."""
    if len(lefts) <= 1 and len(rights) <= 1:
        _compare(lefts[0] if lefts else MISSING, rights[0] if rights else MISSING, kind.element, path, found)
    elif len(lefts) > 1 and len(rights) > 1:
        if lefts != rights:
            found.modified.add(path)
    elif len(lefts) > 1:
        if rights:
            _compare(MISSING, rights[0], kind.element, path, found)
        found.removed.add(path)
    else:
        if lefts:
            _compare(lefts[0], MISSING, kind.element, path, found)
        found.added.add(path)


def _whole(old: object, new: object, path: Path, found: Comparison) -> None:
    if old is MISSING:
        found.added.add(path)
    elif new is MISSING:
        found.removed.add(path)


def _both(old: object, new: object, kind: type) -> bool:
    return all(value is MISSING or value is None or isinstance(value, kind) for value in (old, new))


def _filled(value: object) -> bool:
    return isinstance(value, list) and bool(value)


def _indexed(value: object, kind: ListType) -> dict[str, list[Any]]:
    index: dict[str, list[Any]] = {}
    for item in value if isinstance(value, list) else ():
        index.setdefault(item_element(item, kind), []).append(item)
    return index


def merge(live: Any, applied: Any, kind: Type) -> Any:
    """`live` with `applied` laid over it; what only one of them has is kept."""
    kind = _deduced(kind, live, applied)
    match kind:
        case MapType(atomic=False) if _both(live, applied, dict) and (_some(live) or _some(applied)):
            left, right = live if isinstance(live, dict) else {}, applied if isinstance(applied, dict) else {}
            names = dict.fromkeys((*left, *right))
            return {n: merge(left.get(n, MISSING), right.get(n, MISSING), _child(kind, n)) for n in names}
        case ListType(relation="set" | "map") if _filled(live) or _filled(applied):
            return _merge_lists(live if _filled(live) else [], applied if _filled(applied) else [], kind)
    return live if applied is MISSING else applied


def _some(value: object) -> bool:
    return isinstance(value, dict) and bool(value)


def _merge_lists(lefts: list[Any], rights: list[Any], kind: ListType) -> list[Any]:
    """Items of both; the applied order rules where both have an item (``mergingWalker.visitListItems``)."""
    left_names = [item_element(item, kind) for item in lefts]
    right_names = [item_element(item, kind) for item in rights]
    left_index, right_index = _indexed(lefts, kind), _indexed(rights, kind)
    shared = [name for name in right_names if name in left_index]
    out: list[Any] = []
    done: set[str] = set()
    i = j = 0

    def joined(name: str) -> Any:
        left = left_index.get(name, [])
        # Items that stand twice are not merged with the new one, they give way to it.
        return merge(left[0] if len(left) == 1 else MISSING, right_index[name][0], kind.element)

    while i < len(lefts) or j < len(rights):
        if i < len(lefts):
            name = left_names[i]
            if name not in right_index:
                out.append(lefts[i])
                i += 1
                continue
            if name in done or (shared and shared[0] != name):
                i += 1
                continue
        if j < len(rights):
            name = right_names[j]
            out.append(joined(name))
            done.add(name)
            if shared and shared[0] == name:
                shared.pop(0)
            j += 1
    return out


def remove(value: Any, paths: Iterable[Path], kind: Type) -> Any:
    """`value` without the fields and items at `paths`.

    A map or list of which nothing is left stays, empty, as structured-merge-diff has it from 6.3.1 to 6.4.1, in
    Kubernetes 1.36.0 to 1.36.2. An apply may then take more of a list than its manager owned: items that nobody owns.
    Before and after (1.36.3) it became null, and such items stayed.
    """
    tree: dict[str, Any] = {}
    for path in paths:
        here = tree
        for element in path:
            here = here.setdefault(element, {})
        here["."] = {}
    return _removed(value, tree, kind)


def _removed(value: Any, tree: dict[str, Any], kind: Type) -> Any:
    kind = _deduced(kind, value)
    match kind:
        case MapType(atomic=False) if _some(value):
            out = {}
            for name, item in value.items():
                below = tree.get(field_element(name))
                if below is None or "." not in below:
                    out[name] = item if below is None else _emptied(item, below, _child(kind, name))
            return out or None
        case ListType(relation="set" | "map") if _filled(value):
            items = []
            for item in value:
                below = tree.get(item_element(item, kind))
                if below is None or "." not in below:
                    items.append(item if below is None else _emptied(item, below, kind.element))
            return items or None
        case Scalar():
            return value
    return None


def _emptied(value: Any, tree: dict[str, Any], kind: Type) -> Any:
    left = _removed(value, tree, kind)
    if left is None and isinstance(value, dict | list):
        return type(value)()
    return left
