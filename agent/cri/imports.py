"""The drop-in of containerd 2.x: where it goes, and the root file's `imports` that has to name its folder.

Of the root file nothing is touched but `imports`, and that only where no glob of it finds our file already. containerd
loads what the root FILE's imports name and nothing else: the `conf.d` that 2.2 and later print among their defaults is
not read unless the file says so (measured on 2.2.7, 2.3.4 and newer).
"""

import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from agent.cri import block
from agent.cri.handler import Handler
from agent.errors import KatanodeError
from agent.reasons import Reason

_BOM = "\ufeff"
NAME = "katanode"
OWN_FOLDER = "katanode.d"
BANNER = "# katanode: generated; `katanode uninstall` removes it. Runtime handlers of Kata Containers."


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the drop-in goes.

    Attributes:
        path: the drop-in's path on the host.
        root: the root file's bytes, changed only where its imports did not find `path`.
    """

    path: str
    root: bytes


def content(handlers: Sequence[Handler], kept: Mapping[str, Any], version: int) -> bytes:
    """The drop-in's bytes.

    Args:
        handlers: what it declares.
        kept: what of others it has to restate, see `block.restated`.
        version: the schema: the root FILE's own. Any other loses settings silently on some 2.x (measured).
    """
    return "\n".join(
        [BANNER, f"version = {version}", *block.tables(handlers, version), *block.restated(kept, version), ""]
    ).encode()


def place(root: bytes, root_path: str, standing: Collection[str] = ()) -> Placement:
    """Chooses the drop-in's place, an import for it included.

    Args:
        root: the root file.
        root_path: its path on the host.
        standing: those of `places` where a drop-in of ours stands: it stays there, however imports were reordered.

    Raises:
        KatanodeError: `EDIT_IMPOSSIBLE` when `imports` is not an ordinary array of strings.
    """
    found, own = places(root, root_path), own_path(root_path)
    if found:
        # Our own folder, once imported, is as good as any: only a new file looks for the first glob of others.
        preferred = [path for path in found if path in standing or path == own]
        return Placement((preferred or found)[0], root)
    return Placement(own, add(root, own_glob(root_path)))


def places(root: bytes, root_path: str) -> list[str]:
    """Where a file of ours would be found by the root file's imports, in their order.

    Raises:
        KatanodeError: `EDIT_IMPOSSIBLE` when `imports` is not an ordinary array of strings.
    """
    return [found for pattern in imports_of(root) if (found := _usable(pattern, root_path))]


def own_glob(root_path: str) -> str:
    """The glob of the folder that is katanode's alone."""
    return str(PurePosixPath(root_path).parent / OWN_FOLDER / "*.toml")


def own_path(root_path: str) -> str:
    """The drop-in's path in that folder."""
    return own_glob(root_path).replace("*", NAME)


def remove(root: bytes, root_path: str) -> bytes:
    """The root file without our import, byte for byte what it was."""
    return drop(root, own_glob(root_path))


def imports_of(root: bytes) -> list[str]:
    """The root file's imports; none when it has no such key.

    Raises:
        KatanodeError: `EDIT_IMPOSSIBLE` when they are not an array of strings.
    """
    value = tomllib.loads(root.decode().removeprefix(_BOM)).get("imports", [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _odd("`imports` is not an array of strings")
    return value


def _usable(pattern: str, root_path: str) -> str:
    """The path of a file of ours that a glob finds; "" where the glob is not plain enough to be sure."""
    path = PurePosixPath(root_path).parent / pattern  # a relative import starts from the importing file's folder
    if path.suffix != ".toml" or path.name.count("*") != 1 or set(str(path.parent)) & set("*?[\\"):
        return ""
    return "" if set(path.name) & set("?[\\") else str(path).replace("*", NAME)


@dataclass(frozen=True, slots=True)
class _Statement:
    """A top-level `key = value`: offsets of its line's begin, its value's begin, and its end (before the line end)."""

    key: str
    line: int
    value: int
    end: int


def add(root: bytes, pattern: str) -> bytes:
    """The root file with one more import.

    Raises:
        KatanodeError: `EDIT_IMPOSSIBLE`.
    """
    text = root.decode()
    eol = block.line_end(root).decode()
    statements = list(_top_level(text))
    there = next((s for s in statements if s.key == "imports"), None)
    if there is not None:
        at, glue = _last_element(text, there)
        return (text[:at] + f'{glue}"{pattern}"' + text[at:]).encode()
    if "imports" in tomllib.loads(text.removeprefix(_BOM)):
        raise _odd("`imports` is written in a way that is not an ordinary `imports = […]` line")
    line = _own_line(pattern)
    version = next((s for s in statements if s.key == "version"), None)
    at = _line_after(text, version.end) if version is not None else _after_comments(text)
    if at and text[at - 1] not in f"\n{_BOM}":  # the file ends there, without a line end
        return (text[:at] + eol + line + text[at:]).encode()
    return (text[:at] + line + eol + text[at:]).encode()


def replaced(root: bytes, paths: Sequence[str]) -> bytes:
    """The root file with these imports instead of its own: for a check, never for the live file.

    Raises:
        KatanodeError: `EDIT_IMPOSSIBLE`.
    """
    text = root.decode()
    array = "[" + ", ".join(f'"{path}"' for path in paths) + "]"
    there = next((s for s in _top_level(text) if s.key == "imports"), None)
    if there is None:
        at = _after_comments(text)
        gap = "\n" if at and text[at - 1] not in f"\n{_BOM}" else ""
        return (text[:at] + f"{gap}imports = {array}\n" + text[at:]).encode()
    return (text[: there.value] + array + text[there.end :]).encode()


def _own_line(pattern: str) -> str:
    """The line that is ours where the file had none; its comment tells it from an `imports = []` with our element."""
    return f'imports = ["{pattern}"]  # katanode'


def drop(root: bytes, pattern: str) -> bytes:
    """The root file without that import: the exact opposite of `add`, and right also where people changed the array.

    Only the `imports` statement is looked at: comments and other strings that name the folder are not ours.
    """
    text = root.decode()
    statement = next((s for s in _top_level(text) if s.key == "imports"), None)
    if statement is None:
        return root
    after = _line_after(text, statement.end)
    if text[statement.line : after].rstrip() == _own_line(pattern):
        # Without a line end of its own the line was added behind one that had none either.
        at = statement.line if text[:after].endswith("\n") else len(text[: statement.line].removesuffix("\n"))
        at -= at < statement.line and text[:at].endswith("\r")
        return (text[:at] + text[after:]).encode()
    elements = list(_elements(text, statement))
    for number, (start, end) in enumerate(elements):
        if tomllib.loads(f"x = {text[start:end]}")["x"] == pattern:
            before = elements[number - 1][1] if number else None
            return _without_element(text, statement, before, (start, end)).encode()
    return root


def _without_element(text: str, statement: _Statement, before: int | None, element: tuple[int, int]) -> str:
    """The text without one element of an array and one comma."""
    start, end = element
    if before is not None and text[before:start] == ", ":  # as `add` wrote it
        return text[:before] + text[end:]
    comma = _comma(text, end, statement.end)
    if comma is None:
        lead = _comma(text, before, start) if before is not None else None
        rest = text[:start] + text[end:]
        return rest if lead is None else rest[:lead] + rest[lead + 1 :]
    head, tail = text[:start], text[end:comma] + text[comma + 1 :]
    line = head.rpartition("\n")[2]
    if not line.strip() and "\n" in head and not tail.partition("\n")[0].strip():
        return head[: len(head) - len(line)] + tail.partition("\n")[2]  # it had the line to itself
    return head + tail.removeprefix(" ")


def _comma(text: str, at: int, end: int) -> int | None:
    """The first comma from `at` on, comments left out; None where something else or the end comes first."""
    while at < end:
        if text[at] == "#":
            at = _line_after(text, at)
        elif text[at] in " \t\r\n":
            at += 1
        else:
            return at if text[at] == "," else None
    return None


def _top_level(text: str) -> Iterator[_Statement]:
    """The statements before the first table, by a scan that knows strings, comments and brackets."""
    at = len(text) - len(text.removeprefix(_BOM))
    while at < len(text):
        line = at
        while at < len(text) and text[at] in " \t\r\n":
            line = at + 1 if text[at] == "\n" else line
            at += 1
        if at >= len(text) or text[at] == "[":
            return
        if text[at] == "#":
            at = _line_after(text, at)
            continue
        equals = at
        while equals < len(text) and text[equals] not in "=\n":
            equals = _after_string(text, equals) if text[equals] in "\"'" else equals + 1
        key = text[at:equals].strip().strip("\"'")
        value = equals + 1
        while value < len(text) and text[value] in " \t":
            value += 1
        end = _value_end(text, value)
        yield _Statement(key, line, value, end)
        at = _line_after(text, end)


def _value_end(text: str, at: int) -> int:
    """The offset behind a value: at the line's end or its comment, brackets balanced."""
    depth = 0
    while at < len(text):
        char = text[at]
        if char in "\"'":
            at = _after_string(text, at)
            continue
        if char in "#\n":
            if depth == 0:
                break
            at = _line_after(text, at)
            continue
        depth += (char in "[{") - (char in "]}")
        at += 1
    return at - (len(text[:at]) - len(text[:at].rstrip(" \t\r")))


def _after_string(text: str, at: int) -> int:
    quote = text[at]
    if text.startswith(quote * 3, at):
        end = at + 3
        while end < len(text) and not text.startswith(quote * 3, end):
            end += 2 if text[end] == "\\" and quote == '"' else 1
        rest = text[end + 3 : end + 5]  # up to two quotes of the text's own may stand before the closing ones
        return end + 3 + len(rest) - len(rest.lstrip(quote))
    end = at + 1
    while end < len(text) and text[end] not in (quote, "\n"):
        end += 2 if text[end] == "\\" and quote == '"' else 1
    return end + 1


def _last_element(text: str, statement: _Statement) -> tuple[int, str]:
    """Where a further element goes, directly behind the last, and what joins it to that."""
    if text[statement.value : statement.value + 1] != "[":
        raise _odd("`imports` is not an array")
    elements = list(_elements(text, statement))
    return (elements[-1][1], ", ") if elements else (statement.value + 1, "")


def _elements(text: str, statement: _Statement) -> Iterator[tuple[int, int]]:
    """Begin and end of each string in an array of strings."""
    at = statement.value + 1
    while at < statement.end:
        if text[at] in "\"'":
            start, at = at, _after_string(text, at)
            yield start, at
        else:
            at = _line_after(text, at) if text[at] == "#" else at + 1


def _line_after(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1


def _after_comments(text: str) -> int:
    """Behind the comments that a file begins with: k0s compares the first line byte for byte."""
    at = len(text) - len(text.removeprefix(_BOM))
    while text.startswith("#", at):
        at = _line_after(text, at)
    return at


def _odd(message: str) -> KatanodeError:
    return KatanodeError(Reason.EDIT_IMPOSSIBLE, f"the root file's imports cannot be added to: {message}")
