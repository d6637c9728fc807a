"""Kata's configuration as the handlers have it, for every release that is on the node."""

import os
from collections.abc import Iterator

from agent.bundle.piece import Failure, Piece
from agent.bundle.reading import file_piece
from agent.bundle.scene import Scene
from agent.errors import KatanodeError
from agent.host.root import HostRoot
from agent.kata import render

_MOST = 200


def kata(scene: Scene) -> Iterator[Piece | Failure]:
    """Each handler's rendered configuration by release, and other people's files in /etc/kata-containers."""
    root = scene.root
    for name in _names(root, render.HOME):
        path = f"{render.HOME}/{name}"
        if name.endswith(".toml") and not root.entry(path).is_symlink():
            yield file_piece(root, path, f"kata/{name}")
    handlers = _names(root, render.FOLDER)
    if not handlers:
        yield Failure("kata", f"{render.FOLDER} holds no handler: nothing is installed")
    for handler in handlers:
        for release in _names(root, f"{render.FOLDER}/{handler}"):
            # Releases are links; the folders that they lead to begin with a dot.
            if not release.startswith(".") and release != render.BASE:
                yield from _rendering(root, f"{render.FOLDER}/{handler}/{release}", f"kata/{handler}/{release}")


def _rendering(root: HostRoot, folder: str, name: str) -> Iterator[Piece | Failure]:
    files = [*_names(root, folder), *(f"config.d/{item}" for item in _names(root, f"{folder}/config.d"))]
    for file in files:
        if file.endswith(".toml"):
            yield file_piece(root, f"{folder}/{file}", f"{name}/{file}")


def _names(root: HostRoot, folder: str) -> list[str]:
    try:
        return sorted(os.listdir(root(folder)))[:_MOST]
    except (OSError, KatanodeError):
        return []
