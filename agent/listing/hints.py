"""The commands with which one looks further at a sandbox, as they are to be typed on this node; pure."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.listing.detail import Detail

_DEFAULT_SOCKET = "/run/containerd/containerd.sock"
_MONITOR = "/shim-monitor.sock"
_RUST_STATE = "/run/kata/"
_HYPERVISOR_API = ("/clh-api.sock", "/ch-api.sock")
_NO_METRICS = frozenset({"qemu", "fc"})
"""Of these runtime-rs 4.1.0 has no metrics, and a handler of the shim panics when it is asked (`get_hypervisor_metrics`
in crates/hypervisor)."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: what for, and the line for a shell."""

    title: str
    line: str


def commands(detail: Detail, socket: str, unit: str, prefix: Sequence[str]) -> tuple[Command, ...]:
    """What to type.

    Args:
        detail: the sandbox.
        socket: the runtime's socket on the host; "" when it is not known.
        unit: the runtime's systemd unit; "" when it is not known.
        prefix: what leads to the host: nothing on a bare machine.
    """
    return tuple(
        Command(title, shlex.join((*prefix, *words)))
        for title, words in _commands(detail, socket or _DEFAULT_SOCKET, unit)
    )


def _commands(detail: Detail, socket: str, unit: str) -> Iterator[tuple[str, Sequence[str]]]:
    own = detail.row.sandbox
    since = ("--since", f"@{own.started - 5:.0f}")
    yield "what the runtime and Kata logged of it", ("journalctl", *since, f"--grep={own.id}")
    yield (
        f"Kata's own log and that of {unit}, by time" if unit else "Kata's own log",
        ("journalctl", *since, "SYSLOG_IDENTIFIER=kata", *(("+", f"_SYSTEMD_UNIT={unit}") if unit else ())),
    )
    yield from _containerd(detail, socket)
    yield from _sockets(detail)
    space = detail.namespace or next((f"/proc/{each.pid}/ns/net" for each in detail.processes), "")
    if space:
        yield "its network, with counters", ("nsenter", f"--net={space}", "ip", "-statistics", "address")
    pids = ",".join(str(each.pid) for each in detail.processes)
    yield "its threads; those of the vCPUs have names", ("top", "-H", "-p", pids)


def _containerd(detail: Detail, socket: str) -> Iterator[tuple[str, Sequence[str]]]:
    own = detail.row.sandbox
    ctr = ("ctr", "--address", socket, "--namespace", detail.containerd_namespace)
    yield "tasks of its containers, with their states", (*ctr, "tasks", "ls")
    yield "how containerd made it: annotations, options, mounts", (*ctr, "containers", "info", own.id)
    if own.handler:
        crictl = ("crictl", "--runtime-endpoint", f"unix://{socket}")
        yield "how CRI sees it", (*crictl, "inspectp", own.id)
        yield "containers of its pod", (*crictl, "ps", "--all", "--pod", own.id)


def _sockets(detail: Detail) -> Iterator[tuple[str, Sequence[str]]]:
    own = detail.row.sandbox
    for path in detail.sockets:
        curl = ("curl", "--silent", "--show-error", "--max-time", "5", "--unix-socket", path)
        if path.endswith(_MONITOR):
            if path.startswith(_RUST_STATE) and own.hypervisor in _NO_METRICS:
                yield (
                    "where its agent is, of the shim (of its metrics do not ask: that ends in a panic)",
                    (
                        *curl,
                        "http://shim/agent-url",
                    ),
                )
            else:
                yield "metrics of shim and guest, of the shim", (*curl, "http://shim/metrics")
        elif path.endswith(_HYPERVISOR_API) and own.hypervisor == "clh":
            yield "the virtual machine, of Cloud Hypervisor", (*curl, "http://localhost/api/v1/vm.info")
