"""A restart by command leaves the runtime in its own cgroups, not in those of the pod that ran the command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Machine

pytestmark = pytest.mark.runtime

_IN_A_POD = """
import os, sys
made = 0
for line in open("/proc/self/cgroup"):
    _, names, path = line.rstrip().split(":", 2)
    for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/" + names.removeprefix("name=")):
        here = top + path.rstrip("/")
        if not os.path.exists(here + "/cgroup.procs") or os.path.basename(top) == "cgroup" and names:
            continue
        pod = here + "/pod-of-the-agent"
        try:
            os.makedirs(pod, exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):
                if os.path.exists(f"{here}/{file}"):
                    open(f"{pod}/{file}", "w").write(open(f"{here}/{file}").read())
            open(pod + "/cgroup.procs", "w").write("0")
            made += 1
        except OSError:
            continue
        break
assert made, open("/proc/self/cgroup").read()
os.execvp(sys.argv[1], sys.argv[1:])
"""


def cgroups(machine: Machine, pid: int) -> str:
    return machine.lab.run(["cat", f"/proc/{pid}/cgroup"]).stdout


def daemon_pid(machine: Machine) -> int:
    found = machine.lab.run(["pgrep", "-x", "containerd"]).stdout.split()
    assert len(found) == 1
    return int(found[0])


def test_the_runtime_does_not_die_with_the_agents_pod(start_machine: Callable[..., Machine]) -> None:
    machine = start_machine("2.1")
    before = cgroups(machine, daemon_pid(machine))
    seen = machine.lab.run([sys.executable, "-c", _IN_A_POD, "cat", "/proc/self/cgroup"]).stdout
    assert "pod-of-the-agent" in seen
    old = daemon_pid(machine)
    katanode = str(Path(sys.executable).with_name("katanode"))
    machine.lab.run([sys.executable, "-c", _IN_A_POD, katanode, "apply"], env=machine.environment)
    assert daemon_pid(machine) != old
    assert cgroups(machine, daemon_pid(machine)) == before
