"""What is to be done: a pure function of what was found, so that it can be shown before anything happens."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.cri.activation import Change
from agent.cri.masking import masked_lines
from agent.prepare import HostFacts


class Disturbs(StrEnum):
    """What a step disturbs."""

    NOTHING = "nothing"
    NEW_SANDBOXES = "new sandboxes only"
    RESTART = "restarts the container runtime"


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what, what it disturbs, and its diff."""

    title: str
    disturbs: Disturbs
    diff: str = ""

    def as_json(self) -> dict[str, str]:
        """The step for machines."""
        return {"title": self.title, "disturbs": str(self.disturbs), "diff": self.diff}


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps, in their order.

    Attributes:
        steps: what is to be done.
        note: what a person should know besides.
    """

    steps: tuple[Step, ...]
    note: str = ""

    @property
    def restarts(self) -> bool:
        """Whether the container runtime is restarted."""
        return any(step.disturbs is Disturbs.RESTART for step in self.steps)

    def as_json(self) -> dict[str, object]:
        """The plan for machines."""
        return {"steps": [step.as_json() for step in self.steps], "restarts": self.restarts, "note": self.note}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found of everything that katanode brings about.

    Attributes:
        host: modules and sysctls.
        release: id of the wanted release.
        archives: what has to be fetched and unpacked for it; empty when it is there.
        renderings: handler to the rendered files that differ, name to bytes now and then; empty when current.
        links: convenience links to be made, path to target.
        change: the container runtime's configuration.
        not_loaded: what the running daemon has otherwise than wanted.
        unproved: handlers whose canary has to run.
        collectable: ids of releases that nothing uses and nobody keeps.
        hindered: nothing is installed and no wanted handler can be ready: apply prepares the node and stops.
        interrupted: a change that a crash interrupted is to be finished first.
    """

    host: HostFacts
    release: str
    archives: Sequence[str]
    renderings: Mapping[str, Mapping[str, tuple[bytes, bytes]]]
    links: Mapping[str, str]
    change: Change
    not_loaded: Sequence[str]
    unproved: Sequence[str]
    collectable: Sequence[str] = ()
    hindered: bool = False
    interrupted: bool = False


def make(facts: Facts) -> Plan:
    """The plan for what was found; no steps when the node is as wanted."""
    steps = [*_first(facts), *_host(facts.host)]
    if facts.hindered:
        note = "this node can run none of the wanted handlers: nothing is installed before `katanode check` finds one"
        return Plan(tuple(steps), note)
    if facts.archives:
        steps.append(Step(f"install release {facts.release} from {', '.join(facts.archives)}", Disturbs.NOTHING))
    steps += [
        Step(f"write the hypervisor configuration of {handler}", Disturbs.NEW_SANDBOXES, _diffs(changed))
        for handler, changed in facts.renderings.items()
        if changed
    ]
    if facts.links:
        lines = "\n".join(f"+{path} -> {target}" for path, target in facts.links.items())
        steps.append(Step("link the release where people look for it", Disturbs.NOTHING, lines))
    if facts.change.files or facts.not_loaded:
        steps.append(_runtime(facts))
    if facts.unproved:
        steps.append(Step(f"prove {', '.join(facts.unproved)} with a sandbox", Disturbs.NOTHING))
    if facts.collectable:
        steps.append(Step(f"remove releases that nothing uses: {', '.join(facts.collectable)}", Disturbs.NOTHING))
    return Plan(tuple(steps))


def _first(facts: Facts) -> list[Step]:
    if not facts.interrupted:
        return []
    return [Step("finish the change that an earlier run left in the middle", Disturbs.RESTART)]


def _host(host: HostFacts) -> list[Step]:
    steps = []
    if host.load:
        steps.append(Step(f"load kernel modules {', '.join(host.load)}", Disturbs.NOTHING))
    if host.raises:
        lines = "\n".join(f"-{key} = {host.now[key]}\n+{key} = {value}" for key, value in host.raises.items())
        steps.append(Step("raise sysctls", Disturbs.NOTHING, lines))
    for path, (now, wanted) in host.texts.items():
        verb = "write" if wanted else "remove"
        steps.append(Step(f"{verb} {path}", Disturbs.NOTHING, diff(path, now or b"", wanted)))
    return steps


def _runtime(facts: Facts) -> Step:
    changes = [(file.path, file.before or b"", file.after or b"") for file in facts.change.files]
    text = "\n".join(diff(*change) for change in changes) or "\n".join(facts.not_loaded)
    names = ", ".join(h.name for h in facts.change.handlers)
    title = f"configure containerd for {names}" if names else "take the handlers out of containerd's configuration"
    return Step(title if changes else "restart containerd: it does not run what is configured", Disturbs.RESTART, text)


def _diffs(changed: Mapping[str, tuple[bytes, bytes]]) -> str:
    return "\n".join(diff(name, now, wanted) for name, (now, wanted) in changed.items())


def diff(name: str, before: bytes, after: bytes) -> str:
    """A unified diff without line ends, secrets masked: a runtime's configuration may hold registry credentials.

    Each file is masked whole, and then shown in part: what a line belongs to may stand far above it.
    """
    old, new = _lines(before), _lines(after)
    shown_old, shown_new = masked_lines(old), masked_lines(new)
    made = []
    was = now = 0
    for number, line in enumerate(difflib.unified_diff(old, new, fromfile=name, tofile=name, lineterm="", n=2)):
        if number < 2 or line.startswith("@"):
            hunk = _HUNK.match(line)
            was, now = (int(hunk[1]) - 1, int(hunk[2]) - 1) if hunk else (was, now)
            made.append(line)
            continue
        sign = line[0]
        hidden = sign != "+" and shown_old[was] != old[was]  # a line that stays may be a secret in one of the two
        made.append(sign + (shown_old[was] if sign == "-" or hidden else shown_new[now]))
        was += sign != "+"
        now += sign != "-"
    return "\n".join(made)


_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@")


def _lines(data: bytes) -> list[str]:
    """A file's lines as TOML has them: for `splitlines` a line may end within a string."""
    lines = data.decode("utf-8", "backslashreplace").split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]
