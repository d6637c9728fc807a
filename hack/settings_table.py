"""The settings for people, made from `agent/settings.py`: a table for the README, and the ConfigMap's TOML."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import sys
import textwrap
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.settings import Handler, Settings

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / "manifests/README.md"
CONFIG_MAP = REPOSITORY / "manifests/40-settings.yaml"

BEGIN = "<!-- settings, made by hack/settings-table: begin -->"
END = "<!-- settings: end -->"
_TOML_KEY = "  katanode.toml: |\n"
"""The last key of the ConfigMap: what follows it is made here."""
_WIDTH = 112
_STATE = "`present`, or `absent`: everything off again, once no sandbox runs."

_EXAMPLE = """\
# The tunables of one handler, in the shape of Kata's own configuration; checked against the release.
# [handlers.kata-clh]
# annotations = ["default_vcpus", "default_memory"]
# [handlers.kata-clh.hypervisor.clh]
# default_memory = 1024
"""


@dataclass(frozen=True, slots=True)
class Key:
    """One setting.

    Attributes:
        section: its table, "" for the top.
        name: its key there.
        default: its default, None for what has none.
        text: what it is, in one sentence or two.
    """

    section: str
    name: str
    default: object
    text: str


def every_key() -> list[Key]:
    """Every setting, in the order of the code."""
    found = []
    for outer in dataclasses.fields(Settings):
        kind = typing.get_type_hints(Settings)[outer.name]
        if outer.name == "handlers":
            found += _of("handlers.NAME", Handler)
        elif dataclasses.is_dataclass(kind):
            found += _of(outer.name, typing.cast("type", kind))
        else:
            found.append(Key("", outer.name, _default(outer), _STATE))
    return found


def _of(section: str, kind: type) -> list[Key]:
    texts = _attributes(kind)
    return [Key(section, f.name, _default(f), texts[f.name]) for f in dataclasses.fields(kind)]


def _default(field: dataclasses.Field[object]) -> object:
    return field.default_factory() if callable(field.default_factory) else field.default


def _attributes(kind: type) -> dict[str, str]:
    """What the docstring says of each attribute."""
    lines = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.split(r"^    (?=\w+: )", lines, flags=re.MULTILINE)[1:]
    parted = (" ".join(entry.split()).partition(": ") for entry in entries)
    return {name: text for name, _, text in parted}


def table() -> str:
    """The settings as a Markdown table."""
    rows = ["| key | default | what |", "|---|---|---|"]
    for key in every_key():
        name = f"{key.section}.{key.name}" if key.section else key.name
        words = _capital(key.text).replace("|", "\\|").removesuffix(".")
        rows.append(f"| `{name}` | {_shown(key.default)} | {words}. |")
    return "\n".join(rows) + "\n"


def _capital(words: str) -> str:
    return words if words.startswith("https") else words[0].upper() + words[1:]


def _shown(value: object) -> str:
    if value in (None, "", (), {}):
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"`{name} = {number}`" for name, number in value.items())
    return f"`{_toml(value)}`"


def toml() -> str:
    """A settings file with every default, each with its comment."""
    text, section, tables = "", "", ""
    for key in every_key():
        if key.section == "handlers.NAME":
            continue
        if key.section != section:
            text += f"{tables}\n# {_capital(_title(key.section))}\n[{key.section}]\n"
            section, tables = key.section, ""
        comment = "".join(f"# {line}\n" for line in textwrap.wrap(key.text, _WIDTH, break_on_hyphens=False))
        if isinstance(key.default, Mapping) and key.default:
            # A table comes after all keys of the one that it belongs to.
            values = "".join(f"{json.dumps(k)} = {_toml(v)}\n" for k, v in key.default.items())
            tables += f"\n{comment}[{section}.{key.name}]\n{values}"
        else:
            text += f"{comment}{key.name} = {_toml(key.default)}\n"
    return f"{text}{tables}\n{_EXAMPLE}"


def _title(section: str) -> str:
    """What a section is, by the first line of its class."""
    kind = typing.get_type_hints(Settings)[section]
    return inspect.cleandoc(kind.__doc__ or "").partition("\n")[0].partition(": ")[2]


def _toml(value: object) -> str:
    """A value in TOML, which is as in JSON for all that occurs."""
    return "{}" if isinstance(value, Mapping) else json.dumps(value)


def with_table(readme: str) -> str:
    """The README with the table as it is to be.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{table()}{END}{after}"


def with_defaults(config_map: str) -> str:
    """The ConfigMap with the settings as they are to be.

    Raises:
        ValueError: the key is not there.
    """
    before, key, _ = config_map.partition(_TOML_KEY)
    if not key:
        raise ValueError("the ConfigMap lacks the key katanode.toml")
    return before + key + textwrap.indent(toml(), "    ")


def main() -> int:
    """Write both files, or with `--check` only say which is not current."""
    parser = argparse.ArgumentParser(prog="hack/settings-table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 if a file is not current")
    check = parser.parse_args().check
    stale = []
    for path, made in ((README, with_table), (CONFIG_MAP, with_defaults)):
        text = path.read_text()
        if made(text) != text:
            stale.append(path)
            if not check:
                path.write_text(made(text))
    for path in stale:
        print(f"{path.relative_to(REPOSITORY)}: {'is not current' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
