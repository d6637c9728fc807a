"""Sets of fields, and their wire format FieldsV1.

A path is a tuple of elements as FieldsV1 writes them: ``f:labels``, ``k:{"type":"Ready"}``, ``v:"x"``. A set of fields
is a frozenset of paths, on which union, intersection and difference are those of structured-merge-diff's
``fieldpath.Set`` (v6, ``fieldpath/set.go``): they compare whole paths.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hack.apistandin.schema import MapType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hack.apistandin.schema import ListType, Type

Path = tuple[str, ...]
FieldSet = frozenset[Path]
EMPTY: FieldSet = frozenset()


def field_element(name: str) -> str:
    """The element of a named field."""
    return f"f:{name}"


def item_element(item: Any, kind: ListType) -> str:
    """The element of an item of a set or a list by keys."""
    if kind.relation == "set":
        return f"v:{_compact(item)}"
    keys = {key: item[key] for key in sorted(kind.keys) if isinstance(item, dict) and key in item}
    return f"k:{_compact(keys)}"


def under(paths: Iterable[Path], *prefixes: Path) -> FieldSet:
    """The paths without the prefixes and whatever is below them (``RecursiveDifference``)."""
    return frozenset(path for path in paths if not any(path[: len(prefix)] == prefix for prefix in prefixes))


def with_named_parents(paths: FieldSet, kind: Type) -> FieldSet:
    """The set with the named fields on the way to each path (``EnsureNamedFieldsAreMembers``)."""
    more: set[Path] = set(paths)
    for path in paths:
        here: Type | None = kind
        for depth, element in enumerate(path[:-1]):
            if not isinstance(here, MapType):
                here = getattr(here, "element", None)
                continue
            known = here.fields.get(element[2:])
            if known is not None:
                more.add(path[: depth + 1])
            here = known.type if known is not None else here.element
    return frozenset(more)


def to_wire(paths: FieldSet) -> dict[str, Any]:
    """FieldsV1: a tree of elements, in which "." marks a member that has children (``fieldpath/serialize.go``)."""
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        here = tree
        for element in path:
            here = here.setdefault(element, {})
        here["."] = {}
    return _without_lonely_dots(tree)


def _without_lonely_dots(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        element: {} if children.keys() == {"."} else _without_lonely_dots(children) if children else {}
        for element, children in tree.items()
    }


def from_wire(tree: dict[str, Any]) -> FieldSet:
    """The set that a FieldsV1 tree stands for."""
    paths: set[Path] = set()

    def walk(here: dict[str, Any], path: Path) -> None:
        if path and (not here or "." in here):
            paths.add(path)
        for element, children in here.items():
            if element != ".":
                walk(children, (*path, _canonical(element)))

    walk(tree, ())
    return frozenset(paths)


def in_order(paths: FieldSet) -> list[Path]:
    """The paths as ``Set.Iterate`` gives them: at each level members before what is below."""
    return sorted(paths, key=lambda path: tuple((i < len(path) - 1, element) for i, element in enumerate(path)))


def shown(path: Path) -> str:
    """The path as messages write it: ``.status.conditions[type="Ready"].status`` (``fieldpath/element.go``)."""
    parts = []
    for element in path:
        kind, text = element[0], element[2:]
        if kind == "f":
            parts.append(f".{text}")
        elif kind == "k":
            parts.append("[" + ",".join(f"{key}={_compact(value)}" for key, value in json.loads(text).items()) + "]")
        else:
            parts.append(f"[={text}]")
    return "".join(parts)


def _canonical(element: str) -> str:
    if element[:2] in ("k:", "v:"):
        return element[:2] + json.dumps(
            json.loads(element[2:]), separators=(",", ":"), sort_keys=True, ensure_ascii=False
        )
    return element


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
