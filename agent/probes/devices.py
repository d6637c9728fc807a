"""The devices beside KVM that hypervisors open: tun, vhost-net, vhost-vsock. Each is given its first call."""

import errno
from dataclasses import dataclass

from agent.host.modules import ModuleFacts, ModuleState, survey
from agent.host.root import HostRoot
from agent.probes.child import Answer, error_name, run_child
from agent.reasons import Reason
from agent.report import Capability, Finding, bad, ok

SECONDS = 3.0

_NOT_THERE = {errno.ENOENT, errno.ENODEV, errno.ENXIO}
_BEFORE_SHARING = (5, 5)  # Linux 5.5 lets a guest's and a host's vsock transport stand side by side


@dataclass(frozen=True, slots=True)
class Device:
    """A device and its vocabulary.

    Attributes:
        kind: the child program's name for it.
        path: its node.
        check: what the finding says was looked at.
        capability: what it gives.
        missing: reason when no driver serves it.
        failed: reason when it does not do what it should.
        module: its driver.
    """

    kind: str
    path: str
    check: str
    capability: Capability
    missing: Reason
    failed: Reason
    module: str


TUN = Device(
    "tun",
    "/dev/net/tun",
    "a tap interface can be made",
    Capability.TUN,
    Reason.TUN_MISSING,
    Reason.TUN_FAILED,
    "tun",
)
VHOST_NET = Device(
    "vhost-net",
    "/dev/vhost-net",
    "vhost-net answers",
    Capability.VHOST_NET,
    Reason.VHOST_NET_MISSING,
    Reason.VHOST_NET_FAILED,
    "vhost_net",
)
VHOST_VSOCK = Device(
    "vhost-vsock",
    "/dev/vhost-vsock",
    "vhost-vsock answers",
    Capability.VHOST_VSOCK,
    Reason.VHOST_VSOCK_MISSING,
    Reason.VHOST_VSOCK_FAILED,
    "vhost_vsock",
)
DEVICES = (TUN, VHOST_NET, VHOST_VSOCK)


def probe_device(root: HostRoot, device: Device) -> tuple[Finding, ...]:
    """Opens a device in a child and makes the first calls; the kernel may load its module upon the opening.

    Raises:
        OSError: the child cannot be started.
        KatanodeError: a file of the node stands there but cannot be read.
    """
    answer = _ask(root, device.kind, device.path)
    modules = ModuleFacts("", "") if answer.said.get("step") == "done" else survey(root)
    cid = None
    if device is VHOST_VSOCK and root("/dev/vsock").exists():
        cid = _ask(root, "vsock", "/dev/vsock").said.get("cid")
    return (judge(device, answer, modules, cid),)


def _ask(root: HostRoot, kind: str, path: str) -> Answer:
    where = root(path)
    # Without a node nothing can hang, and no child is needed to see it.
    if not where.exists():
        return Answer({"step": "open", "errno": errno.ENOENT})
    return run_child("device", kind, str(where), timeout=SECONDS)


def judge(device: Device, answer: Answer, modules: ModuleFacts, cid: int | None = None) -> Finding:
    """The finding that a child's answer amounts to; pure.

    Args:
        device: which.
        answer: of the child.
        modules: the node's; looked at only when the device does not work.
        cid: the node's own vsock address, if it has one.
    """
    step = answer.said.get("step", "")
    own = "" if cid is None else f"; the node's own CID is {_cid_words(cid)}"
    if step == "done":
        features = answer.said.get("features", 0)
        return ok(device.check, f"{device.path}, features {features:#x}{own}", device.capability)
    if answer.hung:
        return _bad(device, device.failed, f"{device.path} does not answer within {SECONDS:g} s{own}")
    if not step:
        return _bad(device, device.failed, answer.failure)
    number = int(answer.said.get("errno", 0))
    what = f"{device.path}: {step}: {error_name(number)}"
    if device is VHOST_VSOCK:
        holder = _vsock_holder(modules)
        absent = step == "open" and number in _NOT_THERE
        if holder and (number == errno.EBUSY or (absent and modules.state(device.module) is ModuleState.AVAILABLE)):
            return _bad(device, Reason.VHOST_VSOCK_BUSY, f"{what}; {holder} is loaded{own}")
        if number == errno.EBUSY:
            return _bad(device, Reason.VHOST_VSOCK_BUSY, f"{what}{own}")
    if step == "open" and number in _NOT_THERE:
        state = modules.state(device.module)
        barrier = modules.barriers.get(device.module)
        why = f"; {barrier.where}" if barrier is not None else ""
        return _bad(device, device.missing, f"{what}; module {device.module} is {state}{why}{own}")
    if step == "namespace":
        return _bad(device, Reason.NETNS_FAILED, f"unshare(CLONE_NEWNET): {error_name(number)}")
    return _bad(device, device.failed, f"{what}{own}")


def _vsock_holder(modules: ModuleFacts) -> str:
    """The module because of which vhost_vsock is refused (vsock_core_register gives EBUSY), or empty."""
    version = tuple(int(n) for n in modules.release.replace("-", ".").split(".")[:2] if n.isdigit())
    rivals = ["vmw_vsock_vmci_transport"]
    if version and version < _BEFORE_SHARING:
        rivals += ["vmw_vsock_virtio_transport", "hv_sock"]
    present = {ModuleState.LOADED, ModuleState.BUILT_IN}
    return next((name for name in rivals if modules.state(name) in present), "")


def _cid_words(cid: int) -> str:
    return "unset" if cid == 0xFFFFFFFF else "2 (host)" if cid == 2 else str(cid)


def _bad(device: Device, reason: Reason, evidence: str) -> Finding:
    return bad(device.check, reason, evidence, capability=device.capability)
