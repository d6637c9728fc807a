"""Findings, and the report made of them: the only thing that whoever speaks to people or schedulers reads."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from agent.errors import KatanodeError, bounded
from agent.reasons import CATALOGUE, Reason, Severity, consequences


class Capability(StrEnum):
    """What a node can be able to do and a handler can need."""

    KVM = "kvm"
    TUN = "tun"
    VHOST_NET = "vhost-net"
    VHOST_VSOCK = "vhost-vsock"
    NETWORK_PATH = "network path"
    HOST = "host"
    RUNTIME = "container runtime"
    RELEASE = "kata release"
    CONFIGURATION = "hypervisor configuration"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, and how it is.

    Attributes:
        check: what was looked at, in few words ("KVM runs guest instructions").
        severity: `Severity.OK` when it is well.
        evidence: what was seen.
        reason: the catalogue's code when it is not well.
        remedy: what to do about it.
        capability: what a handler lacks when this is an error; None for what concerns no handler.
        handlers: the handlers concerned; empty means whichever need the capability.
    """

    check: str
    severity: Severity
    evidence: str = ""
    reason: Reason | None = None
    remedy: str = ""
    capability: Capability | None = None
    handlers: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """The finding for machines."""
        return {
            "check": self.check,
            "severity": str(self.severity),
            "reason": self.reason and str(self.reason),
            "title": self.reason and CATALOGUE[self.reason].title,
            "evidence": self.evidence,
            "remedy": self.remedy,
            "capability": self.capability and str(self.capability),
            "handlers": list(self.handlers),
        }


def ok(check: str, evidence: str = "", capability: Capability | None = None) -> Finding:
    """A finding that all is well."""
    return Finding(check, Severity.OK, bounded(evidence), capability=capability)


def bad(
    check: str,
    reason: Reason,
    evidence: str = "",
    *,
    capability: Capability | None = None,
    remedy: str = "",
    severity: Severity | None = None,
    handlers: tuple[str, ...] = (),
) -> Finding:
    """A finding that something is not well; severity and remedy are the catalogue's unless given."""
    entry = CATALOGUE[reason]
    return Finding(
        check,
        severity or entry.severity,
        bounded(evidence),
        reason,
        remedy or entry.remedy,
        capability,
        handlers,
    )


def from_error(check: str, error: KatanodeError, capability: Capability | None = None) -> Finding:
    """The finding that an error amounts to."""
    evidence = error.message if not error.evidence else f"{error.message}\n{error.evidence}"
    return bad(check, error.reason, evidence, capability=capability, remedy=error.remedy)


class State(StrEnum):
    """The state of a node, as its label says it."""

    READY = "ready"
    DEGRADED = "degraded"
    INSTALLING = "installing"
    BLOCKED = "blocked"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class HandlerReport:
    """Readiness of one handler: ready, or the findings that stand in its way."""

    name: str
    ready: bool
    obstacles: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The node as it is: all findings, and what follows from them for each handler.

    Attributes:
        findings: all of them.
        handlers: the readiness of each wanted handler.
        state: the node's.
        kata_version: of the release in force; "" without one.
        note: a sentence on what the run did, where that is not plain.
    """

    findings: tuple[Finding, ...]
    handlers: tuple[HandlerReport, ...]
    state: State
    kata_version: str = ""
    note: str = ""

    def as_json(self) -> dict[str, object]:
        """The report for machines."""
        return {
            "state": str(self.state),
            "kata_version": self.kata_version,
            "note": self.note,
            "handlers": [
                {"name": h.name, "ready": h.ready, "reasons": [str(f.reason) for f in h.obstacles]}
                for h in self.handlers
            ],
            "findings": [f.as_json() for f in self.findings],
        }


def without_consequences(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings less those that only follow from others among them."""
    kept = tuple(findings)
    mere = consequences({f.reason for f in kept if f.reason is not None})
    return tuple(f for f in kept if f.reason not in mere)


def obstacles(name: str, needs: frozenset[Capability], findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The errors among `findings` that keep handler `name`, which needs `needs`, from being ready."""
    return tuple(
        f
        for f in findings
        if f.severity is Severity.ERROR
        and (name in f.handlers if f.handlers else f.capability is None or f.capability in needs)
    )


def concerning(finding: Finding, *handlers: str) -> Finding:
    """The finding, said of these handlers only."""
    return replace(finding, handlers=handlers)
