"""Debian's packages for the image: chosen by apt against the base's own status, and unpacked, never configured."""

# ruff: noqa: INP001 - beside its script

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"


def install(
    arch: str, base_status: Path, names: Iterable[str], rules: Mapping[str, Any], places: Mapping[str, str], out: Path
) -> None:
    """Unpacks packages with all that they depend on and the base lacks.

    Args:
        arch: of the packages.
        base_status: dpkg's status file of the base.
        names: of the packages.
        rules: `keep`, the patterns of what comes out of them, and `without`, packages that are not wanted.
        places: what the patterns' names stand for.
        out: where to.

    Raises:
        SystemExit: the status has no C library, apt or dpkg fails, or a package to be left out would not come.
    """
    if "\nPackage: libc6\n" not in f"\n{base_status.read_text()}":
        raise SystemExit("the base's list of packages has no libc6: it is no Debian, or one without its status file")
    keep = [pattern.format(**places) for pattern in rules["keep"]]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        apt = _apt(arch, base_status, work)
        _run([*apt, "update", "--error-on=any"])
        _run([*apt, "install", "--download-only", "--no-install-recommends", "--yes", *names])
        debs = {path.name.split("_")[0]: path for path in sorted((work / "cache/archives").glob("*.deb"))}
        if unknown := set(rules["without"]) - set(debs):
            raise SystemExit(f"trim.toml leaves out Debian packages that would not come: {', '.join(sorted(unknown))}")
        for name in sorted(set(debs) - set(rules["without"])):
            _unpack(debs[name], work / "root" / name, keep, out)
        _certificates(apt, work, out)


def _apt(arch: str, base_status: Path, work: Path) -> list[str]:
    """The apt-get that knows the base's packages and this stage's sources."""
    for name in ("state/lists/partial", "cache/archives/partial", "root"):
        (work / name).mkdir(parents=True)
    # apt locks and notes beside the status file.
    shutil.copy(base_status, work / "status")
    options = {
        "APT::Architecture": arch,
        "APT::Architectures": arch,
        "APT::Sandbox::User": "root",
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::State::extended_states": work / "extended_states",
        "Dir::Cache": work / "cache",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    return ["apt-get", "-qq", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]


def _unpack(deb: Path, root: Path, keep: list[str], out: Path) -> None:
    """Brings what is to be kept of one package, and says in dpkg's way that it is there."""
    _run(["dpkg-deb", "--extract", str(deb), str(root)])
    for name in ("bin", "lib", "lib64", "sbin"):
        # Links into /usr in the base: folders of these names could not be laid over them.
        if (root / name).is_dir() and not (root / name).is_symlink():
            shutil.copytree(root / name, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
    for path in _kept(root, keep):
        place = out / path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place, follow_symlinks=False)
    control = _run(["dpkg-deb", "--field", str(deb)])
    # Where scanners look for the packages of images that dpkg did not put together.
    status = out / "var/lib/dpkg/status.d" / deb.name.split("_")[0]
    status.parent.mkdir(parents=True, exist_ok=True)
    status.write_text(control)


def _kept(root: Path, keep: list[str]) -> Iterator[Path]:
    for pattern in keep:
        yield from (path for path in sorted(root.glob(pattern)) if path.is_symlink() or path.is_file())
    # A package may have its licence in another's folder, to which its own is a link.
    yield from (path for path in sorted(root.glob("usr/share/doc/*")) if path.is_symlink())


def _certificates(apt: list[str], work: Path, out: Path) -> None:
    """The bundle that ca-certificates makes when it is configured, and OpenSSL's own way to it."""
    folder = work / "certificates"
    folder.mkdir()
    _run([*apt, "download", "ca-certificates"], cwd=folder)
    (deb,) = folder.glob("*.deb")
    _unpack(deb, folder / "root", ["usr/share/doc/*/copyright"], out)
    bundle = out / CERTIFICATES
    bundle.parent.mkdir(parents=True)
    parts = sorted((folder / "root/usr/share/ca-certificates/mozilla").glob("*.crt"))
    bundle.write_text("".join(part.read_text().strip() + "\n" for part in parts))
    link = out / "usr/lib/ssl/cert.pem"
    link.parent.mkdir(parents=True)
    link.symlink_to(f"/{CERTIFICATES}")


def _run(argv: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout[-2000:]}")
    return done.stdout
