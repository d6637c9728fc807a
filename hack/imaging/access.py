"""How this machine reaches its package sources, as files that a build mounts and no layer has."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

_PIP_KEYS = ("index-url", "proxy", "timeout", "trusted-host", "retries")
_SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


def write(folder: Path) -> dict[str, Path]:
    """Writes the files; what this machine does not have is an empty one.

    Args:
        folder: where to; readable by its owner only, since an address may hold a password.

    Returns:
        The secret's name to its file: `apt.conf`, `pip.conf` and `ca.pem`.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    contents = {"apt.conf": _apt(), "pip.conf": _pip(), "ca.pem": _authorities()}
    files = {}
    for name, content in contents.items():
        files[name] = folder / name
        files[name].write_text(content)
    return files


def _said(*argv: str) -> str:
    """What a program prints; nothing where it is not there or fails."""
    if shutil.which(argv[0]) is None:
        return ""
    done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def _apt() -> str:
    """apt's settings for reaching archives: proxies, time limits, checks of dates."""
    lines = re.findall(r'^Acquire::[\w:/.-]+ ".+";$', _said("apt-config", "dump"), re.MULTILINE)
    # What concerns indexes is the base's own business, and paths are this machine's.
    return "".join(f"{line}\n" for line in lines if "IndexTargets" not in line and '"/' not in line)


def _pip() -> str:
    """pip's settings for reaching an index; those with paths of this machine stay here."""
    said = _said(sys.executable, "-m", "pip", "config", "list")
    values = {}
    for key, value in re.findall(r"^(?:global|install|:env:)\.([\w-]+)='(.*)'$", said, re.MULTILINE):
        name = "timeout" if key == "default-timeout" else key
        if name in _PIP_KEYS and not value.startswith(("/", "file:")):
            values[name] = value
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


def _authorities() -> str:
    """The certificates that this machine trusts, among which may be those of its own package index."""
    for name in (os.environ.get("PIP_CERT"), ssl.get_default_verify_paths().cafile, str(_SYSTEM_BUNDLE)):
        if name and Path(name).is_file():
            return Path(name).read_text()
    return ""
