"""A pod sandbox's image made here, of one static program of some hundred bytes: no network, no compiler."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import struct
import tarfile
from typing import TYPE_CHECKING, Any

from hack.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable

# The name that the lab's own configurations pin.
PAUSE_IMAGE = "registry.k8s.io/pause:katanode-lab"

# As upstream's pause.c: wait for signals, reap on SIGCHLD (orphans come to it), leave on TERM and INT.
#   rt_sigprocmask(SIG_BLOCK, &set, NULL, 8)
#   wait:  rt_sigtimedwait(&set, NULL, NULL, 8); not SIGCHLD? to other
#   reap:  wait4(-1, NULL, WNOHANG, NULL); one reaped? to reap, else to wait
#   other: failed (EINTR)? to wait; exit(0)
#   set:   SIGINT, SIGTERM, SIGCHLD
_X86_64 = bytes.fromhex(
    "b80e00000031ff488d355000000031d241ba080000000f05b880000000488d3d3a00000031f631d2"
    "41ba080000000f0583f811751cb83d000000bfffffffff31f6ba010000004531d20f0585c07fe6eb"
    "c785c078c3b83c00000031ff0f050240010000000000"
)

# ppoll(NULL, 0, NULL, NULL, 0) for ever: containerd ends a sandbox with SIGKILL, so this does. Not measured:
# no such machine was at hand.
_AARCH64 = struct.pack(
    "<8I",
    *(0xD2800000 | register for register in range(5)),  # movz x0..x4, #0
    0xD2800000 | 73 << 5 | 8,  # movz x8, #ppoll
    0xD4000001,  # svc #0
    0x14000000 | (-7 & 0x3FFFFFF),  # b to the first instruction
)

_MACHINES = {"x86_64": ("amd64", 62, _X86_64), "aarch64": ("arm64", 183, _AARCH64)}


def program() -> bytes:
    """The pause program for this machine: an ELF file of one segment that is readable and executable."""
    _, machine, code = _machine()
    base, headers = 0x400000, 64 + 56
    size = headers + len(code)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    # An executable, of version 1, whose only program header follows this one.
    header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x10000)
    return ident + header + segment + code


def archive(names: Iterable[str] = (PAUSE_IMAGE,)) -> bytes:
    """An OCI image archive, as ``ctr images import`` takes it, with the pause image under each of `names`."""
    layer = _tar({"pause": program()}, mode=0o755)
    config = _json(
        {
            "architecture": _machine()[0],
            "os": "linux",
            "config": {"Entrypoint": ["/pause"], "Env": ["PATH=/"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        }
    )
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    index = {
        "schemaVersion": 2,
        "manifests": [entry | {"annotations": {"io.containerd.image.name": name}} for name in names],
    }
    blobs = {f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (layer, config, manifest)}
    return _tar({"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)} | blobs)


def _machine() -> tuple[str, int, bytes]:
    """This machine's architecture as images name it, its number in ELF, and its code."""
    try:
        return _MACHINES[platform.machine()]
    except KeyError:
        raise LabError(
            f"no pause program for {platform.machine()}", remedy=f"add its machine code to {__file__}"
        ) from None


def _tar(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    """A tar of `files`, the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _json(value: dict[str, Any]) -> bytes:
    """`value` as JSON."""
    return json.dumps(value, sort_keys=True).encode()


def _digest(blob: bytes) -> str:
    """The digest of `blob`, as OCI writes it."""
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    """How OCI refers to `blob`."""
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}
