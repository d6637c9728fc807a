"""The node at hand: where it is, how programs are run on it, and what is wanted of it."""

import contextlib
import platform
from collections.abc import Callable
from dataclasses import dataclass

from agent.cri.activation import Permit
from agent.cri.journal import Journal
from agent.cri.restart import RestartPolicy
from agent.errors import KatanodeError
from agent.host.files import read_if_there
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.reasons import Reason
from agent.settings import Settings
from agent.state import JOURNAL, STATE, State, load, save

Say = Callable[[str], None]
Progress = Callable[[str, int, int | None], None]
"""Told of long work: what it is, bytes done, bytes in all if known."""

Tried = Callable[[str, bool], None]
"""Told of each canary: the handler, and whether a sandbox started through it."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""The machine's name in uname(2) to the one in Kata's archives, which follow Debian."""


def _nobody(_handler: str, _started: bool) -> None:  # noqa: FBT001 - as told
    """Whom nothing is told."""


@dataclass(frozen=True, slots=True)
class Node:
    """Everything that a command needs to know of its surroundings.

    Attributes:
        root: the host's root.
        runner: runs programs on the host.
        settings: the operator's wishes.
        say: told what happens.
        progress: told of long work.
        permit: asked before the runtime is restarted, and held until it is verified: the fleet's restart slot.
        tried: told of each canary.
    """

    root: HostRoot
    runner: Runner
    settings: Settings
    say: Say
    progress: Progress
    permit: Permit = contextlib.nullcontext
    tried: Tried = _nobody

    @property
    def arch(self) -> str:
        """The architecture as Kata's archives name it.

        Raises:
            KatanodeError: `ARCHITECTURE_UNSUPPORTED`.
        """
        machine = platform.machine()
        if machine not in _ARCHITECTURES:
            raise KatanodeError(Reason.ARCHITECTURE_UNSUPPORTED, f"this is a {machine} machine")
        return _ARCHITECTURES[machine]

    @property
    def boot(self) -> str:
        """This boot's id: what was proved before a reboot is proved anew after it."""
        return (read_if_there(self.root("/proc/sys/kernel/random/boot_id"), 64) or b"").decode().strip()

    @property
    def journal(self) -> Journal:
        """The journal of changes to the runtime."""
        return Journal(self.root(JOURNAL))

    @property
    def policy(self) -> RestartPolicy:
        """How the runtime is restarted."""
        wish = self.settings.runtime
        return RestartPolicy(wish.restart_command, wish.restart_timeout_seconds, wish.quiet_timeout_seconds)

    def remembered(self) -> State:
        """What katanode remembers of this node."""
        return load(self.root(STATE))

    def remember(self, state: State) -> State:
        """Keeps it; gives it back."""
        save(self.root(STATE), state)
        return state
