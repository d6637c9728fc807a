"""The catalogue of reasons: the one vocabulary in which katanode says why something is not well.

A reason's code is what the node condition, the event and the metric carry; its title and remedy are what people read in
the terminal and on the status page. Nothing else in the project invents a second wording. A reason may depend on
others: while one of those stands, it is a consequence and is not shown on its own.
"""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """Position from harmless (0) to bad (3)."""
        return list(Severity).index(self)


class Reason(StrEnum):
    """Codes of everything that can stand in the way; CamelCase, as Kubernetes conditions have it."""

    # /dev/kvm
    KVM_DEVICE_MISSING = "KVMDeviceMissing"
    KVM_MODULE_MISSING = "KVMModuleMissing"
    KVM_DISABLED_IN_FIRMWARE = "KVMDisabledInFirmware"
    KVM_NESTED_OFF = "KVMNestedOff"
    KVM_PERMISSION_DENIED = "KVMPermissionDenied"
    KVM_PERMISSIONS_LOOSE = "KVMPermissionsLoose"
    KVM_BUSY = "KVMBusy"
    KVM_API_UNKNOWN = "KVMApiUnknown"
    KVM_GUEST_FAILED = "KVMGuestFailed"
    KVM_HANGS = "KVMHangs"
    # other devices
    TUN_MISSING = "TunMissing"
    TUN_FAILED = "TunFailed"
    VHOST_NET_MISSING = "VhostNetMissing"
    VHOST_NET_FAILED = "VhostNetFailed"
    VHOST_VSOCK_MISSING = "VhostVsockMissing"
    VHOST_VSOCK_BUSY = "VhostVsockBusy"
    VHOST_VSOCK_FAILED = "VhostVsockFailed"
    # network path of a sandbox
    NETNS_FAILED = "NetworkNamespaceFailed"
    VETH_UNAVAILABLE = "VethUnavailable"
    TAP_UNAVAILABLE = "TapUnavailable"
    INGRESS_QDISC_UNAVAILABLE = "IngressQdiscUnavailable"
    MIRRED_UNAVAILABLE = "MirredUnavailable"
    NETWORK_PROBE_HANGS = "NetworkProbeHangs"
    # host
    KERNEL_TOO_OLD = "KernelTooOld"
    KUBERNETES_TOO_OLD = "KubernetesTooOld"
    ARCHITECTURE_UNSUPPORTED = "ArchitectureUnsupported"
    DISK_SPACE_LOW = "DiskSpaceLow"
    MEMORY_LOW = "MemoryLow"
    SHM_SMALL = "SharedMemorySmall"
    OS_IMMUTABLE = "ImmutableOS"
    SELINUX_ENFORCING = "SELinuxEnforcing"
    CLOCKSOURCE_SLOW = "ClocksourceSlow"
    VIRTIOFS_NOT_USED = "VirtioFsNotUsed"
    VHOST_NET_DISABLED = "VhostNetDisabled"
    VMM_PINNED = "HypervisorThreadsPinned"
    NOT_ROOT = "NotRoot"
    # preparing the node
    MODULE_LOAD_FAILED = "ModuleLoadFailed"
    SYSCTL_FAILED = "SysctlFailed"
    FILE_WRITE_FAILED = "FileWriteFailed"
    FILE_READ_FAILED = "FileReadFailed"
    COMMAND_FAILED = "CommandFailed"
    FOREIGN_FILE = "ForeignFile"
    ANOTHER_RUN = "AnotherRunInProgress"
    # settings
    SETTINGS_INVALID = "SettingsInvalid"
    # releases
    RELEASE_UNPINNED = "ReleaseUnpinned"
    RELEASE_UNREACHABLE = "ReleaseUnreachable"
    RELEASE_DIGEST_MISMATCH = "ReleaseDigestMismatch"
    RELEASE_TRUNCATED = "ReleaseTruncated"
    RELEASE_UNSAFE = "ReleaseUnsafe"
    RELEASE_TOO_LARGE = "ReleaseTooLarge"
    RELEASE_INCOMPLETE = "ReleaseIncomplete"
    RELEASE_DAMAGED = "ReleaseDamaged"
    RELEASE_DISK_FULL = "ReleaseDiskFull"
    # handlers and their hypervisor configuration
    HANDLER_UNKNOWN = "HandlerUnknown"
    HANDLER_NOT_IN_RELEASE = "HandlerNotInRelease"
    TUNABLE_UNKNOWN = "TunableUnknown"
    TUNABLE_WRONG_TYPE = "TunableWrongType"
    TUNABLE_WRONG_VALUE = "TunableWrongValue"
    KATA_CONFIG_REFUSED = "KataConfigRefused"
    # the container runtime and its configuration
    RUNTIME_NOT_FOUND = "RuntimeNotFound"
    RUNTIME_AMBIGUOUS = "RuntimeAmbiguous"
    RUNTIME_UNSUPPORTED = "RuntimeUnsupported"
    RUNTIME_TOO_OLD = "RuntimeTooOld"
    RUNTIME_UNREACHABLE = "RuntimeUnreachable"
    CRI_DISABLED = "CRIDisabled"
    CONFIG_MISSING = "RuntimeConfigMissing"
    CONFIG_EMPTY = "RuntimeConfigEmpty"
    CONFIG_UNREADABLE = "RuntimeConfigUnreadable"
    CONFIG_NOT_TEXT = "RuntimeConfigNotText"
    CONFIG_INVALID = "RuntimeConfigInvalid"
    CONFIG_REFUSED = "RuntimeConfigRefused"
    CONFIG_SCHEMA_OLD = "RuntimeConfigSchemaOld"
    CONFIG_SCHEMA_UNKNOWN = "RuntimeConfigSchemaUnknown"
    CONFIG_GENERATED = "RuntimeConfigGenerated"
    CONFIG_TEMPLATE = "RuntimeConfigIsTemplate"
    CONFIG_CHANGED_MEANWHILE = "RuntimeConfigChangedMeanwhile"
    EDIT_IMPOSSIBLE = "RuntimeConfigEditImpossible"
    EDIT_WITHOUT_EFFECT = "RuntimeConfigEditWithoutEffect"
    EDIT_DISTURBS_OTHERS = "RuntimeConfigEditDisturbsOthers"
    HANDLER_FOREIGN = "HandlerInForeignHands"
    # activation
    RESTART_UNKNOWN = "RestartUnknown"
    RESTART_FAILED = "RestartFailed"
    RUNTIME_NOT_READY = "RuntimeNotReady"
    HANDLER_NOT_LOADED = "HandlerNotLoaded"
    CONTAINERS_LOST = "ContainersLost"
    ROLLED_BACK = "RolledBack"
    ROLLBACK_FAILED = "RollbackFailed"
    COOLING_DOWN = "CoolingDown"
    SANDBOXES_RUNNING = "SandboxesRunning"
    NOTHING_TO_ROLL_BACK = "NothingToRollBack"
    JOURNAL_DAMAGED = "JournalDamaged"
    TUG_OF_WAR = "TugOfWar"
    # the cluster
    WAITING_FOR_SLOT = "WaitingForRestartSlot"
    ROLLOUT_HALTED = "RolloutHalted"
    CLUSTER_UNREACHABLE = "ClusterUnreachable"
    CLUSTER_FORBIDDEN = "ClusterForbidden"
    CLUSTER_CONFIG_INVALID = "ClusterConfigInvalid"
    NODE_OBJECT_MISSING = "NodeObjectMissing"
    PUBLICATION_CONTESTED = "PublicationContested"
    INSTALL_DISABLED = "InstallDisabled"
    LISTEN_FAILED = "ListenFailed"
    # the proof
    NETWORK_PLUGIN_NOT_READY = "NetworkPluginNotReady"
    NETWORK_PLUGIN_FAILED = "NetworkPluginFailed"
    PAUSE_IMAGE_MISSING = "PauseImageMissing"
    SNAPSHOTTER_MISSING = "SnapshotterMissing"
    CANARY_FAILED = "CanaryFailed"
    CANARY_CONFIG_MISSING = "CanaryConfigMissing"
    CANARY_PROGRAM_MISSING = "CanaryProgramMissing"
    CANARY_GUEST_FILES = "CanaryGuestFilesBroken"
    CANARY_OUT_OF_MEMORY = "CanaryOutOfMemory"
    CANARY_DISK_FULL = "CanaryDiskFull"
    CANARY_CGROUP_REFUSED = "CanaryCgroupRefused"
    CANARY_VIRTIOFSD_FAILED = "CanaryVirtiofsdFailed"
    CANARY_VMM_FAILED = "CanaryHypervisorFailed"
    CANARY_GUEST_SILENT = "CanaryGuestSilent"
    CANARY_TIMED_OUT = "CanaryTimedOut"
    CANARY_WRONG_SHIM = "CanaryWrongShim"
    CANARY_WITHOUT_VM = "CanaryWithoutVM"
    CANARY_ON_HOST_KERNEL = "CanaryOnHostKernel"
    CANARY_NOT_RUN = "CanaryNotRun"
    # running sandboxes
    SANDBOX_ORPHANED = "SandboxOrphaned"
    SANDBOX_LEFTOVERS = "SandboxLeftovers"
    SANDBOX_OVERHEAD_EXCEEDED = "SandboxOverheadExceeded"
    SANDBOX_UNKNOWN = "SandboxUnknown"
    DEBUG_OUTPUT_ON = "DebugOutputOn"
    BENCH_DISTURBED = "BenchDisturbed"
    NOT_INSTALLED = "NotInstalled"
    INTERNAL_ERROR = "InternalError"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the catalogue says about a reason.

    Attributes:
        title: a short sentence without a full stop, for tables and headings.
        severity: how much it matters by default.
        remedy: what the owner of the node does about it, one or two sentences.
        depends_on: reasons whose presence makes this one a mere consequence.
    """

    title: str
    severity: Severity
    remedy: str
    depends_on: frozenset[Reason] = frozenset()


def _e(title: str, remedy: str, *causes: Reason) -> Entry:
    return Entry(title, Severity.ERROR, remedy, frozenset(causes))


def _w(title: str, remedy: str, *causes: Reason) -> Entry:
    return Entry(title, Severity.WARNING, remedy, frozenset(causes))


def _i(title: str, remedy: str, *causes: Reason) -> Entry:
    return Entry(title, Severity.INFO, remedy, frozenset(causes))


_R = Reason

CATALOGUE: dict[Reason, Entry] = {
    _R.KVM_DEVICE_MISSING: _e(
        "/dev/kvm does not exist although the kernel has KVM",
        "Load the vendor's module (modprobe kvm_intel or kvm_amd) and read dmesg for the reason if it refuses.",
        _R.KVM_MODULE_MISSING,
        _R.KVM_DISABLED_IN_FIRMWARE,
        _R.KVM_NESTED_OFF,
    ),
    _R.KVM_MODULE_MISSING: _e(
        "the kernel has no KVM module for this CPU",
        "Install the kernel package that holds kvm_intel or kvm_amd (on cloud images often linux-modules-extra or the "
        "non-cloud kernel), or remove the blacklist entry in /etc/modprobe.d.",
    ),
    _R.KVM_DISABLED_IN_FIRMWARE: _e(
        "virtualization is switched off in the machine's firmware",
        "Enable Intel VT-x or AMD SVM in the BIOS/UEFI set-up, then power the machine off and on.",
    ),
    _R.KVM_NESTED_OFF: _e(
        "this is a virtual machine whose hypervisor does not offer nested virtualization",
        "Use an instance type with nested virtualization or bare metal, or let the outer hypervisor offer it.",
    ),
    _R.KVM_PERMISSION_DENIED: _e(
        "/dev/kvm may not be opened",
        "Run as root, in a privileged container, and allow the device in the pod's cgroup and security module.",
    ),
    _R.KVM_PERMISSIONS_LOOSE: _i(
        "/dev/kvm has other permissions than usual",
        "Usual is crw-rw---- root kvm. World-writable lets every user start virtual machines; it does not hinder Kata.",
    ),
    _R.KVM_BUSY: _e(
        "another hypervisor holds the CPU's virtualization",
        "Stop VirtualBox, VMware or any other hypervisor on this machine and unload its modules.",
    ),
    _R.KVM_API_UNKNOWN: _e(
        "/dev/kvm speaks an unknown API version",
        "Use a kernel whose KVM_GET_API_VERSION is 12 (every kernel since 2.6.22), or ask what replaced /dev/kvm here.",
    ),
    _R.KVM_GUEST_FAILED: _e(
        "KVM opens but does not run guest instructions",
        "Read dmesg for kvm lines. On a nested machine the outer hypervisor's virtualization is incomplete: update it, "
        "or move to another instance type.",
    ),
    _R.KVM_HANGS: _e(
        "KVM does not answer",
        "Read dmesg for kvm lines and hung tasks; the machine probably needs a reboot.",
    ),
    _R.TUN_MISSING: _e(
        "/dev/net/tun does not exist", "Load the module (modprobe tun), or use a kernel with CONFIG_TUN."
    ),
    _R.TUN_FAILED: _e(
        "a tap interface cannot be made",
        "Check that /dev/net/tun is the character device 10:200 and that the process has CAP_NET_ADMIN.",
        _R.TUN_MISSING,
    ),
    _R.VHOST_NET_MISSING: _e(
        "/dev/vhost-net does not exist",
        "Load the module (modprobe vhost_net). Cloud Hypervisor works without it; QEMU needs it unless "
        "disable_vhost_net is true.",
    ),
    _R.VHOST_NET_FAILED: _e("/dev/vhost-net does not work", "Read dmesg for vhost lines.", _R.VHOST_NET_MISSING),
    _R.VHOST_VSOCK_MISSING: _e(
        "/dev/vhost-vsock does not exist",
        "Load the module (modprobe vhost_vsock). Cloud Hypervisor works without it; QEMU needs it.",
    ),
    _R.VHOST_VSOCK_BUSY: _e(
        "another vsock transport holds the node's vsock",
        "On a VMware guest vmw_vsock_vmci_transport holds it: unload it (rmmod) and blacklist it, then modprobe "
        "vhost_vsock; or use kata-clh, which does not need it.",
    ),
    _R.VHOST_VSOCK_FAILED: _e("/dev/vhost-vsock does not work", "Read dmesg for vhost lines.", _R.VHOST_VSOCK_MISSING),
    _R.NETNS_FAILED: _e(
        "a network namespace cannot be made",
        "Use a kernel with CONFIG_NET_NS, give the process CAP_SYS_ADMIN, and look at user.max_net_namespaces.",
    ),
    _R.VETH_UNAVAILABLE: _e(
        "veth pairs cannot be made", "Load the module (modprobe veth), or use a kernel with CONFIG_VETH."
    ),
    _R.TAP_UNAVAILABLE: _e(
        "a tap interface cannot be made in a sandbox's network namespace",
        "Load the module (modprobe tun), or use a kernel with CONFIG_TUN.",
        _R.TUN_MISSING,
        _R.TUN_FAILED,
    ),
    _R.INGRESS_QDISC_UNAVAILABLE: _e(
        "ingress queueing disciplines are not available",
        "Load the module (modprobe sch_ingress), or use a kernel with CONFIG_NET_SCH_INGRESS.",
    ),
    _R.MIRRED_UNAVAILABLE: _e(
        "traffic cannot be redirected between veth and tap",
        "Load the modules (modprobe cls_u32 act_mirred), or use a kernel with CONFIG_NET_CLS_U32 and "
        "CONFIG_NET_ACT_MIRRED.",
    ),
    _R.NETWORK_PROBE_HANGS: _e(
        "the network probe does not end", "Read dmesg for hung tasks; a netlink lock is probably held."
    ),
    _R.KERNEL_TOO_OLD: _w("the kernel is older than recommended", "Use Linux 5.10 or newer."),
    _R.KUBERNETES_TOO_OLD: _w("the kubelet is older than supported", "Use Kubernetes 1.24 or newer."),
    _R.ARCHITECTURE_UNSUPPORTED: _e(
        "Kata's releases do not cover this CPU architecture",
        "Use an amd64 (x86_64) or arm64 (aarch64) machine.",
    ),
    _R.DISK_SPACE_LOW: _e(
        "too little disk space for a release",
        "Free space on the file system of /opt/katanode, or point it at a larger one.",
    ),
    _R.MEMORY_LOW: _w(
        "too little memory for a virtual machine",
        "Use a larger machine, or lower default_memory for the handler.",
    ),
    _R.SHM_SMALL: _w(
        "/dev/shm is smaller than a guest's memory",
        "Enlarge it (mount -o remount,size=50% /dev/shm): QEMU's shared guest memory lives there.",
    ),
    _R.OS_IMMUTABLE: _e(
        "this operating system is not served by editing files",
        "Use the distribution's own extension for Kata (Talos: system extensions; Bottlerocket: its own variants).",
    ),
    _R.SELINUX_ENFORCING: _i(
        "SELinux is enforcing", "If sandboxes fail with AVC denials, install the distribution's Kata policy."
    ),
    _R.CLOCKSOURCE_SLOW: _i("the clock source is slow", "Prefer tsc or kvm-clock: guests read the time through it."),
    _R.VIRTIOFS_NOT_USED: _w(
        "a handler does not use virtio-fs for shared files",
        'Set shared_fs = "virtio-fs" for the handler: virtio-9p is slow and not POSIX.',
    ),
    _R.VHOST_NET_DISABLED: _w(
        "a handler has vhost-net switched off",
        "Set disable_vhost_net = false for the QEMU handler. Cloud Hypervisor never uses vhost-net.",
    ),
    _R.VMM_PINNED: _w(
        "all threads of a hypervisor are confined to one CPU",
        "Look at the kubelet's CPU manager policy and the pod's CPU limit; vCPUs share that one CPU.",
    ),
    _R.NOT_ROOT: _e("katanode is not running as root", "Run it with sudo, or in a privileged container."),
    _R.MODULE_LOAD_FAILED: _w(
        "a kernel module does not load",
        "Read the kernel's line in the evidence; the probe that needs it says more.",
    ),
    _R.SYSCTL_FAILED: _w("a sysctl cannot be raised", "Set it by hand, or take it out of the settings."),
    _R.FILE_WRITE_FAILED: _e(
        "a file cannot be written",
        "Free space, remount read-write, or take the immutable attribute off, as the evidence says.",
    ),
    _R.FILE_READ_FAILED: _e("a file cannot be read", "Look at the path in the evidence."),
    _R.COMMAND_FAILED: _e("a command failed", "Run the command of the evidence by hand to see more."),
    _R.FOREIGN_FILE: _w(
        "something that is not katanode's stands where a convenience link would go",
        "Nothing depends on the link. Move the foreign file away if the link is wanted.",
    ),
    _R.ANOTHER_RUN: _e(
        "another katanode is at work on this node", "Wait until it ends; the evidence names its process."
    ),
    _R.SETTINGS_INVALID: _e(
        "the settings are not valid", "Correct the key that the message names; nothing was changed."
    ),
    _R.RELEASE_UNPINNED: _e(
        "no sha256 is known for the release's archive",
        "Compare the digest with a source that you trust and add it with `katanode pin VERSION --sha256 FILE=DIGEST`.",
    ),
    _R.RELEASE_UNREACHABLE: _e(
        "the release cannot be fetched",
        "Check kata.source, the proxy variables and kata.ca_file; without a way out, put the archive on the node and "
        "set kata.source to its folder.",
    ),
    _R.RELEASE_DIGEST_MISMATCH: _e(
        "the archive is not the pinned one",
        "Fetch it again from the original place. If it really changed there, find out why before pinning anew.",
    ),
    _R.RELEASE_TRUNCATED: _e(
        "the archive ends too early", "Fetch it again; the download was cut off or the file is damaged."
    ),
    _R.RELEASE_UNSAFE: _e(
        "the archive holds something that would reach outside its folder",
        "Do not use this archive: an original Kata release holds nothing of the kind.",
    ),
    _R.RELEASE_TOO_LARGE: _e(
        "the archive unpacks to more than is allowed",
        "Raise kata.max_unpacked_bytes if the archive is trusted and really that large.",
    ),
    _R.RELEASE_INCOMPLETE: _e(
        "the release lacks files that a Kata release has",
        "Check that the archive is kata-static (and kata-go-static where the Go runtime is wanted) of this version.",
    ),
    _R.RELEASE_DAMAGED: _e(
        "the installed release was changed after it was unpacked",
        "Run `katanode apply --reinstall`: a fresh tree takes the damaged one's place in one step.",
    ),
    _R.RELEASE_DISK_FULL: _e(
        "the disk filled up while the release was unpacked",
        "Free space on the file system of /opt/katanode. What was unpacked is removed, a download is kept to go on.",
    ),
    _R.HANDLER_UNKNOWN: _e(
        "the handler is not one that katanode knows",
        "Use one of kata-clh, kata-qemu, kata-fc, kata-dragonball.",
    ),
    _R.HANDLER_NOT_IN_RELEASE: _e(
        "the release has no such hypervisor for the wanted runtime",
        "Choose another handler, or another kata.runtime or kata.version; the message says where it is to be had.",
    ),
    _R.TUNABLE_UNKNOWN: _e(
        "a tunable is not known to this hypervisor's configuration",
        "Use the key that the message proposes, or remove it.",
    ),
    _R.TUNABLE_WRONG_TYPE: _e("a tunable has the wrong type", "Write the value as the message shows."),
    _R.TUNABLE_WRONG_VALUE: _e("a tunable has a value that cannot work", "Use a value that the message names."),
    _R.KATA_CONFIG_REFUSED: _e(
        "Kata's own program refuses the rendered configuration",
        "Correct the tunable that the evidence names.",
    ),
    _R.RUNTIME_NOT_FOUND: _e(
        "no container runtime serves CRI on this node",
        "Start containerd, or set runtime.socket to the socket that it listens on.",
    ),
    _R.RUNTIME_AMBIGUOUS: _e(
        "more than one container runtime serves CRI on this node",
        "Set runtime.socket to the one that the kubelet uses.",
    ),
    _R.RUNTIME_UNSUPPORTED: _e(
        "the container runtime is not one that katanode configures", "Use containerd 1.6 or newer."
    ),
    _R.RUNTIME_TOO_OLD: _e("containerd is too old", "Use containerd 1.6 or newer."),
    _R.RUNTIME_UNREACHABLE: _e(
        "the container runtime does not answer",
        "Look at the runtime's log (journalctl -u containerd -n 100) and start it.",
        _R.RUNTIME_NOT_FOUND,
    ),
    _R.CRI_DISABLED: _e(
        "containerd runs with its CRI plugin switched off",
        'Take "cri" out of disabled_plugins in its configuration and restart it.',
        _R.RUNTIME_NOT_FOUND,
    ),
    _R.CONFIG_MISSING: _e(
        "containerd runs without a configuration file",
        "Write one: containerd config default > /etc/containerd/config.toml, restart containerd and see that the node "
        "still serves.",
    ),
    _R.CONFIG_EMPTY: _e(
        "containerd's configuration file is empty",
        "Restore it from a backup, or write one: containerd config default > /etc/containerd/config.toml.",
    ),
    _R.CONFIG_UNREADABLE: _e("containerd's configuration file cannot be read", "Look at the path in the evidence."),
    _R.CONFIG_NOT_TEXT: _e(
        "containerd's configuration file is not UTF-8 text",
        "Restore it from a backup, or convert it to UTF-8.",
    ),
    _R.CONFIG_INVALID: _e(
        "containerd's configuration file is not valid TOML",
        "Correct it at the place that the evidence names.",
    ),
    _R.CONFIG_REFUSED: _e(
        "containerd refuses its own configuration",
        "Correct what the evidence names: the next restart of containerd would take this node down.",
    ),
    _R.CONFIG_SCHEMA_OLD: _e(
        "containerd's configuration has the old schema 1",
        "Convert it with `containerd config migrate` (or write `version = 2` and the schema 2 table names by hand) and "
        "restart containerd.",
    ),
    _R.CONFIG_SCHEMA_UNKNOWN: _e(
        "containerd's configuration has a schema that this katanode does not know", "Use a newer katanode."
    ),
    _R.CONFIG_GENERATED: _e(
        "containerd's configuration is generated by another program",
        "Make the change where the file is generated from; the message says where. An edit here would be lost.",
    ),
    _R.CONFIG_TEMPLATE: _e(
        "the file is a template, not a configuration", "Point katanode at the file that is rendered from it."
    ),
    _R.CONFIG_CHANGED_MEANWHILE: _e(
        "somebody else changed containerd's configuration at the same moment",
        "Nothing was written. Run katanode again; if it happens again, find the other program.",
    ),
    _R.EDIT_IMPOSSIBLE: _e(
        "a handler cannot be added to this configuration without rewriting what stands there",
        "Change the place that the message names into ordinary [table] headers.",
    ),
    _R.EDIT_WITHOUT_EFFECT: _e(
        "containerd would not take the handlers from the changed configuration",
        "Look at the imports and table names in the evidence; nothing was changed.",
    ),
    _R.EDIT_DISTURBS_OTHERS: _e(
        "the change would alter more than katanode's handlers",
        "Nothing was changed. The evidence lists what else would be different; report it with the configuration.",
    ),
    _R.HANDLER_FOREIGN: _e(
        "a handler of this name is already configured by somebody else",
        "Remove that table from the file that the message names (or uninstall what wrote it), then run katanode again.",
    ),
    _R.RESTART_UNKNOWN: _e(
        "it is not known how to restart this container runtime",
        'Set runtime.restart_command, for instance ["systemctl", "restart", "containerd"].',
    ),
    _R.RESTART_FAILED: _e(
        "the container runtime's restart failed", "Read the runtime's log; the evidence holds its last lines."
    ),
    _R.RUNTIME_NOT_READY: _e(
        "the container runtime did not become ready in time",
        "Read the runtime's log; the evidence holds its last words.",
    ),
    _R.HANDLER_NOT_LOADED: _e(
        "the container runtime runs without the handler",
        "Look for another program that changes containerd's configuration or starts it with another one.",
    ),
    _R.CONTAINERS_LOST: _e(
        "containers that ran before the restart do not run after it",
        "Check that the unit has KillMode=process, and look at these containers' pods.",
    ),
    _R.ROLLED_BACK: _e(
        "the change was undone because its verification failed",
        "Mend the cause that is named beside this, then run katanode again.",
    ),
    _R.ROLLBACK_FAILED: _e(
        "the old configuration is back but the runtime does not serve with it",
        "Read the runtime's log now: this node starts no pods. The old bytes are kept; the evidence says where.",
    ),
    _R.COOLING_DOWN: _w(
        "the same change failed a short while ago",
        "Mend its cause, then wait or run `katanode apply --retry`.",
    ),
    _R.TUG_OF_WAR: _w(
        "another program keeps undoing what katanode installs",
        "Find the program that writes the file of the evidence and stop it, or take katanode off this node. The repair "
        "is made again at the time that the message names, or at once by `katanode apply --retry`.",
    ),
    _R.WAITING_FOR_SLOT: _i(
        "this node waits for its turn to restart the container runtime",
        "Nothing is to be done. `kubectl -n katanode get leases` shows who holds the slots; rollout.slots says how "
        "many there are.",
    ),
    _R.ROLLOUT_HALTED: _w(
        "the rollout is halted: too many nodes failed with these settings",
        "Look at the nodes that the message names (`katanode fleet`). Correct the settings, or let the rollout go on: "
        "kubectl -n katanode delete leases -l katanode.io/failed.",
    ),
    _R.CLUSTER_UNREACHABLE: _w(
        "the Kubernetes API cannot be reached",
        "Look at the API server and the way to it. Repairing goes on; what the cluster sees of this node is old.",
    ),
    _R.CLUSTER_FORBIDDEN: _e(
        "the Kubernetes API refuses what katanode asks",
        "Apply the manifests' RBAC and admission policy again (kubectl apply -f manifests/); for `katanode fleet`, use "
        "a kubeconfig whose user may list nodes and pods.",
    ),
    _R.CLUSTER_CONFIG_INVALID: _e(
        "there is no usable configuration for the Kubernetes API",
        "In a pod: set NODE_NAME and let the service account's token be mounted. From a laptop: name a kubeconfig with "
        "--kubeconfig or KUBECONFIG.",
    ),
    _R.NODE_OBJECT_MISSING: _e(
        "the cluster has no Node object of this name",
        "Check NODE_NAME against `kubectl get nodes`; a deleted node comes back when its kubelet registers it.",
    ),
    _R.PUBLICATION_CONTESTED: _w(
        "somebody else keeps changing what katanode says of this node",
        "Find out who writes it (the message names the field manager) and stop that; katanode does not fight over it.",
    ),
    _R.INSTALL_DISABLED: _i(
        "katanode leaves this node alone because a node label says so",
        "Remove the label katanode.io/install from the node to let katanode work on it.",
    ),
    _R.LISTEN_FAILED: _e(
        "metrics and health cannot be served",
        "Free the address, or set serve.address and serve.port; with TLS, look at the two files.",
    ),
    _R.SANDBOXES_RUNNING: _e(
        "Kata sandboxes are running", "Drain the node, or wait until they end; `katanode status` lists them."
    ),
    _R.NOTHING_TO_ROLL_BACK: _e(
        "there is no earlier release to go back to", "Set kata.version to the wanted release and apply."
    ),
    _R.JOURNAL_DAMAGED: _e(
        "the journal of an interrupted change cannot be read",
        "Compare containerd's configuration with a backup by hand, then remove the journal that the evidence names.",
    ),
    _R.NETWORK_PLUGIN_NOT_READY: _e(
        "no pod network is ready, so no sandbox can be started as a pod would be",
        "Install the cluster's network plugin, or a configuration in /etc/cni/net.d on a machine without Kubernetes.",
    ),
    _R.NETWORK_PLUGIN_FAILED: _e(
        "the network plugin failed for the sandbox",
        "The evidence has the plugin's own message: look at its pod and log on this node, and for a free address.",
    ),
    _R.PAUSE_IMAGE_MISSING: _e(
        "the image that every sandbox begins with cannot be had",
        "Check the way to the registry that the evidence names, or import the image (ctr -n k8s.io images import FILE) "
        "and name it in the runtime's configuration (sandbox_image, on containerd 2.x pinned_images.sandbox).",
    ),
    _R.SNAPSHOTTER_MISSING: _e(
        "containerd lacks the snapshotter that the handler needs",
        "Set it up in containerd, for kata-fc the devmapper snapshotter with its thin pool, or take the handler out of "
        "kata.handlers.",
    ),
    _R.CANARY_FAILED: _e(
        "a sandbox does not start through the handler",
        "Read the runtime's message in the evidence; kata lines of the runtime's log say more.",
    ),
    _R.CANARY_CONFIG_MISSING: _e(
        "the shim does not find its configuration",
        "Run `katanode apply`, which writes it anew; if nothing changes, look where the path in the evidence leads.",
    ),
    _R.CANARY_PROGRAM_MISSING: _e(
        "a program that a sandbox needs is missing or may not be run",
        "Look at the path in the evidence: executable, for this CPU, on a file system that is not mounted noexec. "
        "`katanode apply --reinstall` puts the release's own programs back.",
    ),
    _R.CANARY_GUEST_FILES: _e(
        "the guest's kernel, image or initrd is missing, empty or damaged",
        "Look at the file in the evidence. `katanode apply --reinstall` puts the release's own back; what a tunable "
        "names is yours to put back.",
    ),
    _R.CANARY_OUT_OF_MEMORY: _e(
        "the node has no memory for the guest",
        "Free memory, or lower default_memory for the handler; with enable_hugepages, reserve more huge pages.",
    ),
    _R.CANARY_DISK_FULL: _e(
        "a file system or a limit of the node is used up",
        "Look at df -h and df -i for the path in the evidence; for inotify, raise fs.inotify.max_user_instances.",
    ),
    _R.CANARY_CGROUP_REFUSED: _e(
        "the node refuses the sandbox's cgroup or OOM score",
        "Let SystemdCgroup in containerd's configuration and the kubelet's cgroupDriver agree. Where containerd itself "
        "runs in a container, set restrict_oom_score_adj = true.",
    ),
    _R.CANARY_VIRTIOFSD_FAILED: _e(
        "virtiofsd does not serve the sandbox's files",
        "Read virtiofsd's lines in the system's log: an option in virtio_fs_extra_args that this release does not know "
        "ends it.",
    ),
    _R.CANARY_VMM_FAILED: _e(
        "the hypervisor ended or does not answer",
        "Read its words in the evidence and the kernel's log of that moment (dmesg): a missing CPU feature, seccomp or "
        "SELinux ends it, a loaded node lets it be late.",
    ),
    _R.CANARY_GUEST_SILENT: _e(
        "the virtual machine runs, but Kata's agent in it does not answer",
        "Look at the node's load and memory, for kata-qemu at the size of /dev/shm, and at tunables of kernel and "
        "image. A slow or nested machine needs a longer agent.kata.dial_timeout (runtime-rs: reconnect_timeout_ms).",
    ),
    _R.CANARY_TIMED_OUT: _e(
        "a sandbox did not start in time",
        "Look at the node's load, memory and disk and at the runtime's log; where sandboxes are only slow, raise "
        "canary.timeout_seconds.",
    ),
    _R.CANARY_WRONG_SHIM: _e(
        "the sandbox started, but not with the pinned shim",
        "Look for another containerd-shim-kata-v2 on the daemon's PATH and for another handler table of this name.",
    ),
    _R.CANARY_WITHOUT_VM: _e(
        "the sandbox started, but no process of it holds a KVM virtual machine",
        "It ran without isolation: find out what the handler really starts.",
    ),
    _R.CANARY_ON_HOST_KERNEL: _e(
        "the sandbox started, but its guest runs on the host's own kernel",
        "It ran without isolation, whatever virtual machine stands beside it: find out what the handler really starts.",
    ),
    _R.CANARY_NOT_RUN: _e(
        "no sandbox was started through the handler",
        "The finding beside this says what is missing for it.",
    ),
    _R.SANDBOX_ORPHANED: _w(
        "processes of a sandbox run on without their shim or their pod",
        "Make sure that no pod needs them, then end the processes that the evidence names (kill PID). katanode ends "
        "none by itself.",
    ),
    _R.SANDBOX_LEFTOVERS: _i(
        "ended sandboxes left state or cgroups behind",
        "They cost little. Unmount what is mounted below a folder of the evidence before you remove it; remove a "
        "cgroup with rmdir. A reboot takes all of them away.",
    ),
    _R.SANDBOX_OVERHEAD_EXCEEDED: _w(
        "sandboxes take more memory beyond their guests' own than their RuntimeClass grants",
        "Raise overhead.podFixed.memory of the handler's RuntimeClass to what the evidence shows, so that the "
        "scheduler counts it; pods that run keep the old figure.",
    ),
    _R.BENCH_DISTURBED: _e(
        "sandboxes of a bench were stopped by somebody else",
        "A kubelet stops sandboxes that are no pods of its own: drain the node, stop the kubelet, and start it again "
        "after the bench.",
    ),
    _R.SANDBOX_UNKNOWN: _e(
        "no single sandbox is meant by this id",
        "Take the beginning of an id from `katanode sandboxes`, as long as it takes for one sandbox alone.",
    ),
    _R.DEBUG_OUTPUT_ON: _w(
        "Kata's debug output is on: it fills the node's log, and what guests print is in it",
        "When you have seen enough, turn it off on that node: katanode sandboxes debug HANDLER off.",
    ),
    _R.NOT_INSTALLED: _i("nothing of katanode's is installed on this node", "Run `katanode apply`."),
    _R.INTERNAL_ERROR: _e(
        "katanode itself failed", "Report the evidence; nothing is left half-done, a second run is safe."
    ),
}


def title(reason: Reason) -> str:
    """The catalogue's title of a reason."""
    return CATALOGUE[reason].title


def consequences(reasons: set[Reason]) -> set[Reason]:
    """Those of `reasons` that are only consequences of others among them."""
    return {reason for reason in reasons if CATALOGUE[reason].depends_on & reasons}
