"""Deletes.

From ``k8s.io/apiserver/pkg/registry/rest/delete.go`` and ``pkg/endpoints/handlers/delete.go`` (v1.36).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hack.apistandin import errors, kinds
from hack.apistandin.writing import Done, Writing, now

if TYPE_CHECKING:
    from hack.apistandin.kinds import Object


class Deleter(Writing):
    """A delete."""

    def delete(self, preconditions: dict[str, str], grace: int | None) -> Done:
        """DELETE.

        Args:
            preconditions: uid and resourceVersion that the object must have.
            grace: seconds; None for the object's own.
        """
        kind, target = self._kind, self._target
        old = self._store.get(kind, target.namespace, target.name)
        if old is None:
            raise errors.not_found(kind.group, kind.plural, target.name)
        self._still_the_one(old["metadata"], preconditions)
        gone = old if self._chosen.dry_run else self._deleted(old, grace)
        details = {"name": target.name, "group": kind.group, "kind": kind.plural, "uid": old["metadata"]["uid"]}
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {name: value for name, value in details.items() if value},
        }
        stays = "deletionTimestamp" in gone["metadata"]
        return Done(200, gone, changed=True, status=None if kind.returns_deleted or stays else status)

    def _still_the_one(self, meta: Object, preconditions: dict[str, str]) -> None:
        """``BeforeDelete`` of ``pkg/registry/rest/delete.go``."""
        kind, name = self._kind, self._target.name
        uid, revision = preconditions.get("uid"), preconditions.get("resourceVersion")
        if uid is not None and uid != meta["uid"]:
            words = (
                f"the UID in the precondition ({uid}) does not match the UID in record ({meta['uid']})."
                " The object might have been deleted and then recreated"
            )
            raise errors.conflict(kind.group, kind.kind, name, words)
        if revision is not None and revision != meta["resourceVersion"]:
            words = (
                f"the ResourceVersion in the precondition ({revision}) does not match the ResourceVersion in record"
                f" ({meta['resourceVersion']}). The object might have been modified"
            )
            raise errors.conflict(kind.group, kind.kind, name, words)

    def _deleted(self, old: Object, grace: int | None) -> Object:
        """The object after its deletion: gone, or marked for a kubelet or a finalizer to let it go."""
        kind, store = self._kind, self._store
        meta = dict(old["metadata"])
        own = old["spec"].get("terminationGracePeriodSeconds", 30) if kind is kinds.PODS else 0
        wanted = own if grace is None else grace
        graceful = kind is kinds.PODS and bool(old["spec"].get("nodeName")) and wanted > 0
        if graceful or meta.get("finalizers"):
            if "deletionTimestamp" in meta and wanted >= meta.get("deletionGracePeriodSeconds", 0):
                return old
            meta["deletionTimestamp"] = now()
            meta["deletionGracePeriodSeconds"] = wanted if graceful else 0
            return store.put(kind, {**old, "metadata": meta})
        if kind is kinds.NAMESPACES:
            # No controller here: what is in the namespace goes with it.
            for other in {one.storage: one for one in kinds.KINDS if one.namespaced}.values():
                for inside in store.list(other, self._target.name):
                    store.delete(other, self._target.name, inside["metadata"]["name"])
            gone = store.delete(kind, "", self._target.name)
            meta = {**gone["metadata"], "deletionTimestamp": now()}
            return {**gone, "metadata": meta, "status": {**gone["status"], "phase": "Terminating"}}
        return store.delete(kind, self._target.namespace, self._target.name)
