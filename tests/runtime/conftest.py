"""A node to try katanode on: a lab with a containerd, a settings file, and stand-in releases."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import tomllib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.cri.client import Client, Sandbox
from agent.sandboxes import processes
from hack.lab import configs
from hack.lab.containerd import CONFIG, RESTART, PrivateContainerd
from hack.lab.lab import Lab
from hack.lab.packages import GENERATIONS, Binaries, Generation, binaries
from hack.standin.build import build_release

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping

    from hack.standin.archive import Archive

KATANODE = Path(sys.executable).with_name("katanode")
SETTINGS = "/etc/katanode/katanode.toml"
MEMORY = "/var/lib/katanode"
WATCHED = ("/etc", "/opt", "/usr/local")
OF_THE_LAB = (
    "/opt/cni",
    "/usr/local/bin/containerd",
    "/usr/local/bin/containerd-shim-runc-v2",
    "/usr/local/bin/ctr",
    "/usr/local/bin/runc",
    "/usr/local/sbin/lab-containerd",
    "/usr/local/sbin/lab-restart-containerd",
)
OF_THE_MACHINE = frozenset(
    entry.path for parent in ("/opt", "/usr/local") if Path(parent).is_dir() for entry in os.scandir(parent)
) - {"/opt/kata", "/opt/katanode", "/usr/local/bin", "/usr/local/sbin"}
"""Folders full of what this machine has beside: seen, but not looked into, which would take most of the time."""
PATIENCE = 30.0
"""Seconds after which what is awaited does not come any more."""


def extra_daemons() -> dict[str, Path]:
    """Further daemons named in KATANODE_EXTRA_CONTAINERD as VERSION=PATH:…, their shim and ctr beside them."""
    named = filter(None, os.environ.get("KATANODE_EXTRA_CONTAINERD", "").split(":"))
    return {version: Path(path) for version, _, path in (item.partition("=") for item in named)}


EVERY_DAEMON: tuple[str, ...] = (*GENERATIONS, *extra_daemons())


class Standins:
    """Stand-in releases, each built when it is first asked for, in a folder that is kata.source.

    Args:
        folder: where they go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, dict[str, Archive]] = {}

    def archives(self, version: str) -> dict[str, Archive]:
        """The archives of a release by their kind, `kata-static` and from 4.1.0 on `kata-go-static`."""
        if version not in self._made:
            self._made[version] = build_release(self.folder, version)
        return self._made[version]

    def __getitem__(self, version: str) -> Archive:
        """The release's main archive."""
        return self.archives(version)["kata-static"]

    def pins(self, version: str) -> dict[str, str]:
        """File name to sha256 of every archive of a release."""
        return {archive.path.name: archive.sha256 for archive in self.archives(version).values()}


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Standins:
    """The stand-in releases of this session: `standin["3.2.0"]`, `standin["3.32.0"]`, `standin["4.1.0"]`."""
    return Standins(tmp_path_factory.mktemp("standin"))


class Machine:
    """A node in a lab, with a containerd that serves and settings for katanode.

    Args:
        lab: where everything is.
        containerd: its daemon.
        standin: where releases come from.

    Attributes:
        version: the release that the settings name.
        environment: what katanode is run with.
    """

    def __init__(self, lab: Lab, containerd: PrivateContainerd, standin: Standins) -> None:
        self.lab = lab
        self.containerd = containerd
        self.standin = standin
        self.version = "3.2.0"
        # Compiled once, as an installed katanode is, wherever the tests are told to compile nothing.
        self.environment = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": f"{standin.folder}-bytecode"}
        self.settings()

    # settings

    def settings(
        self,
        *,
        version: str | None = None,
        source: Path | str | None = None,
        pins: Mapping[str, str] | None = None,
        kata: str = "",
        runtime: str = "",
        node: str = "",
        more: str = "",
    ) -> None:
        """Writes the settings file.

        Args:
            version: of the release; the one before if not given.
            source: the folder or the archive; the stand-ins' folder if not given.
            pins: file name to sha256; the right ones if not given.
            kata: further lines for `[kata]`.
            runtime: further lines for `[runtime]`.
            node: further lines for `[node]`.
            more: further tables.
        """
        self.version = version or self.version
        digests = self.standin.pins(self.version) if pins is None else pins
        pinned = ", ".join(f'"{name}" = "{digest}"' for name, digest in digests.items())
        self.write_settings(
            f'[kata]\nversion = "{self.version}"\nsource = "{source or self.standin.folder}"\n'
            f"sha256 = {{ {pinned} }}\n{kata}\n"
            f'[runtime]\nrestart_command = ["{RESTART}"]\n{runtime}\n'
            # The one sysctl of the article that is private to a network namespace: others are the machine's.
            f'[node]\nsysctl = {{ "net.core.somaxconn" = 32768 }}\n{node}\n{more}\n'
        )

    def write_settings(self, text: str | bytes) -> None:
        """Writes the settings file as it is given."""
        self.write(SETTINGS, text)

    # katanode

    def katanode(
        self,
        *arguments: str | Path,
        check: bool = True,
        timeout: float = 120.0,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs katanode inside; a status that is not 0 fails the test when `check` is set."""
        done = self.lab.run(
            [KATANODE, *arguments], check=False, timeout=timeout, env={**self.environment, **(env or {})}
        )
        if check and done.returncode != 0:
            said = "\n".join(filter(None, (done.stdout, done.stderr, self.log_tail())))
            pytest.fail(f"katanode {' '.join(map(str, arguments))}: exit status {done.returncode}\n{said}")
        return done

    def json(self, *arguments: str | Path, check: bool = True, timeout: float = 120.0) -> dict[str, Any]:
        """Runs katanode inside with `--json`; gives what it printed."""
        done = self.katanode(*arguments, "--json", check=check, timeout=timeout)
        try:
            printed = json.loads(done.stdout)
        except ValueError:
            pytest.fail(f"no JSON, exit status {done.returncode}:\n{done.stdout}\n{done.stderr}")
        assert isinstance(printed, dict)
        return printed

    def popen(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Starts katanode inside, for those who disturb it."""
        options["env"] = {**self.environment, **(options.get("env") or {})}
        return self.lab.popen([KATANODE, *arguments], **options)

    # files

    def path(self, inside: str | Path) -> Path:
        """Where a file of the machine is for this process."""
        return self.lab.path(inside)

    def write(self, inside: str | Path, content: str | bytes) -> None:
        """Writes a file of the machine, and its folder."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    @property
    def config(self) -> bytes:
        """The bytes of containerd's configuration file."""
        return self.path(CONFIG).read_bytes()

    @config.setter
    def config(self, data: bytes) -> None:
        self.write(CONFIG, data)

    def snapshot(self) -> dict[str, object]:
        """Path to kind, mode, owner and content of all that katanode could change, and its memory's files.

        What is the machine's own and was not touched since is known by its size and time alone.
        """
        seen: dict[str, object] = {}
        for folder in (*WATCHED, MEMORY):
            for inside, entry in self._below(folder):
                seen[inside] = self._state_of(inside, entry)
        return seen

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Path to inode and time of writing of what `snapshot` sees: not even the same bytes were written anew."""
        found = {}
        for folder in (*WATCHED, MEMORY):
            for inside, path in self._below(folder):
                status = path.lstat()
                found[inside] = (status.st_ino, status.st_mtime_ns)
        return found

    def _below(self, folder: str) -> Iterator[tuple[str, Path]]:
        """The folder and all in it but what the lab itself puts there, as (inside, outside)."""
        outer = self.path(folder)
        if not os.path.lexists(outer):
            return
        yield folder, outer
        for entry in os.scandir(outer):
            inside = f"{folder}/{entry.name}"
            if inside in OF_THE_LAB:
                continue
            if entry.is_dir(follow_symlinks=False) and inside not in OF_THE_MACHINE:
                yield from self._below(inside)
            else:
                yield inside, Path(entry.path)

    def _state_of(self, inside: str, path: Path) -> object:
        status = path.lstat()
        head = (stat.filemode(status.st_mode), status.st_uid, status.st_gid)
        if stat.S_ISLNK(status.st_mode):
            return (*head, os.readlink(path))
        if not stat.S_ISREG(status.st_mode):
            return head
        try:
            own = os.lstat(inside)
        except OSError:
            own = None
        if own and (own.st_size, own.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
            return (*head, status.st_size, status.st_mtime_ns)
        return (*head, path.read_bytes())

    # containerd

    def client(self) -> Client:
        """A CRI client; use it as a context manager."""
        return Client(self.containerd.socket)

    def effective(self) -> dict[str, Any]:
        """The effective configuration, as the daemon's own `config dump` prints it."""
        return tomllib.loads(self.containerd.config_dump())

    def runtimes(self) -> dict[str, Any]:
        """The handlers of the effective configuration."""
        found = containerd_table(self.effective())["runtimes"]
        assert isinstance(found, dict)
        return found

    def loaded(self) -> dict[str, Any]:
        """The handlers that the running daemon has, by CRI."""
        with self.client() as client:
            return dict(client.status().handlers)

    @property
    def starts(self) -> int:
        """How often containerd was started so far."""
        return self.containerd.log.read_text(errors="replace").count('msg="starting containerd"')

    def serves(self) -> bool:
        """Whether the runtime says over CRI that it is ready."""
        with self.client() as client:
            return client.status().ready

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of containerd's log."""
        try:
            return "\n".join(self.containerd.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    # pods

    def run_pod(self, handler: str = "", name: str = "pod") -> str:
        """Starts a pod sandbox through a handler; gives its id."""
        with self.client() as client:
            return client.run_sandbox(handler, name=name, namespace="default", uid=str(uuid.uuid4()), timeout=PATIENCE)

    def remove_pod(self, sandbox_id: str) -> None:
        """Stops and removes a pod sandbox, as a kubelet does."""
        with self.client() as client:
            client.stop_sandbox(sandbox_id, PATIENCE)
            client.remove_sandbox(sandbox_id, PATIENCE)

    def pods(self) -> tuple[Sandbox, ...]:
        """The pod sandboxes that CRI lists."""
        with self.client() as client:
            return client.sandboxes()

    def processes_of(self, sandbox_id: str) -> tuple[processes.Process, ...]:
        """The processes that name a sandbox in their arguments, with their numbers inside."""
        return processes.of_sandbox(sandbox_id, self.path("/proc"))

    def shims_of(self, sandbox_id: str) -> list[str]:
        """The programs of a sandbox's shims, Kata's first: the stand-in has runc's behind it."""
        proc = self.path("/proc")
        found = [p.exe(proc) for p in self.processes_of(sandbox_id) if p.is_shim_of(sandbox_id)]
        return sorted(found, key=lambda exe: "runc" in exe)

    def shim_of(self, sandbox_id: str) -> str:
        """The program of a sandbox's shim."""
        found = self.shims_of(sandbox_id)
        assert found, f"no shim of {sandbox_id} runs"
        return found[0]

    def task_pid(self, sandbox_id: str) -> int:
        """The number, inside, of the sandbox's own process; 0 when it does not run."""
        listed = self.lab.run(["ctr", "-n", "k8s.io", "task", "ls"]).stdout
        for line in listed.splitlines():
            words = line.split()
            if words[:1] == [sandbox_id] and words[-1] == "RUNNING":
                return int(words[1])
        return 0

    def vmm_of(self, sandbox_id: str) -> processes.Process | None:
        """The process of a sandbox that holds a KVM virtual machine."""
        proc = self.path("/proc")
        holders = [p for p in self.processes_of(sandbox_id) if p.holds_vm(proc)]
        return holders[0] if holders else None

    def vmm_env(self, sandbox_id: str) -> dict[str, str]:
        """The environment of the process that holds a sandbox's virtual machine."""
        vmm = self.vmm_of(sandbox_id)
        assert vmm is not None, f"no process of {sandbox_id} holds a virtual machine"
        data = self.path(f"/proc/{vmm.pid}/environ").read_bytes().decode()
        return dict(item.partition("=")[::2] for item in data.split("\0") if item)

    def release_path(self, version: str | None = None) -> str:
        """Where the release of a version is unpacked, inside."""
        found = self.releases(version or self.version)
        assert len(found) == 1, f"releases: {found}"
        return f"/opt/katanode/releases/{found[0]}"

    def releases(self, version: str = "") -> list[str]:
        """The ids of the releases on the machine."""
        folder = self.path("/opt/katanode/releases")
        return sorted(p.name for p in folder.glob(f"{version}*")) if folder.is_dir() else []


def containerd_table(dump: Mapping[str, Any]) -> dict[str, Any]:
    """The `containerd` table of CRI in an effective configuration, of any generation."""
    plugins = dump["plugins"]
    cri = plugins.get("io.containerd.cri.v1.runtime") or plugins["io.containerd.grpc.v1.cri"]
    table = cri["containerd"]
    assert isinstance(table, dict)
    return table


def programs(name: str) -> tuple[Generation, Binaries]:
    """The generation and the programs of a daemon named as the tests name it, such as `1.7` or an extra's version."""
    path = extra_daemons().get(name)
    if path is None:
        generation = next(g for g in GENERATIONS if g == name)
        return generation, binaries(generation)
    generation = "2.1" if int(name.partition(".")[0]) >= 2 else "1.7"
    debian = binaries(generation)
    return generation, Binaries(path, path.with_name("ctr"), path.parent, debian.runc, debian.cni_bin, name)


@pytest.fixture(scope="session")
def launch(standin: Standins) -> Callable[..., contextlib.AbstractContextManager[Machine]]:
    """Machines as context managers: `with launch("1.7") as machine`.

    A name ending in `-schema2` has a configuration in that schema; `config=` gives containerd's file.
    """
    if os.geteuid() != 0:
        pytest.skip(reason="a lab needs root")

    @contextlib.contextmanager
    def start(name: str, *, config: bytes | None = None) -> Iterator[Machine]:
        daemon, _, schema = name.partition("-schema")
        generation, made_of = programs(daemon)
        if config is None:
            config = configs.default(2 if schema == "2" or generation != "2.1" else 3)
        keep = [standin.folder, *(path.parent for path in extra_daemons().values() if path.parent.is_dir())]
        with (
            Lab(keep=keep) as lab,
            PrivateContainerd(lab, generation, config=config, binaries=made_of) as containerd,
        ):
            yield Machine(lab, containerd, standin)

    return start


@pytest.fixture
def start_machine(
    launch: Callable[..., contextlib.AbstractContextManager[Machine]],
) -> Iterator[Callable[..., Machine]]:
    """Starts machines as `launch` does; all are gone after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda name, **options: stack.enter_context(launch(name, **options))


@pytest.fixture(params=(*EVERY_DAEMON, "2.1-schema2"))
def machine_of_each_schema(request: pytest.FixtureRequest, start_machine: Callable[..., Machine]) -> Machine:
    """As `machine`, and the newest containerd with the older schema too."""
    return start_machine(request.param)


@pytest.fixture(params=EVERY_DAEMON)
def machine(request: pytest.FixtureRequest, start_machine: Callable[..., Machine]) -> Machine:
    """A plain machine of each generation; name others by `parametrize("machine", [...], indirect=True)`."""
    return start_machine(request.param)
