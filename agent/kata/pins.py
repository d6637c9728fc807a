"""Which archives a release is made of, and the digests that they must have."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Literal

from agent.errors import KatanodeError
from agent.host import files
from agent.host.root import HostRoot
from agent.kata.handlers import version_tuple
from agent.reasons import Reason
from agent.settings import Kata

ADDED = "/var/lib/katanode/pins.toml"
"""Where `katanode pin` keeps what it adds."""

_FIRST_ZSTANDARD = (3, 21, 0)
_FIRST_SPLIT = (4, 1, 0)
"""From here on `kata-static` is Rust only; the Go runtime and Firecracker are in `kata-go-static`."""

_ONLY_GO = frozenset({"kata-fc"})


def archives(
    version: str, arch: str, runtime: Literal["auto", "go", "rust"], handlers: Iterable[str]
) -> tuple[str, ...]:
    """The names of the archives that a release is made of, the main one first.

    Args:
        version: the release's.
        arch: Debian's name of the architecture, as in the archives' names.
        runtime: the settings' `kata.runtime`.
        handlers: the wanted handlers; Firecracker is served by the Go runtime only.
    """
    end = "tar.zst" if version_tuple(version) >= _FIRST_ZSTANDARD else "tar.xz"
    names = [f"kata-static-{version}-{arch}.{end}"]
    if version_tuple(version) >= _FIRST_SPLIT and (runtime == "go" or _ONLY_GO & set(handlers)):
        names.append(f"kata-go-static-{version}-{arch}.{end}")
    return tuple(names)


def known(root: HostRoot, kata: Kata) -> Mapping[str, str]:
    """All pins: the shipped ones, those added on this node, and the settings', each overruling those before it.

    Raises:
        KatanodeError: `FILE_READ_FAILED` when the added ones cannot be read.
    """
    return {**shipped(), **added(root), **kata.sha256}


def shipped() -> Mapping[str, str]:
    """The pins that come with katanode."""
    text = resources.files("agent.kata").joinpath("pins.toml").read_text(encoding="ascii")
    return dict(tomllib.loads(text)["sha256"])


def added(root: HostRoot) -> Mapping[str, str]:
    """The pins that `katanode pin` added on this node.

    Raises:
        KatanodeError: `FILE_READ_FAILED`.
    """
    data = files.read_if_there(root(ADDED))
    if data is None:
        return {}
    try:
        return {str(name): str(digest) for name, digest in tomllib.loads(data.decode())["sha256"].items()}
    except (ValueError, KeyError, AttributeError) as error:
        raise KatanodeError(
            Reason.FILE_READ_FAILED,
            f"{ADDED} is damaged",
            evidence=str(error),
            remedy="Remove it, then pin again what was in it.",
        ) from error


def add(root: HostRoot, pins: Mapping[str, str]) -> None:
    """Adds pins on this node.

    Raises:
        KatanodeError: `FILE_READ_FAILED`, `FILE_WRITE_FAILED`.
    """
    together = {**added(root), **pins}
    # JSON's strings are strings of TOML too.
    rows = [f"{json.dumps(name)} = {json.dumps(digest)}" for name, digest in sorted(together.items())]
    lines = ["# Added by `katanode pin`.", "[sha256]", *rows]
    path = root(ADDED)
    files.make_folder(path.parent, 0o700)
    files.write_atomic(path, ("\n".join(lines) + "\n").encode())


def look_up(names: Iterable[str], pins: Mapping[str, str], version: str) -> tuple[tuple[str, str], ...]:
    """The archives with their digests.

    Raises:
        KatanodeError: `RELEASE_UNPINNED`, naming the archive and the releases that are pinned.
    """
    names = tuple(names)
    missing = [name for name in names if name not in pins]
    if missing:
        versions = {m[1] for name in pins if (m := re.match(r"kata-static-(.+)-\w+\.tar\.", name))}
        raise KatanodeError(
            Reason.RELEASE_UNPINNED,
            f"no sha256 is known for {' and '.join(missing)}",
            evidence=f"pinned releases: {', '.join(sorted(versions, key=version_tuple))}",
            remedy=f"katanode pin {version} " + " ".join(f"--sha256 {name}=DIGEST" for name in missing),
        )
    return tuple((name, pins[name]) for name in names)
