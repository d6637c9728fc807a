"""The journal of a change to the runtime: written before anything else, so that a crash at any moment can be mended."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from agent.cri.daemon import Daemon
from agent.cri.handler import Handler
from agent.errors import KatanodeError
from agent.host import files
from agent.reasons import Reason

_LIMIT = 64 << 20
_FORMAT = 1


class Phase(StrEnum):
    """How far a change had come; each is on disk before its step begins."""

    WRITING = "writing"
    RESTARTING = "restarting"
    VERIFYING = "verifying"
    UNDOING = "undoing"
    UNDO_RESTARTING = "undo-restarting"


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file before and after; None means that there is none.

    Attributes:
        path: its path on the host.
        before: its bytes before the change.
        after: its bytes after it.
    """

    path: str
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A change under way.

    Attributes:
        daemon: the daemon as it was, so that it can be restarted also when it no longer answers.
        files: what is written, in this order; undone in the opposite one.
        handlers: the handlers that shall be loaded afterwards.
        gone: the names of those that shall not be.
        containers: id to name of the containers that ran before.
        phase: how far it came.
        restarted: whether a restart was begun, so that undoing needs one too.
        attempts: how often it was begun; a change that kills its agent is not tried for ever.
        cause: while undoing, why: reason, message and evidence.
    """

    daemon: Daemon
    files: tuple[FileChange, ...]
    handlers: tuple[Handler, ...]
    gone: tuple[str, ...]
    containers: Mapping[str, str]
    phase: Phase = Phase.WRITING
    restarted: bool = False
    attempts: int = 1
    cause: tuple[str, str, str] = ("", "", "")


class Journal:
    """The file that holds the entry of the change under way; there is no file when none is.

    Args:
        path: where it is. It holds configuration files whole, credentials included, so only root may read it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Entry | None:
        """The interrupted change, if there is one.

        Raises:
            KatanodeError: `JOURNAL_DAMAGED`. It cannot come from a crash, since the file is replaced atomically.
        """
        data = files.read_if_there(self.path, _LIMIT)
        if data is None:
            return None
        try:
            return _decode(json.loads(data))
        except (ValueError, KeyError, TypeError) as error:
            raise KatanodeError(
                Reason.JOURNAL_DAMAGED, f"the journal {self.path} cannot be read", evidence=repr(error)
            ) from error

    def write(self, entry: Entry) -> Entry:
        """Makes the entry durable; gives it back."""
        files.make_folder(self.path.parent, 0o700)
        files.write_atomic(self.path, json.dumps(_encode(entry), indent=1).encode(), mode=0o600)
        return entry

    def advance(self, entry: Entry, phase: Phase, cause: KatanodeError | None = None) -> Entry:
        """Notes that the next step begins."""
        why = entry.cause if cause is None else (str(cause.reason), cause.message, cause.evidence)
        restarted = entry.restarted or phase is Phase.RESTARTING
        return self.write(replace(entry, phase=phase, cause=why, restarted=restarted))

    def close(self) -> None:
        """Notes that the change is over, done or undone."""
        files.remove(self.path)


def _encode(entry: Entry) -> dict[str, Any]:
    def text(data: bytes | None) -> str | None:
        return None if data is None else base64.b64encode(data).decode()

    def fields(value: Any) -> dict[str, Any]:
        return {name: getattr(value, name) for name in value.__dataclass_fields__}

    return {
        "format": _FORMAT,
        "daemon": fields(entry.daemon),
        "files": [{"path": f.path, "before": text(f.before), "after": text(f.after)} for f in entry.files],
        "handlers": [fields(handler) for handler in entry.handlers],
        "gone": list(entry.gone),
        "containers": dict(entry.containers),
        "phase": str(entry.phase),
        "restarted": entry.restarted,
        "attempts": entry.attempts,
        "cause": list(entry.cause),
    }


def _decode(data: dict[str, Any]) -> Entry:
    def image(text: str | None) -> bytes | None:
        return None if text is None else base64.b64decode(text, validate=True)

    if data["format"] != _FORMAT:
        raise ValueError(f"format {data['format']!r}")
    reason, message, evidence = map(str, data["cause"])
    return Entry(
        daemon=Daemon(**data["daemon"]),
        files=tuple(FileChange(f["path"], image(f["before"]), image(f["after"])) for f in data["files"]),
        handlers=tuple(_handler(h) for h in data["handlers"]),
        gone=tuple(data["gone"]),
        containers=data["containers"],
        phase=Phase(data["phase"]),
        restarted=bool(data["restarted"]),
        attempts=int(data["attempts"]),
        cause=(reason, message, evidence),
    )


def _handler(data: dict[str, Any]) -> Handler:
    arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return Handler(**arguments)
