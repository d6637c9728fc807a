"""Which daemon serves CRI on this node: asked of its socket, the same way on every distribution."""

import re
import socket as sockets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agent.cri.client import Client
from agent.errors import KatanodeError
from agent.host.files import read_bounded
from agent.host.root import HostRoot
from agent.host.systemd import unit_of
from agent.reasons import Reason

KNOWN_SOCKETS = (
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
)
DEFAULT_CONFIG = "/etc/containerd/config.toml"
_FIRST_SERVED = (1, 6)


@dataclass(frozen=True, slots=True)
class Daemon:
    """The daemon behind the CRI socket.

    Attributes:
        socket: the socket's path on the host.
        pid: its process.
        exe: its program on the host.
        config_path: its configuration file on the host.
        unit: the systemd unit that runs it; "" when none does.
        search_path: the PATH of its environment: where containerd 1.6 looks for shims.
        version: as it says, for instance `1.7.24~ds1` or `v2.1.9`.
    """

    socket: str
    pid: int
    exe: str
    config_path: str
    unit: str
    search_path: str
    version: str

    @property
    def generation(self) -> tuple[int, int]:
        """Major and minor version."""
        return generation(self.version)

    @property
    def honours_runtime_path(self) -> bool:
        """containerd 1.6 ignores `runtime_path`, 1.7 and later honour it (measured)."""
        return self.generation >= (1, 7)

    @property
    def merges_dropins(self) -> bool:
        """On 1.x a drop-in's CRI table replaces the root file's (measured: the node is down); 2.x merges."""
        return self.generation >= (2, 0)


def generation(version: str) -> tuple[int, int]:
    """Major and minor number of a version as daemons print it.

    Raises:
        KatanodeError: `RUNTIME_UNSUPPORTED` when there are none in it.
    """
    match = re.match(r"v?(\d+)\.(\d+)", version)
    if match is None:
        raise KatanodeError(Reason.RUNTIME_UNSUPPORTED, f"the container runtime says version {version!r}")
    return int(match[1]), int(match[2])


def find(root: HostRoot, wanted_socket: str = "", *, proc: Path = Path("/proc")) -> Daemon:
    """Finds the containerd that serves CRI.

    Args:
        root: the host's root.
        wanted_socket: the one socket to ask; "" asks all that are known or listened on.
        proc: the host's processes; its own /proc serves in a pod with hostPID.

    Raises:
        KatanodeError: `RUNTIME_NOT_FOUND`, `RUNTIME_AMBIGUOUS`, `RUNTIME_UNREACHABLE`, `CRI_DISABLED`,
            `RUNTIME_UNSUPPORTED`, `RUNTIME_TOO_OLD`.
    """
    candidates = [wanted_socket] if wanted_socket else list(dict.fromkeys((*KNOWN_SOCKETS, *_listening(proc))))
    serving: dict[int, Daemon] = {}
    refusals: list[KatanodeError] = []
    for path in candidates:
        mapped = root(path)
        if not mapped.is_socket():
            continue
        try:
            daemon = _ask(path, mapped, proc)
        except KatanodeError as error:
            refusals.append(error)
        else:
            serving.setdefault(daemon.pid, daemon)
    if len(serving) > 1:
        raise _ambiguous(list(serving.values()))
    if serving:
        return next(iter(serving.values()))
    if refusals:
        raise refusals[0]
    raise KatanodeError(
        Reason.RUNTIME_NOT_FOUND,
        f"{wanted_socket} is not a socket" if wanted_socket else "no CRI socket was found",
        evidence="looked at " + ", ".join(candidates),
    )


def _ask(path: str, mapped: Path, proc: Path) -> Daemon:
    try:
        pid = peer(mapped)
    except OSError as error:
        raise KatanodeError(
            Reason.RUNTIME_UNREACHABLE, f"nobody listens on {path}", evidence=str(error.strerror or error)
        ) from error
    with Client(mapped) as client:
        version = client.version()
    if version.name != "containerd":
        raise KatanodeError(Reason.RUNTIME_UNSUPPORTED, f"{path} is served by {version.name} {version.version}")
    if generation(version.version) < _FIRST_SERVED:
        raise KatanodeError(Reason.RUNTIME_TOO_OLD, f"{path} is served by containerd {version.version}")
    try:
        return _describe(path, pid, version.version, proc / str(pid))
    except (OSError, KatanodeError) as error:
        raise KatanodeError(
            Reason.RUNTIME_UNREACHABLE,
            f"process {pid} serves {path}, but cannot be looked at",
            evidence=str(error),
            remedy="In a pod, set hostPID: true; otherwise run as root.",
        ) from error


def _describe(path: str, pid: int, version: str, process: Path) -> Daemon:
    argv = read_bounded(process / "cmdline").decode("utf-8", "surrogateescape").split("\0")
    environ = read_bounded(process / "environ").decode("utf-8", "surrogateescape").split("\0")
    # After an upgrade of the package the link ends so, and the new program stands at the old place.
    exe = str((process / "exe").readlink()).removesuffix(" (deleted)")
    config = option(argv, "config", "c") or DEFAULT_CONFIG
    if not PurePosixPath(config).is_absolute():
        config = str(PurePosixPath(str((process / "cwd").readlink())) / config)
    return Daemon(
        socket=path,
        pid=pid,
        exe=exe,
        config_path=config,
        unit=unit_of(read_bounded(process / "cgroup").decode("utf-8", "replace")),
        search_path=next((e.removeprefix("PATH=") for e in environ if e.startswith("PATH=")), ""),
        version=version,
    )


def peer(socket: Path, timeout: float = 5.0) -> int:
    """The process that listens on a unix socket (`SO_PEERCRED`, unix(7)).

    Raises:
        OSError: nobody listens, or not within `timeout` seconds.
    """
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(str(socket))
        credentials = connection.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, struct.calcsize("3i"))
    pid, _, _ = struct.unpack("3i", credentials)
    if pid == 0:  # the peer lives in a pid namespace that this process does not see
        raise OSError(None, "the daemon's process is not visible from here (hostPID is missing?)")
    return int(pid)


def _listening(proc: Path) -> Iterator[str]:
    """CRI-like sockets at places of their own, from /proc/net/unix (unix(7)); the flag 00010000 marks a listener."""
    try:
        lines = read_bounded(proc / "net" / "unix", limit=16 << 20).decode("utf-8", "replace").splitlines()
    except (OSError, KatanodeError):
        return
    for line in lines[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[3] == "00010000" and fields[7].endswith(("/containerd.sock", "/crio.sock")):
            yield "/run/" + fields[7].removeprefix("/var/run/") if fields[7].startswith("/var/run/") else fields[7]


def option(argv: list[str], *names: str) -> str:
    """The value of a command-line option in any of Go's forms: -x V, --x V, -x=V, --x=V."""
    flags = {f"{dashes}{name}" for name in names for dashes in ("-", "--")}
    for index, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if flag in flags:
            return value if equals else argv[index + 1] if index + 1 < len(argv) else ""
    return ""


def _ambiguous(daemons: list[Daemon]) -> KatanodeError:
    lines = [f"{d.socket}: containerd {d.version}, process {d.pid}, {d.config_path}" for d in daemons]
    return KatanodeError(
        Reason.RUNTIME_AMBIGUOUS,
        f"{len(daemons)} containerds serve CRI here",
        evidence="\n".join(lines),
        remedy=f'Set runtime.socket to the one that the kubelet uses, for instance "{daemons[0].socket}".',
    )
