"""What the node is, found out without changing it: by doing what sandboxes will do, not by reading flags."""

import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from agent.errors import KatanodeError
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.probes import devices, host, hypervisors, kvm, network, resources
from agent.reasons import Reason
from agent.report import Capability, Finding, bad, from_error

Probe = Callable[[], tuple[Finding, ...]]


def probe_all(root: HostRoot, runner: Runner, *, space_needed: int = 0) -> tuple[Finding, ...]:
    """Runs all probes side by side; what can hang runs in children with a time limit.

    Nothing is written. Opening a device and adding a queueing discipline lets the kernel load the module for it, as
    the first sandbox would.

    Args:
        root: the host.
        runner: runs programs on it.
        space_needed: bytes that a release still to be unpacked takes; 0 when it is there already.

    Returns:
        The findings in an order that is always the same. No probe raises: one that fails by itself is an
        `INTERNAL_ERROR` of its own.
    """
    probes: list[tuple[str, Capability, Probe]] = [
        (kvm.CHECK, Capability.KVM, lambda: kvm.probe_kvm(root)),
        *(
            (device.check, device.capability, lambda device=device: devices.probe_device(root, device))
            for device in devices.DEVICES
        ),
        (network.CHECK, Capability.NETWORK_PATH, lambda: network.probe_network(root)),
        ("the host's system", Capability.HOST, lambda: host.probe_host(root, runner)),
        ("the host's resources", Capability.HOST, lambda: resources.probe_resources(root, space_needed)),
        (hypervisors.CHECK, Capability.HOST, lambda: hypervisors.probe_hypervisors(root)),
    ]
    # The one that takes longest begins first.
    order = sorted(range(len(probes)), key=lambda i: probes[i][1] is not Capability.NETWORK_PATH)
    with ThreadPoolExecutor(len(probes), thread_name_prefix="probe") as pool:
        running = {i: pool.submit(_guarded, *probes[i]) for i in order}
        return tuple(finding for i in range(len(probes)) for finding in running[i].result())


def _guarded(check: str, capability: Capability, probe: Probe) -> tuple[Finding, ...]:
    """The probe's findings, or the one that it failed."""
    try:
        return probe()
    except KatanodeError as error:
        return (from_error(check, error, capability),)
    except Exception:  # noqa: BLE001 - one probe's fault must not hide what the others found
        return (bad(check, Reason.INTERNAL_ERROR, traceback.format_exc(limit=-3), capability=capability),)
