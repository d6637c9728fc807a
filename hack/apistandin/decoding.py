"""From JSON to an object as the server would give it back: types checked, unknown fields and empty values dropped.

A real server decodes into Go structs and encodes them again. What that does to a value is done here by schema.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hack.apistandin.schema import ListType, MapType, Scalar

if TYPE_CHECKING:
    from hack.apistandin.schema import Field, Type

# time.Parse with layout 2006-01-02T15:04:05.000000Z07:00 wants exactly six digits (metav1.MicroTime.UnmarshalJSON).
_MICROTIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(?:Z|[+-]\d\d:\d\d)")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")
_ZERO = {"string": "", "integer": 0, "boolean": False, "time": None, "microtime": None, "quantity": "0", "intstr": 0}
_JSON_NAMES = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}


class DecodeError(Exception):
    """A value has the wrong JSON type for its field, or does not parse."""


def decode(value: object, kind: Type, path: str, unknown: list[str]) -> Any:
    """A new value, normalised.

    Args:
        value: of JSON.
        kind: what it should be.
        path: of the value, in dots, for messages.
        unknown: gets the paths of fields that the schema does not have; they are dropped.

    Raises:
        DecodeError: the value cannot be of that type.
    """
    match kind:
        case Scalar():
            return _scalar(value, kind.kind, path)
        case ListType():
            if not isinstance(value, list):
                raise _mismatch(value, "slice", path)
            return [decode(item, kind.element, f"{path}[{i}]", unknown) for i, item in enumerate(value)]
        case MapType(element=None):
            return _struct(value, kind, path, unknown)
        case MapType(element=element) if element is not None:
            if not isinstance(value, dict):
                raise _mismatch(value, "map", path)
            zero = _ZERO[element.kind] if isinstance(element, Scalar) else None
            return {
                key: zero if item is None else decode(item, element, f"{path}.{key}", unknown)
                for key, item in value.items()
            }
    return value


def _struct(value: object, kind: MapType, path: str, unknown: list[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _mismatch(value, "struct", path)
    prefix = f"{path}." if path else ""
    out: dict[str, Any] = {}
    for name, item in value.items():
        known = kind.fields.get(name)
        if known is None:
            unknown.append(prefix + name)
        elif item is not None:
            made = decode(item, known.type, prefix + name, unknown)
            if known.mode != "omit" or made not in ("", 0, False, [], {}):
                out[name] = made
    for name, known in kind.fields.items():
        if known.mode == "keep" and name not in out:
            out[name] = _zero(known)
    return out


def _zero(known: Field) -> Any:
    match known.type:
        case Scalar(kind=kind):
            return _ZERO[kind]
        case MapType(element=None):
            return decode({}, known.type, "", [])
        case ListType():
            return None
        case _:
            return {}


def _scalar(value: object, kind: str, path: str) -> Any:
    match kind:
        case "string" if isinstance(value, str):
            return value
        case "boolean" if isinstance(value, bool):
            return value
        case "integer" if isinstance(value, int) and not isinstance(value, bool):
            return value
        case "quantity" if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return str(value)
        case "intstr" if isinstance(value, (str, int)) and not isinstance(value, bool):
            return value
        case "time" | "microtime" if isinstance(value, str):
            return _time(value, micro=kind == "microtime")
    raise _mismatch(value, {"integer": "int64", "boolean": "bool"}.get(kind, kind), path)


def _time(text: str, *, micro: bool) -> str:
    """The instant in UTC, as Go writes it back: whole seconds, or six digits of fraction."""
    layout = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
    if (_MICROTIME if micro else _TIME).fullmatch(text) is None:
        seconds = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", text)
        rest, wanted = (text[19:], layout[19:26] if micro else layout[19:]) if seconds else (text, "2006")
        raise DecodeError(f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as "{wanted}"')
    try:
        instant = datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise DecodeError(f'parsing time "{text}": {error}') from None
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def _mismatch(value: object, wanted: str, path: str) -> DecodeError:
    got = _JSON_NAMES.get(type(value), "null")
    return DecodeError(f"json: cannot unmarshal {got} into Go struct field .{path} of type {wanted}")
