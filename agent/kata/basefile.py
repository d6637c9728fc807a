"""The base file of a handler: what upstream ships, and which keys it knows.

A key is known when the file sets it, or shows it commented out (`#enable_iommu = true`): up to 3.x that is how upstream
documents what is off. What upstream's code accepts beyond that stands in `furtherkeys`.
"""

import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.errors import KatanodeError
from agent.host import files
from agent.host.root import HostRoot
from agent.kata.furtherkeys import FLOATS_SINCE, ONLY_COMMENTED, further
from agent.kata.handlers import ResolvedHandler, version_tuple
from agent.reasons import Reason


class Kind(StrEnum):
    """Types of values in Kata's configuration, named as people call them."""

    BOOL = "true or false"
    INT = "a whole number of 0 or more"
    FLOAT = "a number"
    STR = "a string"
    STRINGS = "an array of strings"


_KINDS = {"bool": Kind.BOOL, "int": Kind.INT, "float": Kind.FLOAT, "str": Kind.STR, "strings": Kind.STRINGS}

# One blank at most after the number sign: prose that quotes an assignment is indented further.
_COMMENTED = re.compile(r"\s*#\s?([a-z][a-z0-9_]*)\s*=\s*(\S.*)")
_HEADER = re.compile(r"\s*\[([A-Za-z0-9_.-]+)\]\s*(?:#.*)?")
_BARE_WORD = re.compile(r"[A-Za-z][\w-]*")


@dataclass(frozen=True, slots=True)
class BaseFile:
    """A handler's base file.

    Attributes:
        handler: whose it is.
        data: its bytes.
        document: what they say.
        known: table names (`hypervisor.clh`, `agent.kata`, `runtime`) to the keys known in them and their types.
    """

    handler: ResolvedHandler
    data: bytes
    document: dict[str, Any]
    known: dict[str, dict[str, Kind]]

    @property
    def hypervisor(self) -> dict[str, Any]:
        """The hypervisor's table."""
        table: dict[str, Any] = self.document["hypervisor"][self.handler.hypervisor]
        return table

    def value(self, table: str, key: str) -> Any:
        """What the file sets, or None."""
        here: Any = self.document
        for part in (*table.split("."), key):
            here = here.get(part) if isinstance(here, dict) else None
        return here


def load(root: HostRoot, handler: ResolvedHandler) -> BaseFile:
    """Reads a handler's base file.

    Raises:
        KatanodeError: `RELEASE_DAMAGED` when it is not there, is no TOML or lacks the hypervisor's table;
            `FILE_READ_FAILED` when it cannot be read.
    """
    try:
        return parse(handler, files.read_bounded(root(handler.base_file)))
    except FileNotFoundError:
        raise KatanodeError(Reason.RELEASE_DAMAGED, f"{handler.base_file} is not there any more") from None


def parse(handler: ResolvedHandler, data: bytes) -> BaseFile:
    """Makes a base file of its bytes.

    Raises:
        KatanodeError: `RELEASE_DAMAGED`.
    """
    try:
        text = data.decode()
        document = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise KatanodeError(
            Reason.RELEASE_DAMAGED, f"{handler.base_file} is not valid TOML", evidence=str(error)
        ) from error
    tables = document.get("hypervisor")
    if not isinstance(tables, dict) or not isinstance(tables.get(handler.hypervisor), dict):
        raise KatanodeError(
            Reason.RELEASE_DAMAGED, f"{handler.base_file} has no table [hypervisor.{handler.hypervisor}]"
        )
    return BaseFile(handler, data, document, _known(handler, text, document))


def _known(handler: ResolvedHandler, text: str, document: dict[str, Any]) -> dict[str, dict[str, Kind]]:
    hypervisor = f"hypervisor.{handler.hypervisor}"
    known: dict[str, dict[str, Kind]] = {hypervisor: {}, "agent.kata": {}, "runtime": {}}
    version = version_tuple(handler.release_version)
    for kind in ("hypervisor", "agent", "runtime"):
        table = next(name for name in known if name.startswith(kind))
        for key, word in further(handler.runtime, kind, version).items():
            known[table][key] = _KINDS[word]
    for table, key, item in _commented(text):
        if table in known and not (handler.runtime == "go" and key in ONLY_COMMENTED):
            _add(known[table], key, item)
    for table, keys in known.items():
        here: Any = document
        for part in table.split("."):
            here = here.get(part, {})
        for key, item in here.items():
            _add(keys, key, item)
        for key, (runtime, since) in FLOATS_SINCE.items():
            if key in keys and (handler.runtime == "rust" or (runtime == "go" and version >= since)):
                keys[key] = Kind.FLOAT
    return known


def _add(keys: dict[str, Kind], key: str, item: object) -> None:
    kind = kind_of(item)
    if kind is not None:
        keys[key] = kind


def kind_of(item: object) -> Kind | None:
    """The type of a value, or None for what Kata's tables do not hold."""
    match item:
        case bool():
            return Kind.BOOL
        case int():
            return Kind.INT
        case float():
            return Kind.FLOAT
        case str():
            return Kind.STR
        case list() if all(isinstance(part, str) for part in item):
            return Kind.STRINGS
        case _:
            return None


def _commented(text: str) -> list[tuple[str, str, object]]:
    """Assignments that are commented out: table, key, example."""
    found: list[tuple[str, str, object]] = []
    table = ""
    for line in text.splitlines():
        if header := _HEADER.fullmatch(line):
            table = header[1]
        elif assignment := _COMMENTED.fullmatch(line):
            example = assignment[2].strip()
            try:
                item: object = tomllib.loads(f"x = {example}")["x"]
            except (tomllib.TOMLDecodeError, RecursionError):
                if not _BARE_WORD.fullmatch(example):
                    continue  # prose
                item = example  # upstream writes `#extra_monitor_socket = hmp`
            found.append((table, assignment[1], item))
    return found
