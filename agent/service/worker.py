"""The worker: one look at the node, in a process of its own.

What it needs (gRPC, TOML editing, decompression) it takes with it when it ends, so that the daemon stays small; and the
daemon can end it at any moment, since every step of it may be killed (`agent/cri/activation.py`).
"""

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from agent import drift, inspect, settings, undo
from agent.cri.client import Client
from agent.cri.daemon import find
from agent.errors import KatanodeError
from agent.host.process import NSENTER, Runner
from agent.host.root import HostRoot
from agent.kata import handlers
from agent.node import Node
from agent.reasons import Reason, Severity
from agent.reconcile import Options, Outcome, apply
from agent.renewal import renew
from agent.report import Report, from_error
from agent.report import State as Verdict
from agent.sandboxes import canary
from agent.service.messages import Problem, Restart, Result, Task, Try, line, parsed
from agent.service.watched import watched
from agent.state import State

_PROGRESS_INTERVAL = 1.0
"""Seconds between two words on the same long work."""


class Worker:
    """One run.

    Args:
        task: what is to be done.
        answers: what the daemon says.
        tell: where messages go.
    """

    def __init__(self, task: Task, answers: BinaryIO, tell: BinaryIO) -> None:
        self._task = task
        self._answers = answers
        self._tell = tell
        self._restarts: list[Restart] = []
        self._tries: list[Try] = []
        self._told = 0.0

    def run(self) -> Result:
        """Does the task."""
        root = HostRoot(Path(self._task.root))
        runner = Runner() if root.is_own else Runner(NSENTER)
        node = self._node = Node(
            root, runner, settings.Settings(), self._say, self._progress, self._permit, self._tried
        )
        if self._task.renew:
            # Before anything that may fail or wait for hours: what is in force is used meanwhile.
            with contextlib.suppress(KatanodeError):  # it hinders what follows too, which says so
                renew(node)
        try:
            node = self._node = replace(node, settings=self._settings())
            if self._wants_absence(node):
                report, troubles = undo.uninstall(node)
                return self._result(node, replace(report, findings=troubles), None)
            if self._task.want == "disabled":
                raise KatanodeError(Reason.INSTALL_DISABLED, "the node's label katanode.io/install is disabled")
            outcome = self._apply(node)
            if outcome.activated is not None:
                self._restarts[-1] = Restart("ok", outcome.activated.seconds)
        except KatanodeError as error:
            return self._result(*self._in_force(node, error), problem_of(error))
        return self._result(node, self._looked_at(node, outcome), None, outcome)

    def _apply(self, node: Node) -> Outcome:
        try:
            return apply(node, Options())
        except KatanodeError as error:
            if error.reason is not Reason.RELEASE_DAMAGED:
                raise
            self._say(f"{error.message}; unpacking it anew")
            made = apply(node, Options(reinstall=True))
            return replace(made, drifted=("release-files", *made.drifted))

    def _settings(self) -> settings.Settings:
        return settings.load(Path(self._task.settings or settings.DEFAULT_PATH), required=bool(self._task.settings))

    def _wants_absence(self, node: Node) -> bool:
        return self._task.want == "absent" or (self._task.want == "present" and node.settings.state == "absent")

    def _looked_at(self, node: Node, outcome: Outcome) -> Report:
        """The report; of everything when that was asked for, or when anything was done."""
        if not (self._task.full or outcome.plan.steps):
            return outcome.report
        found = [f for f in outcome.report.findings if f.severity.rank > Severity.INFO.rank]
        made = inspect.check(node, sandboxes=False)  # the daemon itself has an eye on them
        seen = {f.reason for f in made.findings}
        return replace(made, findings=(*made.findings, *(f for f in found if f.reason not in seen)))

    def _in_force(self, node: Node, error: KatanodeError) -> tuple[Node, Report]:
        """The node and the report on what is in force, which the settings of the last success describe."""
        finding = from_error("the node is as the settings want it", error)
        try:
            kept = node.remembered().settings
            node = replace(node, settings=settings.from_json(kept)) if kept else node
            made = inspect.check(node, sandboxes=False)
        except KatanodeError as second:
            return node, Report((finding, from_error("what is in force", second)), (), Verdict.BLOCKED)
        told = any(error.reason is f.reason for f in made.findings)
        return node, made if told else replace(made, findings=(finding, *made.findings))

    def _result(self, node: Node, report: Report, problem: Problem | None, outcome: Outcome | None = None) -> Result:
        state = State()
        with contextlib.suppress(KatanodeError):
            state = node.remembered()
        socket = _socket(node)
        return Result(
            report=report.as_json(),
            problem=problem,
            full=outcome is None or report is not outcome.report,
            quick=sorted({f.check for f in outcome.report.findings}) if outcome else (),
            steps=[step.title for step in outcome.plan.steps] if outcome else (),
            drifted=outcome.drifted if outcome else (),
            restarts=self._restarts,
            sandboxes=_sandboxes(socket),
            tries=self._tries,
            **_proved(state),
            release=state.release,
            watch=watched(node, state.release),
            socket=str(socket or ""),
        )

    def _tried(self, handler: str, started: bool) -> None:  # noqa: FBT001 - as `Node.tried` is told
        self._tries.append(Try(handler, "ok" if started else "failed"))

    def _say(self, text: str) -> None:
        self._send("say", text)

    def _progress(self, what: str, done: int, total: int | None) -> None:
        if time.monotonic() - self._told >= _PROGRESS_INTERVAL:
            self._told = time.monotonic()
            self._send("progress", [what, done, total])

    def _send(self, kind: str, value: object) -> None:
        self._tell.write(line(kind, value))
        self._tell.flush()

    @contextlib.contextmanager
    def _permit(self) -> Iterator[None]:
        """Waits for the daemon's word, which waits for the fleet's restart slot."""
        state = self._node.remembered()
        waiting = KatanodeError(Reason.WAITING_FOR_SLOT, "the container runtime's restart waits for its turn")
        if state.release:
            # This may take hours: until then the cluster is to know what is in force.
            self._send("interim", self._result(*self._in_force(self._node, waiting), problem_of(waiting)).as_json())
        serves = _sandboxes(_socket(self._node)) is not None
        self._send("ask", {"repair": drift.is_repair(self._node, state), "serves": serves})
        kind, value = parsed(self._answers.readline())
        if kind != "granted":
            raise KatanodeError(
                Reason(value["reason"]), value["message"], evidence=value["evidence"], remedy=value["remedy"]
            )
        try:
            yield
        except KatanodeError as error:
            undone = error.reason in {Reason.ROLLED_BACK, Reason.ROLLBACK_FAILED}
            if undone:
                self._restarts.append(Restart("undone", 0.0))
            self._send("release", {"failed": str(error.reason) if undone else ""})
            raise
        self._restarts.append(Restart("ok", 0.0))
        self._send("release", {"failed": ""})


def problem_of(error: KatanodeError) -> Problem:
    """The words of an error."""
    return Problem(str(error.reason), error.message, error.evidence, error.remedy)


def _socket(node: Node) -> Path | None:
    """Where CRI is served, as this process sees it, if anybody serves it."""
    try:
        return node.root(find(node.root, node.settings.runtime.socket).socket)
    except KatanodeError:
        return None


def _proved(state: State) -> dict[str, Any]:
    """What a result says of canaries: proofs that were kept by an older katanode lack some of it."""
    proofs, failed = state.proofs.items(), state.failed.items()
    last = {name: float(failure.get("proved", 0)) for name, failure in failed}
    last |= {name: float(proof.get("at", 0)) for name, proof in proofs}
    return {
        "canaries": {name: float(proof["seconds"]) for name, proof in proofs},
        "memory": {name: proof.get("memory", {}) for name, proof in proofs},
        "proved": last,
        "doubts": {
            name: float(failure.get("at", 0))
            for name, failure in failed
            if failure.get("digest") == state.proofs.get(name, {}).get("digest")
        },
    }


def _sandboxes(socket: Path | None) -> dict[str, int] | None:
    if socket is None:
        return None
    try:
        with Client(socket) as client:
            running = [s for s in client.sandboxes() if s.ready and not canary.is_own(s)]
    except KatanodeError:
        return None
    return dict(Counter(s.handler for s in running if s.handler in handlers.HANDLERS))


def main() -> int:
    """Does the task that the first argument is, and says what came of it on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the daemon, which decides
    tell = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else that prints shall end up among the messages
    os.umask(0o022)
    worker = Worker(Task(**json.loads(sys.argv[1])), sys.stdin.buffer, tell)
    try:
        result = worker.run()
    except Exception:  # noqa: BLE001 - a fault of katanode's own is told like any other
        error = KatanodeError(Reason.INTERNAL_ERROR, "katanode itself failed", evidence=traceback.format_exc(limit=-6))
        finding = from_error("katanode works", error)
        result = Result(Report((finding,), (), Verdict.BLOCKED).as_json(), problem_of(error), full=True)
    tell.write(line("result", result.as_json()))
    tell.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
