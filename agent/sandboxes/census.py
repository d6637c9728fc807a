"""Every Kata sandbox of the node, of both runtimes and every hypervisor, kept current at little cost.

An update lists /proc, looks at what is new there, and reads /proc/PID/stat of each process that is part of a sandbox;
CRI is asked when it did not list a sandbox yet, and once a minute.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.cri.listing import Pod
from agent.sandboxes import bundle, naming, procfs
from agent.sandboxes.members import Member, Members, Process
from agent.sandboxes.naming import COMPONENTS, SHIM, VMM

CRI_NAMESPACE = "k8s.io"
"""containerd's namespace of what CRI starts; sandboxes of others, by nerdctl or ctr, CRI never lists."""
WITHOUT_SHIM = "without-shim"
WITHOUT_SANDBOX = "without-sandbox"
CREATION = 180.0
"""Seconds in which a sandbox that CRI does not list may still be in the making: the kubelet waits for 120."""
_RELIST = 60.0
"""Seconds between two questions to CRI when nothing asks for one sooner."""
_RETRY = 10.0
"""Seconds until a runtime that did not answer is asked again."""
_RECOUNT = 300.0
"""Seconds after which the holder of a machine is looked at again: vCPUs are plugged in and out."""
_RECOUNTS = 10
"""Of those so many an update: a VMM has hundreds of descriptors."""
_RELEASE = re.compile(r"/katanode/releases/([^/]+)/")

Pods = Callable[[], Mapping[str, Pod] | None]
"""Asks CRI: sandbox id to pod; None when the runtime does not answer. It raises nothing."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox as the last update saw it.

    Attributes:
        id: CRI's id of the pod sandbox, or what nerdctl or ctr called it.
        processes: component (`vmm`, `virtiofsd`, `shim`) to its processes, which may be several; none has no entry.
        hypervisor: Kata's name: `clh`, `qemu`, `fc`, `dragonball`, `stratovirt`, `openvmm`; "" before it is seen.
        release: id of katanode's release that its programs are of; "" for those of somebody else.
        namespace: the pod's; "" when it is not known.
        pod: the pod's name; "" when it is not known.
        uid: the pod's; "" when it is not known.
        handler: the runtime handler; "" until CRI lists it.
        started: Unix seconds.
        holds_vm: a process of it holds a KVM virtual machine: the VMM, or the shim when Dragonball lives in it.
        vcpus: how many that machine has.
        orphan: `without-shim` (its shim is gone, the rest runs on), `without-sandbox` (CRI knows no such sandbox), ""
            (it is as it should be).
    """

    id: str
    processes: Mapping[str, tuple[Process, ...]]
    hypervisor: str
    release: str
    namespace: str
    pod: str
    uid: str
    handler: str
    started: float
    holds_vm: bool
    vcpus: int
    orphan: str = ""


@dataclass(slots=True)
class _Known:
    """What is remembered of a sandbox."""

    started: float
    hypervisor: str = ""
    release: str = ""
    owner: bundle.Owner = bundle.UNKNOWN
    bundle_of: tuple[int, int] | None = None
    of_cri: bool = False
    pod: Pod | None = None
    holder: tuple[int, int] | None = None
    machine: procfs.Machine = procfs.NO_MACHINE
    counted: float = 0.0
    odd_since: float | None = None


_Parts = Mapping[str, Sequence[Member]]


class Census:
    """The sandboxes of a node; not for two threads at once.

    Args:
        proc: the /proc to look at: with hostPID the pod's own.
        pods: asks CRI; without it handlers stay unknown, and pods are known by their bundles.
        patience: seconds for which a sandbox must have been an orphan before it is called so: its processes do not end
            all at one moment.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        proc: Path,
        pods: Pods | None = None,
        *,
        patience: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proc = str(proc)
        self._members = Members(proc)
        self._ask = pods
        self._patience = patience
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._pods: Mapping[str, Pod] | None = None
        self._asked = float("-inf")

    @property
    def pods(self) -> Mapping[str, Pod] | None:
        """What CRI last listed; None when it did not answer."""
        return self._pods

    def update(self) -> Sequence[Sandbox]:
        """Looks again; gives all sandboxes, the oldest first.

        Raises:
            OSError: there is no such /proc.
        """
        now = self._clock()
        grouped = _grouped(self._members.update())
        for gone in self._known.keys() - grouped.keys():
            del self._known[gone]
        for sandbox_id, parts in grouped.items():
            self._learn(sandbox_id, parts)
        self._ask_cri(now)
        for sandbox_id, parts in grouped.items():
            self._read_bundle(sandbox_id, parts)
        self._count(grouped, now)
        made = [self._made(sandbox_id, parts, now) for sandbox_id, parts in grouped.items()]
        return sorted(made, key=lambda sandbox: (sandbox.started, sandbox.id))

    def _learn(self, sandbox_id: str, parts: _Parts) -> None:
        """What the processes say of their sandbox, each once."""
        known = self._known.get(sandbox_id)
        if known is None:
            members = [member for members in parts.values() for member in members]
            age = procfs.uptime(self._proc) - min(member.now.start for member in members) / procfs.TICKS
            release = next(filter(None, (_RELEASE.search(member.program) for member in members)), None)
            known = self._known[sandbox_id] = _Known(time.time() - age, release=release[1] if release else "")
        for member in parts.get(VMM, ()):
            known.hypervisor = member.part.hypervisor
        for shim in parts.get(SHIM, ()):
            known.of_cri = shim.part.namespace in {"", CRI_NAMESPACE}

    def _read_bundle(self, sandbox_id: str, parts: _Parts) -> None:
        """The pod of a sandbox that CRI does not list: read once a shim."""
        known = self._known[sandbox_id]
        for shim in parts.get(SHIM, ()):
            identity = (shim.now.pid, shim.now.start)
            if known.pod is None and known.bundle_of != identity:
                known.bundle_of = identity
                known.owner = bundle.owner(self._proc, shim.now.pid) or known.owner

    def _ask_cri(self, now: float) -> None:
        """Asks CRI for what it did not list yet, and now and then; one that does not answer is left alone a while."""
        if self._ask is None:
            return
        unlisted = any(known.pod is None for known in self._known.values())
        wait = _RETRY if self._pods is None else 0.0 if unlisted else _RELIST
        if now - self._asked < wait:
            return
        self._asked = now
        self._pods = self._ask()
        for sandbox_id, known in self._known.items():
            if self._pods is not None:
                known.pod = self._pods.get(sandbox_id, known.pod)

    def _count(self, grouped: Mapping[str, _Parts], now: float) -> None:
        """Who holds a virtual machine: asked until somebody does, and then rarely."""
        recounts = _RECOUNTS
        for sandbox_id, parts in grouped.items():
            known = self._known[sandbox_id]
            members = [*parts.get(VMM, ()), *parts.get(SHIM, ())]
            holder = next((m for m in members if (m.now.pid, m.now.start) == known.holder), None)
            if holder is not None:
                if now - known.counted < _RECOUNT or recounts == 0:
                    continue
                recounts -= 1
                members = [holder, *members]
            known.holder, known.machine, known.counted = None, procfs.NO_MACHINE, now
            for member in members:
                machine = procfs.machine(self._proc, member.now.pid)
                if machine.held:
                    known.holder, known.machine = (member.now.pid, member.now.start), machine
                    if member.part.component == SHIM:
                        known.hypervisor = "dragonball"
                    break

    def _made(self, sandbox_id: str, parts: _Parts, now: float) -> Sandbox:
        known = self._known[sandbox_id]
        pod = known.pod
        owner = bundle.Owner(pod.namespace, pod.name, pod.uid) if pod else known.owner
        return Sandbox(
            sandbox_id,
            {component: tuple(m.now for m in parts[component]) for component in COMPONENTS if component in parts},
            known.hypervisor,
            known.release,
            owner.namespace,
            owner.name,
            owner.uid,
            pod.handler if pod else "",
            known.started,
            known.machine.held,
            known.machine.vcpus,
            self._orphan(sandbox_id, parts, now),
        )

    def _orphan(self, sandbox_id: str, parts: _Parts, now: float) -> str:
        known = self._known[sandbox_id]
        kind = ""
        if SHIM not in parts:
            kind = WITHOUT_SHIM
        elif self._pods is not None and known.of_cri and sandbox_id not in self._pods:
            kind = WITHOUT_SANDBOX if time.time() - known.started > CREATION else ""
        if not kind:
            known.odd_since = None
            return ""
        if known.odd_since is None:
            known.odd_since = now
        return kind if now - known.odd_since >= self._patience else ""


def _grouped(members: Iterable[Member]) -> dict[str, dict[str, list[Member]]]:
    """Sandbox to component to processes."""
    grouped: dict[str, dict[str, list[Member]]] = {}
    shortened = []
    for member in members:
        if member.part.component == VMM and len(member.part.sandbox) == naming.SHORTENED:
            shortened.append(member)
        else:
            grouped.setdefault(member.part.sandbox, {}).setdefault(member.part.component, []).append(member)
    if shortened:
        whole = {sandbox_id[: naming.SHORTENED]: sandbox_id for sandbox_id in grouped}
        for member in shortened:
            sandbox_id = whole.get(member.part.sandbox, member.part.sandbox)
            grouped.setdefault(sandbox_id, {}).setdefault(VMM, []).append(member)
    return grouped
