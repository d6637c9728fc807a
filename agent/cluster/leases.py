"""Leases as restart slots and as notes of failed nodes: reading and writing them, without deciding anything."""

import datetime as dt
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.cluster import names
from agent.cluster.api import Api, ApiError, is_older

Lease = dict[str, Any]
Seen = dict[str, tuple[tuple[Any, ...], float]]

_WATCH_SECONDS = 60
"""After which a watch is made anew."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A node whose restart failed.

    Attributes:
        node: its name.
        reason: why, from the catalogue.
        settings: a digest of the settings with which it failed.
    """

    node: str
    reason: str
    settings: str


class Leases:
    """The Leases of the agents' namespace.

    Args:
        api: the API.
        namespace: where they are.
        node: this node's name, the identity under which slots are held.
        seen: since when each lease is seen unchanged; kept by the caller, so that an expiry outlasts this object.
        clock: monotonic seconds.
    """

    def __init__(
        self, api: Api, namespace: str, node: str, seen: Seen, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self.node = node
        self._clock = clock
        self._seen = seen
        self.known: dict[str, Lease] = {}
        self.version = "0"

    def read(self) -> None:
        """Lists them.

        Raises:
            ApiError: they cannot be listed.
        """
        made = self._api.get(self._path)
        self.version = str(made["metadata"]["resourceVersion"])
        self.known = {}
        for item in made["items"]:
            self._learn(item)

    def follow(self, changed: threading.Event, ended: threading.Event) -> None:
        """Learns every change from the last `read` on, until `ended` is set.

        Args:
            changed: set when a slot may be free or a node's failure was noted or forgotten; not when a slot was taken
                or renewed, which would wake a whole fleet for nothing.
            ended: looked at between two events, and once a minute.

        Raises:
            ApiError: 410 when what was listed is too old by now; others as the API has them.
        """
        while not ended.is_set():
            with self._api.watch(self._path, self.version, seconds=_WATCH_SECONDS) as events:
                for kind, item in events:
                    self.version = str(item["metadata"]["resourceVersion"])
                    if kind == "DELETED":
                        self.known.pop(item["metadata"]["name"], None)
                    elif kind != "BOOKMARK":
                        self._learn(item)
                    if ended.is_set():
                        return
                    if (
                        kind == "DELETED"
                        or not holder(item)
                        or not item["metadata"]["name"].startswith(names.SLOT_PREFIX)
                    ):
                        changed.set()
            ended.wait(0.2)  # a server that ends every watch at once is not asked without pause

    def slot(self, number: int) -> Lease:
        """A slot; made if it is not there.

        Raises:
            ApiError: it can be neither made nor read.
        """
        name = f"{names.SLOT_PREFIX}{number}"
        if name not in self.known:
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": {}}
            try:
                self._learn(self._api.create(self._path, body))
            except ApiError as error:
                if error.status != 409:
                    raise
                self._learn(self._api.get(f"{self._path}/{name}"))
        return self.known[name]

    def unrenewed(self, lease: Lease) -> float:
        """Seconds since this process first saw the lease as it is: by its own clock, as nodes' clocks differ."""
        return self._clock() - self._seen[lease["metadata"]["name"]][1]

    def write(self, lease: Lease, **spec: Any) -> Lease:
        """Replaces a slot's spec, if nobody did meanwhile.

        Raises:
            ApiError: 409 when somebody did.
        """
        body = {**lease, "spec": {k: v for k, v in {**(lease.get("spec") or {}), **spec}.items() if v is not None}}
        made = self._api.update(f"{self._path}/{lease['metadata']['name']}", body)
        self._learn(made)
        return made

    def get(self, name: str) -> Lease:
        """Reads one.

        Raises:
            ApiError: 404 when it is gone.
        """
        made = self._api.get(f"{self._path}/{name}")
        self._learn(made)
        return made

    def failed(self) -> tuple[Failed, ...]:
        """The nodes that say that their restart failed, as last learnt."""
        return tuple(_failed(lease) for lease in self.known.values() if _says_failed(lease))

    def note(self, reason: str, settings: str) -> None:
        """Says that this node's restart failed, or with `reason` "" that it did not; says nothing twice.

        Raises:
            ApiError: it cannot be said.
        """
        name = f"{names.FAILED_PREFIX}{self.node}"
        there = self.known.get(name)
        if not reason and (there is None or not _says_failed(there)):
            return
        metadata: dict[str, Any] = {
            "name": name,
            "labels": {names.FAILED: "true"} if reason else {},
            "annotations": {names.FAILED: reason, names.SETTINGS: settings} if reason else {},
        }
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
        body["spec"] = {"holderIdentity": self.node, "renewTime": timestamp()}
        try:
            self._learn(self._api.create(self._path, body))
        except ApiError as error:
            if error.status != 409:
                raise
            metadata["resourceVersion"] = self.get(name)["metadata"]["resourceVersion"]
            self._learn(self._api.update(f"{self._path}/{name}", body))

    def _learn(self, lease: Lease) -> None:
        name = lease["metadata"]["name"]
        before = self.known.get(name)
        if before is not None and is_older(lease, before):
            return  # a watch brings this process's own write later than the write's answer did
        spec = lease.get("spec") or {}
        print_ = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        if name not in self._seen or self._seen[name][0] != print_:
            self._seen[name] = (print_, self._clock())
        self.known[name] = lease


def holder(lease: Lease) -> str:
    """Who holds a slot; "" when nobody does."""
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def duration(lease: Lease, default: int) -> int:
    """Seconds that the holder gave itself between two renewals."""
    return int((lease.get("spec") or {}).get("leaseDurationSeconds") or default)


def timestamp() -> str:
    """This moment as a MicroTime."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _annotations(lease: Mapping[str, Any]) -> Mapping[str, str]:
    return lease["metadata"].get("annotations") or {}


def _says_failed(lease: Mapping[str, Any]) -> bool:
    return bool(_annotations(lease).get(names.FAILED)) and lease["metadata"]["name"].startswith(names.FAILED_PREFIX)


def _failed(lease: Mapping[str, Any]) -> Failed:
    said = _annotations(lease)
    node = lease["metadata"]["name"].removeprefix(names.FAILED_PREFIX)
    return Failed(node, said[names.FAILED], said.get(names.SETTINGS, ""))
