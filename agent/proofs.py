"""What was proved of each handler, and proving what was not, or what was proved a while ago.

A proof is of one handler, configuration, daemon and boot, and holds until its subject changes or a later canary fails.
That later canary is the periodic one (`agent/renewal.py`). When it fails for a cause that stays (a missing file, no
virtual machine), the proof is gone at once. When the cause may pass within a minute (a time limit, memory, a runtime
that restarts), the failure is kept beside the proof as a doubt, which people see as a warning, and the second failure
takes the proof. Without that, one slow minute would take a node from its pods; with a longer patience the label would
lie. The doubt is written down, so that an agent that dies of the same trouble does not forget it.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from agent.cri.client import Client
from agent.cri.daemon import Daemon
from agent.cri.handler import Handler
from agent.errors import KatanodeError, bounded
from agent.node import Node
from agent.reasons import Reason, Severity
from agent.report import Capability, Finding, bad
from agent.sandboxes import canary
from agent.state import State

CHECK = "a sandbox starts through the handler"
_KEPT = 1000
"""Characters of a runtime's words that are kept on the node."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a proof is of: any difference in it asks for a new one.

    Attributes:
        handler: the handler as the runtime is told of it.
        shim: the pinned shim's path on the host.
        files: the hypervisor configuration that it leads to.
    """

    handler: Handler
    shim: str
    files: Mapping[str, bytes]

    def digest(self, node: Node, daemon: Daemon) -> str:
        """A digest of the subject, the daemon and this boot."""
        content = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        what = [asdict(self.handler), self.shim, content, daemon.version, daemon.exe, node.boot]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


@dataclass(slots=True)
class Proofs:
    """The proofs of one run: those of earlier runs that still hold, and those that it makes.

    Attributes:
        node: the node.
        daemon: the daemon that serves; None where there is none, and so no subject.
        subjects: what the proofs are of.
        held: handler to its proof.
        failures: handler to the finding that there is none, from a canary of this run.
        failed: handler to its last canary's failure, of this run or an earlier one; beside a proof it is a doubt.
    """

    node: Node
    daemon: Daemon | None
    subjects: Sequence[Subject]
    held: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failures: dict[str, Finding] = field(default_factory=dict)
    failed: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def recall(self, state: State) -> None:
        """Takes over the proofs of earlier runs that still hold, and the failures that are of the same."""
        for subject in self.subjects:
            name, digest = subject.handler.name, self._digest(subject)
            proof, failure = state.proofs.get(name, {}), state.failed.get(name, {})
            if proof.get("digest") == digest:
                self.held[name] = proof
            if failure.get("digest") == digest and _is_known(failure):
                self.failed[name] = failure

    def missing(self, able: Sequence[str]) -> tuple[str, ...]:
        """The handlers among `able`, those that nothing of the node hinders, that have no proof yet."""
        return tuple(
            s.handler.name for s in self.subjects if s.handler.name in able and s.handler.name not in self.held
        )

    @property
    def doubted(self) -> tuple[str, ...]:
        """The handlers whose proof still holds although a canary failed since."""
        return tuple(name for name in self.held if name in self.failed)

    def make(self, names: Sequence[str]) -> None:
        """Starts a canary through each of these handlers; its failure is kept as a finding, and no proof is left."""
        for name in names:
            self.held.pop(name, None)
            self.failures.pop(name, None)
        self.renew(names)

    def renew(self, names: Sequence[str]) -> None:
        """As `make`, but a proof outlives the first failure of a kind that may pass."""
        if not names:
            return
        assert self.daemon is not None  # there are subjects
        with Client(self.node.root(self.daemon.socket)) as client:
            for subject in self.subjects:
                if subject.handler.name in names:
                    self._try(client, subject)

    def _try(self, client: Client, subject: Subject) -> None:
        node, name = self.node, subject.handler.name
        timeout = node.settings.canary.timeout_seconds
        try:
            proof = canary.prove(client, name, node.root(subject.shim), timeout, node.root("/run"))
        except canary.CanaryError as error:
            node.tried(name, False)  # noqa: FBT003 - whether it started
            node.say(f"canary {name}: {error.message} [{error.reason}]")
            spared = error.passing and name in self.held and name not in self.failed
            self.failed[name] = {
                "digest": self._digest(subject),
                "at": round(time.time(), 3),
                "reason": str(error.reason),
                "evidence": f"{error.message}\n{bounded(error.evidence, _KEPT)}".strip(),
                "proved": self._last_success(name),
            }
            if not spared:
                self.held.pop(name, None)
                self.failures[name] = _failure(name, error.reason, f"{error.message}\n{error.evidence}".strip())
        else:
            node.tried(name, True)  # noqa: FBT003 - as above
            self.failed.pop(name, None)
            self.held[name] = {
                "digest": self._digest(subject),
                "at": round(time.time(), 3),
                "seconds": round(proof.seconds, 3),
                "shim": proof.shim,
                "hypervisor": proof.hypervisor,
                "memory": dict(proof.memory),
                "own_kernel": proof.own_kernel,
            }
            node.say(f"canary {name}: a sandbox in {proof.seconds:.2f} s, its VM held by {proof.hypervisor}")

    def _last_success(self, name: str) -> float:
        return float(self.held.get(name, {}).get("at") or self.failed.get(name, {}).get("proved") or 0.0)

    def _digest(self, subject: Subject) -> str:
        assert self.daemon is not None  # there are subjects
        return subject.digest(self.node, self.daemon)

    def findings(self) -> tuple[Finding, ...]:
        """What canaries found that people should know: failures of this run, and doubts."""
        doubts = []
        for name in self.doubted:
            failure = self.failed[name]
            text = f"{_told(failure)}\nonce so far: tried again within a minute, before readiness is withdrawn"
            doubts.append(_failure(name, Reason(failure["reason"]), text, Severity.WARNING))
        return (*self.failures.values(), *doubts)

    def unproved(self, name: str) -> Finding:
        """Why a handler that nothing hinders has no proof: its last canary's failure, or that there was none."""
        failure = self.failed.get(name)
        if failure is not None:
            return _failure(name, Reason(failure["reason"]), _told(failure))
        return bad(CHECK, Reason.CANARY_NOT_RUN, capability=Capability.CANARY, handlers=(name,))

    def verdict(self, before: Sequence[str]) -> None:
        """Says whether a change may hold: it must not cost a handler that worked, and must bring one that works.

        A pod network that is not there yet speaks against the node, not against the change.

        Args:
            before: the handlers that were proved before the change.

        Raises:
            KatanodeError: the failure of the canary that decides.
        """
        broken = {n: f for n, f in self.failures.items() if f.reason is not Reason.NETWORK_PLUGIN_NOT_READY}
        lost = [name for name in before if name in broken]
        if lost or (broken and not self.held):
            finding = broken[(lost or list(broken))[0]]
            assert finding.reason is not None
            message, _, evidence = finding.evidence.partition("\n")
            raise KatanodeError(finding.reason, message, evidence=evidence, remedy=finding.remedy)


def words(proof: Mapping[str, Any]) -> str:
    """What a proof saw, for people."""
    told = f"in {proof['seconds']} s; its VM was held by {proof['hypervisor']}"
    memory = proof.get("memory")
    if memory:
        parts = ", ".join(f"{component} {size >> 20}" for component, size in sorted(memory.items()))
        told += f"; {sum(memory.values()) >> 20} MiB ({parts})"
    own = proof.get("own_kernel")
    return f"{told}; the guest's kernel " + ("is another than the host's" if own else "was not told of")


def _failure(name: str, reason: Reason, evidence: str, severity: Severity = Severity.ERROR) -> Finding:
    """A handler without a proof is not ready, however little the same reason matters where a probe finds it."""
    return bad(CHECK, reason, evidence, capability=Capability.CANARY, severity=severity, handlers=(name,))


def _is_known(failure: Mapping[str, Any]) -> bool:
    """Whether this katanode can tell of it: another version may have kept it."""
    return failure.get("reason") in list(Reason) and {"at", "evidence"} <= failure.keys()


def _told(failure: Mapping[str, Any]) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(failure["at"]))
    return f"{failure['evidence']}\nat {when}"
