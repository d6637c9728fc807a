"""Credentials in a runtime's configuration: nobody is shown them, also where the file is damaged."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.cri.credentials import is_secret, without

_KEY = r"""(?:"[^"]*"|'[^']*'|[\w-]+)"""
_PATH = rf"{_KEY}(?:\s*\.\s*{_KEY})"
_HEADER = re.compile(rf"[+ -]?\s*\[\[?\s*(?:[A-Za-z][^=]*|{_PATH}+\s*)\]\s*(?:#.*)?")
_TABLE = re.compile(r"(?i)\bheaders?\b|\benv(?:ironment)?\b")
"""Tables whose every value may be a credential, whatever its name."""
_NAME = re.compile(r"""(?i)(?:^|[\s.{,"'])(?:headers?|env(?:ironment)?|key)["']?\s*[=.]""")
_STATEMENT = re.compile(rf"\s*(?:{_PATH}*\s*=\s*[^=\s]|\[)")
_NAMED = re.compile(rf"[+ -]?[\s#]*{_PATH}*\s*[=:]")
_NOTHING = re.compile(r"""\s*(?:""|''|\[\s*\]|\{\s*\}|true|false)\s*(?:#.*)?""")
"""A value that hides none: an empty one, or a yes or no."""
_COMMENT = re.compile(r"\s*#+ ?")
_TOKEN = re.compile(r'''"""|\'\'\'|"(?:\\.|[^"\\])*"?|'[^']*'?|\#.*|[\[\]{}]|[^"'\#\[\]{}]+''')
_CLOSE = {'"""': re.compile(r'(?:\\.|[^\\])*?"""'), "'''": re.compile(r".*?'''")}


@dataclass(frozen=True, slots=True)
class Marks:
    """What stands in the place of what is masked.

    Attributes:
        value: behind a name and its equals sign.
        line: for a line that shows no name.
    """

    value: str = "…"
    line: str = "…"


_ELLIPSES = Marks()


def masked(line: str, marks: Marks = _ELLIPSES) -> str:
    """A line fit to be shown: where it may hold a credential, only what stands before its first value."""
    if not is_secret(line) or _HEADER.fullmatch(line):
        return without([_header(line, marks)])[0]
    return _hidden([line], marks)[0]


def masked_lines(lines: Sequence[str], marks: Marks = _ELLIPSES) -> list[str]:
    """The lines of a TOML file fit to be shown: as many as there were, those of one value masked together.

    A file that is not valid TOML is masked all the same: where it cannot be told whether a line goes on with the value
    before it, it does. Comments are taken for what they would be without their sign.

    Args:
        lines: the file, parted at its line feeds and nowhere else.
        marks: what stands in the place of what is masked.
    """
    shown: list[str] = []
    within = before = False
    for group in _groups(lines):
        text = "\n".join(group)
        if not text.strip():
            shown += group
        elif all(_COMMENT.match(line) for line in group):
            shown += _comments(group, marks)
        elif len(group) == 1 and _HEADER.fullmatch(group[0]):
            within, before = _names_credentials(group[0]), False
            shown.append(_header(group[0], marks))
        else:
            stray = before and not _STATEMENT.match(group[0])
            # In a damaged file the secret itself may seem to be a name in quotes.
            named = not stray and not (before and group[0].lstrip().startswith(('"', "'")))
            before = within or stray or is_secret(text) or _NAME.search(text) is not None
            shown += _hidden(group, marks, named=named) if before else group
    return without(shown)


def _header(line: str, marks: Marks) -> str:
    """A table's line: its name is shown, a comment behind it only where it tells of no credential."""
    found = re.search(r"\]\s*#(?P<comment>.*)$", line)
    return f"{line[: found.start('comment')]} {marks.value}" if found and is_secret(found["comment"]) else line


def _names_credentials(header: str) -> bool:
    return is_secret(header) or _TABLE.search(header) is not None


def _comments(group: Sequence[str], marks: Marks) -> list[str]:
    """Comment lines: what is out of use is written like what is in use, and prose may tell of it."""
    plain = [line[found.end() :] if (found := _COMMENT.match(line)) else line for line in group]
    shown: list[str] = []
    within = False
    for lines in _groups(plain, by_shape=False):
        heads = group[len(shown) : len(shown) + len(lines)]
        if len(lines) == 1 and _HEADER.fullmatch(lines[0]):
            within = _names_credentials(lines[0])
            shown.append(_header(heads[0], marks))
        elif is_secret("\n".join(lines)) or (within and _STATEMENT.match(lines[0])):
            shown += _hidden(heads, marks)
        else:
            within = within and bool(_STATEMENT.match(lines[0]) or not lines[0].strip())
            shown += heads
    return shown


def _hidden(group: Sequence[str], marks: Marks, *, named: bool = True) -> list[str]:
    name = _NAMED.match(group[0]) if named else None
    if name and len(group) == 1 and _NOTHING.fullmatch(group[0], name.end()):
        return [group[0]]
    return [f"{name[0]} {marks.value}" if name else marks.line, *(marks.line for _ in group[1:])]


def _groups(lines: Sequence[str], *, by_shape: bool = True) -> Iterator[list[str]]:
    """The lines, those of one statement together.

    Args:
        lines: of the file.
        by_shape: whether a line that looks like nothing of its own goes on with the one before it.
    """
    group: list[str] = []
    quote, depth = "", 0
    for line in lines:
        # A header inside brackets: they were never closed, and what follows is read as if they were.
        ends = depth > 0 and not quote and _HEADER.fullmatch(line)
        depth = 0 if ends else depth
        going_on = bool(quote or depth) or (by_shape and bool(group) and not _begins(line, group))
        if group and not going_on:
            yield group
            group = []
        group.append(line)
        quote, depth = _after(line, quote, depth)
    if group:
        yield group


def _begins(line: str, group: Sequence[str]) -> bool:
    """Whether a line outside quotes and brackets is something of its own."""
    if not line.strip() or _STATEMENT.match(line):
        return True
    if _COMMENT.match(line):
        return not _COMMENT.match(group[-1])  # a run of comments stays together
    return _COMMENT.match(group[-1]) is not None or not group[-1].strip()


def _after(line: str, quote: str, depth: int) -> tuple[str, int]:
    """What stands open at a line's end: the quotes of a string of several lines, and how many brackets."""
    at = 0
    while at < len(line):
        if quote:
            closed = _CLOSE[quote].match(line, at)
            if closed is None:
                return quote, depth
            quote, at = "", closed.end()
            continue
        token = _TOKEN.match(line, at)
        assert token is not None  # one of its choices takes any character
        at = token.end()
        if token[0] in _CLOSE:
            quote = token[0]
        elif token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth = max(0, depth - 1)
    return quote, depth
