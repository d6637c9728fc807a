"""What lies where in a release: upstream's shape, with stand-ins in it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

from hack.standin.archive import Entry
from hack.standin.programs import compile_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hack.standin.programs import Arch, Program

NOTE = "katanode STAND-IN: no isolation. Not Kata Containers; for tests and demonstrations without a network.\n"
PREFIX = "opt/kata"
_DEFAULTS = Path(__file__).with_name("defaults")
_SHARE = f"{PREFIX}/share/kata-containers"
_CONFIGS = f"{PREFIX}/share/defaults/kata-containers"
_QEMU = {"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
_BLOCK = 1 << 20


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers that compare.

    Raises:
        ValueError: it is not three numbers with dots between them.
    """
    parts = tuple(int(part) for part in version.split("."))
    if len(parts) != 3:
        raise ValueError(f"{version} is not a version such as 3.2.0")
    return parts


def files(version: str, arch: Arch) -> dict[str, tuple[bool, bool]]:
    """The archives of a release: file name to (holds the Go runtime, holds runtime-rs)."""
    suffix = "tar.xz" if numbers(version) < (3, 21, 0) else "tar.zst"
    name = f"static-{version}-{arch}.{suffix}"
    if numbers(version) < (4, 1, 0):
        return {f"kata-{name}": (True, numbers(version) >= (3, 21, 0))}
    return {f"kata-{name}": (False, True), f"kata-go-{name}": (True, False)}


def entries(version: str, arch: Arch, *, go: bool, runtime_rs: bool, padding: int = 0) -> Iterator[Entry]:
    """The members of one archive.

    Args:
        version: upstream's version number whose shape is taken.
        arch: for which machine.
        go: with the Go runtime's stand-ins.
        runtime_rs: with those of runtime-rs.
        padding: bytes of a further file that compresses to about half.
    """
    programs = compile_all(version, arch)

    def program(path: str, which: Program) -> Entry:
        return Entry(f"{PREFIX}/{path}", programs[which], mode=0o755)

    yield Entry(f"{PREFIX}/STAND-IN", NOTE.encode())
    yield Entry(f"{PREFIX}/VERSION", f"{version} STAND-IN\n".encode())
    yield Entry(f"{PREFIX}/versions.yaml", _versions(version).encode())
    if go:
        yield program("bin/containerd-shim-kata-v2", "shim")
        yield program("bin/kata-runtime", "runtime")
        yield program("bin/firecracker", "vmm")
        yield program("bin/jailer", "vmm")
    if runtime_rs:
        yield program("runtime-rs/bin/containerd-shim-kata-v2", "shim-rs")
    if runtime_rs or numbers(version) < (4, 1, 0):
        yield program("bin/cloud-hypervisor", "vmm")
        yield program(f"bin/{_QEMU[arch]}", "vmm")
        yield program("libexec/virtiofsd", "virtiofsd")
    yield from configurations(version, arch, go=go, runtime_rs=runtime_rs)
    yield from _guest(version, padding)


def configurations(version: str, arch: Arch, *, go: bool, runtime_rs: bool) -> Iterator[Entry]:
    """The base files that handler configurations build on."""
    folder = _DEFAULTS / ("3.2.0" if numbers(version) < (3, 21, 0) else "4.1.0")
    parts = (("", "configuration-qemu.toml", go), ("runtime-rs/", "configuration-qemu-runtime-rs.toml", runtime_rs))
    for inner, default, wanted in parts:
        if not wanted:
            continue
        for source in sorted((folder / inner).glob("*.toml")):
            text = source.read_text().replace(_QEMU["amd64"], _QEMU[arch])
            yield Entry(f"{_CONFIGS}/{inner}{source.name}", text.encode())
        yield Entry(f"{_CONFIGS}/{inner}configuration.toml", link=default)


def _guest(version: str, padding: int) -> Iterator[Entry]:
    """The guest's kernel and images, which nothing starts."""
    kernel = "6.1.38" if numbers(version) < (4, 0, 0) else "6.18.35"
    for name in ("vmlinux", "vmlinuz"):
        yield Entry(f"{_SHARE}/{name}-{kernel}-STAND-IN", NOTE.encode())
        yield Entry(f"{_SHARE}/{name}.container", link=f"{name}-{kernel}-STAND-IN")
    yield Entry(f"{_SHARE}/vmlinux-dragonball-experimental.container", link=f"vmlinux-{kernel}-STAND-IN")
    for name, real in (("kata-containers.img", "image"), ("kata-containers-initrd.img", "initrd")):
        yield Entry(f"{_SHARE}/kata-{real}-{version}.STAND-IN", NOTE.encode())
        yield Entry(f"{_SHARE}/{name}", link=f"kata-{real}-{version}.STAND-IN")
    if padding:
        yield Entry(f"{_SHARE}/padding.STAND-IN", Padding(padding), size=padding)


def _versions(version: str) -> str:
    """The text of ``versions.yaml``."""
    return f'# {NOTE}description: "katanode STAND-IN: no isolation"\nversion: "{version}-STAND-IN"\n'


class Padding:
    """`size` bytes, the same every time, that compress to about half: noise and zeros in turn."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._random = random.Random(size)
        self._ready = b""
        self._blocks = 0

    def read(self, size: int = -1, /) -> bytes:
        """The next `size` bytes, or all that are left."""
        size = self._left if size < 0 else min(size, self._left)
        parts = [self._ready]
        have = len(self._ready)
        while have < size:
            parts.append(bytes(_BLOCK) if self._blocks % 2 else self._random.randbytes(_BLOCK))
            self._blocks += 1
            have += _BLOCK
        data = b"".join(parts)
        self._ready = data[size:]
        self._left -= size
        return data[:size]
