"""Which paths of a node the daemon keeps an eye on between two looks."""

from collections.abc import Iterable, Iterator

from agent.cri.daemon import find
from agent.errors import KatanodeError
from agent.host.modules import LOAD_FILE
from agent.host.root import HostRoot
from agent.host.sysctl import SYSCTL_FILE
from agent.kata import assets, releases, render
from agent.node import Node

_DEVICES = ("/dev/kvm", "/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock")
_LIMIT = 1000
"""Paths at most: a release has about a hundred files."""


def watched(node: Node, release: str) -> list[str]:
    """The paths, as this process sees them, whose change is a reason to look at the node again.

    Args:
        node: the node.
        release: id of the release in force; "" without one.
    """
    return sorted(set(_paths(node, release)))[:_LIMIT]


def _paths(node: Node, release: str) -> Iterator[str]:
    root = node.root
    yield from _both(root, (*_DEVICES, LOAD_FILE, SYSCTL_FILE))
    try:
        daemon = find(root, node.settings.runtime.socket)
    except KatanodeError:
        pass
    else:
        folder = root(daemon.config_path).parent
        yield from _both(root, (daemon.socket, daemon.config_path))
        for drop_ins in (folder, *folder.glob("*.d")):
            yield str(drop_ins)
            yield from (str(path) for path in drop_ins.glob("*.toml"))
    if release:
        for tree in (root(f"{releases.FOLDER}/{release}"), root(render.FOLDER)):
            yield str(tree)
            yield from (str(path) for path in tree.rglob("*"))
        yield from _both(root, (assets.PREFIX, "/usr/local/bin/kata-runtime", "/usr/local/bin/containerd-shim-kata-v2"))


def _both(root: HostRoot, paths: Iterable[str]) -> Iterator[str]:
    """A path itself, which may be a link, and what it leads to."""
    for path in paths:
        yield str(root.path / path.lstrip("/"))
        yield str(root(path))
