"""What the image's making reads out of the repository."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

from hack.imaging.errors import ImageError
from hack.imaging.run import run

REPO = Path(__file__).resolve().parents[2]
CONTAINERFILE = REPO / "image/Containerfile"
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "agent", "image")
"""All that an image is made of, besides packages."""

_IMAGE = re.compile(r"""^\s*(?:-\s+)?image:\s*["']?(?P<name>[^\s"'#]+)""", re.MULTILINE)
_BASE = re.compile(r"^ARG BASE=(?P<name>\S+)$", re.MULTILINE)
_SUITE = re.compile(r"debian:(?P<suite>[a-z]+)(-\d+)?-slim")


@dataclass(frozen=True, slots=True)
class Project:
    """The project's version, and the commit that last touched what an image is made of.

    Attributes:
        version: as pyproject.toml has it.
        description: likewise.
        licence: likewise.
        revision: the commit, with `-dirty` when files differ from it; empty outside a repository.
        epoch: its time, seconds since 1970: the time of everything in the image.
    """

    version: str
    description: str
    licence: str
    revision: str
    epoch: int


def read() -> Project:
    """Reads the project.

    Raises:
        ImageError: SOURCE_DATE_EPOCH is not set and there is no git history to take it from.
    """
    table = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    chosen = os.environ.get("SOURCE_DATE_EPOCH")
    git = ["git", "-C", REPO]
    try:
        commit, time = run([*git, "log", "-1", "--format=%H %ct", "--", *SOURCES]).split()
        dirty = "-dirty" if run([*git, "status", "--porcelain", "--", *SOURCES]).strip() else ""
    except (ImageError, ValueError) as error:
        if not chosen:
            raise ImageError(
                "the time that the image's files shall have is not known",
                evidence=str(error),
                remedy="build in a git clone, or set SOURCE_DATE_EPOCH to seconds since 1970",
            ) from error
        commit, time, dirty = "", chosen, ""
    return Project(table["version"], table["description"], table["license"], commit + dirty, int(chosen or time))


def image_name(version: str) -> str:
    """The image's name, as the manifests have it.

    Args:
        version: the project's, which must be the name's tag.

    Raises:
        ImageError: it is there not exactly once, or with another tag.
    """
    found = [
        (path.name, match["name"])
        for path in sorted((REPO / "manifests").glob("*.yaml"))
        for match in _IMAGE.finditer(path.read_text())
    ]
    if len(found) != 1:
        raise ImageError(
            "the image must be named exactly once in manifests/*.yaml",
            evidence=f"found: {', '.join(f'{name} in {file}' for file, name in found) or 'nothing'}",
        )
    file, name = found[0]
    if not name.endswith(f":{version}"):
        raise ImageError(
            f"{file} names {name}, and the project's version is {version}", remedy="set both to the same version"
        )
    return name


def default_base() -> tuple[str, str]:
    """The Containerfile's base, and its suite of Debian.

    Raises:
        ImageError: the Containerfile names none.
    """
    match = _BASE.search(CONTAINERFILE.read_text())
    suite = match and _SUITE.search(match["name"])
    if not match or not suite:
        raise ImageError(f"{CONTAINERFILE} has no line `ARG BASE=…/debian:SUITE-slim`")
    return match["name"], suite["suite"]


def stage(folder: Path) -> None:
    """Copies the sources to where they are built from, without what git ignores and with modes that no umask shaped."""
    for name in SOURCES:
        source, target = REPO / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
