"""A node with a cluster, and what tests ask of it."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

from hack.nodes.cluster import NODE
from hack.nodes.prepared import ACCOUNT, SETTINGS, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hack.apistandin import ApiStandin
    from hack.nodes.cluster import Account
    from hack.nodes.machine import Node
    from hack.nodes.pods import Pod, Pods
    from hack.standin.archive import Archive

PATIENCE = 240.0
"""Seconds after which what is awaited does not come any more; a processor in software is slow, and shares its core."""
READY, STATE = "katacontainers.io/kata-runtime", "katanode.io/state"

# Kind, mode, owner and content of everything below some folders. Devices, caches and clocks are none of katanode's.
_TREE = """
for folder in /etc /opt /usr/local /var/lib/katanode; do
  [ -e $folder ] || continue
  find $folder -xdev -printf '%p %y %m %U:%G %l\\n'
  find $folder -xdev -type f -exec sha256sum {} +
done | sort
"""
_PROCESSES = """
import os, sys
for pid in filter(str.isdecimal, os.listdir("/proc")):
    try:
        words = open(f"/proc/{pid}/cmdline", "rb").read().decode(errors="replace")
        stat = open(f"/proc/{pid}/stat").read()
        group = open(f"/proc/{pid}/cgroup").read()
        holds = any(os.readlink(f"/proc/{pid}/fd/{n}") == "anon_inode:kvm-vm" for n in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        continue
    if sys.argv[1] in words or sys.argv[1] in group:
        print(pid, stat.rpartition(")")[2].split()[19], int(holds), words.split("\\0")[0])
"""


class Case:
    """One test's node.

    Args:
        node: the machine.
        pods: its runtime.
        account: what it knows of its cluster.
        releases: version to archive of what lies on it to be installed.

    Attributes:
        agent: the pod of the agent while there is one.
    """

    def __init__(self, node: Node, pods: Pods, account: Account, releases: Mapping[str, Archive]) -> None:
        self.node = node
        self.pods = pods
        self.releases = releases
        self.agent: Pod | None = None
        self._account = account
        self._api: ApiStandin | None = None

    @contextlib.contextmanager
    def cluster(self) -> Iterator[None]:
        """Lets the node be part of a cluster."""
        with self._account.serve() as api:
            self.join(api)
            yield

    def join(self, api: ApiStandin) -> None:
        """Lets the node be part of a cluster that is there."""
        self._api = api

    # the agent

    def start_agent(self) -> None:
        """What the DaemonSet does."""
        self.agent = self.pods.agent(SETTINGS, ACCOUNT)

    def stop_agent(self) -> None:
        """Ends the agent and its pod, as when the DaemonSet is deleted."""
        assert self.agent
        self.pods.remove(self.agent)
        self.agent = None

    def katanode(self, *arguments: str, status: int = 0) -> str:
        """Runs a command in the agent's container, as an operator does with `kubectl exec`; gives its output."""
        assert self.agent
        given, said, errors = self.pods.exec(self.agent, "katanode", *arguments)
        assert given == status, f"exit status {given}\n{said}\n{errors}"
        return said

    def settings(self, version: str = "", *, more: str = "") -> None:
        """Writes the settings as a ConfigMap's update does."""
        version = version or next(iter(self.releases))
        self.node.guest.write(f"{SETTINGS}/katanode.toml", settings(self.releases[version], version, more=more))

    def log(self) -> str:
        """What the agents have said so far."""
        return self.node.shell("cat /var/log/pods/katanode-*/katanode.log", check=False)

    # what the cluster sees

    @property
    def object(self) -> dict[str, Any]:
        """The Node object."""
        assert self._api
        return dict(self._api.get("nodes", NODE))

    def label(self, name: str, value: str | None) -> None:
        """Sets or takes a label, as an administrator does."""
        assert self._api
        now = self.object
        labels = {**now["metadata"].get("labels", {}), name: value}
        now["metadata"]["labels"] = {key: text for key, text in labels.items() if text is not None}
        self._api.put("nodes", now)

    @property
    def labels(self) -> dict[str, str]:
        """The Node's labels."""
        return dict(self.object["metadata"].get("labels", {}))

    @property
    def condition(self) -> dict[str, str]:
        """The condition KataReady; empty while it was not published."""
        found = [c for c in self.object["status"].get("conditions", []) if c["type"] == "KataReady"]
        return dict(found[0]) if found else {}

    def handlers(self) -> dict[str, str]:
        """Handler to what its label says."""
        prefix = "handler.katanode.io/"
        return {key.removeprefix(prefix): value for key, value in self.labels.items() if key.startswith(prefix)}

    def until(self, what: Callable[[], Any], seconds: float = PATIENCE) -> float:
        """Waits for a state; gives how long that took."""
        begin = time.monotonic()
        while not what():
            if time.monotonic() - begin > seconds:
                raise AssertionError(
                    f"not so within {seconds:g} s; the Node has {json.dumps(self.labels)}, {json.dumps(self.condition)}"
                )
            time.sleep(0.1)
        return time.monotonic() - begin

    def until_ready(self) -> float:
        """Waits until pods may be sent to every handler."""
        return self.until(
            lambda: (
                self.labels.get(STATE) == "ready"
                and self.labels.get(READY) == "true"
                and self.condition.get("status") == "True"
            )
        )

    def until_not_ready(self, *reasons: str) -> float:
        """Waits until no pod is to come, and the condition says so for one of these reasons."""
        return self.until(lambda: self.labels.get(READY) == "false" and self.condition.get("reason") in reasons)

    # what the node is

    def tree(self) -> list[str]:
        """Every entry of the folders that katanode may write to."""
        return self.node.shell(_TREE).splitlines()

    def processes(self, pod: Pod) -> dict[int, tuple[int, bool, str]]:
        """The processes of a pod: number to start time in ticks since boot, whether it holds a VM, and program."""
        said = self.node.run("python3", "-c", _PROCESSES, pod.sandbox).stdout
        rows = [line.split(maxsplit=3) for line in said.splitlines()]
        return {int(pid): (int(start), holds == "1", *rest) for pid, start, holds, *rest in rows}  # type: ignore[misc]

    def modules(self) -> set[str]:
        """The kernel modules that are loaded."""
        return {line.split()[0] for line in self.node.guest.read("/proc/modules").decode().splitlines()}

    def restarts(self) -> str:
        """What differs whenever containerd was started anew."""
        return self.node.run("systemctl", "show", "containerd", "-p", "ActiveEnterTimestampMonotonic,MainPID").stdout

    def file(self, path: str) -> str:
        """A file of the node; empty if it is not there."""
        return self.node.run("cat", path, check=False).stdout
