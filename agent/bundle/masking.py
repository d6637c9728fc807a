"""What goes into a bundle is masked here: by its form, and then by the very secrets that were met in any part."""

import base64
import hashlib
import json
import tomllib
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from agent.bundle.piece import Piece
from agent.cri.credentials import MARK, assigned, hidden_tree, is_secret, without
from agent.cri.masking import Marks, masked_lines

_MARKS = Marks(f'"{MARK}"', f"# {MARK}")
_LEAST = 6
"""Letters below which a secret is not looked for elsewhere: a short one is part of too many words."""
_LOGINS = frozenset({"username", "user", "login", "email"})
"""Masked beside a credential, but words like `admin` or `root` are no secret elsewhere."""
_PLACES = ("file", "path", "dir")
"""Ends of names whose value says where a credential is, and is none."""
_MOST = 200
"""Secrets that are looked for everywhere: more would take longer than anybody waits."""


def toml_piece(name: str, data: bytes, note: str = "") -> Piece:
    """A piece of a TOML file, be it valid or not.

    Raises:
        ValueError: it is no text, so that what is a credential cannot be told.
    """
    text = as_text(data)
    lines = text.split("\n")
    shown = masked_lines(lines, _MARKS)
    count = sum(was != now for was, now in zip(lines, shown, strict=True))
    if "\r\n" in text:
        note = "; ".join(filter(None, (note, "lines end in CRLF")))
    return Piece(name, "\n".join(shown), count, note=note, secrets=tuple(dict.fromkeys(_toml_secrets(text))))


def text_piece(name: str, text: str, **more: Any) -> Piece:
    """A piece of any text: a log, what a program said."""
    lines = text.split("\n")
    shown = without(lines)
    count = sum(was != now for was, now in zip(lines, shown, strict=True))
    return Piece(name, "\n".join(shown), count, **more)


def json_piece(name: str, tree: object, **more: Any) -> Piece:
    """A piece of a tree, as JSON."""
    shown, count = hidden_tree(tree)
    text = json.dumps(shown, indent=2, default=str) + "\n"
    return Piece(name, text, count, secrets=tuple(dict.fromkeys(_tree_secrets(tree))), **more)


def as_text(data: bytes) -> str:
    """The text of a file.

    Raises:
        ValueError: it is none, with what can be said of it.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(_unlike_text(data, f"byte {error.start} is no UTF-8")) from None
    if "\0" in text:
        raise ValueError(_unlike_text(data, f"it holds a NUL byte at {data.index(0)}"))
    return text


def _unlike_text(data: bytes, why: str) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return (
        f"not text ({why}), left out since no credential could be told: {len(data)} bytes, sha256 {digest}, "
        f"it begins with {data[:8].hex(' ')}"
    )


class Sweep:
    """Takes known secrets out of any text, in every way that programs write them.

    Args:
        secrets: what was masked somewhere because of its name.

    Attributes:
        left_out: how many are not looked for, since there are too many.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        known = list(dict.fromkeys(secrets))
        self.left_out = max(0, len(known) - _MOST)
        forms = {form for secret in known[:_MOST] for form in _forms(secret)}
        self._forms = sorted(forms, key=lambda form: (-len(form), form))

    def __call__(self, piece: Piece) -> Piece:
        """The piece without them."""
        text = self.text(piece.text)
        if text == piece.text:
            return piece
        pairs = zip(piece.text.split("\n"), text.split("\n"), strict=False)
        return replace(piece, text=text, masked=piece.masked + sum(was != now for was, now in pairs))

    def text(self, text: str) -> str:
        """The text without them."""
        for form in self._forms:
            text = text.replace(form, MARK)
        return text


def printable(text: str) -> str:
    """Text that does nothing to the terminal of whoever reads it."""
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def one_line(text: str) -> str:
    """A name or arguments that pass for no further line."""
    return printable(text).replace("\n", "\\x0a")


def _forms(secret: str) -> Iterator[str]:
    """How programs write a secret: as it is, escaped once or twice as JSON and Go do, in an address, in base64."""
    for line in {secret, *secret.split("\n")}:
        if len(line.strip()) >= _LEAST:
            once = json.dumps(line)[1:-1]
            plain = json.dumps(line, ensure_ascii=False)[1:-1]
            yield from (line, once, plain, json.dumps(once)[1:-1], json.dumps(plain)[1:-1])
            yield urllib.parse.quote(line, safe="")
            yield base64.b64encode(line.encode(errors="surrogatepass")).decode()


def _toml_secrets(text: str) -> Iterator[str]:
    lines: Iterable[str] = text.split("\n")
    try:
        tree = tomllib.loads(text.removeprefix("\ufeff").replace("\r\n", "\n"))
    except (tomllib.TOMLDecodeError, RecursionError):
        pass  # damaged: what can be told is told by its lines
    else:
        yield from _tree_secrets(tree)
        lines = (line for line in lines if line.lstrip().startswith("#"))
    for line in lines:
        yield from assigned(line)


def _tree_secrets(tree: object, *, within: bool = False) -> Iterator[str]:
    match tree:
        case dict():
            yield from _logins(tree)
            for name, item in tree.items():
                known = str(name).lower()
                if known not in _LOGINS and not known.endswith(_PLACES):
                    yield from _tree_secrets(item, within=within or is_secret(known))
        case list():
            for item in tree:
                yield from _tree_secrets(item, within=within)
        case str() if within and tree != MARK:
            yield tree
            yield from _decoded(tree)
        case str():
            name, _, value = tree.partition("=")  # a variable of an environment
            if value and MARK not in value and name.isidentifier() and is_secret(name):
                yield value


def _logins(table: dict[Any, Any]) -> Iterator[str]:
    """What a name and a password come to in HTTP (RFC 7617)."""
    name, word = table.get("username"), table.get("password")
    if isinstance(name, str) and isinstance(word, str):
        yield base64.b64encode(f"{name}:{word}".encode(errors="surrogatepass")).decode()


def _decoded(text: str) -> Iterator[str]:
    """The password in what docker and containerd call `auth`: name and password in base64."""
    try:
        name, colon, word = base64.b64decode(text, validate=True).decode().partition(":")
    except ValueError:
        return
    if colon and name.isprintable():
        yield word
