"""``metadata.managedFields``: who owns which field, read and written in the real format.

From ``k8s.io/apimachinery/pkg/util/managedfields/internal/managedfields.go`` (v1.36).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hack.apistandin.fieldsets import FieldSet, from_wire, to_wire

APPLY = "Apply"
UPDATE = "Update"


class Manager(NamedTuple):
    """What tells owners apart: an applier is the same whatever version it speaks, an updater is not.

    Attributes:
        name: the field manager's.
        operation: Apply or Update.
        version: the apiVersion of an updater; "" for an applier.
        subresource: "" for the main resource.
    """

    name: str
    operation: str
    version: str
    subresource: str

    @property
    def identifier(self) -> str:
        """By which a server sorts them (``BuildManagerIdentifier``)."""
        said = {
            "manager": self.name,
            "operation": self.operation,
            "apiVersion": self.version,
            "subresource": self.subresource,
        }
        return json.dumps({name: value for name, value in said.items() if value}, separators=(",", ":"))

    def __str__(self) -> str:
        """As conflicts name it (``internal/conflict.go``)."""
        shown = f'"{self.name}"'
        if self.subresource:
            shown += f' with subresource "{self.subresource}"'
        if self.operation == UPDATE:
            shown += f" using {self.version}"
        return shown


@dataclass(slots=True)
class Owned:
    """One manager's part.

    Attributes:
        fields: what it owns.
        version: the apiVersion that the fields are named in.
        time: of its last write that changed something; None when unknown.
    """

    fields: FieldSet
    version: str
    time: str | None = None


@dataclass(slots=True)
class Managed:
    """All managers of one object."""

    owners: dict[Manager, Owned] = field(default_factory=dict)


def read(entries: object) -> Managed | None:
    """The managers that `entries` list; None when they do not parse, which a server treats as none at all."""
    managed = Managed()
    if not isinstance(entries, list):
        return managed
    for entry in entries:
        if not _well_formed(entry):
            return None
        operation, version = entry["operation"], entry["apiVersion"]
        manager = Manager(
            entry.get("manager", ""), operation, version if operation == UPDATE else "", entry.get("subresource", "")
        )
        managed.owners[manager] = Owned(from_wire(entry.get("fieldsV1") or {}), version, entry.get("time"))
    return managed


def _well_formed(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.get("operation") in (APPLY, UPDATE)
        and bool(entry.get("apiVersion"))
        and entry.get("fieldsType") == "FieldsV1"
    )


def write(managed: Managed) -> list[dict[str, Any]]:
    """The entries, in the server's order: appliers first, then by time, name, version and subresource."""
    entries = []
    for manager, owned in managed.owners.items():
        entry = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": owned.version,
            "time": owned.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": to_wire(owned.fields),
            "subresource": manager.subresource,
        }
        entries.append({key: value for key, value in entry.items() if value not in ("", None)})
    return sorted(
        entries,
        key=lambda e: (e["operation"], e.get("time", ""), e["manager"], e["apiVersion"], e.get("subresource", "")),
    )


def same_but_times(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> bool:
    """Whether two lists of entries differ in nothing but times."""

    def timeless(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: value for key, value in entry.items() if key != "time"} for entry in entries]

    return timeless(left) == timeless(right)
