"""Checks an operator's tunables against the base file that they will change: all of them, all mistakes at once."""

import datetime as dt
import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent import settings
from agent.errors import KatanodeError
from agent.host.root import HostRoot
from agent.kata import annotations, assets, values
from agent.kata.basefile import BaseFile, Kind, kind_of
from agent.kata.tomlwrite import Value, string, value
from agent.reasons import Reason

_SHOWN = 80  # characters of a value that an explanation repeats


@dataclass(frozen=True, slots=True)
class Tunables:
    """Tunables that were checked, as they are to be written.

    Attributes:
        tables: table names (`hypervisor.clh`, `agent.kata`, `runtime`) to keys and values.
    """

    tables: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        reason: of the `TUNABLE_*` kind.
        where: what stands in the settings, `handlers.kata-clh.runtime.name = "kata-clh"`.
        what: what is wrong with it, and what is right.
    """

    reason: Reason
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def check(base: BaseFile, wanted: settings.Handler, root: HostRoot) -> Tunables:
    """Checks the tunables of one handler.

    Args:
        base: the handler's base file.
        wanted: what the operator wrote.
        root: where the node's files are: paths must exist there.

    Raises:
        KatanodeError: `TUNABLE_UNKNOWN`, `TUNABLE_WRONG_TYPE` or `TUNABLE_WRONG_VALUE`, by the first mistake; the
            evidence has a line for each.
    """
    checker = _Checker(base, root)
    checker.run(wanted)
    problems = checker.problems
    if not problems:
        return Tunables(checker.tables)
    many = "1 tunable is" if len(problems) == 1 else f"{len(problems)} tunables are"
    raise KatanodeError(
        problems[0].reason,
        f"{many} wrong for {base.handler.name} of Kata {base.handler.release_version} on {base.handler.runtime_title}",
        evidence="\n".join(map(str, problems)),
        remedy="Correct the lines of the evidence in the settings; nothing was changed.",
    )


class _Checker:
    """Goes through the tables, gathers what is right and what is wrong."""

    def __init__(self, base: BaseFile, root: HostRoot) -> None:
        self.base = base
        self.root = root
        self.handler = base.handler
        self.hypervisor = f"hypervisor.{base.handler.hypervisor}"
        self.tables: dict[str, dict[str, Value]] = {name: {} for name in base.known}
        self.problems: list[Problem] = []

    def refuse(self, reason: Reason, place: str, item: object, what: str) -> None:
        shown = "" if item is None else f" = {shorten(item)}"
        self.problems.append(Problem(reason, f"handlers.{self.handler.name}.{place}{shown}", what))

    def run(self, wanted: settings.Handler) -> None:
        for section, name, tables in (
            ("hypervisor", self.handler.hypervisor, wanted.hypervisor),
            ("agent", "kata", wanted.agent),
        ):
            for found, keys in tables.items():
                self.named_table(section, name, found, keys)
        self.table("runtime", wanted.runtime)
        self.annotations(wanted.annotations)
        self.image_or_initrd()
        self.allowed_paths()
        self.together()

    def named_table(self, section: str, name: str, found: str, keys: object) -> None:
        place, right = f"{section}.{found}", f"[handlers.{self.handler.name}.{section}.{name}]"
        if not isinstance(keys, Mapping):
            self.refuse(Reason.TUNABLE_UNKNOWN, place, keys, f"belongs to a table: write it below {right}")
        elif found != name:
            who = (
                f"{self.handler.name} runs {self.handler.kind.title}"
                if section == "hypervisor"
                else "there is one agent"
            )
            self.refuse(Reason.TUNABLE_UNKNOWN, place, None, f"{who}: write the keys below {right}")
        else:
            self.table(place, keys)

    def table(self, table: str, keys: Mapping[str, Any]) -> None:
        for key, item in keys.items():
            self.key(table, key, item)

    def key(self, table: str, key: str, item: object) -> None:
        place, known = f"{table}.{key}", self.base.known[table]
        if key == "enable_annotations" and table == self.hypervisor:
            right = f"handlers.{self.handler.name}.annotations"
            self.refuse(Reason.TUNABLE_UNKNOWN, place, item, f"write it as {right}, which is checked")
        elif key not in known:
            self.refuse(Reason.TUNABLE_UNKNOWN, place, item, self.unknown(table, key))
        elif not fits(known[key], item):
            self.refuse(Reason.TUNABLE_WRONG_TYPE, place, item, self.wrong_type(table, key, item))
        elif what := values.wrong(self.handler, table, key, item):  # type: ignore[arg-type]  # it fits its kind
            self.refuse(Reason.TUNABLE_WRONG_VALUE, place, item, what)
        elif assets.is_path(key):
            self.path(table, key, item)
        else:
            self.tables[table][key] = item  # type: ignore[assignment]

    def unknown(self, table: str, key: str) -> str:
        others = [name for name, keys in self.base.known.items() if name != table and key in keys]
        if others:
            return f"belongs to [handlers.{self.handler.name}.{others[0]}]"
        if table == self.hypervisor and (what := values.without_effect(self.handler, key)):
            return what
        if (table, key) == ("runtime", "name"):
            return "the Go runtime has no such key, the handler's name is not Kata's business: remove it"
        near = difflib.get_close_matches(key, self.base.known[table], n=1, cutoff=0.6)
        proposal = f": did you mean {near[0]}?" if near else ": remove it"
        return f"{self.handler.runtime_title} of Kata {self.handler.release_version} has no such key{proposal}"

    def wrong_type(self, table: str, key: str, item: object) -> str:
        kind = self.base.known[table][key]
        right = converted(kind, item)
        if right is None:
            shipped = self.base.value(table, key)
            right = shipped if kind_of(shipped) else None
        example = "" if right is None else f": write {key} = {value(right)}"
        return f"must be {kind}{example}"

    def path(self, table: str, key: str, item: Any) -> None:
        place = f"{table}.{key}"
        if item == "" and key in {"path", "kernel", "virtio_fs_daemon"} and self.base.value(table, key):
            self.refuse(Reason.TUNABLE_WRONG_VALUE, place, item, "Kata needs it: remove the line for the release's own")
            return
        real = []
        for part in item if isinstance(item, list) else [item]:
            path, what = assets.check(self.handler, self.root, key, part)
            real.append(path)
            if what:
                self.refuse(Reason.TUNABLE_WRONG_VALUE, place, part, what)
                return
        self.tables[table][key] = real if isinstance(item, list) else real[0]

    def annotations(self, names: tuple[str, ...] | None) -> None:
        if names is None:
            return
        for name in names:
            if what := annotations.wrong(self.handler, name):
                self.refuse(Reason.TUNABLE_WRONG_VALUE, "annotations", name, what)
        self.tables[self.hypervisor]["enable_annotations"] = list(names)

    def image_or_initrd(self) -> None:
        """A guest boots from the one or the other: the operator's choice of one blanks the other of the base file.

        A drop-in cannot remove a key. Both runtimes take an empty string for one that is not there (Go: `image()` and
        `initrd()` in katautils/config.go; Rust: `BootInfo::validate`).
        """
        table = self.tables[self.hypervisor]
        chosen = [key for key in ("image", "initrd") if table.get(key)]
        if len(chosen) == 2:
            place = f"{self.hypervisor}.initrd"
            self.refuse(Reason.TUNABLE_WRONG_VALUE, place, table["initrd"], "excludes image: remove one of the two")
        elif chosen:
            other = "initrd" if chosen == ["image"] else "image"
            if self.base.value(self.hypervisor, other):
                table[other] = ""
        elif any(key in table for key in ("image", "initrd")):
            left = {key: table.get(key, self.base.value(self.hypervisor, key)) for key in ("image", "initrd")}
            if not any(left.values()):
                blank = next(key for key in ("image", "initrd") if key in table)
                what = "leaves neither an image nor an initrd to boot: remove the line"
                self.refuse(Reason.TUNABLE_WRONG_VALUE, f"{self.hypervisor}.{blank}", "", what)

    def allowed_paths(self) -> None:
        """Adds a program of the operator's own to the list that upstream wants it in."""
        table = self.tables[self.hypervisor]
        for key, list_key in assets.ALLOWED_BY.items():
            path = table.get(key)
            allowed = table.get(list_key, self.base.value(self.hypervisor, list_key))
            if isinstance(path, str) and path and isinstance(allowed, list):
                real = [assets.in_release(entry, self.handler.release_path) for entry in allowed]
                if path not in real:
                    table[list_key] = [*real, path]

    def together(self) -> None:
        own = self.tables
        runtime = {**self.base.document.get("runtime", {}), **own["runtime"]}
        for blamed, what in values.together({**self.base.hypervisor, **own[self.hypervisor]}, runtime):
            table, _, key = blamed.rpartition(".")
            place = f"{table or self.hypervisor}.{key}"
            self.refuse(Reason.TUNABLE_WRONG_VALUE, place, own[table or self.hypervisor].get(key), what)


def fits(kind: Kind, item: object) -> bool:
    """Whether a value is of a type that a key of this kind takes."""
    match kind:
        case Kind.INT:
            return kind_of(item) is Kind.INT
        case Kind.FLOAT:
            return kind_of(item) in {Kind.INT, Kind.FLOAT} and math.isfinite(float(item))  # type: ignore[arg-type]
        case _:
            return kind_of(item) is kind


def converted(kind: Kind, item: object) -> Value | None:
    """The value that was probably meant, or None."""
    text = str(item).strip()
    match kind:
        case Kind.BOOL:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower())
        case Kind.INT if not isinstance(item, bool):
            whole = text.removesuffix(".0")
            return int(whole) if whole.isascii() and whole.removeprefix("-").isdigit() else None
        case Kind.FLOAT if isinstance(item, str):
            try:
                number = float(text)
            except ValueError:
                return None
            return number if math.isfinite(number) else None
        case Kind.STR if isinstance(item, list) and item and all(isinstance(part, str) for part in item):
            return " ".join(item)
        case Kind.STR if isinstance(item, int | float) and not isinstance(item, bool):
            return text
        case Kind.STRINGS if isinstance(item, str):
            return item.split() or []
        case _:
            return None


def shorten(item: object) -> str:
    """A value as the settings have it, cut to what fits a line."""
    text = _toml(item)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _toml(item: object) -> str:
    match item:
        case bool():
            return "true" if item else "false"
        case str():
            return string(item)
        case Mapping():
            return "{ " + ", ".join(_pairs(item)) + " }" if item else "{}"
        case list():
            return f"[{', '.join(map(_toml, item))}]"
        case dt.datetime() | dt.date() | dt.time():
            return item.isoformat()
        case _:
            return str(item)


def _pairs(item: Mapping[Any, Any]) -> Iterator[str]:
    return (f"{key} = {_toml(part)}" for key, part in item.items())
