"""What the project's figures have in common."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

from hack.lab.containerd import RESTART

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hack.lab.lab import Lab
    from hack.standin.archive import Archive

SETTINGS = "/etc/katanode/katanode.toml"


class Figure(NamedTuple):
    """One line of the table.

    Attributes:
        what: was measured.
        measured: the value, with what is needed to judge it.
        bound: what it may be at most; "" for one that is told for information.
        good: whether it is within.
    """

    what: str
    measured: str
    bound: str
    good: bool = True


def write_settings(lab: Lab, archive: Archive, version: str, handlers: Sequence[str], more: str = "") -> None:
    """Writes katanode's settings in a lab.

    Args:
        lab: where.
        archive: the release's.
        version: the release's.
        handlers: that are wanted.
        more: further tables of TOML.
    """
    names = ", ".join(f'"{name}"' for name in handlers)
    path = lab.path(SETTINGS)
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f'[kata]\nversion = "{version}"\nsource = "{archive.path.parent}"\nhandlers = [{names}]\n'
        f'sha256 = {{ "{archive.path.name}" = "{archive.sha256}" }}\n'
        f'[runtime]\nrestart_command = ["{RESTART}"]\n[node]\nsysctls = false\n{more}'
    )


def timed(action: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def until(what: Callable[[], object], seconds: float, pause: float = 0.2) -> None:
    """Waits for a state.

    Raises:
        TimeoutError: it does not come within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {seconds:g} s")
        time.sleep(pause)


def spread(times: Sequence[float]) -> str:
    """The median of some times, and from where to where they are."""
    return f"{statistics.median(times):.3f} s ({min(times):.3f}-{max(times):.3f})"
