"""A base made of Debian's packages, where no registry can be reached."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from typing import TYPE_CHECKING

from hack.imaging.errors import ImageError
from hack.imaging.run import run
from hack.lab.errors import LabError
from hack.lab.packages import debian_source

if TYPE_CHECKING:
    from pathlib import Path

# What a slim base leaves out, less the licences.
_SLIM = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
)
_CONFIGURED = ("./etc/passwd", "./etc/group", "./etc/shadow", "./etc/gshadow")
_STATUS = "./var/lib/dpkg/status"


def native(suite: str, epoch: int, target: Path) -> None:
    """Makes the smallest ordinary Debian for this machine's architecture (about 10 s).

    Args:
        suite: of Debian.
        epoch: the time of its files, seconds since 1970.
        target: the tar archive to write.

    Raises:
        ImageError: mmdebstrap is missing or fails.
    """
    _mmdebstrap(["--variant=minbase", *(f"--dpkgopt={option}" for option in _SLIM)], suite, epoch, target)


def foreign(suite: str, arch: str, like: Path, epoch: int, target: Path) -> None:
    """Makes one for another architecture, of which nothing can be run here (about 5 s).

    Its packages are unpacked and not configured. What configuring would have made and katanode needs is taken from the
    native base: the list of packages, and the users.

    Args:
        suite: of Debian.
        arch: Debian's name of the architecture.
        like: the native base.
        epoch: the time of its files.
        target: the tar archive to write.

    Raises:
        ImageError: mmdebstrap is missing or fails.
    """
    with tarfile.open(like) as tar:
        files = [(tar.getmember(name), _content(tar, name)) for name in (*_CONFIGURED, _STATUS)]
    status = files[-1][1].decode()
    names = re.findall(r"^Package: (\S+)$", status, re.MULTILINE)
    own = re.findall(r"^Package: dpkg$.*?^Architecture: (\S+)$", status, re.MULTILINE | re.DOTALL)[0]
    status = re.sub(rf"^Architecture: {own}$", f"Architecture: {arch}", status, flags=re.MULTILINE)
    files[-1] = (files[-1][0], status.encode())
    options = ["--variant=extract", "--skip=check/qemu", f"--architectures={arch}", f"--include={','.join(names)}"]
    _mmdebstrap(options, suite, epoch, target)
    replaced = {member.name: (member, content) for member, content in files}
    complete = target.with_name(f"{target.name}-complete")
    with tarfile.open(target) as old, tarfile.open(complete, "w", format=tarfile.PAX_FORMAT) as new:
        for member in old:
            if member.name not in replaced:
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
        for member, content in replaced.values():
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    complete.rename(target)


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def _security(suite: str, source: str) -> list[str]:
    """The line for the suite's security fixes, from where this machine's own come; none where it has no such source."""
    said = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"])
    found = sorted({line.split()[0] for line in said.splitlines() if line.endswith("-security")})
    return [f"{source} {found[0]} {suite}-security main"] if found else []


def _mmdebstrap(arguments: list[str], suite: str, epoch: int, target: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise ImageError(
            "no registry answers, and mmdebstrap is not here to make a base",
            remedy="apt-get install mmdebstrap, or hack/image --install-tools; or name a base: --base IMAGE",
        )
    try:
        mirror, keyring = debian_source()
    except LabError as error:
        raise ImageError("no Debian mirror is known here", evidence=str(error)) from error
    source = f"deb [signed-by={keyring}]"
    lines = [f"{source} {mirror} {pocket} main" for pocket in (suite, f"{suite}-updates")]
    run(
        [
            *("mmdebstrap", "--quiet", "--mode=root", "--format=tar", *arguments, suite, target),
            *(*lines, *_security(suite, source)),
        ],
        env={"SOURCE_DATE_EPOCH": str(epoch)},
        what=f"no base can be made of Debian's packages of {suite}",
    )
