"""Adding the digest of a release that katanode does not know."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from agent.errors import KatanodeError
from agent.kata import pins, source
from agent.node import Node
from agent.reasons import Reason

_CHUNK = 1 << 20


def pin(node: Node, version: str, given: Sequence[str]) -> dict[str, str]:
    """Pins a release's archives on this node.

    Given digests are taken as they are: compare them with a source that you trust. Without any, the archives are
    fetched from the settings' source and what came is pinned: that trusts the source this once.

    Args:
        node: the node.
        version: the release.
        given: `FILE=DIGEST` each.

    Returns:
        What was pinned, file name to digest.

    Raises:
        KatanodeError: `SETTINGS_INVALID` for a malformed digest; what `source.open_archive` raises.
    """
    pinned = dict(_parse(item) for item in given)
    if not pinned:
        kata = replace(node.settings.kata, version=version)
        for name in pins.archives(version, node.arch, kata.runtime, kata.handlers):
            pinned[name] = _digest(replace(node, settings=replace(node.settings, kata=kata)), name)
    pins.add(node.root, pinned)
    return pinned


def _parse(item: str) -> tuple[str, str]:
    name, _, digest = item.partition("=")
    if not name or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise KatanodeError(
            Reason.SETTINGS_INVALID,
            f"{item!r} is not FILE=DIGEST",
            remedy="Give the archive's file name and its sha256 in 64 lowercase hexadecimal digits.",
        )
    return name, digest


def _digest(node: Node, name: str) -> str:
    def tell(done: int, total: int | None) -> None:
        node.progress(f"fetch {name}", done, total)

    archive, size = source.open_archive(node.root, node.settings.kata, name, tell)
    digest = hashlib.sha256()
    done = 0
    with archive:
        while chunk := archive.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            node.progress(f"hash {name}", done, size)
    return digest.hexdigest()
