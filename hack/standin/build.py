"""Make a release of Kata's shape for offline use: ``python3 hack/standin/build.py --version 3.2.0 --out standin``."""

from __future__ import annotations

import argparse
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

if not __package__:
    # Run as a script: the folder of hack/ is not on the path.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from hack.standin import archive, layout
from hack.standin.errors import StandinError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hack.standin.archive import Archive
    from hack.standin.programs import Arch

DEFAULT_VERSION = "3.2.0"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def native_arch() -> Arch:
    """This machine's architecture, by its name in Kata's archives."""
    return "arm64" if platform.machine() == "aarch64" else "amd64"


def build_release(
    out: Path, version: str = DEFAULT_VERSION, arch: Arch | None = None, *, size: int = 0
) -> dict[str, Archive]:
    """Make the archives of one release.

    Args:
        out: the folder for them; made if it is missing.
        version: upstream's version number whose shape and file names are taken.
        arch: for which machine; this one if not given.
        size: bytes of padding in each archive, for benchmarks; they compress to about half.

    Returns:
        The archives by their kind, ``kata-static`` and, from 4.1.0 on, ``kata-go-static``.

    Raises:
        StandinError: there is no compiler, no such version, or no room for the result.
    """
    arch = arch or native_arch()
    made: dict[str, Archive] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, (go, runtime_rs) in layout.files(version, arch).items():
            entries = layout.entries(version, arch, go=go, runtime_rs=runtime_rs, padding=size)
            made[name.partition(f"-{version}")[0]] = archive.write(out / name, entries)
    except (OSError, ValueError) as error:
        raise StandinError(f"the release {version} cannot be made in {out}: {error}") from error
    return made


def parse_size(text: str) -> int:
    """A number of bytes such as ``1GB``, ``300M`` or ``4096``; powers of ten."""
    match = re.fullmatch(r"(\d+)([KMG]?)B?", text.strip().upper())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 1GB")
    return int(match[1]) * _UNITS[match[2]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a release as the command line says; print its files, with ``--digest`` as ``sha256sum`` does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", default=DEFAULT_VERSION, help="upstream's version (default: %(default)s)")
    parser.add_argument("--arch", choices=("amd64", "arm64"), default=native_arch(), help="default: this machine's")
    parser.add_argument("--out", type=Path, default=Path("standin"), help="folder (default: %(default)s)")
    parser.add_argument("--size", type=parse_size, default=0, help="padding in each archive, as 1GB (default: none)")
    parser.add_argument("--digest", action="store_true", help="print sha256 sums too, and write FILE.sha256")
    options = parser.parse_args(arguments)
    try:
        made = build_release(options.out, options.version, cast("Arch", options.arch), size=options.size)
    except StandinError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    for item in made.values():
        print(f"{item.sha256}  {item.path}" if options.digest else item.path)
        if options.digest:
            sums = item.path.with_name(f"{item.path.name}.sha256")
            sums.write_text(f"{item.sha256}  {item.path.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
