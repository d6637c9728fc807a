"""Field ownership: what an update takes, and how a server-side apply merges, prunes and conflicts.

From ``sigs.k8s.io/structured-merge-diff/v6/merge/update.go`` and, for what wraps it,
``k8s.io/apimachinery/pkg/util/managedfields/internal`` (v1.36): stripmeta.go, managedfieldsupdater.go,
skipnonapplied.go, structuredmerge.go. Left out: the limit of ten updaters, after which a server joins the oldest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hack.apistandin import errors, typed
from hack.apistandin.decoding import decode
from hack.apistandin.fieldsets import EMPTY, FieldSet, Path, in_order, shown, under, with_named_parents
from hack.apistandin.managedfields import APPLY, UPDATE, Managed, Manager, Owned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hack.apistandin.schema import Type

# Nobody owns what the server itself keeps (internal/stripmeta.go).
_NEVER_OWNED: FieldSet = frozenset(
    [("f:apiVersion",), ("f:kind",), ("f:metadata",)]
    + [
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    ]
)
_BEFORE_FIRST_APPLY = "before-first-apply"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a request writes to.

    Attributes:
        version: the apiVersion that it speaks.
        types: the object's type in each apiVersion.
        convert: an object of the request's version, in another.
        reset: what the resource or subresource does not let be changed, by apiVersion (``GetResetFields``).
        subresource: "" for the main resource.
        now: the time to write.
    """

    version: str
    types: Mapping[str, Type]
    convert: Callable[[Any, str], Any]
    reset: tuple[Path, ...]
    subresource: str
    now: str

    @property
    def type(self) -> Type:
        """Of the request's own version."""
        return self.types[self.version]


def update(scope: Scope, live: Any, new: Any, managed: Managed, name: str) -> Managed:
    """The owners after `live` became `new` by anything but an apply: the writer owns what it changed.

    Args:
        scope: what is written to.
        live: the object before; an empty one for a create.
        new: the object after, in the same version.
        managed: the owners before.
        name: the field manager's.
    """
    manager = Manager(name or "unknown", UPDATE, scope.version, scope.subresource)
    owners = dict(managed.owners)
    conflicts, removed, mine = _changes(scope, live, new, owners, None)
    owners = _without(owners, conflicts, removed)
    took = (mine[1] | mine[2]) - _NEVER_OWNED
    if took:
        before = owners.get(manager)
        owners[manager] = Owned(took | (before.fields if before else EMPTY), scope.version, scope.now)
    return Managed(owners)


def apply(scope: Scope, live: Any, applied: Any, managed: Managed, name: str, *, force: bool) -> tuple[Any, Managed]:
    """The object with `applied` laid over it, less what the manager applied before and does not now.

    Args:
        scope: what is written to.
        live: the object before; an empty one when there is none.
        applied: what the manager wants, without apiVersion and kind; already checked against the type.
        managed: the owners before.
        name: the field manager's.
        force: take what others own.

    Raises:
        ApiError: 409 with one cause for each field that another owns and that would change.
    """
    manager = Manager(name, APPLY, "", scope.subresource)
    if not managed.owners and live.get("metadata", {}).get("uid"):
        # An object from before fields had owners (internal/skipnonapplied.go).
        managed = update(scope, decode({}, scope.type, "", []), live, managed, _BEFORE_FIRST_APPLY)
    owners = dict(managed.owners)
    last = owners.get(manager)
    merged = typed.merge(live, applied, scope.type)
    owners[manager] = Owned(under(typed.field_set(applied, scope.type), *scope.reset), scope.version, scope.now)
    if last is not None and last.fields:
        merged = _pruned(scope, merged, owners, last)
    conflicts, removed, _ = _changes(scope, live, merged, owners, manager)
    if conflicts and not force:
        raise _conflict_error(conflicts)
    owners = _without(owners, conflicts, removed)
    if manager in owners:
        fields = owners[manager].fields - _NEVER_OWNED
        # An apply that changes nothing leaves its time as it is, and has none when it is the first.
        before = last.time if last is not None else None
        time = scope.now if merged != live else before
        owners[manager] = Owned(fields, scope.version, time)
        if not fields:
            del owners[manager]
    return merged, Managed(owners)


def _changes(
    scope: Scope, live: Any, new: Any, owners: Mapping[Manager, Owned], workflow: Manager | None
) -> tuple[dict[Manager, FieldSet], dict[Manager, FieldSet], tuple[FieldSet, FieldSet, FieldSet]]:
    """What of each other owner's changes, what of it goes, and the whole comparison in the request's version."""
    versions: dict[str, tuple[FieldSet, FieldSet, FieldSet]] = {}

    def compared(version: str) -> tuple[FieldSet, FieldSet, FieldSet]:
        if version not in versions:
            old_and_new = (
                (live, new)
                if version == scope.version
                else (
                    scope.convert(live, version),
                    scope.convert(new, version),
                )
            )
            found = typed.compare(*old_and_new, scope.types[version])
            versions[version] = found.filtered(lambda paths: under(paths, *scope.reset))
        return versions[version]

    conflicts: dict[Manager, FieldSet] = {}
    gone: dict[Manager, FieldSet] = {}
    for manager, owned in owners.items():
        if manager == workflow or owned.version not in scope.types:
            continue
        removed, modified, added = compared(owned.version)
        clash = owned.fields & (modified | added)
        if clash:
            conflicts[manager] = clash
        if removed:
            gone[manager] = removed
    return conflicts, gone, compared(scope.version)


def _without(
    owners: Mapping[Manager, Owned],
    conflicts: Mapping[Manager, FieldSet],
    removed: Mapping[Manager, FieldSet],
) -> dict[Manager, Owned]:
    """The owners less what was taken from them or is no longer there; who has nothing left is gone."""
    left = {}
    for manager, owned in owners.items():
        fields = owned.fields - conflicts.get(manager, EMPTY) - removed.get(manager, EMPTY)
        if fields:
            left[manager] = Owned(fields, owned.version, owned.time)
    return left


def _pruned(scope: Scope, merged: Any, owners: Mapping[Manager, Owned], last: Owned) -> Any:
    """`merged` without what the manager applied last time, unless anybody owns it now (``Updater.prune``)."""
    if last.version not in scope.types:
        return merged
    kind = scope.types[last.version]
    here = merged if last.version == scope.version else scope.convert(merged, last.version)
    lost = with_named_parents(last.fields, kind)
    pruned = typed.remove(here, lost, kind)
    owned: FieldSet = EMPTY
    for other in owners.values():
        if other.version == last.version:
            owned |= other.fields
    all_of_it = with_named_parents(typed.field_set(here, kind), kind)

    def after_removal() -> FieldSet:
        return with_named_parents(typed.field_set(pruned, kind), kind)

    # addBackOwnedItems: whatever went and is owned comes back.
    pruned = typed.remove(here, all_of_it - (after_removal() | with_named_parents(owned, kind)), kind)
    # addBackDanglingItems: whatever went and was not this manager's comes back too.
    pruned = typed.remove(here, (all_of_it - after_removal()) & lost, kind)
    return pruned if last.version == scope.version else scope.convert(pruned, scope.version)


def _conflict_error(conflicts: Mapping[Manager, FieldSet]) -> errors.ApiError:
    """409 in the words of ``internal/conflict.go``."""
    found = [(manager, shown(path)) for manager, paths in conflicts.items() for path in in_order(paths)]
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": path}
        for manager, path in found
    ]
    if len(found) == 1:
        manager, path = found[0]
        return errors.apply_conflict(causes, f"Apply failed with 1 conflict: conflict with {manager}: {path}")
    lines = []
    for manager in sorted(conflicts, key=lambda one: one.identifier):
        lines.append(f"conflicts with {manager}:")
        lines += [f"- {path}" for path in map(shown, in_order(conflicts[manager]))]
    return errors.apply_conflict(causes, f"Apply failed with {len(found)} conflicts: " + "\n".join(lines))
