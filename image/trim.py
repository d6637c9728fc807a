"""What the daemon has no use for is left out, by rules that say why; a rule that finds nothing stops the build."""

# ruff: noqa: INP001 - beside its script

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_WORD = re.compile(r"[A-Za-z_]\w+")
_CLASS = re.compile(r"^class (\w+)", re.MULTILINE)


def matches(out: Path, patterns: Iterable[str], places: Mapping[str, str]) -> set[Path]:
    """The files and folders of `out` that patterns name.

    Raises:
        SystemExit: a pattern finds nothing.
    """
    found = set()
    for pattern in patterns:
        these = set(out.glob(pattern.format(**places)))
        if not these:
            raise SystemExit(f"trim.toml: nothing is at {pattern} any more")
        found |= these
    return found


def leave_out(out: Path, patterns: Iterable[str], places: Mapping[str, str]) -> None:
    """Removes what patterns name.

    Raises:
        SystemExit: a pattern finds nothing.
    """
    for path in matches(out, patterns, places):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def leave_out_unnamed(out: Path, rule: Mapping[str, Any], places: Mapping[str, str], agent: Path) -> None:
    """Removes the files of generated classes that nothing names.

    A class counts as named when its name, or its module's, is a word in a file that stays: comments and strings too,
    since some are looked up by strings. So rather too many stay than too few.

    Args:
        out: the image's files.
        rule: the `package`; its folders of `classes`; its `tables`, which name every class and count for nothing.
        places: what the rule's names stand for.
        agent: the folder of the daemon's own modules.

    Raises:
        SystemExit: no class is named, or all are.
    """
    package, folders, tables = (
        matches(out, patterns, places) for patterns in ([rule["package"]], rule["classes"], rule["tables"])
    )
    generated = {path for folder in folders for path in folder.glob("*.py")} - tables
    words = {path: path.read_text(encoding="utf-8") for path in generated}
    files_of: dict[str, set[Path]] = {}
    for path, text in words.items():
        for name in (path.stem, *_CLASS.findall(text)):
            files_of.setdefault(name, set()).add(path)
    waiting = {path for folder in (*package, agent) for path in folder.rglob("*.py")} - generated - tables
    stay: set[Path] = set()
    while waiting:
        path = waiting.pop()
        text = words.get(path) or path.read_text(encoding="utf-8")
        named = {file for word in set(_WORD.findall(text)) for file in files_of.get(word, ())} & generated
        waiting |= named - stay
        stay |= named
    if not stay or stay == generated:
        raise SystemExit(f"trim.toml: of {len(generated)} generated modules {len(stay)} are named")
    for path in generated - stay:
        path.unlink()
