"""Writes the little TOML that katanode's drop-ins consist of: tables of scalars and of arrays of strings.

Its own few lines, since importing a whole TOML library for them would cost more than they do.
"""

from collections.abc import Mapping

Value = bool | int | float | str | list[str]
"""What a key of Kata's configuration holds. Of floats only finite ones."""

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def string(text: str) -> str:
    """A TOML basic string: control characters escaped, the rest as it is."""
    return '"' + "".join(_ESCAPES.get(c) or (c if _plain(c) else f"\\u{ord(c):04x}") for c in text) + '"'


def _plain(character: str) -> bool:
    # TOML 1.0 allows every character but the control characters; U+0085 and the like are allowed but invisible.
    return character >= " " and not "\x7f" <= character <= "\x9f"


def value(item: Value) -> str:
    """A value as TOML."""
    match item:
        case bool():  # before int, which it is one of
            return "true" if item else "false"
        case str():
            return string(item)
        case list():
            return "[" + ", ".join(string(part) for part in item) + "]"
        case float():
            # repr is what reads back as the same number, but TOML wants digits on both sides of the point.
            text = repr(item)
            return text if "." in text or "e" not in text else text.replace("e", ".0e")
        case int():
            return str(item)


def document(heading: str, tables: Mapping[str, Mapping[str, Value]]) -> bytes:
    """A TOML file.

    Args:
        heading: comment at its top, lines without the number sign.
        tables: table headers as they are written (`hypervisor.clh`) to keys and values; empty tables are left out.
    """
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    for name, keys in tables.items():
        if keys:
            lines += ["", f"[{name}]", *(f"{key} = {value(item)}" for key, item in keys.items())]
    return ("\n".join(lines) + "\n").encode()
