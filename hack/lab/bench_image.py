"""How large the container image is above its base: of the archives that `hack/image` left in dist/."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hack.imaging import archive
from hack.lab.figures import Figure
from hack.lab.lab import REPO

if TYPE_CHECKING:
    from collections.abc import Iterator

_BOUND = 120e6


def figures() -> Iterator[Figure]:
    """Reads the archives."""
    found = sorted((REPO / "dist").glob("katanode-*.tar"))
    if not found:
        yield Figure("image above its base", "not measured: no archive in dist/, run hack/image first", "120 MB")
    for path in found:
        added = archive.read(path).added
        yield Figure("image above its base", f"{added / 1e6:.1f} MB ({path.name})", "120 MB", added <= _BOUND)
