"""The host's system: kernel, architecture, kubelet, cgroups, security modules, and whether its files may be edited."""

import os
import re

from agent.errors import KatanodeError
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.probes.machine import Machine, survey_machine, text
from agent.reasons import Reason, Severity
from agent.report import Capability, Finding, bad, from_error, ok

LEAST_KERNEL = (5, 10)
LEAST_KUBERNETES = (1, 24)  # what Kata's own installer asks for; RuntimeClass is stable since 1.20

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_KUBELETS = (
    "/usr/bin/kubelet",
    "/usr/local/bin/kubelet",
    "/opt/bin/kubelet",
    "/usr/local/bin/k3s",
    "/usr/bin/k3s",
    "/usr/local/bin/rke2",
    "/opt/rke2/bin/rke2",
)
"""Where distributions have it; k3s and rke2 hold the kubelet in one binary and say its version as theirs."""

_SYSTEMS = {
    "talos": "Talos Linux: install its kata-containers system extension",
    "bottlerocket": "Bottlerocket: its root and configuration are written by its own API only",
}
_KUBELET_TIMEOUT = 5.0


def probe_host(root: HostRoot, runner: Runner) -> tuple[Finding, ...]:
    """All about the host's system.

    Args:
        root: the host.
        runner: asks the kubelet for its version.
    """
    machine = survey_machine(root)
    return (
        judge_user(os.geteuid()),
        judge_architecture(machine.architecture),
        judge_kernel(text(root, "/proc/sys/kernel/osrelease")),
        judge_system(os_release(root), read_only(root, ("/etc", "/opt"))),
        probe_kubelet(root, runner),
        cgroups(root),
        selinux(root),
        apparmor(root),
        judge_machine(machine),
        confidential_computing(root),
    )


def judge_user(uid: int) -> Finding:
    """Whether this process may do what it is for."""
    if uid != 0:
        return bad("running as root", Reason.NOT_ROOT, f"uid {uid}")
    return ok("running as root", "uid 0")


def judge_architecture(architecture: str) -> Finding:
    """Whether Kata's releases cover the CPU."""
    check = "CPU architecture"
    if architecture not in _ARCHITECTURES:
        return bad(check, Reason.ARCHITECTURE_UNSUPPORTED, architecture, capability=Capability.HOST)
    return ok(check, f"{architecture} ({_ARCHITECTURES[architecture]})", Capability.HOST)


def judge_kernel(release: str) -> Finding:
    """Whether the kernel is new enough; one whose release has no number is not judged."""
    check = "kernel version"
    version = _version(release)
    if version is None:
        return Finding(check, Severity.INFO, f"not understood: {release or 'no release'}", capability=Capability.HOST)
    if version < LEAST_KERNEL:
        return bad(check, Reason.KERNEL_TOO_OLD, f"Linux {release}", capability=Capability.HOST)
    return ok(check, f"Linux {release}", Capability.HOST)


def os_release(root: HostRoot) -> dict[str, str]:
    """The fields of os-release(5)."""
    lines = (text(root, "/etc/os-release") or text(root, "/usr/lib/os-release")).splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}


def read_only(root: HostRoot, folders: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the folders whose file system is mounted read-only; for a missing one its nearest parent counts."""
    found = []
    for folder in folders:
        path = root(folder)
        while not path.exists() and path != path.parent:
            path = path.parent
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            found.append(folder)
    return tuple(found)


def judge_system(release: dict[str, str], locked: tuple[str, ...]) -> Finding:
    """Whether the operating system is one that is served by editing files.

    Args:
        release: the fields of os-release.
        locked: folders that katanode writes to and that are read-only.
    """
    check = "operating system"
    name = release.get("PRETTY_NAME") or release.get("ID") or "unknown"
    special = _SYSTEMS.get(release.get("ID", ""))
    if special is not None:
        return bad(check, Reason.OS_IMMUTABLE, f"{name}: {special}", capability=Capability.HOST)
    if locked:
        where = f"read-only: {', '.join(locked)}"
        return bad(check, Reason.OS_IMMUTABLE, f"{name}; {where}", capability=Capability.HOST)
    return ok(check, name, Capability.HOST)


def probe_kubelet(root: HostRoot, runner: Runner) -> Finding:
    """The kubelet's version, where there is a kubelet."""
    check = "Kubernetes version"
    for path in _KUBELETS:
        if root(path).exists():
            break
    else:
        return Finding(check, Severity.INFO, "no kubelet on this machine", capability=Capability.HOST)
    try:
        done = runner.run([path, "--version"], timeout=_KUBELET_TIMEOUT)
    except KatanodeError as error:
        finding = from_error(check, error, Capability.HOST)
        return Finding(check, Severity.WARNING, finding.evidence, finding.reason, finding.remedy, Capability.HOST)
    return judge_kubelet(path, done.stdout.decode("utf-8", "replace"))


def judge_kubelet(path: str, said: str) -> Finding:
    """Whether the kubelet is new enough.

    Args:
        path: the program that was asked.
        said: its answer, such as `Kubernetes v1.31.2` or `k3s version v1.28.4+k3s2 (6ba6c1b6)`.
    """
    check = "Kubernetes version"
    first = (said.splitlines() or [""])[0]
    match = re.search(r"\bv(\d+\.\d+\S*)", first)
    version = _version(match[1]) if match else None
    if match is None or version is None:
        return Finding(check, Severity.INFO, f"{path} says {first!r}", capability=Capability.HOST)
    if version < LEAST_KUBERNETES:
        return bad(check, Reason.KUBERNETES_TOO_OLD, f"{path}: v{match[1]}", capability=Capability.HOST)
    return ok(check, f"v{match[1]}", Capability.HOST)


def cgroups(root: HostRoot) -> Finding:
    """Which version of control groups is in use; Kata serves all."""
    if root("/sys/fs/cgroup/cgroup.controllers").exists():
        version = "v2"
    elif root("/sys/fs/cgroup/unified").exists():
        version = "v1 and v2 (hybrid)"
    else:
        version = "v1"
    return ok("control groups", version, Capability.HOST)


def selinux(root: HostRoot) -> Finding:
    """SELinux's mode."""
    match text(root, "/sys/fs/selinux/enforce"):
        case "1":
            return bad("SELinux", Reason.SELINUX_ENFORCING, "enforcing", capability=Capability.HOST)
        case "0":
            return ok("SELinux", "permissive", Capability.HOST)
    return ok("SELinux", "off", Capability.HOST)


def apparmor(root: HostRoot) -> Finding:
    """Whether AppArmor is on; its default profiles let Kata's processes run."""
    on = text(root, "/sys/module/apparmor/parameters/enabled") == "Y"
    return ok("AppArmor", "on" if on else "off", Capability.HOST)


def judge_machine(machine: Machine) -> Finding:
    """Nested or bare metal: said, never held against the node."""
    return Finding("kind of machine", Severity.INFO, machine.words, capability=Capability.HOST)


def confidential_computing(root: HostRoot) -> Finding:
    """Whether KVM has TDX or SEV-SNP switched on."""
    on = [
        name
        for name, path in (
            ("TDX", "/sys/module/kvm_intel/parameters/tdx"),
            ("SEV-SNP", "/sys/module/kvm_amd/parameters/sev_snp"),
            ("SEV-ES", "/sys/module/kvm_amd/parameters/sev_es"),
        )
        if text(root, path) in {"Y", "1"}
    ]
    return Finding(
        "confidential computing",
        Severity.INFO,
        ", ".join(on) or "neither TDX nor SEV-SNP in KVM",
        capability=Capability.HOST,
    )


def _version(words: str) -> tuple[int, int] | None:
    match = re.match(r"(\d+)\.(\d+)", words)
    return (int(match[1]), int(match[2])) if match else None
