"""What katanode remembers of this node: what it changed, so that it can be undone, and what it proved."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from agent.errors import KatanodeError
from agent.host import files
from agent.reasons import Reason

FOLDER = "/var/lib/katanode"
STATE = f"{FOLDER}/state.json"
JOURNAL = f"{FOLDER}/journal.json"
LOCK = f"{FOLDER}/lock"


@dataclass(frozen=True, slots=True)
class Failure:
    """A change that was undone, so that it is not tried again at once.

    Attributes:
        change: digest of what was tried.
        at: seconds since 1970.
        reason: why it was undone.
        message: the same for people.
    """

    change: str
    at: float
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class State:
    """The node's memory; every value is safe to lose but for the wish to undo.

    Attributes:
        release: id of the release that is in force.
        previous: id of the one before it, for `katanode rollback`.
        held: the release that `katanode rollback` left: as long as the settings wish for it, `release` stays.
        sysctls: key to its value before katanode raised it, and the one that it was given.
        modules: modules that katanode loaded.
        folders: host folders that katanode made outside its own, innermost first.
        proofs: handler to what its last canary saw, with the digest of what that proves and the time.
        failed: handler to why its last canary failed, with the same digest; beside a proof of that it is a doubt.
        failure: the last change that was undone.
        settings: what was wanted when all of this was brought about, in the shape of the settings file.
        repairs: seconds since 1970 of the times in the last day that the runtime's configuration had to be repaired.
        debug: handlers whose debug output an operator turned on, to the time of that in seconds since 1970.
    """

    release: str = ""
    previous: str = ""
    held: str = ""
    sysctls: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    proofs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failure: Failure | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    repairs: tuple[float, ...] = ()
    debug: Mapping[str, float] = field(default_factory=dict)


def load(path: Path) -> State:
    """The memory; an empty one when there is none.

    Raises:
        KatanodeError: `FILE_READ_FAILED` when the file is not what katanode wrote.
    """
    data = files.read_if_there(path)
    if data is None:
        return State()
    try:
        raw = json.loads(data)
        known: dict[str, Any] = {f.name: raw[f.name] for f in fields(State) if f.name in raw}
        failure = known.pop("failure", None)
        known = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
        return State(**known, failure=Failure(**failure) if failure else None)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise KatanodeError(
            Reason.FILE_READ_FAILED,
            f"{path} is damaged",
            evidence=repr(error),
            remedy="Remove it; katanode then no longer knows the sysctl values from before it came.",
        ) from error


def save(path: Path, state: State) -> None:
    """Keeps the memory durably; writes nothing when it is the same.

    Raises:
        KatanodeError: `FILE_WRITE_FAILED`.
    """
    data = (json.dumps(asdict(state), indent=1, sort_keys=True) + "\n").encode()
    if files.read_if_there(path) != data:
        files.make_folder(path.parent, 0o700)
        files.write_atomic(path, data, mode=0o600)
