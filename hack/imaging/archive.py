"""The archive that a build ends in: an OCI layout in a tar, with the same bytes each time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hack.imaging.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

_INDEX = "index.json"


@dataclass(frozen=True, slots=True)
class Image:
    """What is in an archive.

    Attributes:
        name: the image's.
        digest: of its manifest.
        config: its configuration.
        layers: digests of the uncompressed layers, the base's first.
        added: unpacked bytes of the files in the last layer, the only one above the base.
    """

    name: str
    digest: str
    config: dict[str, Any]
    layers: tuple[str, ...]
    added: int


def name_it(archive: Path, name: str, epoch: int) -> None:
    """Writes an OCI archive anew: with the image's whole name where containerd looks for it, in order, with one time.

    Raises:
        ImageError: it is no archive of one image.
    """
    with tarfile.open(archive) as tar:
        files = {
            member.name.removeprefix("./"): _bytes(tar, member.name) for member in tar.getmembers() if member.isfile()
        }
    if _INDEX not in files:
        raise ImageError(f"{archive} is no OCI archive", evidence=", ".join(sorted(files)))
    index = json.loads(files[_INDEX])
    entries = index["manifests"]
    if len(entries) != 1:
        raise ImageError(f"{archive} holds {len(entries)} images and not one")
    # containerd makes up a name of its own for an image that has only the second.
    entries[0]["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    files[_INDEX] = json.dumps(index, sort_keys=True).encode()
    wanted = {path: data for path, data in files.items() if path in {_INDEX, "oci-layout"} or path.startswith("blobs/")}
    staged = archive.with_name(f".{archive.name}")
    with tarfile.open(staged, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path, data in sorted(wanted.items()):
            info = tarfile.TarInfo(path)
            info.size, info.mode, info.mtime = len(data), 0o644, epoch
            tar.addfile(info, io.BytesIO(data))
    staged.rename(archive)


def read(archive: Path) -> Image:
    """Looks into an archive that `name_it` wrote.

    Raises:
        ImageError: a layer is not what its configuration says.
    """
    with tarfile.open(archive) as tar:
        entry = json.loads(_bytes(tar, _INDEX))["manifests"][0]
        manifest = json.loads(_blob(tar, entry))
        config = json.loads(_blob(tar, manifest["config"]))
        last = _plain(_blob(tar, manifest["layers"][-1]))
    layers = tuple(config["rootfs"]["diff_ids"])
    if f"sha256:{hashlib.sha256(last).hexdigest()}" != layers[-1]:
        raise ImageError(f"{archive}: its last layer has another digest than its configuration says")
    with tarfile.open(fileobj=io.BytesIO(last)) as layer:
        added = sum(member.size for member in layer)
    return Image(entry["annotations"]["io.containerd.image.name"], entry["digest"], config, layers, added)


def layers(archive: Path) -> list[tarfile.TarFile]:
    """The layers of an archive that `name_it` wrote, unpacked in memory, the base's first."""
    with tarfile.open(archive) as tar:
        entry = json.loads(_bytes(tar, _INDEX))["manifests"][0]
        blobs = [_plain(_blob(tar, layer)) for layer in json.loads(_blob(tar, entry))["layers"]]
    return [tarfile.open(fileobj=io.BytesIO(blob)) for blob in blobs]


def _plain(data: bytes) -> bytes:
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def _blob(tar: tarfile.TarFile, descriptor: dict[str, Any]) -> bytes:
    return _bytes(tar, f"blobs/{descriptor['digest'].replace(':', '/')}")


def _bytes(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()
