"""The runtime's words for why a sandbox did not start, and what katanode makes of them.

The wordings are what people reported, with the issue's number (in kata-containers/kata-containers where no repository
is named), or what a program's source prints: Kata's two runtimes 4.1.0, containerd 2.3, QEMU.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from agent.reasons import CATALOGUE, Reason
from agent.sandboxes.causes import CAUSES, classify

if TYPE_CHECKING:
    from collections.abc import Iterator

REAL = r"""
VhostVsockMissing
  #3459: failed to create containerd task: failed to create shim task: open /dev/vhost-vsock: no such device:
      unknown
  runtime-rs: failed to open /dev/vhost-vsock, try to run modprobe vhost_vsock.
  Go runtime: host system doesn't support vsock: stat /dev/vhost-vsock: no such file
VhostNetMissing
  #6451: failed to create containerd task: failed to create shim task: Could not setup vhost fds eth0 : open
      /dev/vhost-net: no such file or directory: unknown
  runtime-rs: Failed to open /dev/vhost-net fd index 0, with error No such file or directory
KVMPermissionDenied
  Mirantis/virtlet#917: failed to create containerd task: failed to create shim task: failed to launch qemu: exit
      status 1, error messages from qemu log: Could not access KVM kernel module: Permission denied
      qemu-system-x86_64: failed to initialize kvm: Permission denied: unknown
KVMDeviceMissing
  spdk/spdk#2280: Could not access KVM kernel module: No such file or directory qemu-system-x86_64: failed to
      initialize kvm: No such file or directory
KVMBusy
  QEMU: qemu-system-x86_64: failed to initialize kvm: Device or resource busy
KVMGuestFailed
  #3319: failed to create containerd task: failed to create shim task: failed to launch qemu: qemu-system-x86_64:
      error: failed to set MSR 0x48d to 0x5600000016 kvm_buf_set_msrs: Assertion `ret == cpu->kvm_msr_buf->nmsrs'
      failed.
TunFailed
  #3533: CreateContainer failed: error: 500  reason:
      VmBoot(VmBoot(DeviceManager(CreateVirtioNet(OpenTap(TapOpen(OpenTun(Os { code: 13, kind: PermissionDenied,
      message: "Permission denied" }))))))): unknown
TunMissing
  as #3533: error: 500  reason: VmBoot(VmBoot(DeviceManager(CreateVirtioNet(OpenTap(TapOpen(OpenTun(Os { code: 2,
      kind: NotFound, message: "No such file or directory" })))))))
TapUnavailable
  Go runtime: failed to create containerd task: failed to create shim task: Could not create TAP interface:
      LinkAdd() failed for tuntap name tap0_kata
IngressQdiscUnavailable
  Go runtime: failed to create containerd task: failed to create shim task: Failed to add qdisc for network index
      3 : operation not supported: unknown
MirredUnavailable
  Go runtime: failed to create containerd task: failed to create shim task: Failed to add filter for index 3 :
      operation not supported: unknown
CanaryGuestFilesBroken
  Go runtime: failed to create containerd task: failed to create shim task: image
      "/opt/kata/share/kata-containers/kata-containers.img" is empty: unknown
  Go runtime: failed to create containerd task: failed to create shim task:
      /etc/kata-containers/katanode/kata-clh/base.toml: file /opt/kata/share/kata-containers/vmlinux.container does
      not exist: unknown
  #9625: failed to create containerd task: failed to create shim task: Others("failed to handle message try init
      runtime instance\n\nCaused by:\n    0: load config\n    1: load TOML config failed (tried
      [\"/etc/kata-containers/runtime-rs/configuration.toml\"])\n    2: guest kernel image file
      /opt/kata/share/kata-containers/vmlinux.container is invalid: No such file or directory (os error 2)"): unknown
  QEMU: qemu: could not open kernel file '/opt/kata/vmlinuz': No such file or directory
CanaryProgramMissing
  #4286: failed to create containerd task: failed to create shim task: fork/exec /usr/libexec/virtiofsd: no such
      file or directory: not found
  as #4286: failed to create containerd task: failed to create shim task: fork/exec
      /opt/kata/bin/cloud-hypervisor: permission denied: unknown
  as #4286: failed to create containerd task: failed to create shim task: fork/exec
      /opt/kata/bin/qemu-system-x86_64: exec format error
  #9540: /usr/share/defaults/kata-containers/configuration-qemu.toml: file /usr/bin/qemu-system-x86_64 does not
      exist
  #10504: failed to resolve runtime path: runtime "io.containerd.kata-qemu.v2" binary not installed
      "containerd-shim-kata-qemu-v2": file does not exist: unknown
  runtime-rs: Others("failed to handle message try init runtime instance\n\nCaused by:\n    0: load config\n    1:
      load TOML config failed (tried [\"/etc/kata-containers/runtime-rs/configuration.toml\"])\n    2: CH binary path
      `/opt/kata/bin/cloud-hypervisor` is invalid: No such file or directory
  runtime-rs: Others("failed to handle message start sandbox in task handler\n\nCaused by:\n    0: setup
      virtiofsd\n    1: spawn virtiofsd\n    2: No such file or directory (os error 2)"): unknown
  Go runtime: Cloud-Hypervisor path (/opt/kata/bin/cloud-hypervisor) is not accessible: stat
      /opt/kata/bin/cloud-hypervisor: no such file or directory
CanaryConfigMissing
  #8557: failed to create containerd task: failed to create shim task: Others("failed to handle message try init
      runtime instance\n\nCaused by:\n    0: load config\n    1: load TOML config failed (tried
      [\"/etc/kata-containers/runtime-rs/configuration.toml\"])\n    2: entity not found"): unknown
  Go runtime: Cannot find usable config file (config file "/etc/kata-containers/configuration.toml" unresolvable:
      file /etc/kata-containers/configuration.toml does not exist)
KataConfigRefused
  #10974: failed to create containerd task: failed to create shim task: Others("failed to handle message try init
      runtime instance\n\nCaused by:\n    0: load config\n    1: load TOML config failed (tried
      [\"/etc/kata-containers/runtime-rs/configuration.toml\"])\n    2: invalid TOML value, did you mean to use a
      quoted string? at line 137
  Go runtime: failed to create containerd task: failed to create shim task: /etc/kata.toml: Invalid hypervisor
      block storage driver virtio-blk-pci specified (supported drivers: [
  Go runtime: VM memory (64MB) smaller than image "/opt/kata/initrd.img" size (180MB)
CanaryOutOfMemory
  ssst0n3/docker_archive#35: OCI runtime create failed: failed to launch qemu: exit status 1, error messages from
      qemu log: qemu-system-x86_64: -object memory-backend-ram,id=dimm1,size=2048M: cannot set up guest memory
      'dimm1': Cannot allocate memory: unknown.
  #10341: qemu-system-x86_64: unable to map backing store for guest RAM: Cannot allocate memory
  kata-containers/runtime#1182: qemu-system-x86_64: -m 2048M,slots=10,maxmem=1505M: invalid value of -m option
      maxmem: maximum memory size (0x5e100000) must be at least the initial memory size (0x80000000): unknown.
  kata-containers/runtime#1249: container create failed: open /sys/fs/cgroup/rdma/kata/e2261a/cgroup.procs: cannot
      allocate memory
CanaryDiskFull
  containerd: failed to create containerd container: write /var/lib/x: no space left on device
CanaryCgroupRefused
  containerd/containerd#1948: failed to create containerd task: failed to create shim task: failed to set OOM
      Score on shim: write /proc/714/oom_score_adj: permission denied: unknown
  #4583: ctr: failed to create shim: Could not create the sandbox resource controller cgroups: cgroup mountpoint
      does not exist: not found
  #8407: failed to create containerd task: failed to create shim task: write
      /sys/fs/cgroup/kubepods-besteffort.slice:cri-containerd:11d27027aed45bfa3ba4f5a2bada6fc35b9d234ef50636f900febbdeb980402a/cgroup.procs:
      invalid argument
  #2539: failed to create shim: open /dev/null: operation not permitted: unknown
CanaryVirtiofsdFailed
  #9540: qemu-system-x86_64: -device
      vhost-user-fs-pci,chardev=char-498044a36753df46,tag=kataShared,queue-size=1024: Failed to write msg. Wrote -1
      instead of 12.
  runtime-rs: setup virtiofsd\n    1: failed to start virtiofsd
CanaryHypervisorFailed
  siderolabs/extensions#368: failed to create containerd task: failed to create shim task: failed to launch
      cloud-hypervisor: "Failed to connect to API (timeout 10s): error: Get \"http://localhost/api/v1/vmm.ping\": dial
      unix /run/vc/vm/11d27027aed45bfa3ba4f5a2bada6fc35b9d234ef50636f900febbdeb980402a/clh-api.sock: connect: no such
      file or directory reason: ": unknown
  runtime-rs: API socket connect timed out after 10 seconds
  #13395: QMP not ready yet: qmp handshake failed
  #11447: Others("failed to handle message start sandbox in task handler\n\nCaused by:\n    0: start vm\n    1:
      Resource temporarily unavailable (os error 11)
CanaryGuestSilent
  #3270: ctr: failed to create shim: Failed to Check if grpc server is working: rpc error: code = DeadlineExceeded
      desc = timed out connecting to hybrid vsocket hvsock:/run/vc/vm/hello1/clh.sock: unknown
  cilium/cilium#21380: failed to create containerd task: failed to create shim task: Failed to Check if grpc
      server is working: rpc error: code = DeadlineExceeded desc = timed out connecting to vsock 3564712613:1024:
      unknown
  runtime-rs: hybrid vsock: failed to connect to HybridVsock { uds: "/run/kata/x" }
SnapshotterMissing
  #8764: failed to create containerd task: failed to create shim task: failed to mount
      /run/kata-containers/shared/containers/11d27027aed45bfa3ba4f5a2bada6fc35b9d234ef50636f900febbdeb980402a/rootfs
      to /run/kata-containers/11d27027aed45bfa3ba4f5a2bada6fc35b9d234ef50636f900febbdeb980402a/rootfs, with error:
      ENOENT: No such file or directory
  containerd: failed to create containerd container: snapshotter devmapper was not found: not found
  containerd: snapshotter not loaded: devmapper: invalid argument
HandlerNotLoaded
  containerd: failed to get sandbox runtime: no runtime for "kata-clh" is configured
PauseImageMissing
  rootless-containers/usernetes#240: failed to get sandbox image "k8s.gcr.io/pause:3.5": failed to pull image
      "k8s.gcr.io/pause:3.5": failed to resolve reference: failed to do request: Head
      "https://k8s.gcr.io/v2/pause/manifests/3.5"
NetworkPluginFailed
  containerd: failed to setup network for sandbox
      "11d27027aed45bfa3ba4f5a2bada6fc35b9d234ef50636f900febbdeb980402a": plugin type="calico" failed (add): error
      getting ClusterInfo
NetworkPluginNotReady
  containerd: failed to get network: cni plugin not initialized
RuntimeUnreachable
  containerd: server is not initialized yet
"""
BACKTRACE = "\\n\\nStack backtrace:\\n   0: <unknown>\\n   1: <unknown>" * 300


def wordings() -> Iterator[tuple[Reason, str]]:
    """The cases of REAL: a reason, below it its wordings, each with its source; further indented lines go on."""
    joined = REAL.replace("\n      ", " ").strip().splitlines()
    reason = Reason(joined[0])
    for line in joined:
        if line.startswith("  "):
            yield reason, line.partition(": ")[2]
        else:
            reason = Reason(line)


CASES = list(wordings())


@pytest.mark.parametrize(("reason", "words"), CASES, ids=lambda value: value if isinstance(value, Reason) else "")
def test_real_words_are_told_by_their_cause(reason: Reason, words: str) -> None:
    assert classify("UNKNOWN", words).reason is reason
    assert classify("UNKNOWN", words + BACKTRACE).reason is reason, "a stack of Rust's behind it changes nothing"


@pytest.mark.parametrize(
    "words",
    [
        "",
        "failed to create containerd task: failed to create shim task: ttrpc: closed: unknown",
        "failed to create shim task: rpc error: code = Internal desc = the file python3 was not found",
        "katanode stand-in: VMM /opt/kata/bin/cloud-hypervisor did not start: no luck",
        "OCI runtime create failed: runc create failed: unable to start container process: error during init",
    ],
)
def test_words_that_nobody_knows_keep_their_own_reason_and_get_no_wrong_remedy(words: str) -> None:
    cause = classify("UNKNOWN", words)
    assert cause.reason is Reason.CANARY_FAILED
    assert not cause.passing


def test_a_call_that_was_not_answered_is_told_by_its_code() -> None:
    assert classify("DEADLINE_EXCEEDED", "Deadline Exceeded").reason is Reason.CANARY_TIMED_OUT
    assert classify("UNKNOWN", "context deadline exceeded").reason is Reason.CANARY_TIMED_OUT
    assert classify("UNAVAILABLE", "failed to connect to all addresses").reason is Reason.RUNTIME_UNREACHABLE


def test_what_may_pass_is_told_from_what_stays() -> None:
    passing = {cause.reason for cause in CAUSES if cause.passing}
    assert passing >= {Reason.CANARY_TIMED_OUT, Reason.CANARY_OUT_OF_MEMORY, Reason.RUNTIME_UNREACHABLE}
    assert not passing & {Reason.CANARY_GUEST_FILES, Reason.CANARY_PROGRAM_MISSING, Reason.VHOST_VSOCK_MISSING}


def test_every_row_is_met_by_a_real_wording() -> None:
    met = {classify("UNKNOWN", words).reason for _, words in CASES} | {Reason.CANARY_TIMED_OUT}
    assert {cause.reason for cause in CAUSES} == met
    assert all(CATALOGUE[cause.reason].remedy for cause in CAUSES)


def test_a_long_answer_takes_little_time() -> None:
    # A pattern that looks for its end from each of its beginnings takes minutes for that.
    begin = time.process_time()
    classify("UNKNOWN", "load TOML config /dev/kvm vhost-user-fs-pci start vm failed to mount file " * 20_000)
    assert time.process_time() - begin < 5
