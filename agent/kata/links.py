"""Links where people and the article look for Kata. What runs never depends on them."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.host import files
from agent.host.root import HostRoot
from agent.kata import render
from agent.kata.assets import PREFIX
from agent.kata.handlers import ResolvedHandler
from agent.kata.releases import HOME
from agent.reasons import Reason
from agent.report import Finding, bad

_OURS = (f"{HOME}/", "katanode/")
"""Where our links lead, and nobody else's: the article's own lead to /opt/kata/bin."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link: its path on the host, and where it leads."""

    path: str
    target: str


def wanted(root: HostRoot, release_path: str, handlers: Sequence[ResolvedHandler]) -> tuple[Link, ...]:
    """The links for a release."""
    programs = [
        Link(f"/usr/local/bin/{name}", f"{release_path}/bin/{name}")
        for name in ("kata-runtime", "containerd-shim-kata-v2")
        if root(f"{release_path}/bin/{name}").is_file()
    ]
    configurations = [
        Link(
            f"{render.HOME}/configuration-{h.kind.name.removeprefix('kata-')}.toml", f"katanode/{h.name}/{render.BASE}"
        )
        for h in handlers
    ]
    return (Link(PREFIX, release_path), *programs, *configurations)


def missing(root: HostRoot, links: Sequence[Link]) -> tuple[Link, ...]:
    """Those that are to be made: not there, or ours and leading elsewhere."""
    return tuple(link for link in links if _is_free(root, link) and _target(root, link) != link.target)


def foreign(root: HostRoot, links: Sequence[Link]) -> Iterator[Finding]:
    """A finding for each place where something of somebody else's stands."""
    for link in links:
        if not _is_free(root, link):
            there = _target(root, link)
            what = f"a link to {there}" if there else "no link"
            yield bad(f"{link.path} leads to Kata", Reason.FOREIGN_FILE, f"{link.path} is there and is {what}")


def make(root: HostRoot, link: Link) -> None:
    """Makes a link.

    Raises:
        KatanodeError: `FILE_WRITE_FAILED`.
    """
    files.link_atomic(root.entry(link.path), link.target)


def remove(root: HostRoot) -> None:
    """Removes all links of ours, whatever release or handler they were made for."""
    places = [PREFIX, "/usr/local/bin/kata-runtime", "/usr/local/bin/containerd-shim-kata-v2"]
    with contextlib.suppress(FileNotFoundError):
        places += [f"{render.HOME}/{p.name}" for p in root(render.HOME).glob("configuration-*.toml")]
    for place in places:
        if _target(root, Link(place, "")).startswith(_OURS):
            files.remove(root.entry(place))


def _is_free(root: HostRoot, link: Link) -> bool:
    there = _target(root, link)
    return there.startswith(_OURS) if there else not os.path.lexists(root.entry(link.path))


def _target(root: HostRoot, link: Link) -> str:
    try:
        return os.readlink(root.entry(link.path))
    except OSError:
        return ""
