"""The runtime transaction: files, restart and verification as one step that either holds or never was.

    journal ─► write ─► restart ─► verify over CRI ─► prove ─► close the journal
                 │         │            │               │
                 └─────────┴── undo ◄───┴───────────────┘   (old bytes, restart, verify, close)

Every arrow is preceded by a durable note in the journal. A run that finds a journal finishes what it says: forward
while the change may still hold, backward once undoing began or the change killed its agent too often.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import NoReturn

from agent.cri.client import Client, CRIError
from agent.cri.daemon import Daemon
from agent.cri.handler import Handler
from agent.cri.journal import Entry, FileChange, Journal, Phase
from agent.cri.loaded import not_loaded
from agent.cri.quiet import wait_quiet
from agent.cri.restart import RestartPolicy, restart, serving_pid, wait_ready
from agent.errors import KatanodeError
from agent.host import files
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.reasons import Reason

MAX_ATTEMPTS = 3
"""Begun so often without an end, a change is undone: it probably kills the agent or the machine."""

Permit = Callable[[], AbstractContextManager[None]]
"""Entered before anything is changed, and left when the runtime is verified or the old state is back; may wait long."""

Prove = Callable[[], None]
"""Raises a KatanodeError when the change must not hold although the runtime serves: the canary's verdict."""


@dataclass(frozen=True, slots=True)
class Change:
    """What the runtime's configuration shall become.

    Attributes:
        files: what is written, in this order (a drop-in before the import that names its folder).
        handlers: the handlers that shall be loaded.
        gone: names that shall no longer be.
    """

    files: tuple[FileChange, ...]
    handlers: tuple[Handler, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Activated:
    """A change that holds.

    Attributes:
        seconds: from the restart's begin until CRI was ready again.
        lost: id to name of containers that ran before and do not run now.
    """

    seconds: float
    lost: Mapping[str, str]


class Activation:
    """Carries changes of one node's runtime through.

    Args:
        root: the host's root.
        runner: runs programs on the host.
        journal: the node's journal.
        policy: how the runtime is restarted.
        say: told what happens, for people.
        permit: asked before a change, and before an interrupted one is gone on with.
    """

    def __init__(
        self,
        root: HostRoot,
        runner: Runner,
        journal: Journal,
        policy: RestartPolicy,
        say: Callable[[str], None],
        permit: Permit = contextlib.nullcontext,
    ) -> None:
        self._root = root
        self._runner = runner
        self._journal = journal
        self._policy = policy
        self._say = say
        self._permit = permit

    def run(self, daemon: Daemon, change: Change, prove: Prove) -> Activated:
        """Carries a change through, or undoes it.

        Raises:
            KatanodeError: `CONFIG_CHANGED_MEANWHILE`, `RESTART_UNKNOWN` (nothing was changed), `ROLLED_BACK` (the old
                state is back and serves), `ROLLBACK_FAILED` (the old bytes are back, the runtime does not serve).
        """
        self._policy.check(daemon)
        with self._permit():
            for file in change.files:
                if self._read(file) != file.before:
                    raise _meanwhile(file)
            busy = wait_quiet(self._root, daemon, self._policy.quiet_timeout)
            if busy:
                self._say(f"the runtime is still busy after {self._policy.quiet_timeout:g} s ({busy}); going on")
            entry = Entry(daemon, change.files, change.handlers, change.gone, self._containers(daemon))
            return self._forward(self._journal.write(entry), prove)

    def resume(self, prove: Prove) -> Activated | None:
        """Finishes or undoes a change that a crash interrupted; None when there is none.

        Raises:
            KatanodeError: as `run`, and `JOURNAL_DAMAGED`.
        """
        entry = self._journal.read()
        if entry is None:
            return None
        self._say(f"an earlier run ended in the middle of a change (step: {entry.phase}); finishing it")
        with self._permit():
            return self._resume(entry, prove)

    def _resume(self, entry: Entry, prove: Prove) -> Activated:
        self._sweep(entry)
        if entry.phase in {Phase.UNDOING, Phase.UNDO_RESTARTING}:
            reason, message, evidence = entry.cause
            self._undo(entry, KatanodeError(Reason(reason), message, evidence=evidence))
        if entry.attempts >= MAX_ATTEMPTS:
            self._undo(
                entry,
                KatanodeError(Reason.INTERNAL_ERROR, f"the change was begun {entry.attempts} times without an end"),
            )
        return self._forward(self._journal.write(replace(entry, attempts=entry.attempts + 1)), prove)

    def _forward(self, entry: Entry, prove: Prove) -> Activated:
        try:
            for file in entry.files:
                self._apply(file, old=file.before, new=file.after)
            begin = time.monotonic()
            if entry.phase is not Phase.VERIFYING or not self._serves(entry):
                self._say("restarting containerd")
                entry = self._journal.advance(entry, Phase.RESTARTING)
                begin = time.monotonic()
                restart(self._runner, entry.daemon, self._policy)
                entry = self._journal.advance(entry, Phase.VERIFYING)
            status = wait_ready(self._root, self._runner, entry.daemon, self._policy.timeout)
            seconds = time.monotonic() - begin
            self._say(f"containerd serves again after {seconds:.2f} s")
            pid = serving_pid(self._root, entry.daemon)
            missing = not_loaded(status.handlers, entry.handlers, entry.gone, entry.daemon)
            if missing:
                raise KatanodeError(Reason.HANDLER_NOT_LOADED, missing[0], evidence="\n".join(missing))
            lost = self._lost(entry)
            prove()
            if serving_pid(self._root, entry.daemon) != pid:
                # systemd's Restart=always hides a daemon that starts, answers and dies.
                raise KatanodeError(Reason.RUNTIME_NOT_READY, "the runtime restarted by itself during its verification")
        except KatanodeError as error:
            self._undo(entry, error)
        self._journal.close()
        return Activated(seconds, lost)

    def _undo(self, entry: Entry, cause: KatanodeError) -> NoReturn:
        """Puts the old bytes back and raises.

        Raises:
            KatanodeError: always; `ROLLED_BACK` or `ROLLBACK_FAILED`.
        """
        self._say(f"undoing the change: {cause.message}")
        entry = self._note(entry, Phase.UNDOING, cause)
        foreign = []
        for file in reversed(entry.files):
            try:
                self._apply(file, old=file.after, new=file.before)
            except KatanodeError as error:
                if error.reason is not Reason.CONFIG_CHANGED_MEANWHILE:
                    raise self._stuck(entry, cause, error) from cause
                foreign.append(file.path)  # somebody else's newer content: not ours to overwrite
        if entry.restarted:
            entry = self._note(entry, Phase.UNDO_RESTARTING, cause)
            try:
                restart(self._runner, entry.daemon, self._policy)
                wait_ready(self._root, self._runner, entry.daemon, self._policy.timeout)
            except KatanodeError as error:
                raise self._stuck(entry, cause, error) from cause
        self._journal.close()
        state = "the old configuration is back" + (" and the runtime serves with it" if entry.restarted else "")
        if foreign:
            state = f"left as somebody else has changed it meanwhile: {', '.join(foreign)}"
        raise KatanodeError(
            Reason.ROLLED_BACK,
            f"{cause.message}; {state}",
            evidence=f"cause: {cause.reason}\n{cause.evidence}".strip(),
            remedy=cause.remedy,
        ) from cause

    def _note(self, entry: Entry, phase: Phase, cause: KatanodeError) -> Entry:
        """Advances the journal if that can be done: a full disk, perhaps the cause, must not keep old bytes out."""
        try:
            return self._journal.advance(entry, phase, cause)
        except KatanodeError as error:
            self._say(f"the journal cannot be written ({error.message}); going on without it")
            return entry

    def _stuck(self, entry: Entry, cause: KatanodeError, error: KatanodeError) -> KatanodeError:
        return KatanodeError(
            Reason.ROLLBACK_FAILED,
            f"{cause.message}; undoing it failed too: {error.message}",
            evidence=f"cause: {cause.reason}\n{cause.evidence}\nthen: {error.reason}\n{error.evidence}\n"
            f"old bytes: in {self._journal.path}, step {entry.phase}",
        )

    def _apply(self, file: FileChange, *, old: bytes | None, new: bytes | None) -> None:
        """Brings one file from `old` to `new`; content that is neither is somebody else's and stays."""
        now = self._read(file)
        if now == new:
            return
        if now != old:
            raise _meanwhile(file)
        path = self._root(file.path)
        if new is None:
            files.remove(path)
        else:
            files.make_folder(path.parent)
            files.write_atomic(path, new)

    def _read(self, file: FileChange) -> bytes | None:
        return files.read_if_there(self._root(file.path))

    def _sweep(self, entry: Entry) -> None:
        """Removes the temporary files that the crash left beside the entry's files."""
        for file in entry.files:
            files.sweep(self._root(file.path).parent)

    def _serves(self, entry: Entry) -> bool:
        """Whether the daemon already runs with the change, so that resuming needs no second restart."""
        try:
            with Client(self._root(entry.daemon.socket)) as client:
                status = client.status()
        except CRIError:
            return False
        return status.ready and not not_loaded(status.handlers, entry.handlers, entry.gone, entry.daemon)

    def _containers(self, daemon: Daemon) -> Mapping[str, str]:
        with Client(self._root(daemon.socket)) as client:
            sandboxes = {s.id: f"{s.namespace}/{s.name}" for s in client.sandboxes() if s.ready}
            return {**client.running_containers(), **sandboxes}

    def _lost(self, entry: Entry) -> Mapping[str, str]:
        now = self._containers(entry.daemon)
        return {id_: name for id_, name in entry.containers.items() if id_ not in now}


def _meanwhile(file: FileChange) -> KatanodeError:
    return KatanodeError(Reason.CONFIG_CHANGED_MEANWHILE, f"{file.path} is not as it was when the change was planned")
