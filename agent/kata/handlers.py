"""The handlers that katanode knows, and where a release has what they need.

A handler is what a pod's RuntimeClass names. It stands for a hypervisor and for the Kata runtime (the shim) that drives
it: the Go one, or the Rust one that upstream calls runtime-rs.
"""

import re
from dataclasses import dataclass
from typing import Literal

from agent.errors import KatanodeError
from agent.host.root import HostRoot
from agent.reasons import Reason
from agent.report import Capability

Flavour = Literal["go", "rust"]
"""Which of Kata's two runtimes."""

DEFAULTS = "share/defaults/kata-containers"
"""Folder of the base files in a release (upstream's layout below /opt/kata)."""

SHIMS: dict[Flavour, str] = {
    "go": "bin/containerd-shim-kata-v2",
    "rust": "runtime-rs/bin/containerd-shim-kata-v2",
}
"""The shim of each runtime in a release."""

_LAST_WITH_GO = (4, 0, 0)  # from 4.1.0 on the Go runtime is in an archive of its own, kata-go-static

_ALL_NEED = frozenset(
    {Capability.HOST, Capability.RUNTIME, Capability.RELEASE, Capability.CONFIGURATION, Capability.CANARY}
)
# Cloud Hypervisor, Firecracker and Dragonball have their vsock on a unix socket: no vhost-vsock, and no vhost-net.
_LIGHT = _ALL_NEED | {Capability.KVM, Capability.TUN, Capability.NETWORK_PATH}


@dataclass(frozen=True, slots=True)
class HandlerKind:
    """What a handler's name stands for.

    Attributes:
        name: the handler.
        hypervisor: name of its table in Kata's configuration: `[hypervisor.NAME]`.
        title: the hypervisor's name for people.
        base_files: per runtime that serves it, the candidates for its base file, relative to `DEFAULTS`; upstream has
            renamed them, the first that exists wins.
        needs: what the node must be able to do.
        processes: file names of its hypervisor's program; empty when it runs inside the shim.
        snapshotter: the containerd snapshotter that it cannot do without; empty when any will do.
    """

    name: str
    hypervisor: str
    title: str
    base_files: dict[Flavour, tuple[str, ...]]
    needs: frozenset[Capability]
    processes: tuple[str, ...]
    snapshotter: str = ""


HANDLERS: dict[str, HandlerKind] = {
    kind.name: kind
    for kind in (
        HandlerKind(
            "kata-clh",
            "clh",
            "Cloud Hypervisor",
            {
                "go": ("configuration-clh.toml",),
                "rust": (
                    "runtime-rs/configuration-clh-runtime-rs.toml",
                    "runtime-rs/configuration-cloud-hypervisor.toml",
                    "configuration-cloud-hypervisor.toml",
                ),
            },
            _LIGHT,
            ("cloud-hypervisor",),
        ),
        HandlerKind(
            "kata-qemu",
            "qemu",
            "QEMU",
            {
                "go": ("configuration-qemu.toml",),
                "rust": ("runtime-rs/configuration-qemu-runtime-rs.toml", "configuration-qemu-runtime-rs.toml"),
            },
            _LIGHT | {Capability.VHOST_VSOCK, Capability.VHOST_NET},
            ("qemu-system-x86_64", "qemu-system-aarch64"),
        ),
        HandlerKind(
            "kata-fc",
            "firecracker",
            "Firecracker",
            {"go": ("configuration-fc.toml",)},
            _LIGHT,
            ("firecracker",),
            # Firecracker shares no folder with its guest: a container's root file system must be a block device.
            snapshotter="devmapper",
        ),
        HandlerKind(
            "kata-dragonball",
            "dragonball",
            "Dragonball",
            # Up to the 3.x releases the file stood beside those of the Go runtime.
            {"rust": ("runtime-rs/configuration-dragonball.toml", "configuration-dragonball.toml")},
            _LIGHT,
            (),
        ),
    )
}
"""Handler names to what they stand for."""


@dataclass(frozen=True, slots=True)
class ResolvedHandler:
    """A handler as a release has it.

    Attributes:
        kind: what its name stands for.
        runtime: the runtime that serves it.
        base_file: path of its base file on the node.
        shim: path of its shim on the node.
        release_path: the release's folder on the node.
        release_version: the release's version, such as 4.1.0.
    """

    kind: HandlerKind
    runtime: Flavour
    base_file: str
    shim: str
    release_path: str
    release_version: str

    @property
    def name(self) -> str:
        """The handler's name."""
        return self.kind.name

    @property
    def hypervisor(self) -> str:
        """Name of its table below `hypervisor` in Kata's configuration."""
        return self.kind.hypervisor

    @property
    def runtime_title(self) -> str:
        """The runtime's name for people."""
        return "the Go runtime" if self.runtime == "go" else "the Rust runtime"


def version_tuple(version: str) -> tuple[int, int, int]:
    """The three numbers of a version; what is none (a branch, a nightly) counts as newer than all."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2]), int(found[3])) if found else (1 << 30, 0, 0)


def lookup(name: str) -> HandlerKind:
    """What a handler's name stands for.

    Raises:
        KatanodeError: `HANDLER_UNKNOWN`.
    """
    if name not in HANDLERS:
        raise KatanodeError(Reason.HANDLER_UNKNOWN, f"{name!r} is not a handler: known are {', '.join(HANDLERS)}")
    return HANDLERS[name]


def resolve(
    name: str,
    runtime_choice: Literal["auto", "go", "rust"],
    release_version: str,
    root: HostRoot,
    release_path: str,
) -> ResolvedHandler:
    """Finds what a handler needs in a release.

    Args:
        name: the handler.
        runtime_choice: the settings' `kata.runtime`. `auto` prefers Go up to release 4.0.0 and Rust from then on, and
            takes the other where the preferred one is not in the release.
        release_version: the release's version.
        root: where the node's files are.
        release_path: the release's folder on the node: it has what upstream has below /opt/kata.

    Raises:
        KatanodeError: `HANDLER_UNKNOWN`, or `HANDLER_NOT_IN_RELEASE` with what is missing and where it is to be had.
    """
    kind = lookup(name)
    lacks = []
    for runtime in _order(kind, runtime_choice, release_version):
        missing = []
        base = next((f for f in kind.base_files[runtime] if root(f"{release_path}/{DEFAULTS}/{f}").is_file()), None)
        if base is None:
            missing.append(f"{DEFAULTS}/{kind.base_files[runtime][0]}")
        shim = f"{release_path}/{SHIMS[runtime]}"
        if not root(shim).is_file():
            missing.append(SHIMS[runtime])
        if base is not None and not missing:
            return ResolvedHandler(
                kind, runtime, f"{release_path}/{DEFAULTS}/{base}", shim, release_path, release_version
            )
        lacks.append(f"{_TITLES[runtime]}: the release has no {' and no '.join(missing)}")
    raise _not_there(kind, runtime_choice, release_version, lacks)


def expected_shim(name: str, runtime_choice: Literal["auto", "go", "rust"], release_version: str) -> str:
    """Where the shim of a handler will be in a release that is not unpacked yet, below the release's folder.

    Raises:
        KatanodeError: `HANDLER_UNKNOWN`, `HANDLER_NOT_IN_RELEASE`.
    """
    kind = lookup(name)
    order = _order(kind, runtime_choice, release_version)
    if not order:
        raise _not_there(kind, runtime_choice, release_version, [])
    return SHIMS[order[0]]


_TITLES: dict[Flavour, str] = {"go": "Go runtime", "rust": "Rust runtime"}


def _order(kind: HandlerKind, choice: Literal["auto", "go", "rust"], version: str) -> list[Flavour]:
    """The runtimes to try: those that serve the handler and that the settings allow."""
    serving: list[Flavour] = list(kind.base_files)
    if choice != "auto":
        return [runtime for runtime in serving if runtime == choice]
    preferred: Flavour = "go" if version_tuple(version) <= _LAST_WITH_GO else "rust"
    return sorted(serving, key=lambda runtime: runtime != preferred)


def _not_there(kind: HandlerKind, choice: str, version: str, lacks: list[str]) -> KatanodeError:
    (only, *others) = kind.base_files
    if not lacks:
        message = f"{kind.name} is not served by the {_TITLES['go' if choice == 'go' else 'rust']}"
        remedy = f'Set kata.runtime = "auto" (or "{only}"): {kind.title} is served by the {_TITLES[only]} only.'
        return KatanodeError(Reason.HANDLER_NOT_IN_RELEASE, message, remedy=remedy)
    wants_go = choice == "go" or (only == "go" and not others)
    if wants_go and version_tuple(version) > _LAST_WITH_GO:
        what = "Firecracker and the Go runtime are" if kind.hypervisor == "firecracker" else "the Go runtime is"
        remedy = (
            f"From 4.1.0 on {what} in kata-go-static-{version}, an archive beside kata-static-{version}: pin and "
            f"install both, or leave {kind.name} out of kata.handlers."
        )
    elif choice == "rust":
        remedy = 'Use a release from 4.1.0 on, or kata.runtime = "auto".'
    else:
        remedy = f"Use a release that has it (4.1.0 has), or leave {kind.name} out of kata.handlers."
    return KatanodeError(
        Reason.HANDLER_NOT_IN_RELEASE,
        f"release {version} lacks what {kind.name} needs",
        evidence="\n".join(lacks),
        remedy=remedy,
    )
