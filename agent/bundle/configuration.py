"""containerd's configuration: the files that it reads, what they come to, and what the daemon says it loaded."""

import itertools
import posixpath
import re
import tomllib
from collections.abc import Iterator
from pathlib import PurePosixPath

from agent.bundle.masking import json_piece, text_piece
from agent.bundle.piece import Failure, Piece
from agent.bundle.reading import file_piece, head, listed
from agent.bundle.scene import Scene
from agent.cri import effective
from agent.cri.client import Client
from agent.cri.dump import printed
from agent.errors import KatanodeError
from agent.host.root import HostRoot

_MOST = 50
"""Files that are followed; real nodes have three or four."""
_IMPORTS = re.compile(r"^\s*imports\s*=\s*\[([^\]]*)\]", re.MULTILINE)


def configuration(scene: Scene) -> Iterator[Piece | Failure]:
    """The configuration file and what it imports, and what else stands in its folder."""
    if scene.daemon is None:
        yield Failure("containerd", scene.trouble or "there is no container runtime")
        return
    if scene.trouble:
        yield Failure("containerd", scene.trouble)
    root, path = scene.root, scene.daemon.config_path
    yield text_piece("containerd/folder.txt", "\n".join(listed(root, posixpath.dirname(path))) + "\n")
    for found in reach(root, path):
        yield file_piece(root, found, f"containerd{found}")


def reach(root: HostRoot, path: str) -> list[str]:
    """A configuration file and all that it imports, also by way of others, each once."""
    reached: list[str] = []
    pending = [path]
    while pending and len(reached) < _MOST:
        here = posixpath.normpath(pending.pop(0))
        if here in reached or not here.startswith("/"):
            continue
        reached.append(here)
        for pattern in _imports(root, here):
            pending += _matches(root, str(PurePosixPath(here).parent / pattern))
    return reached


def _imports(root: HostRoot, path: str) -> list[str]:
    """The imports of a file, those of a damaged one as far as they can be read."""
    try:
        text = head(root(path))[0].decode("utf-8", "replace").removeprefix("\ufeff")
    except (OSError, KatanodeError):
        return []
    try:
        named = tomllib.loads(text).get("imports", [])
    except (tomllib.TOMLDecodeError, RecursionError):
        named = [a or b for found in _IMPORTS.findall(text) for a, b in re.findall(r'"([^"]*)"|\'([^\']*)\'', found)]
    return [str(name) for name in named if name] if isinstance(named, list) else []


def _matches(root: HostRoot, pattern: str) -> list[str]:
    """The files that an import names, sorted as Go does; the literal one also where it does not exist."""
    if "*" not in pattern:
        return [pattern]
    path = PurePosixPath(posixpath.normpath(pattern))
    plain = PurePosixPath(*itertools.takewhile(lambda part: not set(part) & set("*?[\\"), path.parts))
    try:
        mapped = root(plain)
        found = sorted(mapped.glob(str(path.relative_to(plain)).replace("**", "*")))
    except (OSError, ValueError, KatanodeError):
        return []
    return [str(plain / item.relative_to(mapped)) for item in found[:_MOST]]


def handlers(scene: Scene) -> Iterator[Piece | Failure]:
    """The runtime handlers of the effective configuration, as the daemon's own program prints it."""
    if scene.daemon is None:
        yield Failure("containerd/handlers.json", "there is no container runtime")
        return
    dump = printed(scene.runner, scene.daemon, scene.daemon.config_path)
    tree = {
        "of": scene.daemon.config_path,
        "imports": dump.get("imports"),
        "version": dump.get("version"),
        "disabled_plugins": dump.get("disabled_plugins"),
        **{name: value for name, value in effective.containerd_table(dump).items() if not isinstance(value, dict)},
        "runtimes": effective.runtimes(dump),
    }
    yield json_piece("containerd/handlers.json", tree)


def loaded(scene: Scene) -> Iterator[Piece | Failure]:
    """What the daemon says of itself over CRI: its conditions, and the handlers that it loaded."""
    if scene.daemon is None or not scene.answers:
        yield Failure("containerd/cri.json", "the container runtime does not answer")
        return
    with Client(scene.root(scene.daemon.socket)) as client:
        version, status = client.version(), client.status()
    tree = {
        "socket": scene.daemon.socket,
        "name": version.name,
        "version": version.version,
        "ready": status.ready,
        "network_ready": status.network_ready,
        "network_message": status.network_message,
        "handlers": dict(status.handlers),
    }
    yield json_piece("containerd/cri.json", tree)
