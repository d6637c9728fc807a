"""Types of API objects: as much of their schema as decoding, merging and ownership need.

The relations of lists and maps (atomic, set, map by keys) are the ``+listType`` and ``+mapType`` marks of
``k8s.io/api`` (v1.36), the merge keys of strategic merge its ``patchStrategy`` and ``patchMergeKey`` tags, and what
is left out or kept when empty follows Go's ``omitempty`` on the same fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Scalar:
    """A leaf.

    Attributes:
        kind: what JSON it takes. ``time`` is RFC 3339; ``microtime`` needs exactly six digits of fraction
            (``metav1.MicroTime``); ``quantity`` and ``intstr`` take strings and numbers.
    """

    kind: Literal["string", "integer", "boolean", "time", "microtime", "quantity", "intstr"]


@dataclass(frozen=True, slots=True)
class Field:
    """A named field of a struct.

    Attributes:
        type: of its value.
        mode: ``omit`` drops it when empty (omitempty), ``pointer`` only when null, ``keep`` never: a missing one is
            filled with its zero value.
    """

    type: Type
    mode: Literal["omit", "pointer", "keep"] = "omit"


@dataclass(frozen=True, slots=True)
class MapType:
    """A struct (``fields``) or a map of strings to ``element``.

    Attributes:
        fields: by name; empty for a map.
        element: the type of a map's values; None for a struct.
        atomic: whether it is owned and replaced whole.
    """

    fields: Mapping[str, Field] = field(default_factory=dict)
    element: Type | None = None
    atomic: bool = False


@dataclass(frozen=True, slots=True)
class ListType:
    """A list.

    Attributes:
        element: the type of its items.
        relation: ``atomic``, a ``set`` of scalars, or a ``map`` of items by ``keys``.
        keys: the names of the fields that tell items apart.
        merge_key: strategic merge joins items by this field; "" replaces the list.
        merge: strategic merge joins a list of scalars as a set.
    """

    element: Type
    relation: Literal["atomic", "set", "map"] = "atomic"
    keys: tuple[str, ...] = ()
    merge_key: str = ""
    merge: bool = False


@dataclass(frozen=True, slots=True)
class AnyType:
    """Whatever JSON holds: maps are granular, lists atomic, nothing is unknown (structured-merge-diff's deduced)."""


Type = Scalar | MapType | ListType | AnyType

STRING = Scalar("string")
INTEGER = Scalar("integer")
BOOLEAN = Scalar("boolean")
TIME = Scalar("time")
MICROTIME = Scalar("microtime")
QUANTITY = Scalar("quantity")
ANY = AnyType()


def struct(**fields: Type | Field) -> MapType:
    """A struct of these fields; a bare type is an omitempty one."""
    return MapType(fields={name: kind if isinstance(kind, Field) else Field(kind) for name, kind in fields.items()})


def atomic_struct(**fields: Type | Field) -> MapType:
    """A struct that is owned whole."""
    return replace(struct(**fields), atomic=True)


def keep(kind: Type) -> Field:
    """A field that is always there."""
    return Field(kind, "keep")


def pointer(kind: Type) -> Field:
    """A field whose zero is a value."""
    return Field(kind, "pointer")


def map_of(element: Type, *, atomic: bool = False) -> MapType:
    """A map of strings to `element`."""
    return MapType(element=element, atomic=atomic)


def atomic_list(element: Type, *, merge_key: str = "") -> ListType:
    """A list owned whole."""
    return ListType(element, merge_key=merge_key)


def set_list(element: Type, *, merge: bool = True) -> ListType:
    """A set of scalars."""
    return ListType(element, "set", merge=merge)


def map_list(element: Type, *keys: str) -> ListType:
    """A list of structs told apart by `keys`; strategic merge uses the first."""
    return ListType(element, "map", keys, merge_key=keys[0])


# +structType=atomic
_OWNER = atomic_struct(
    apiVersion=keep(STRING),
    kind=keep(STRING),
    name=keep(STRING),
    uid=keep(STRING),
    controller=pointer(BOOLEAN),
    blockOwnerDeletion=pointer(BOOLEAN),
)
OBJECT_META = struct(
    name=STRING,
    generateName=STRING,
    namespace=STRING,
    selfLink=STRING,
    uid=STRING,
    resourceVersion=STRING,
    generation=INTEGER,
    creationTimestamp=TIME,
    deletionTimestamp=pointer(TIME),
    deletionGracePeriodSeconds=pointer(INTEGER),
    labels=map_of(STRING),
    annotations=map_of(STRING),
    ownerReferences=map_list(_OWNER, "uid"),
    finalizers=set_list(STRING),
    # An empty list is a wish: it resets the owners.
    managedFields=pointer(atomic_list(ANY)),
)


def root(**fields: Type | Field) -> MapType:
    """The type of an object without its apiVersion and kind, which are kept apart."""
    return struct(metadata=keep(OBJECT_META), **fields)
