"""The demo: a private containerd goes from plain to pods in `kata-clh`, and back byte for byte."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import tomllib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cri.client import Client
from agent.sandboxes import processes
from hack.lab.containerd import CONFIG, RESTART, PrivateContainerd
from hack.lab.errors import LabError
from hack.lab.lab import Lab
from hack.lab.packages import GENERATIONS
from hack.standin.build import build_release
from hack.standin.errors import StandinError

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = "3.2.0"
KATANODE = Path(sys.executable).with_name("katanode")
SETTINGS = "/etc/katanode/katanode.toml"
_WATCHED = (
    "/etc/containerd",
    "/etc/kata-containers",
    "/etc/modules-load.d",
    "/etc/sysctl.d",
    "/opt/katanode",
    "/opt/kata",
)


def main() -> int:
    """Run the demo; the exit status is 0 when everything was as it should be."""
    generation = os.environ.get("KATANODE_DEMO_CONTAINERD", "2.1")
    if generation not in GENERATIONS:
        print(f"KATANODE_DEMO_CONTAINERD is one of {', '.join(GENERATIONS)}", file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="katanode-demo-") as folder:
            return Demo(Path(folder), generation).run()
    except (LabError, StandinError) as error:
        print(f"\nhack/demo: {error}", file=sys.stderr)
        return 1


class Demo:
    """One run of the demo.

    Args:
        folder: a temporary folder for the stand-in release.
        generation: which containerd.
    """

    def __init__(self, folder: Path, generation: str) -> None:
        self.folder = folder
        self.generation = generation

    def run(self) -> int:
        """All of it."""
        _say(
            "This shows katanode on a real containerd in a private view of this machine: its own mounts, network and "
            "processes.\nKata itself cannot be fetched everywhere, so the release is a STAND-IN: real containerd, real "
            "sandboxes, a real KVM\nmachine held by each, and no isolation at all. Nothing of this machine is changed."
        )
        archives = build_release(self.folder, VERSION)
        with Lab(keep=(self.folder,)) as lab, PrivateContainerd(lab, self.generation) as containerd:
            _say(f"containerd {containerd.binaries.version} runs. The settings are:")
            settings = self._settings({a.path.name: a.sha256 for a in archives.values()})
            lab.path(SETTINGS).parent.mkdir(parents=True)
            lab.path(SETTINGS).write_text(settings)
            print(settings)
            before = _digests(lab)
            self._katanode(lab, "check", "What does this node have?")
            self._katanode(lab, "plan", "What would be done, and what would that disturb?")
            self._katanode(lab, "apply", "Do it, and prove it.")
            self._sandbox(lab, containerd)
            self._effective(containerd)
            self._katanode(lab, "apply", "Again: nothing differs, so nothing is written and nothing restarts.")
            self._katanode(lab, "status", "What is there now?")
            self._katanode(lab, "uninstall", "And back.")
            return self._compare(before, _digests(lab))

    def _settings(self, pins: Mapping[str, str]) -> str:
        pinned = ", ".join(f'"{name}" = "{digest}"' for name, digest in pins.items())
        return (
            f'[kata]\nversion = "{VERSION}"\nsource = "{self.folder}"   # upstream\'s address when not set\n'
            f"sha256 = {{ {pinned} }}\n\n"
            f'[runtime]\nrestart_command = ["{RESTART}"]   # no systemd here\n\n'
            '[node]\nsysctl = { "net.core.somaxconn" = 32768 }   # one that is private to a network namespace\n'
        )

    def _katanode(self, lab: Lab, command: str, why: str) -> None:
        _say(why)
        print(f"$ katanode {command}", flush=True)
        with lab.popen([KATANODE, command]) as process:
            status = process.wait()
        if status != 0:
            raise LabError(f"katanode {command} ended with {status}", evidence="see above")

    def _sandbox(self, lab: Lab, containerd: PrivateContainerd) -> None:
        _say("Start a pod sandbox through kata-clh, as a kubelet does for runtimeClassName: kata-clh.")
        with Client(containerd.socket) as client:
            sandbox = client.run_sandbox(
                "kata-clh", name="demo", namespace="default", uid=str(uuid.uuid4()), timeout=30
            )
            print(f"sandbox {sandbox[:13]}… runs; its processes:")
            proc = lab.path("/proc")
            for process in processes.of_sandbox(sandbox, proc):
                vm = "   holds a KVM virtual machine" if process.holds_vm(proc) else ""
                print(f"  {process.pid:>6}  {process.exe(proc)}{vm}")
            client.stop_sandbox(sandbox, 30)
            client.remove_sandbox(sandbox, 30)
            print("stopped and removed")

    def _effective(self, containerd: PrivateContainerd) -> None:
        _say("The handler as containerd itself understands its configuration (containerd config dump):")
        plugins = tomllib.loads(containerd.config_dump())["plugins"]
        cri = plugins.get("io.containerd.cri.v1.runtime") or plugins["io.containerd.grpc.v1.cri"]
        print(json.dumps(cri["containerd"]["runtimes"]["kata-clh"], indent=2))

    def _compare(self, before: Mapping[str, str], after: Mapping[str, str]) -> int:
        _say("Is everything as it was?")
        print(f"{before[CONFIG]}  {CONFIG} before\n{after.get(CONFIG, 'gone')}  {CONFIG} after")
        if before == after:
            print(f"the same, byte for byte, and so is everything below {', '.join(_WATCHED)}")
            return 0
        print(f"DIFFERENT: {sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))}")
        return 1


def _digests(lab: Lab) -> dict[str, str]:
    """Path to digest of every file in the folders that katanode writes to."""
    found = {}
    for folder in _WATCHED:
        for path in lab.path(folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                inside = folder + str(path).partition(folder)[2]
                found[inside] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _say(text: str) -> None:
    print(f"\n\x1b[1m{text}\x1b[0m\n" if sys.stdout.isatty() else f"\n### {text}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
