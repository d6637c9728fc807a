"""Restart slots: so many nodes of the fleet restart their container runtime at once, and none after too many failed."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from agent.cluster import leases
from agent.cluster.api import Api, ApiError
from agent.cluster.leases import Failed, Lease, Leases
from agent.reasons import Reason

_RUNGS = 10
_RUNG = 0.08
"""Seconds: how long a waiter hesitates over a free slot, see `_hesitation`."""
_LONGEST_WAIT = 60.0
"""Seconds without an event after which who waits looks at clocks and nodes again."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings' `[rollout]`, and what is rolled out.

    Attributes:
        slots: how many nodes at once.
        lease_seconds: how long a slot stays with a node that vanished.
        failed_nodes_limit: after so many failed nodes no slot is given.
        settings: a digest of the settings; failures with others do not count.
    """

    slots: int
    lease_seconds: int
    failed_nodes_limit: int
    settings: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why there is no slot yet: a reason of the catalogue and a sentence."""

    reason: Reason
    message: str


class Cancelled(Exception):  # noqa: N818 - nothing went wrong
    """Whoever asked for a slot does not want it any more."""


class Slot:
    """A slot that this node holds; renewed until it is given back.

    Args:
        known: the Leases, which only this object touches from now on.
        lease: the one that is held.
        policy: the rollout's.
    """

    def __init__(self, known: Leases, lease: Lease, policy: Policy) -> None:
        self._leases = known
        self._lease = lease
        self._policy = policy
        self._done = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="slot-renewal", daemon=True)
        self._renewer.start()

    def give_back(self, failed: str) -> None:
        """Gives the slot to the next node.

        Args:
            failed: the reason for which this node's restart failed; "" when it did not.

        Raises:
            ApiError: the API cannot be told; the slot runs out by itself.
        """
        self._done.set()
        self._renewer.join()
        self._leases.note(failed, self._policy.settings)
        for _ in range(3):
            if leases.holder(self._lease) != self._leases.node:
                return  # it ran out, and somebody took it
            try:
                self._leases.write(self._lease, holderIdentity="", renewTime=leases.timestamp())
            except ApiError as error:
                if error.status != 409:
                    raise
                self._lease = self._leases.get(self._lease["metadata"]["name"])
            else:
                return

    def _renew(self) -> None:
        while not self._done.wait(self._policy.lease_seconds / 3 * random.uniform(0.9, 1.0)):  # noqa: S311 - jitter
            try:
                if leases.holder(self._lease) == self._leases.node:
                    self._lease = self._leases.write(self._lease, renewTime=leases.timestamp())
            except ApiError as error:
                if error.status == 409:
                    self._reread()

    def _reread(self) -> None:
        try:
            self._lease = self._leases.get(self._lease["metadata"]["name"])
        except ApiError:
            return


class Slots:
    """Asks for slots.

    Args:
        api: the API.
        namespace: where the Leases are.
        node: this node's name.
        clock: monotonic seconds.
    """

    def __init__(self, api: Api, namespace: str, node: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._namespace = namespace
        self._node = node
        self._clock = clock
        self._seen: leases.Seen = {}

    def acquire(self, policy: Policy, cancelled: threading.Event, tell: Callable[[Waiting], None]) -> Slot:
        """Waits until this node has a slot.

        Args:
            policy: the rollout's.
            cancelled: set when the slot is not wanted any more.
            tell: told why there is none yet, whenever that changes.

        Raises:
            Cancelled: `cancelled` was set.
        """
        told: Waiting | None = None
        failures = 0
        while not cancelled.is_set():
            known = self._leases()
            ended = threading.Event()
            try:
                known.read()
                for got in self._attempts(known, policy, cancelled, ended):
                    failures = 0
                    if isinstance(got, Slot):
                        return got
                    if got != told:
                        told = got
                        tell(got)
            except ApiError as error:
                failures += error.status not in {409, 410}
                got = Waiting(Reason.CLUSTER_UNREACHABLE, f"no restart slot can be asked for: {error}")
                if failures and (told is None or told.reason is not got.reason):
                    told = got
                    tell(got)
                wait = max(error.retry_after, min(30.0, 0.25 * 2.0 ** min(failures, 8)))
                cancelled.wait(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            finally:
                ended.set()
        raise Cancelled

    def _attempts(
        self, known: Leases, policy: Policy, cancelled: threading.Event, ended: threading.Event
    ) -> Iterator[Slot | Waiting]:
        """Tries at once, and again whenever a slot may have become free."""
        changed = threading.Event()
        broken: list[ApiError] = []
        follower = threading.Thread(
            target=_follow, args=(known, changed, ended, broken), name="slot-watch", daemon=True
        )
        follower.start()
        if not any(leases.holder(lease) == known.node for lease in known.known.values()):
            cancelled.wait(_hesitation())
        while not cancelled.is_set() and not broken:
            changed.clear()
            got = self._attempt(known, policy)
            if isinstance(got, Slot) and cancelled.is_set():
                got.give_back("")
                return
            yield got
            if changed.wait(self._patience(known, policy)):
                cancelled.wait(_hesitation())
        if broken:
            raise broken[0]

    def halted(self, policy: Policy) -> tuple[Failed, ...]:
        """The failed nodes if they are so many that the rollout is halted.

        Raises:
            ApiError: the API cannot be asked.
        """
        known = self._leases()
        known.read()
        return halting(known, policy)

    def _leases(self) -> Leases:
        return Leases(self._api, self._namespace, self._node, self._seen, self._clock)

    def _attempt(self, known: Leases, policy: Policy) -> Slot | Waiting:
        bad = halting(known, policy)
        if bad:
            return Waiting(Reason.ROLLOUT_HALTED, halt_words(bad))
        held = []
        for number in _order(policy.slots, self._node):
            lease = known.slot(number)
            who = leases.holder(lease)
            if who not in {"", self._node} and not self._is_free(known, lease, who, policy):
                held.append(who)
                continue
            now = leases.timestamp()
            spec: dict[str, Any] = {"holderIdentity": self._node, "leaseDurationSeconds": policy.lease_seconds}
            changes = int((lease.get("spec") or {}).get("leaseTransitions") or 0) + (who != self._node)
            try:
                made = known.write(lease, **spec, acquireTime=now, renewTime=now, leaseTransitions=changes)
            except ApiError as error:
                if error.status != 409:
                    raise
                held.append("another node")
                continue
            return Slot(known, made, policy)
        return Waiting(Reason.WAITING_FOR_SLOT, f"the container runtime restarts on {', '.join(held)} now")

    def _is_free(self, known: Leases, lease: Lease, who: str, policy: Policy) -> bool:
        seconds = leases.duration(lease, policy.lease_seconds)
        unrenewed = known.unrenewed(lease)
        if unrenewed >= seconds:
            return True
        return unrenewed > seconds / 2 and self._is_gone(who)

    def _is_gone(self, who: str) -> bool:
        try:
            self._api.get(f"/api/v1/nodes/{who}")
        except ApiError as error:
            return error.status == 404
        return False

    def _patience(self, known: Leases, policy: Policy) -> float:
        """Seconds until a slot may run out, or its holder be looked at."""
        ends = []
        for number in range(policy.slots):
            lease = known.slot(number)
            seconds = leases.duration(lease, policy.lease_seconds)
            left = (end - known.unrenewed(lease) for end in (seconds / 2, float(seconds)))
            ends += [end for end in left if end > 0]
        return max(0.1, min([_LONGEST_WAIT, *ends])) + _hesitation()


def _hesitation() -> float:
    """Seconds to wait before trying for a slot that looks free; whoever was quicker is seen meanwhile.

    In each rung an agent tries with twice the probability of the one before, from 1/1024 up to 1. So of a thousand that
    wait about one tries in the first, of three one within the second, and few ever meet.
    """
    rung = next(n for n in range(_RUNGS + 1) if random.random() < 2.0 ** (n - _RUNGS))  # noqa: S311 - no secret
    return (rung + random.random()) * _RUNG  # noqa: S311 - no secret


def _follow(known: Leases, changed: threading.Event, ended: threading.Event, broken: list[ApiError]) -> None:
    try:
        known.follow(changed, ended)
    except ApiError as error:
        broken.append(error)
        changed.set()


def halting(known: Leases, policy: Policy) -> tuple[Failed, ...]:
    """The nodes that failed with these settings, if they are too many."""
    bad = tuple(f for f in known.failed() if f.settings == policy.settings)
    return bad if len(bad) >= policy.failed_nodes_limit else ()


def halt_words(bad: tuple[Failed, ...]) -> str:
    """A sentence on a halted rollout."""
    shown = ", ".join(f"{f.node} ({f.reason})" for f in bad[:5])
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    return f"no node restarts its container runtime any more: {shown}{more} failed"


def _order(slots: int, node: str) -> list[int]:
    """The slots, from another one on for each node, so that not all try the first."""
    first = sum(node.encode()) % slots
    return [(first + i) % slots for i in range(slots)]
