"""A node for tests: a lab with a containerd, settings for a stand-in release, and katanode run inside."""

import contextlib
import dataclasses
import json
import os
import stat
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.cri.client import Client
from agent.sandboxes import processes
from hack.lab import packages
from hack.lab.containerd import CONFIG, RESTART, PrivateContainerd
from hack.lab.lab import Lab
from hack.standin.archive import Archive

KATANODE = Path(sys.executable).with_name("katanode")
SETTINGS = "/etc/katanode/katanode.toml"
WATCHED = ("/etc", "/opt/kata", "/opt/katanode", "/usr/local/bin", "/usr/local/sbin", "/var/lib/katanode")
"""Folders that are looked at whole; of /opt, which may hold anything, the names."""
GENERATIONS = ("1.6", "1.7", "2.1")


def extra_daemons() -> dict[str, Path]:
    """Further daemons, named in KATANODE_EXTRA_CONTAINERD as VERSION=PATH:…; their shim stands beside them."""
    pairs = (item.partition("=") for item in os.environ.get("KATANODE_EXTRA_CONTAINERD", "").split(":") if item)
    return {version: Path(path) for version, _, path in pairs}


class LabNode:
    """One node."""

    def __init__(self, lab: Lab, containerd: PrivateContainerd, archives: Mapping[str, Archive]) -> None:
        self.lab = lab
        self.containerd = containerd
        self.archives = archives
        self.wish()

    def wish(self, version: str = "3.2.0", more: str = "", *, kata: str = "", runtime: str = "") -> None:
        """Writes settings for a version, with further lines in [kata], in [runtime] and at the end."""
        archive = self.archives[version]
        self.write_settings(
            f'[kata]\nversion = "{version}"\nsource = "{archive.path.parent}"\n'
            f'sha256 = {{ "{archive.path.name}" = "{archive.sha256}" }}\n{kata}\n'
            f'[runtime]\nrestart_command = ["{RESTART}"]\n{runtime}\n'
            f'[node]\nsysctl = {{ "net.core.somaxconn" = 32768 }}\n{more}\n'
        )

    def write_settings(self, text: str) -> None:
        path = self.lab.path(SETTINGS)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def katanode(
        self, *arguments: str, status: int | None = 0, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command; `status` is the exit status that it must have, None for any."""
        done = self.lab.run([KATANODE, *arguments], check=False, timeout=timeout)
        said = f"katanode {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in said, said
        assert status is None or done.returncode == status, said
        return done

    def json(self, *arguments: str, status: int | None = 0) -> Any:
        return json.loads(self.katanode(*arguments, "--json", status=status).stdout)

    def error(self, *arguments: str, status: int | None = None) -> dict[str, str]:
        """Runs a command that must fail; gives the error, which must say what, why and what to do."""
        made = self.json(*arguments, status=status)
        assert made.get("exit_status", 0) != 0, made
        error: dict[str, str] = made["error"]
        assert error["message"]
        assert error["remedy"]
        return error

    @property
    def config(self) -> Path:
        return self.lab.path(CONFIG)

    def snapshot(self) -> dict[str, tuple[object, ...]]:
        """Everything below the watched folders: kind, mode, owner and content."""
        found: dict[str, tuple[object, ...]] = {
            f"/opt/{path.name}": _image(path) for path in self.lab.path("/opt").iterdir()
        }
        for top in WATCHED:
            base = self.lab.path(top)
            for folder, _, names in os.walk(base):
                for path in (Path(folder), *(Path(folder, name) for name in names)):
                    inside = top + str(path).removeprefix(str(base))
                    found[inside] = _image(path)
        return found

    def effective(self) -> dict[str, Any]:
        dump = tomllib.loads(self.containerd.config_dump())
        dump.pop("imports", None)
        return dump

    @contextlib.contextmanager
    def sandbox(self, handler: str, name: str = "") -> Iterator[str]:
        """A pod sandbox through a handler; "" is runc."""
        with Client(self.containerd.socket) as client:
            sandbox = client.run_sandbox(
                handler, name=name or f"pod-{uuid.uuid4().hex[:6]}", namespace="test", uid=str(uuid.uuid4()), timeout=30
            )
        yield sandbox
        with Client(self.containerd.socket) as client:
            client.stop_sandbox(sandbox, 30)
            client.remove_sandbox(sandbox, 30)

    def ready(self, sandbox: str) -> bool:
        with Client(self.containerd.socket) as client:
            return any(s.id == sandbox and s.ready for s in client.sandboxes())

    def processes(self, sandbox: str) -> tuple[processes.Process, ...]:
        return processes.of_sandbox(sandbox, self.lab.path("/proc"))

    def shim(self, sandbox: str) -> str:
        """The program of the sandbox's shim of ours: runc's, which the stand-in starts, is another."""
        shims = [p for p in self.processes(sandbox) if p.is_shim_of(sandbox)]
        return next(exe for p in shims if "runc" not in (exe := p.exe(self.lab.path("/proc"))))

    def vmm_environment(self, sandbox: str) -> dict[str, str]:
        proc = self.lab.path("/proc")
        machine = next(p for p in self.processes(sandbox) if p.holds_vm(proc))
        words = (proc / str(machine.pid) / "environ").read_bytes().decode().split("\0")
        return dict(word.split("=", 1) for word in words if "=" in word)

    def leftovers(self) -> list[str]:
        """Temporary files, staging folders and journals of katanode's."""
        marks = (".katanode-tmp-", ".staging-", "journal.json")
        return [path for path in self.snapshot() if any(mark in path for mark in marks)]


def _image(path: Path) -> tuple[object, ...]:
    state = path.lstat()
    kind = stat.S_IFMT(state.st_mode)
    if kind == stat.S_IFLNK:
        return kind, os.readlink(path)
    content = path.read_bytes() if kind == stat.S_IFREG and state.st_size < 1 << 20 else state.st_size
    return kind, stat.S_IMODE(state.st_mode), state.st_uid, state.st_gid, content if kind == stat.S_IFREG else None


@contextlib.contextmanager
def lab_node(generation: str, archives: Mapping[str, Archive], **options: Any) -> Iterator[LabNode]:
    """A node with a containerd of this generation."""
    if not Path("/dev/kvm").exists():
        pytest.skip(reason="there is no /dev/kvm: the stand-in's hypervisor holds a real virtual machine")
    extra = extra_daemons().get(generation)
    if extra is not None:
        base = packages.binaries("2.1")
        options["binaries"] = dataclasses.replace(
            base, containerd=extra, ctr=extra.with_name("ctr"), shim_dir=extra.parent, version=generation
        )
        generation = "2.1"
    keep = tuple({archive.path.parent for archive in archives.values()})
    with Lab(keep=keep) as lab, PrivateContainerd(lab, generation, **options) as containerd:  # type: ignore[arg-type]
        yield LabNode(lab, containerd, archives)
