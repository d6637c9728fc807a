"""`katanode run` on a machine of the lab, and an API server stand-in that is reached from there."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
from typing import TYPE_CHECKING, Any

from hack.lab import apiserver
from hack.lab.apiserver import AGENT, NODE

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping

    from conftest import Machine

    from hack.apistandin import ApiStandin

__all__ = ["AGENT", "FAST", "NODE", "PORT", "SETTINGS", "Daemon", "api_server", "hide_kvm", "running", "show_kvm"]

PORT = 9810
SETTINGS = "/etc/katanode/katanode.toml"
FAST = f'[run]\ninterval_seconds = 10\n[serve]\naddress = "127.0.0.1"\nport = {PORT}\n'
"""Settings of a daemon that is not waited for."""
_FETCH = """
import json, sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=5)
except urllib.error.HTTPError as error:
    answer = error
except OSError as error:
    sys.exit(str(error))
print(json.dumps([answer.status, dict(answer.headers), answer.read().decode()]))
"""


class Daemon:
    """A daemon at work.

    Args:
        machine: where.
        env: further environment.
    """

    def __init__(self, machine: Machine, env: Mapping[str, str] | None = None) -> None:
        self.machine = machine
        self.log = machine.path("/run/katanode.log")
        with self.log.open("ab") as log:
            self.process: subprocess.Popen[bytes] = machine.popen(
                "run", "--settings", SETTINGS, stderr=log, env=dict(env or {})
            )

    def fetch(self, path: str) -> tuple[int, str]:
        """Status and text of an answer; 0 while nobody listens."""
        done = self.machine.lab.run(["python3", "-c", _FETCH, f"http://127.0.0.1:{PORT}{path}"], check=False)
        if done.returncode:
            return 0, done.stderr
        status, _, body = json.loads(done.stdout)
        return int(status), str(body)

    def metric(self, name: str, **labels: str) -> float:
        """A metric's value; 0 for one that is not there."""
        wanted = "{" + ",".join(f'{key}="{value}"' for key, value in sorted(labels.items())) + "}" if labels else ""
        found = re.search(rf"^katanode_{re.escape(name + wanted)} (\S+)$", self.fetch("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def until(self, what: Callable[[], Any], seconds: float = 60.0) -> None:
        """Waits for a state."""
        deadline = time.monotonic() + seconds
        while not what():
            assert self.process.poll() is None, f"the daemon has ended:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"not so within {seconds:g} s:\n{self.log.read_text()[-4000:]}"
            time.sleep(0.2)

    def until_ready(self) -> None:
        """Waits until a sandbox started through kata-clh."""
        self.until(lambda: self.metric("handler_ready", handler="kata-clh") == 1)

    @property
    def pids(self) -> list[int]:
        """Its process and its workers', inside, the daemon's first."""
        listed = self.machine.lab.run(["pgrep", "-f", "katanode run|agent.service.worker"], check=False).stdout
        return sorted(int(word) for word in listed.split())

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Sends a signal to the daemon itself; gives the seconds until it ended."""
        begin = time.monotonic()
        for pid in self.pids[:1]:
            self.machine.lab.run(["kill", f"-{int(number)}", str(pid)], check=False)
        self.process.wait(20)
        return time.monotonic() - begin


def hide_kvm(machine: Machine) -> None:
    """Lets /dev/kvm be no KVM: in the lab's mount namespace only, as the device itself is the machine's."""
    machine.lab.run(["mount", "--bind", "/dev/null", "/dev/kvm"])


def show_kvm(machine: Machine) -> None:
    """Undoes `hide_kvm`."""
    machine.lab.run(["umount", "/dev/kvm"])


@contextlib.contextmanager
def running(machine: Machine, env: Mapping[str, str] | None = None) -> Iterator[Daemon]:
    """A daemon that is gone afterwards, with its workers."""
    made = Daemon(machine, env)
    try:
        yield made
    finally:
        for pid in made.pids:
            machine.lab.run(["kill", "-9", str(pid)], check=False)
        made.process.wait(20)


def api_server(
    machine: Machine, *taints: dict[str, str]
) -> contextlib.AbstractContextManager[tuple[ApiStandin, dict[str, str]]]:
    """A stand-in inside the machine's network, and the environment of a daemon that is to use it."""
    return apiserver.api_server(machine.lab, *taints)
