"""A real containerd in a lab, installed at the ordinary places."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from hack.lab import configs, cri, pause
from hack.lab.errors import LabError
from hack.lab.packages import Binaries, binaries

if TYPE_CHECKING:
    from hack.lab.lab import Lab
    from hack.lab.packages import Generation

CONFIG = "/etc/containerd/config.toml"
SOCKET = "/run/containerd/containerd.sock"
LOG = "/var/log/containerd.log"
PIDFILE = "/run/lab/containerd.pid"
UNIT = "/usr/local/sbin/lab-containerd"
RESTART = "/usr/local/sbin/lab-restart-containerd"

_MOUNT_PROGRAMS = """for program; do
  target=/usr/local/bin/${program##*/}
  umount -ql "$target"
  touch "$target" && mount -o bind,ro "$program" "$target" || exit
done
"""

_FAULTS = ("refuse-start", "start-with-config", "delay-start")


class PrivateContainerd:
    """One containerd; also a context manager, which starts it, imports the pause image, and stops it.

    Args:
        lab: where it runs; must be alive.
        generation: which containerd.
        config: the bytes of ``/etc/containerd/config.toml``; None keeps the file that stands there, and
            writes the lab's default one (`configs.default`) if there is none.
        binaries: other programs than the generation's.
        schema: the default configuration's schema; None takes the generation's newest.
    """

    def __init__(
        self,
        lab: Lab,
        generation: Generation,
        *,
        config: bytes | None = None,
        binaries: Binaries | None = None,
        schema: Literal[2, 3] | None = None,
    ) -> None:
        self.lab = lab
        self.generation = generation
        self.binaries = binaries or _binaries(generation)
        self._install()
        file = lab.path(CONFIG)
        if config is None and not file.exists():
            config = configs.default(schema or (3 if generation == "2.1" else 2))
        if config is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(config)

    def __enter__(self) -> Self:
        self.start()
        self.import_pause()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _install(self) -> None:
        """Put the programs out of the cache where an administrator would have put them."""
        shim = self.binaries.shim_dir / "containerd-shim-runc-v2"
        programs = [self.binaries.containerd, self.binaries.ctr, shim, self.binaries.runc]
        # Mounted, not linked: /proc/PID/exe says /usr/local/bin/containerd, and the cache cannot be written.
        self.lab.run(["sh", "-c", _MOUNT_PROGRAMS, "sh", *programs])
        for plugin in self.binaries.cni_bin.iterdir():
            link = self.lab.path(f"/opt/cni/bin/{plugin.name}")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            # The cache is seen inside at the very path that it has outside.
            link.symlink_to(plugin)
        network = self.lab.path("/etc/cni/net.d/10-lab.conflist")
        network.parent.mkdir(parents=True, exist_ok=True)
        network.write_bytes(configs.network())
        unit = self.lab.path(UNIT)
        unit.parent.mkdir(parents=True, exist_ok=True)
        unit.write_bytes(Path(__file__).with_name("unit.sh").read_bytes())
        unit.chmod(0o755)
        self.lab.path(RESTART).write_text(f"#!/bin/sh\nexec {UNIT} restart\n")
        self.lab.path(RESTART).chmod(0o755)

    @property
    def socket(self) -> Path:
        """The daemon's socket, for a client outside the lab."""
        return self.lab.path(SOCKET)

    @property
    def log(self) -> Path:
        """The daemon's log, for a reader outside; inside it is ``/var/log/containerd.log``."""
        return self.lab.path(LOG)

    @property
    def pid(self) -> int:
        """The daemon's process number inside the lab; 0 if it was stopped or never started."""
        try:
            return int(self.lab.path(PIDFILE).read_text())
        except (OSError, ValueError):
            return 0

    @property
    def host_pid(self) -> int:
        """The daemon's process number as seen from outside; 0 if it does not run."""
        inside = self.pid
        return self.lab.host_pid(inside) if inside else 0

    def start(self, timeout: float = 30.0) -> None:
        """Start the daemon and wait until CRI answers (about 0.5 s).

        Raises:
            LabError: it does not come up, with the end of its log.
        """
        self.lab.run([UNIT, "start"], timeout=timeout)
        self.wait_ready(timeout)

    def stop(self) -> None:
        """Stop the daemon and wait until it is gone; shims and sandboxes go on."""
        self.lab.run([UNIT, "stop"])

    def restart(self, timeout: float = 30.0) -> None:
        """Restart the daemon, as the agent does by ``lab-restart-containerd``, and wait until CRI answers."""
        self.lab.run([RESTART], timeout=timeout)
        self.wait_ready(timeout)

    def kill9(self) -> None:
        """Kill the daemon as a crash would, and wait until it is gone; nothing starts it again."""
        victim = self.host_pid
        if victim:
            os.kill(victim, signal.SIGKILL)
            while self.host_pid == victim:
                time.sleep(0.01)

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until CRI answers.

        Raises:
            LabError: the daemon died, or did not answer within `timeout` seconds; with the end of its log.
        """
        deadline = time.monotonic() + timeout
        while not cri.serves(self.socket):
            if not self.host_pid:
                version = self.binaries.version
                raise LabError(f"containerd {version} is not running", evidence=self._last_words())
            if time.monotonic() > deadline:
                raise LabError(f"CRI did not answer within {timeout:g} s", evidence=self._last_words())
            time.sleep(0.02)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace")[-2000:]
        return ""

    def import_image(self, archive: bytes | Path, *, timeout: float = 60.0) -> None:
        """Import an OCI or docker archive for CRI, and wait until CRI knows the images."""
        data = archive if isinstance(archive, bytes) else archive.read_bytes()
        self.lab.run(["ctr", "-n", "k8s.io", "images", "import", "-"], input=data, timeout=timeout)
        deadline = time.monotonic() + timeout
        # CRI takes note by an event, and marks what it has noted with a label.
        while True:
            lines = self.lab.run(["ctr", "-n", "k8s.io", "images", "ls"]).stdout.splitlines()[1:]
            if lines and all("io.cri-containerd.image=managed" in line for line in lines):
                return
            if time.monotonic() > deadline:
                raise LabError("CRI does not see the imported images", evidence="\n".join(lines))
            time.sleep(0.02)

    def import_pause(self) -> None:
        """Import the pause image under the name that the configuration looks for, and under the lab's own."""
        self.import_image(pause.archive({pause.PAUSE_IMAGE, *self.sandbox_images()}))

    def config_dump(self) -> str:
        """The effective configuration, as the daemon's own ``config dump`` prints it."""
        return self.lab.run(["containerd", "config", "dump"]).stdout

    def sandbox_images(self) -> set[str]:
        """The names under which the effective configuration looks for the sandbox image."""
        return sandbox_images(self.config_dump())

    def refuse_start(self, times: int | None = None) -> None:
        """From now on the daemon does not come up, the next `times` times or until `heal`."""
        self._fault("refuse-start", "", times)

    def start_with_config(self, inside: str, times: int | None = None) -> None:
        """From now on the daemon starts with the configuration file `inside` instead of the real one."""
        self._fault("start-with-config", inside, times)

    def delay_start(self, seconds: float, times: int | None = None) -> None:
        """From now on the daemon needs `seconds` more to come up."""
        self._fault("delay-start", f"{seconds:g}", times)

    def heal(self) -> None:
        """Take all faults back."""
        for name in _FAULTS:
            for suffix in ("", ".times"):
                self.lab.path(f"/run/lab/{name}{suffix}").unlink(missing_ok=True)

    def _fault(self, name: str, content: str, times: int | None) -> None:
        """Write one fault's files for the unit script."""
        counter = self.lab.path(f"/run/lab/{name}.times")
        counter.unlink(missing_ok=True)
        if times is not None:
            counter.write_text(str(times))
        self.lab.path(f"/run/lab/{name}").write_text(content)


def sandbox_images(config: str) -> set[str]:
    """The names under which a configuration, as containerd prints it, looks for the sandbox image."""
    return set(re.findall(r"""^\s*(?:sandbox_image|sandbox)\s*=\s*["']([^"']+)["']""", config, re.MULTILINE))


# The constructor's parameter of the same name hides the function.
_binaries = binaries
