"""The daemon's loop: one thread that decides, told by others what happened.

settings, files, devices ─┐                     ┌─► metrics, page
the Node's label ─────────┼─► look (a worker) ──┤
time ─────────────────────┘        │  ▲         └─► labels, condition, taint, events
                                   ▼  │
                               restart slot
"""

import contextlib
import hashlib
import json
import queue
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent import logs, settings
from agent.cluster.cluster import Cluster
from agent.cluster.slots import Policy
from agent.errors import KatanodeError
from agent.host.root import HostRoot
from agent.page import Failure, Look
from agent.reasons import CATALOGUE, Reason
from agent.report import from_error
from agent.service import verdict
from agent.service.memory import Wish
from agent.service.messages import Problem, Result, Task
from agent.service.metrics import Metrics
from agent.service.outlook import Outlook
from agent.service.pace import Pace, Renewal
from agent.service.prints import Prints, changed, content, prints
from agent.service.run import Run
from agent.service.sandboxes import Sandboxes
from agent.service.server import Server
from agent.service.turn import Turn

TICK = 5.0
"""Seconds between two looks at what may have changed: some `lstat` calls."""
FULL = 3600.0
"""Seconds between two looks at everything while all is well."""
GRACE = 3.0
"""Seconds that a restart under way has to end when the daemon is told to."""

Connect = Callable[[Callable[[], None]], Cluster]


class Service:
    """The daemon of one node.

    Args:
        root: the host's root.
        settings_path: the settings' file; "" for the one at its usual place, which need not be there.
        node: the node's name, for the page.
        connect: makes the cluster side, given what it calls on changes; None on a machine without Kubernetes.
    """

    def __init__(self, root: HostRoot, settings_path: str, node: str, connect: Connect | None) -> None:
        self._root = root
        self._path = settings_path
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._metrics = Metrics()
        self._pace = Pace()
        self._renewal = Renewal()
        self._settings = settings.Settings()
        self._policy = _policy(self._settings)
        self._text: bytes | None = b"not read yet"
        self._prints: Prints = {}
        self._full: Result | None = None
        self._full_due = 0.0
        self._interim: Result | None = None
        self._server: Server | None = None
        self._began = time.monotonic()
        self._wish = Wish(root)
        self._sandboxes = Sandboxes(root)
        self._cluster = connect(lambda: self._put("cluster", None)) if connect else None
        self._turn = Turn(self._cluster, self._put, self._metrics.wait.observe)
        self._outlook = Outlook(node, self._cluster, self._metrics, self._turn)

    def run(self) -> None:
        """Works until SIGTERM or SIGINT, and undoes nothing."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._put("stop", None))
        self._read_settings()
        self._sandboxes.start()
        if self._cluster is not None:
            self._cluster.start()
        while True:
            self._outlook.ticked = time.monotonic()
            try:
                kind, value = self._events.get(timeout=self._patience())
            except queue.Empty:
                self._look_around()
                self._start_if_due()
                continue
            if kind == "stop":
                break
            self._handle(kind, value)
            self._publish()
        self._end()

    def _patience(self) -> float:
        """Seconds until something is to be looked at."""
        can_start = self._outlook.run is None and (self._cluster is None or self._cluster.node_known)
        return max(0.01, min(TICK, self._pace.due - time.monotonic())) if can_start else 1.0

    def _put(self, kind: str, value: Any) -> None:
        self._events.put((kind, value))

    def _handle(self, kind: str, value: Any) -> None:
        match kind:
            case "worker":
                self._hear(*value)
            case "slot":
                self._turn.got(*value)
                if self._turn.waiting is not None and self._interim is not None:
                    self._outlook.result = self._interim  # it is a wait, not a moment
            case "cluster":
                self._learn_wish()

    def _end(self) -> None:
        logs.info("ending; nothing is undone")
        if self._outlook.run is not None:
            self._outlook.run.end(GRACE if self._turn.granted else 0.0)
        if self._cluster is not None:
            self._cluster.stop()
        if self._server is not None:
            self._server.close()
        self._sandboxes.close()

    def _look_around(self) -> None:
        """What costs so little that it is done all the time."""
        self._read_settings()
        if self._outlook.run is None and self._prints:
            now = prints(self._prints)
            different = changed(self._prints, now)
            if different:
                self._prints = now
                logs.info("changed since the last look", paths=different[:5], more=max(0, len(different) - 5))
                self._pace.touch()
        self._turn.look()
        if self._renews:
            # It may wait for hours, and is to prove what is in force meanwhile.
            self._turn.cancel("a sandbox is due that proves the handlers again")
        self._keep_serving()
        self._publish()

    def _keep_serving(self) -> None:
        if self._server is None:
            self._serve()  # the agent before this one may still have had the port
            return
        try:
            if self._server.renew():
                self._outlook.trouble = None
                logs.info("serving with a renewed certificate")
        except KatanodeError as error:
            self._say_trouble(error)

    def _say_trouble(self, error: KatanodeError) -> None:
        trouble = from_error("metrics and health are served", error)
        if trouble != self._outlook.trouble:
            logs.warning(error.message, reason=str(error.reason), evidence=error.evidence)
        self._outlook.trouble = trouble

    def _read_settings(self) -> None:
        path = Path(self._path or settings.DEFAULT_PATH)
        text = content(path)
        if text == self._text:
            return
        self._text = text
        with contextlib.suppress(KatanodeError):  # the worker says what is wrong with them
            self._settings = settings.load(path, required=bool(self._path))
        self._policy = _policy(self._settings)
        self._watch_sandboxes()
        self._pace.wanted()
        self._turn.cancel("the settings have changed")
        self._serve()

    def _watch_sandboxes(self) -> None:
        result = self._outlook.result
        self._sandboxes.configure(self._settings.sandboxes, result.socket if result is not None else "")

    def _serve(self) -> None:
        """Serves where the settings say, and says so when that cannot be."""
        wish = self._settings.serve
        if self._server is not None:
            if self._server.wish == wish:
                return
            self._server.close()
            self._server = None
        outlook = self._outlook
        try:
            if wish.port:
                self._server = Server(
                    wish, self._metrics.registry, outlook.page, outlook.healthy, outlook.ready, self._sandboxes
                )
                logs.info("serving", address=wish.address, port=self._server.port)
            outlook.trouble = None
        except KatanodeError as error:
            self._say_trouble(error)

    def _learn_wish(self) -> None:
        assert self._cluster is not None  # it told
        if self._cluster.node_known and self._wish.learn(self._cluster.wish):
            logs.info("the node's label katanode.io/install has changed", value=self._cluster.wish)
            self._pace.wanted()
            self._turn.cancel("the node's label has changed")

    @property
    def _renews(self) -> bool:
        """Whether the handlers are to be proved again; a node that is to be left alone, or to be left, is not."""
        return self._renewal.is_due and self._wish.want == "present" and self._settings.state == "present"

    def _start_if_due(self) -> None:
        if self._outlook.run is not None or (time.monotonic() < self._pace.due and not self._renews):
            return
        if self._cluster is not None and not self._cluster.node_known and not self._wish.may_begin(self._began):
            return
        last = self._outlook.result
        full = time.monotonic() >= self._full_due or last is None or not verdict.is_well(last)
        task = Task(str(self._root.path), self._path, self._wish.want, full, self._renews)
        if task.renew:
            self._renewal.begun(self._settings.canary.interval_seconds)
        self._outlook.run = Run(task, lambda run, kind, value: self._put("worker", (run, kind, value)))

    def _hear(self, run: Run, kind: str, value: Any) -> None:
        if run is not self._outlook.run:
            return  # the end of one whose result came before
        match kind:
            case "say":
                run.step = str(value)
                logs.info(run.step)
            case "progress":
                what, done, total = value
                run.step = f"{what}: {done >> 20} MB" + (f" of {total >> 20} MB" if total else "")
            case "interim":
                self._interim = Result.from_json(value)
                self._plan_renewal(self._interim)
            case "ask":
                self._turn.ask(run, self._policy, **value)
            case "release":
                self._turn.give_back(str(value["failed"]))
            case "result":
                self._conclude(run, Result.from_json(value))
            case "ended":
                self._conclude_without_result(run, int(value))

    def _conclude(self, run: Run, result: Result) -> None:
        outcome = "changed" if result.steps else "unchanged"
        if result.problem is not None:
            outcome = "rolled_back" if result.problem.reason == Reason.ROLLED_BACK else "failed"
        self._metrics.did(result)
        if result.full:
            self._full = result
            self._full_due = time.monotonic() + FULL
        elif self._full is not None:
            if verdict.is_news(result, self._outlook.result):
                self._full_due = 0.0
            result = verdict.merged(result, self._full)
        self._outlook.result = result
        self._watch_sandboxes()
        self._outlook.leaving = "absent" in {run.task.want, self._settings.state}
        self._prints = prints(result.watch)
        self._note_end(run, outcome, result.problem, verdict.awaited(result))
        self._plan_renewal(result)
        if not result.full and not self._full_due:
            self._pace.touch()

    def _plan_renewal(self, result: Result) -> None:
        ready = {handler["name"] for handler in result.report["handlers"] if handler["ready"]}
        proved = {name: at for name, at in result.proved.items() if name in ready}
        self._renewal.follow(self._settings.canary.interval_seconds, proved, result.doubts)

    def _conclude_without_result(self, run: Run, status: int) -> None:
        """The worker was killed, by the kernel for memory perhaps: what was known stands until the next look."""
        self._turn.drop()
        self._full_due = 0.0
        message = f"the worker ended with status {status} while it was at: {run.step or 'the beginning'}"
        remedy = CATALOGUE[Reason.INTERNAL_ERROR].remedy
        self._note_end(run, "failed", Problem(str(Reason.INTERNAL_ERROR), message, "", remedy))

    def _note_end(self, run: Run, outcome: str, problem: Problem | None, awaited: str = "") -> None:
        outlook = self._outlook
        seconds = time.time() - run.began
        outlook.run = self._interim = None
        outlook.look = Look(run.began, seconds, outcome)
        self._metrics.took(seconds, outcome)
        self._pace.ended(self._settings.run.interval_seconds, problem.reason if problem else awaited)
        before, outlook.failure = outlook.failure, None
        if problem is not None:
            outlook.failure = Failure(
                time.time(), Reason(problem.reason), problem.message, problem.evidence, problem.remedy
            )
            if before is None or (before.reason, before.message) != (problem.reason, problem.message):
                logs.warning(problem.message, reason=problem.reason, evidence=problem.evidence, remedy=problem.remedy)

    def _publish(self) -> None:
        self._outlook.next_look = min(self._pace.due, self._renewal.due)
        self._outlook.sandboxes = self._sandboxes.findings
        self._outlook.publish(self._settings, self._policy)


def _policy(wish: settings.Settings) -> Policy:
    """How the fleet takes turns, and a digest of what is rolled out: made once for each state of the settings."""
    rollout = wish.rollout
    known = settings.as_json(wish)
    told = json.dumps([known.get(key) for key in ("state", "kata", "handlers", "runtime", "canary")], sort_keys=True)
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    return Policy(rollout.slots, rollout.lease_seconds, rollout.failed_nodes_limit, digest)
