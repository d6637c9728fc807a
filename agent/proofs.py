"""What was proved of each handler, and proving what was not."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from agent.cri.client import Client
from agent.cri.daemon import Daemon
from agent.cri.handler import Handler
from agent.errors import KatanodeError
from agent.node import Node
from agent.reasons import Reason
from agent.report import Capability, Finding, bad, concerning, from_error
from agent.sandboxes import canary
from agent.state import State


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
        failures: handler to the finding that there is none.
    """

    node: Node
    daemon: Daemon | None
    subjects: Sequence[Subject]
    held: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failures: dict[str, Finding] = field(default_factory=dict)

    def recall(self, state: State) -> None:
        """Takes over the proofs of earlier runs that still hold."""
        for subject in self.subjects:
            proof = state.proofs.get(subject.handler.name, {})
            if proof.get("digest") == self._digest(subject):
                self.held[subject.handler.name] = proof

    def missing(self, able: Sequence[str]) -> tuple[str, ...]:
        """The handlers among `able`, those that nothing of the node hinders, that have no proof yet."""
        return tuple(
            s.handler.name for s in self.subjects if s.handler.name in able and s.handler.name not in self.held
        )

    def make(self, names: Sequence[str]) -> None:
        """Starts a canary through each of these handlers; its failure is kept as a finding."""
        if not names:
            return
        assert self.daemon is not None  # there are subjects
        with Client(self.node.root(self.daemon.socket)) as client:
            for subject in self.subjects:
                name = subject.handler.name
                if name not in names:
                    continue
                self.held.pop(name, None)
                self.failures.pop(name, None)
                try:
                    timeout = self.node.settings.canary.timeout_seconds
                    proof = canary.prove(client, name, self.node.root(subject.shim), timeout)
                except KatanodeError as error:
                    self.failures[name] = concerning(
                        from_error("a sandbox starts through the handler", error, Capability.CANARY), name
                    )
                    self.node.say(f"canary {name}: {error.message}")
                else:
                    seen = {"seconds": round(proof.seconds, 3), "shim": proof.shim, "hypervisor": proof.hypervisor}
                    self.held[name] = {"digest": self._digest(subject), **seen}
                    self.node.say(
                        f"canary {name}: a sandbox in {proof.seconds:.2f} s, its VM held by {proof.hypervisor}"
                    )

    def _digest(self, subject: Subject) -> str:
        assert self.daemon is not None  # there are subjects
        return subject.digest(self.node, self.daemon)

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


def not_run(name: str) -> Finding:
    """The finding that a handler has no proof because nothing was started through it."""
    return bad(
        "a sandbox starts through the handler", Reason.CANARY_NOT_RUN, capability=Capability.CANARY, handlers=(name,)
    )
