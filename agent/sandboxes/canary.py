"""The canary: a real sandbox through a handler, the only proof that the handler works.

CRI lists a handler whose shim does not exist (measured on every generation), so a listed handler proves nothing.
The canary is started as a pod would be, on the pod network, and looked at from outside: its shim must be the pinned
file, and a process of it must hold a KVM virtual machine. It is removed whatever happens; what a killed run left, the
next removes.
"""

import contextlib
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.cri.client import Client, CRIError, Sandbox
from agent.errors import KatanodeError
from agent.reasons import Reason
from agent.sandboxes import processes

LABEL = "katanode.io/canary"
NAMESPACE = "katanode-canary"


@dataclass(frozen=True, slots=True)
class Proof:
    """What the canary saw of one handler.

    Attributes:
        handler: its name.
        seconds: from the call until the sandbox was ready.
        shim: the shim's program.
        hypervisor: the program that holds the virtual machine.
    """

    handler: str
    seconds: float
    shim: str
    hypervisor: str


def prove(client: Client, handler: str, shim: Path, timeout: float) -> Proof:
    """Starts a sandbox through a handler, looks at it, and removes it.

    Args:
        client: the CRI client.
        handler: the runtime handler's name.
        shim: the pinned shim, as this process sees it.
        timeout: seconds for its start, and again for its removal.

    Raises:
        KatanodeError: `NETWORK_PLUGIN_NOT_READY`, `CANARY_FAILED`, `CANARY_WRONG_SHIM`, `CANARY_WITHOUT_VM`.
    """
    status = client.status()
    if not status.network_ready:
        raise KatanodeError(
            Reason.NETWORK_PLUGIN_NOT_READY,
            f"no sandbox was started through {handler}: the pod network is not ready",
            evidence=status.network_message,
        )
    sweep(client, timeout)
    begin = time.monotonic()
    with _sandbox(client, handler, timeout) as sandbox_id:
        seconds = time.monotonic() - begin
        found = processes.of_sandbox(sandbox_id)
        shims = [p for p in found if p.is_shim_of(sandbox_id)]
        if not any(p.is_file(shim) for p in shims):
            raise KatanodeError(
                Reason.CANARY_WRONG_SHIM,
                f"the sandbox of {handler} runs, but not with {shim}",
                evidence="\n".join(f"process {p.pid} runs {p.exe()}" for p in shims) or "no shim process was found",
            )
        machine = next((p for p in found if p.holds_vm()), None)
        if machine is None:
            raise KatanodeError(
                Reason.CANARY_WITHOUT_VM,
                f"the sandbox of {handler} runs, but nothing of it holds a KVM virtual machine",
                evidence="\n".join(f"process {p.pid} runs {p.exe()}" for p in found),
            )
        return Proof(handler, seconds, shims[0].exe(), machine.exe())


def sweep(client: Client, timeout: float) -> None:
    """Removes the canaries that killed runs left."""
    with contextlib.suppress(CRIError):
        for left in client.sandboxes({LABEL: "true"}):
            if is_canary(left):
                _discard(client, left.id, timeout)


def is_canary(sandbox: Sandbox) -> bool:
    """Whether a sandbox is one of ours: a pod may bear the label, and is none for that."""
    return LABEL in sandbox.labels and sandbox.namespace == NAMESPACE


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
        raise KatanodeError(
            Reason.CANARY_FAILED, f"a sandbox does not start through {handler}", evidence=error.details or str(error)
        ) from error
    try:
        yield sandbox_id
    finally:
        _discard(client, sandbox_id, timeout)


def _discard(client: Client, sandbox_id: str, timeout: float) -> None:
    """Stops and removes; what refuses to go is seen and removed by the next sweep."""
    with contextlib.suppress(CRIError):
        client.stop_sandbox(sandbox_id, timeout)
        client.remove_sandbox(sandbox_id, timeout)
