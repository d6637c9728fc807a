"""What the daemon and its worker say to each other: lines of JSON over two pipes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

Want = Literal["present", "absent", "disabled"]
"""What is wanted of the node: Kata, no Kata, or that katanode only looks."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is to do.

    Attributes:
        root: the host's root as this process sees it.
        settings: the settings' path; "" for all defaults.
        want: what is wanted of the node by its label or its settings.
        full: look at everything, as `katanode check` does, also when nothing was done.
        renew: first start a sandbox again through the handlers that are proved.
    """

    root: str
    settings: str
    want: Want
    full: bool
    renew: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a run did not bring about what is wanted; the words of a `KatanodeError`."""

    reason: str
    message: str
    evidence: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Restart:
    """A restart of the runtime: `ok` or `undone`, and the seconds until CRI served again, 0 where unknown."""

    outcome: Literal["ok", "undone"]
    seconds: float


@dataclass(frozen=True, slots=True)
class Try:
    """A canary: through which handler, and whether it started."""

    handler: str
    outcome: Literal["ok", "failed"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a worker found and did.

    Attributes:
        report: the node as it is, as `Report.as_json` gives it.
        problem: why what is wanted is not so; None when it is.
        full: whether everything was looked at.
        quick: names of the checks that a quick look makes too.
        steps: titles of what was done.
        drifted: kinds of what was repaired.
        restarts: the runtime's restarts.
        sandboxes: handler to the number of Kata sandboxes that run; None when the runtime could not be asked.
        canaries: handler to the seconds that the sandbox of its proof took to start.
        memory: handler to the bytes that each component of that sandbox took.
        proved: handler to when a canary last started through it, in Unix seconds.
        doubts: handler to when its canary failed although its proof still holds.
        tries: the canaries of this look.
        release: id of the release in force.
        watch: paths whose change is a reason to look again.
        socket: where CRI is served, as this process sees it; "" when nobody serves it.
    """

    report: Mapping[str, Any]
    problem: Problem | None = None
    full: bool = False
    quick: Sequence[str] = ()
    steps: Sequence[str] = ()
    drifted: Sequence[str] = ()
    restarts: Sequence[Restart] = ()
    sandboxes: Mapping[str, int] | None = None
    canaries: Mapping[str, float] = field(default_factory=dict)
    memory: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    proved: Mapping[str, float] = field(default_factory=dict)
    doubts: Mapping[str, float] = field(default_factory=dict)
    tries: Sequence[Try] = ()
    release: str = ""
    watch: Sequence[str] = ()
    socket: str = ""

    def as_json(self) -> dict[str, Any]:
        """The result for the pipe."""
        return asdict(self)

    @classmethod
    def from_json(cls, made: Mapping[str, Any]) -> Self:
        """The result out of the pipe."""
        problem = made["problem"]
        return cls(
            **{
                **made,
                "problem": Problem(**problem) if problem else None,
                "restarts": tuple(Restart(**item) for item in made["restarts"]),
                "tries": tuple(Try(**item) for item in made["tries"]),
            }
        )


def line(kind: str, value: object = None) -> bytes:
    """One message as a line.

    Kinds from the worker: `say` (a sentence), `progress` (what, done, total), `interim` (a result, before a wait that
    may be long), `ask` (for a restart slot: whether it repairs what was in force, and whether the runtime serves at
    all), `release` (it is done with the slot: why the change failed, or ""), `result`. Kinds to the worker: `granted`,
    `refused` (a `Problem`).
    """
    return json.dumps([kind, value]).encode() + b"\n"


def parsed(data: bytes) -> tuple[str, Any]:
    """A message out of a line.

    Raises:
        ValueError: the line is no message.
    """
    message = json.loads(data)
    if not isinstance(message, list) or len(message) != 2 or not isinstance(message[0], str):
        raise ValueError(f"not a message: {data[:80]!r}")
    return message[0], message[1]
