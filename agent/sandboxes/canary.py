"""The canary: a real sandbox through a handler, the only proof that the handler works.

CRI lists a handler whose shim does not exist (measured on every generation), so a listed handler proves nothing.
The canary is started as a pod would be, on the pod network, and looked at from outside: its shim must be the pinned
file, a process of it must hold a KVM virtual machine, and where the runtime tells of the guest's kernel that must be
another than the host's. It is removed whatever happens; what a killed run left, the next removes.
"""

import contextlib
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.cri.client import Client, CRIError, Sandbox
from agent.errors import KatanodeError
from agent.reasons import Reason
from agent.sandboxes import causes, footprint, guestkernel, naming, owned, processes

LABEL = "katanode.io/canary"
NAMESPACE = naming.CANARY_NAMESPACE


@dataclass(frozen=True, slots=True)
class Proof:
    """What the canary saw of one handler.

    Attributes:
        handler: its name.
        seconds: from the call until the sandbox was ready.
        shim: the shim's program.
        hypervisor: the program that holds the virtual machine.
        memory: component (`vmm`, `virtiofsd`, `shim`) to its proportional memory in bytes, right after the start.
        own_kernel: the guest was seen to have a kernel of its own; False where nothing tells.
    """

    handler: str
    seconds: float
    shim: str
    hypervisor: str
    memory: Mapping[str, int]
    own_kernel: bool


class CanaryError(KatanodeError):
    """A canary that failed.

    Attributes:
        passing: its cause may end by itself within a minute, so that one failure alone says little.
    """

    def __init__(self, reason: Reason, message: str, *, evidence: str, passing: bool = False) -> None:
        super().__init__(reason, message, evidence=evidence)
        self.passing = passing


def prove(client: Client, handler: str, shim: Path, timeout: float, run: Path = Path("/run")) -> Proof:
    """Starts a sandbox through a handler, looks at it, and removes it.

    Args:
        client: the CRI client.
        handler: the runtime handler's name.
        shim: the pinned shim, as this process sees it.
        timeout: seconds for its start, and again for its removal.
        run: where the host's /run is.

    Raises:
        CanaryError: `CANARY_WRONG_SHIM`, `CANARY_WITHOUT_VM`, `CANARY_ON_HOST_KERNEL`, `NETWORK_PLUGIN_NOT_READY`,
            `RUNTIME_UNREACHABLE`, what `causes` tells of a sandbox that does not start, and else `CANARY_FAILED`.
    """
    _refuse_without_network(client, handler)
    sweep(client, timeout)
    begin = time.monotonic()
    with _sandbox(client, handler, timeout) as sandbox_id:
        seconds = time.monotonic() - begin
        found = processes.of_sandbox(sandbox_id)
        shims = [p for p in found if p.is_shim_of(sandbox_id)]
        if not any(p.is_file(shim) for p in shims):
            raise CanaryError(
                Reason.CANARY_WRONG_SHIM,
                f"the sandbox of {handler} runs, but not with {shim}",
                evidence="\n".join(f"process {p.pid} runs {p.exe()}" for p in shims) or "no shim process was found",
            )
        machine = next((p for p in found if p.holds_vm()), None)
        if machine is None:
            raise CanaryError(
                Reason.CANARY_WITHOUT_VM,
                f"the sandbox of {handler} runs, but nothing of it holds a KVM virtual machine",
                evidence="\n".join(f"process {p.pid} runs {p.exe()}" for p in found),
            )
        memory = footprint.memory(sandbox_id, found)
        kernel = guestkernel.look(sandbox_id, machine.exe(), run)
        if kernel == "host":
            raise CanaryError(
                Reason.CANARY_ON_HOST_KERNEL,
                f"the sandbox of {handler} runs, but its guest counts what the host's kernel counts",
                evidence="the page faults that its shim tells of are this kernel's; the virtual machine beside it is "
                f"held by process {machine.pid}, {machine.exe()}",
            )
        return Proof(handler, seconds, shims[0].exe(), machine.exe(), memory, kernel == "own")


def _refuse_without_network(client: Client, handler: str) -> None:
    try:
        status = client.status()
    except CRIError as error:
        raise CanaryError(error.reason, error.message, evidence=error.evidence, passing=True) from error
    if not status.network_ready:
        raise CanaryError(
            Reason.NETWORK_PLUGIN_NOT_READY,
            f"no sandbox was started through {handler}: the pod network is not ready",
            evidence=status.network_message,
            passing=True,
        )


def sweep(client: Client, timeout: float) -> None:
    """Removes what killed runs left: canaries, and the sandboxes of benches."""
    with contextlib.suppress(CRIError):
        for left in client.sandboxes({LABEL: "true"}):
            if is_canary(left):
                owned.discard(client, left.id, timeout)
    owned.sweep(client, timeout)


def is_canary(sandbox: Sandbox) -> bool:
    """Whether a sandbox is one of ours: a pod may bear the label, and is none for that."""
    return LABEL in sandbox.labels and sandbox.namespace == NAMESPACE


def is_own(sandbox: Sandbox) -> bool:
    """Whether a sandbox is katanode's own, a canary or a bench's, and so no pod."""
    return is_canary(sandbox) or owned.is_bench(sandbox)


@contextlib.contextmanager
def _sandbox(client: Client, handler: str, timeout: float) -> Iterator[str]:
    try:
        sandbox_id = client.run_sandbox(
            handler,
            name=f"canary-{handler}",
            namespace=NAMESPACE,
            uid=str(uuid.uuid4()),
            labels={LABEL: "true"},
            timeout=timeout,
        )
    except CRIError as error:
        sweep(client, timeout)  # a call that timed out may have left one
        cause = causes.classify(error.code, error.details)
        raise CanaryError(
            cause.reason,
            f"a sandbox does not start through {handler}",
            evidence=error.details or str(error),
            passing=cause.passing,
        ) from error
    try:
        yield sandbox_id
    finally:
        owned.discard(client, sandbox_id, timeout)
