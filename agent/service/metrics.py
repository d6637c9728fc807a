"""What Prometheus scrapes: names and units after its conventions, everything under `katanode_`."""

import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from agent import __version__
from agent.service.messages import Result

_WORK = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Seconds: a look takes about half a one, a release minutes."""
_OUTAGE = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_WAIT = (0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0)
DRIFT_KINDS = (
    "modules",
    "sysctls",
    "boot-files",
    "release",
    "release-files",
    "hypervisor-configuration",
    "links",
    "runtime-configuration",
    "runtime",
)


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        build = self._gauge("build_info", "The version of katanode that runs here; always 1.", "version")
        build.labels(__version__).set(1)
        self._ready = self._gauge("ready", "Whether sandboxes start through at least one handler on this node.")
        self._handlers = self._gauge("handler_ready", "Whether sandboxes start through this handler.", "handler")
        self._reasons = self._gauge(
            "reason",
            "What is not well on this node, by its reason in the catalogue; 1 while it stands.",
            "reason",
            "severity",
        )
        self._release = self._gauge(
            "release_info", "The Kata release in force on this node; always 1.", "version", "release"
        )
        self._canary = self._gauge(
            "canary_start_seconds", "How long the sandbox took to start that last proved this handler.", "handler"
        )
        self._canary_memory = self._gauge(
            "canary_memory_bytes",
            "Proportional memory of the sandbox that last proved this handler, right after its start.",
            "handler",
            "component",
        )
        self._canary_success = self._gauge(
            "canary_last_success_timestamp_seconds", "When a sandbox last started through this handler.", "handler"
        )
        self._success = self._gauge(
            "last_success_timestamp_seconds", "When the node was last found or made as the settings want it."
        )
        self.reached = self._gauge(
            "api_reachable", "Whether the Kubernetes API answered the last time that it was asked."
        )
        self._duration = self._histogram("reconcile_duration_seconds", "How long looks at the node took.", _WORK)
        self._outage = self._histogram(
            "runtime_outage_seconds", "How long the container runtime's CRI was away when it was restarted.", _OUTAGE
        )
        self.wait = self._histogram(
            "restart_slot_wait_seconds", "How long this node waited for a restart slot of the fleet.", _WAIT
        )
        self._total = self._counter("reconcile", "Looks at the node, by what came of them.", "outcome")
        self._restarts = self._counter(
            "runtime_restarts", "Restarts of the container runtime, by whether they held.", "outcome"
        )
        self._rollbacks = self._counter(
            "rollbacks", "Changes of the container runtime's configuration that were undone."
        )
        self._repairs = self._counter("drift_repairs", "Repairs of what somebody else had changed, by kind.", "kind")
        self._canaries = self._counter(
            "canary_runs", "Sandboxes started to prove a handler, by whether they did.", "handler", "outcome"
        )
        for outcome in ("unchanged", "changed", "failed", "rolled_back"):
            self._total.labels(outcome)
        for outcome in ("ok", "undone"):
            self._restarts.labels(outcome)
        for kind in DRIFT_KINDS:
            self._repairs.labels(kind)

    def took(self, seconds: float, outcome: str) -> None:
        """A look at the node ended."""
        self._duration.observe(seconds)
        self._total.labels(outcome).inc()
        if outcome in {"unchanged", "changed"}:
            self._success.set(time.time())

    def did(self, result: Result) -> None:
        """What a look did."""
        for restart in result.restarts:
            self._restarts.labels(restart.outcome).inc()
            if restart.seconds:
                self._outage.observe(restart.seconds)
            if restart.outcome == "undone":
                self._rollbacks.inc()
        for kind in result.drifted:
            self._repairs.labels(kind).inc()
        for canary in result.tries:
            self._canaries.labels(canary.handler, canary.outcome).inc()

    def show(self, report: Mapping[str, Any], result: Result, reasons: Mapping[str, str]) -> None:
        """The node as it is.

        Args:
            report: the report.
            result: the last look's.
            reasons: of everything that is not well, to its severity.
        """
        self._ready.set(any(h["ready"] for h in report["handlers"]))
        canaries = (self._canary, self._canary_memory, self._canary_success)
        for gauge in (self._handlers, self._reasons, self._release, *canaries):
            gauge.clear()
        for handler in report["handlers"]:
            self._handlers.labels(handler["name"]).set(handler["ready"])
            for outcome in ("ok", "failed"):
                self._canaries.labels(handler["name"], outcome)
        for reason, severity in reasons.items():
            self._reasons.labels(reason, severity).set(1)
        if result.release:
            self._release.labels(report["kata_version"], result.release).set(1)
        self._show_canaries(result)

    def _show_canaries(self, result: Result) -> None:
        for handler, seconds in result.canaries.items():
            self._canary.labels(handler).set(seconds)
        for handler, parts in result.memory.items():
            for component, size in parts.items():
                self._canary_memory.labels(handler, component).set(size)
        for handler, at in result.proved.items():
            if at:
                self._canary_success.labels(handler).set(at)

    def _gauge(self, name: str, words: str, *labels: str) -> Gauge:
        return Gauge(f"katanode_{name}", words, labels, registry=self.registry)

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(f"katanode_{name}", words, labels, registry=self.registry)

    def _histogram(self, name: str, words: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"katanode_{name}", words, buckets=buckets, registry=self.registry)
