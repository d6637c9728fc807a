"""Where a bundle is made: the node, and the container runtime as far as it can be found, dead or alive."""

import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from agent.bundle.gather import Part, gather
from agent.bundle.piece import Piece
from agent.cri.daemon import DEFAULT_CONFIG, Daemon, find, option
from agent.errors import KatanodeError
from agent.host import files
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.host.systemd import unit_of
from agent.node import Node

_K3S, _RKE2 = "/var/lib/rancher/k3s", "/var/lib/rancher/rke2"
_PLACES = (
    (DEFAULT_CONFIG, "/usr/bin/containerd", "containerd.service"),
    (DEFAULT_CONFIG, "/usr/local/bin/containerd", "containerd.service"),
    (f"{_K3S}/agent/etc/containerd/config.toml", f"{_K3S}/data/current/bin/containerd", "k3s.service"),
    (f"{_RKE2}/agent/etc/containerd/config.toml", f"{_RKE2}/bin/containerd", "rke2-agent.service"),
    ("/etc/k0s/containerd.toml", "/var/lib/k0s/bin/containerd", "k0sworker.service"),
    (
        "/var/snap/microk8s/current/args/containerd.toml",
        "/snap/microk8s/current/bin/containerd",
        "snap.microk8s.daemon-containerd.service",
    ),
)
"""Configuration, program and unit where no daemon runs that could be asked."""
_VERSION_TIMEOUT = 10.0
_SECONDS = 45.0
"""Bound for asking all sockets; one that hangs takes ten."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What parts are made from.

    Attributes:
        node: the node; with default settings where its own cannot be read.
        settings_path: the settings file as this process sees it.
        settings_problem: why it is not used; "" when it is.
        daemon: the container runtime; where none answers, the one that runs or would run. None when there is none.
        answers: whether it answers CRI.
        trouble: why it could not be asked.
    """

    node: Node
    settings_path: Path
    settings_problem: str = ""
    daemon: Daemon | None = None
    answers: bool = False
    trouble: str = ""

    @property
    def root(self) -> HostRoot:
        """The host's files."""
        return self.node.root

    @property
    def runner(self) -> Runner:
        """Runs programs on the host."""
        return self.node.runner


def looked_up(scene: Scene, *, proc: Path = Path("/proc")) -> Scene:
    """The scene with the container runtime: asked over CRI, else among the processes, else at the known places."""
    trouble = ""
    for item in gather([Part(_ASKED, partial(_ask, scene, proc), _SECONDS)], at_once=1, seconds=_SECONDS):
        if isinstance(item, Piece):
            return replace(scene, daemon=Daemon(**json.loads(item.text)), answers=True)
        trouble = item.why
    standing = next(itertools.chain(_running(proc), _installed(scene.root)), None)
    if standing is not None:
        standing = replace(standing, version=_version(scene, standing.exe))
    return replace(scene, daemon=standing, trouble=trouble)


_ASKED = "container runtime"


def _ask(scene: Scene, proc: Path) -> Iterator[Piece]:
    daemon = find(scene.root, scene.node.settings.runtime.socket, proc=proc)
    yield Piece(_ASKED, json.dumps(asdict(daemon)))


def _running(proc: Path) -> Iterator[Daemon]:
    """The containerds among the processes, those whose socket answers nothing too."""
    for name in sorted(filter(str.isdecimal, os.listdir(proc)), key=int):
        process = proc / name
        try:
            exe = str((process / "exe").readlink()).removesuffix(" (deleted)")
            if PurePosixPath(exe).name != "containerd":
                continue
            argv = files.read_bounded(process / "cmdline").decode("utf-8", "replace").split("\0")
            unit = unit_of(files.read_bounded(process / "cgroup").decode("utf-8", "replace"))
        except (OSError, KatanodeError):
            continue  # it ended, or may not be looked at
        yield Daemon("", int(name), exe, _named_config(argv), unit, "", "")


def _named_config(argv: list[str]) -> str:
    named = option(argv, "config", "c")
    return named if named.startswith("/") else DEFAULT_CONFIG


def _installed(root: HostRoot) -> Iterator[Daemon]:
    for config, exe, unit in _PLACES:
        if root(config).is_file() and root(exe).is_file():
            yield Daemon("", 0, exe, config, unit, "", "")


def _version(scene: Scene, exe: str) -> str:
    """What `containerd --version` calls itself; "" when it says nothing."""
    try:
        said = scene.runner.run((exe, "--version"), timeout=_VERSION_TIMEOUT).stdout.decode("utf-8", "replace")
    except KatanodeError:
        return ""
    found = re.search(r"\sv?(\d+\.\d+\S*)", said)
    return found[1] if found else ""
