"""Where a bench is made, and what else goes on there that ends up in its figures."""

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from agent.benching.result import Facts
from agent.benching.words import counted
from agent.cri.client import Sandbox
from agent.cri.daemon import Daemon
from agent.host.root import HostRoot
from agent.probes.machine import survey_machine
from agent.probes.resources import meminfo
from agent.sandboxes import canary
from agent.sandboxes.processes import PROC

_BUSY_PERCENT = 5.0
"""Per cent of time that processes wait for a processor above which a node counts as busy."""
_BUSY_SHARE = 0.5
_KUBELETS = frozenset({"kubelet", "kubelite", "k3s", "k3s-server", "k3s-agent", "k0s", "rke2"})
"""Names of processes that are a kubelet or have one in them."""


def facts(root: HostRoot, daemon: Daemon, kata: str, proc: Path = PROC) -> Facts:
    """What the node is."""
    machine = survey_machine(root)
    return Facts(
        node=os.environ.get("NODE_NAME") or platform.node(),
        kernel=platform.release(),
        machine=f"virtual machine ({machine.product})" if machine.virtual and machine.product
        else "virtual machine" if machine.virtual else "bare metal",
        cpus=os.cpu_count() or 1,
        memory=meminfo(_text(proc / "meminfo")).get("MemTotal", 0),
        runtime=f"containerd {daemon.version}",
        kata=kata,
    )  # fmt: skip


def notes(
    sandboxes: Iterable[Sandbox], left_out: Sequence[str], *, density: bool, proc: Path = PROC
) -> tuple[str, ...]:
    """What a reader of the figures has to know of the node.

    Args:
        sandboxes: those that the runtime knows.
        left_out: Kata handlers that the settings want and that are not ready.
        density: whether the node's memory is measured too.
        proc: where processes are seen.
    """
    told = []
    if left_out:
        told.append(f"{', '.join(left_out)}: not ready, and so not measured; `katanode check` says why.")
    pods = sum(s.ready and not canary.is_own(s) for s in sandboxes)
    if pods:
        told.append(f"{counted(pods, 'pod')} ran here: what they did is in these figures.")
    told += filter(None, (_load(proc),))
    if _has_kubelet(proc):
        told.append(
            "A kubelet runs here. Within seconds it stops sandboxes that are no pods of its own; samples that it cut "
            "short are left out." + (" For --density, drain the node and stop the kubelet." if density else "")
        )
    if density and meminfo(_text(proc / "meminfo")).get("SwapTotal"):
        told.append("Swap is on: more sandboxes may fit than memory has room for, at a price in time.")
    return tuple(told)


def _load(proc: Path) -> str:
    """Whether processes wait for processors: by pressure (PSI, Linux 4.20), else by the load average."""
    pressure = _text(proc / "pressure" / "cpu")
    if pressure.startswith("some "):
        waited = float(pressure.split()[1].removeprefix("avg10="))
        return f"The node was busy: {waited:.0f} % of the time something waited for a processor." * (
            waited > _BUSY_PERCENT
        )
    cpus = os.cpu_count() or 1
    load = float((_text(proc / "loadavg").split() or ["0"])[0])
    return f"The node was busy: a load of {load:.1f} on {cpus} processors." * (load > cpus * _BUSY_SHARE)


def _has_kubelet(proc: Path) -> bool:
    names = (_text(proc / name / "comm").strip() for name in os.listdir(proc) if name.isdecimal())
    return any(name in _KUBELETS for name in names)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
