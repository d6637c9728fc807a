"""Why a sandbox did not start: the runtime's own words, told apart by what they are known to mean.

The words are those of containerd, of Kata's two runtimes (4.1.0, read in their source), and of what people reported of
the hypervisors. The first row that matches decides, so that what is special stands before what is general: one message
often holds several (a time limit that passed because the hypervisor died because a device is missing). What matches
none stays `CANARY_FAILED`: a wrong remedy is worse than none.
"""

import re
from dataclasses import dataclass

from agent.reasons import Reason

_PROGRAM = r"(?:qemu-system|cloud-hypervisor|firecracker|jailer|virtiofsd|containerd-shim)[\w.-]*"
_ABSENT = r"(?:no such file|does not exist|not found|no such device|NotFound|os error 2\b)"
_REFUSED = r"(?:permission denied|not permitted|PermissionDenied|os error 13\b)"
_KVM = r"(?:/dev/kvm|KVM kernel module|initialize kvm|KVM object|hypervisor interface|HypervisorCreate)"


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that keeps a sandbox from starting.

    Attributes:
        reason: what it is called.
        words: what the runtime says of it.
        passing: it may end by itself within a minute: a restart, a moment of load.
    """

    reason: Reason
    words: re.Pattern[str]
    passing: bool = False


def _row(reason: Reason, *words: str, passing: bool = False) -> Cause:
    return Cause(reason, re.compile("|".join(words), re.IGNORECASE | re.DOTALL), passing)


CAUSES = (
    # the runtime itself, before a shim is started
    _row(Reason.RUNTIME_UNREACHABLE, r"^UNAVAILABLE", r"server is not initialized yet", passing=True),
    _row(Reason.HANDLER_NOT_LOADED, r"no runtime for \"[^\"]*\" is configured"),
    _row(Reason.NETWORK_PLUGIN_NOT_READY, r"cni plugin not initialized", passing=True),
    _row(Reason.NETWORK_PLUGIN_FAILED, r"failed to set ?up network for sandbox", passing=True),
    _row(Reason.PAUSE_IMAGE_MISSING, r"failed to get sandbox image", passing=True),
    # Firecracker shares no files: without a block snapshotter the root file system is missing in the guest.
    _row(
        Reason.SNAPSHOTTER_MISSING,
        r"snapshotter \S+ was not found",
        r"snapshotter not loaded",
        r"failed to mount \S*/run/kata-containers/shared/containers/\S+/rootfs\S* to .{0,300}?" + _ABSENT,
    ),
    # devices
    _row(Reason.VHOST_VSOCK_MISSING, r"/dev/vhost-vsock", r"host system doesn't support vsock"),
    _row(Reason.VHOST_NET_MISSING, r"/dev/vhost-net"),
    _row(Reason.KVM_BUSY, _KVM + r".{0,200}?resource busy"),
    _row(Reason.KVM_PERMISSION_DENIED, _KVM + r".{0,200}?" + _REFUSED),
    _row(Reason.KVM_DEVICE_MISSING, _KVM + r".{0,200}?" + _ABSENT),
    _row(Reason.KVM_GUEST_FAILED, r"kvm_msr_buf->nmsrs"),
    _row(Reason.TUN_MISSING, r"(?:OpenTun|/dev/net/tun).{0,80}?" + _ABSENT),
    _row(Reason.TUN_FAILED, r"OpenTun", r"/dev/net/tun"),
    _row(Reason.TAP_UNAVAILABLE, r"could not create TAP interface"),
    _row(Reason.INGRESS_QDISC_UNAVAILABLE, r"failed to add qdisc", r"add (?:tap|virt) ingress"),
    _row(Reason.MIRRED_UNAVAILABLE, r"failed to add filter for index", r"add redirect for (?:tap|virt)"),
    # the configuration and what it names
    _row(Reason.KATA_CONFIG_REFUSED, r"VM memory \(\d+MB\) smaller than image"),
    _row(
        Reason.CANARY_CONFIG_MISSING,
        r"file \S+\.toml does not exist",
        r"cannot find usable config file",
        r"load TOML config.{0,600}?(?:entity not found|\.toml\S*: " + _ABSENT + ")",
    ),
    _row(
        Reason.CANARY_PROGRAM_MISSING,
        rf"file \S*{_PROGRAM} does not exist",
        rf"{_PROGRAM}: (?:{_ABSENT}|{_REFUSED}|exec format error)",
        r"binary not installed",
        r"(?:CH binary|hypervisor binary|virtio-fs daemon) path \S+ is invalid",
        r"cloud-hypervisor path \(\S+\) is not accessible",
        rf"(?:spawn virtiofsd|cloud-hypervisor spawn failed).{{0,80}}?(?:{_ABSENT}|{_REFUSED}|os error 8\b)",
    ),
    _row(
        Reason.CANARY_GUEST_FILES,
        r"image \"[^\"]+\" is empty",
        r"file \S+ does not exist",
        r"(?:guest (?:kernel|boot|initrd)|firmware|extra) image file \S+ is invalid",
        r"could not (?:open|load) (?:kernel|initrd)",
        r"cannot open kernel file",
        r"KernelFile\(|InitramfsFile\(|KernelLoad\(",
    ),
    _row(
        Reason.KATA_CONFIG_REFUSED,
        r"error (?:applying key|decoding file|reading file)",
        r"invalid hypervisor",
        r"unsupported runtime",
        r"both an image and an initrd",
        r"image or initrd must be defined",
        r"without daemon path in configuration file",
        r"load TOML config",
    ),
    # what the node has too little of
    _row(Reason.CANARY_DISK_FULL, r"no space left on device", r"disk quota exceeded"),
    _row(
        Reason.CANARY_OUT_OF_MEMORY,
        r"cannot set up guest memory",
        r"backing store for guest RAM",
        r"cannot allocate memory",
        r"OutOfMemory",
        r"out of memory",
        r"must be at least the initial memory size",
        passing=True,
    ),
    _row(
        Reason.CANARY_CGROUP_REFUSED,
        r"oom_?score",
        r"OOM score",
        r"sandbox resource controller",
        r"cgroup mountpoint does not exist",
        r"/sys/fs/cgroup/",
        r"cgroupsPath",
        r"open /dev/null: operation not permitted",
        r"create new cgroups",
        r"sandbox cgroup",
    ),
    # the virtual machine
    _row(
        Reason.CANARY_VIRTIOFSD_FAILED,
        r"vhost-user-fs-pci.{0,300}?failed to (?:read|write) msg",
        r"vhost-user-fs-pci.{0,300}?(?:vhost_backend_init|vhost_dev_init) failed",
        r"failed to start virtiofsd",
        r"CreateVirtioFs",
    ),
    _row(
        Reason.CANARY_GUEST_SILENT,
        r"timed out connecting to (?:hybrid )?vsock",
        r"vsock: failed to connect",
        r"failed to check if grpc server is working",
        passing=True,
    ),
    _row(
        Reason.CANARY_VMM_FAILED,
        r"failed to connect to API \(timeout",
        r"API socket connect timed out",
        r"failed to connect to firecracker ?instance",
        r"start vm.{0,100}?resource temporarily unavailable",
        passing=True,
    ),
    _row(
        Reason.CANARY_VMM_FAILED,
        r"failed to launch (?:qemu|cloud-hypervisor)",
        r"clh is not running",
        r"exit?ting QMP loop",
        r"qmp handshake failed",
        r"reason: Vm(?:Boot|Create)\(",
    ),
    _row(Reason.CANARY_TIMED_OUT, r"DEADLINE_EXCEEDED", r"DeadlineExceeded", r"deadline exceeded", passing=True),
)
"""What is known, the special before the general."""

UNKNOWN = Cause(Reason.CANARY_FAILED, re.compile(""))
"""What matches nothing: the runtime's words have to speak for themselves."""


_BOUND = 1 << 16
"""Characters that are looked at: gRPC cuts an error's words at some kilobytes by default."""


def classify(code: str, details: str) -> Cause:
    """The likely cause of a sandbox that did not start.

    Args:
        code: the name of gRPC's status code.
        details: the runtime's words, whole.
    """
    said = f"{code}: {details}"[:_BOUND]
    return next((cause for cause in CAUSES if cause.words.search(said)), UNKNOWN)
