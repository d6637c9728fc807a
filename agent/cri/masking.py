"""Credentials in a runtime's configuration: nobody is shown them."""

import re

_WORD = re.compile(r"(?i)pass|auth|token|secret|api-?key")
_HEADER = re.compile(r"[+ -]?\s*\[\[?\s*[A-Za-z][^=]*\]\s*(?:#.*)?")


def is_secret(text: str) -> bool:
    """Whether a text may hold a credential, by the words in it."""
    return _WORD.search(text) is not None


def masked(line: str) -> str:
    """A line fit to be shown: where it may hold a credential, only what stands before its first value."""
    if not is_secret(line) or _HEADER.fullmatch(line):
        return line
    assigned = re.search(r"[=:]", line)
    return f"{line[: assigned.end()]} …" if assigned else "…"
