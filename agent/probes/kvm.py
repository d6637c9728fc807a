"""KVM: not whether flags promise it, but whether a guest's instructions run."""

import errno
import os
import re
from dataclasses import dataclass, field
from typing import Any

from agent.host.modules import ModuleFacts, ModuleState, about, kernel_lines, survey, wanted_modules
from agent.host.root import HostRoot
from agent.probes.child import Answer, error_name, run_child
from agent.probes.kvm_device import DEVICE, Node, device_node, judge_permissions
from agent.probes.machine import Machine, survey_machine
from agent.reasons import Reason
from agent.report import Capability, Finding, bad, ok

CHECK = "KVM runs guest instructions"
SECONDS = 3.0

_API_VERSION = 12
_IO = (2, 0x3F8, 0x4B, 1)  # KVM_EXIT_IO, the port, the byte, outwards: as children/kvm.py has its guest write
_HLT = (5,)
_MMIO = (6, 0x1000_0000, 0x4B, 1)
_POWER_OFF = (24, 1)  # KVM_EXIT_SYSTEM_EVENT, KVM_SYSTEM_EVENT_SHUTDOWN
_PROOF = ((_IO, _HLT), (_MMIO, _POWER_OFF))
_EXITS = {
    0: "unknown",
    2: "IO",
    5: "HLT",
    6: "MMIO",
    7: "IRQ window",
    8: "shutdown (triple fault)",
    9: "entry refused by the hardware",
    17: "internal error of KVM",
    24: "system event",
}
_STEPS = {
    "open": "open(/dev/kvm)",
    "api": "KVM_GET_API_VERSION",
    "vm": "KVM_CREATE_VM",
    "memory": "KVM_SET_USER_MEMORY_REGION",
    "vcpu": "KVM_CREATE_VCPU",
    "registers": "setting the vCPU's registers",
    "run": "KVM_RUN",
}
_NOT_THERE = {errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR, errno.EISDIR}

# The kernel's words for it, over its versions: arch/x86/kvm/{x86,vmx/vmx,svm/svm}.c, arch/x86/kernel/cpu/feat_ctl.c,
# arch/arm64/kvm/arm.c.
_SAYS_DISABLED = re.compile(r"(kvm|vmx|svm).*disabled \(?by bios|SVM disabled", re.IGNORECASE)
_SAYS_UNSUPPORTED = re.compile(
    r"kvm.*(no hardware support|(VMX|SVM) (is )?not (supported|available)|HYP mode not available)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class KvmFacts:
    """What explains a failure of the probe; while it succeeds none of this is decisive.

    Attributes:
        machine: what the machine is.
        modules: its kernel modules.
        lines: the kernel's log about KVM.
        node: the device node, None when there is none.
        uid: under which the probe ran.
    """

    machine: Machine
    modules: ModuleFacts
    lines: tuple[str, ...] = ()
    node: Node | None = None
    uid: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far the child came.

    Attributes:
        step: `open`, `api`, `vm`, `memory`, `vcpu`, `registers`, `run` or `done`: the one under way at the end.
        errno: of the call that failed, else 0.
        api: what KVM_GET_API_VERSION gave, 0 before.
        exits: the guest's exits: number in kvm.h, then what belongs to it.
        hung: no answer in time.
        failure: how the child ended when it said nothing.
        milliseconds: wall time, the child's start included.
    """

    step: str = ""
    errno: int = 0
    api: int = 0
    exits: tuple[tuple[int, ...], ...] = ()
    hung: bool = False
    failure: str = ""
    milliseconds: float = field(default=0.0, compare=False)


def probe_kvm(root: HostRoot) -> tuple[Finding, ...]:
    """Runs a guest of a few instructions, and looks at the device's permissions.

    Raises:
        OSError: the child cannot be started.
        KatanodeError: a file of the node stands there but cannot be read.
    """
    outcome = run_guest(root)
    node = device_node(root)
    if _proved(outcome):
        # The log and the modules are read only when there is something to explain.
        findings = [explain(outcome, KvmFacts(Machine(os.uname().machine), ModuleFacts("", ""), node=node))]
    else:
        findings = [explain(outcome, survey_kvm(root, node))]
    if node is not None:
        findings.append(judge_permissions(node))
    return tuple(findings)


def run_guest(root: HostRoot, *, timeout: float = SECONDS) -> Outcome:
    """Starts the child program on the node's /dev/kvm.

    Args:
        root: the host.
        timeout: seconds; it takes milliseconds where KVM is well.

    Raises:
        OSError: the child cannot be started.
    """
    return outcome_of(run_child("kvm", str(root(DEVICE)), timeout=timeout))


def outcome_of(answer: Answer) -> Outcome:
    """The child's answer in words of this module."""
    said: dict[str, Any] = dict(answer.said)
    return Outcome(
        str(said.get("step", "")),
        int(said.get("errno", 0)),
        int(said.get("api", 0)),
        tuple(tuple(exit_) for exit_ in said.get("exits", ())),
        answer.hung,
        answer.failure,
        answer.seconds * 1e3,
    )


def survey_kvm(root: HostRoot, node: Node | None) -> KvmFacts:
    """Gathers what may explain a failure.

    Raises:
        KatanodeError: a file of the node stands there but cannot be read.
    """
    patterns = (about("kvm_intel"), about("kvm_amd"), _SAYS_DISABLED)
    lines = tuple(kernel_lines(root, re.compile("|".join(p.pattern for p in patterns), re.IGNORECASE), last=8))
    return KvmFacts(survey_machine(root), survey(root), lines, node, os.geteuid())


def _proved(outcome: Outcome) -> bool:
    return outcome.step == "done" and outcome.exits in _PROOF


def explain(outcome: Outcome, facts: KvmFacts) -> Finding:
    """The finding that an outcome amounts to; pure.

    Args:
        outcome: of the child.
        facts: looked at only when the outcome is a failure.
    """
    if _proved(outcome):
        # No time of it: evidence that changes with each run would make publishers write for nothing.
        return ok(CHECK, f"API version {outcome.api}; a guest wrote a byte and stopped", Capability.KVM)
    if outcome.hung:
        return _bad(Reason.KVM_HANGS, f"no answer within {outcome.milliseconds / 1e3:.1f} s", facts)
    if not outcome.step:
        killed = outcome.failure.startswith("killed")  # only KVM's doing can kill it: the rest is a few system calls
        return _bad(Reason.KVM_GUEST_FAILED if killed else Reason.INTERNAL_ERROR, outcome.failure, facts)
    what = f"{_STEPS.get(outcome.step, outcome.step)}: {error_name(outcome.errno)}" if outcome.errno else ""
    if outcome.step == "open" and outcome.errno in _NOT_THERE:
        return _explain_absence(what, facts)
    if outcome.errno in {errno.EACCES, errno.EPERM}:
        where = facts.node.words if facts.node else f"{DEVICE} cannot be looked at"
        hint = "; root is refused, so a device cgroup or a security module does it" if facts.uid == 0 else ""
        return _bad(Reason.KVM_PERMISSION_DENIED, f"{what}; {where}; uid {facts.uid}{hint}", facts)
    if outcome.errno == errno.EBUSY:
        return _bad(Reason.KVM_BUSY, what, facts)
    if outcome.step == "open":
        return _bad(Reason.KVM_DEVICE_MISSING, what, facts)
    if outcome.step == "api":
        return _bad(Reason.KVM_API_UNKNOWN, what or f"KVM_GET_API_VERSION = {outcome.api}", facts)
    seen = "; ".join(_exit_words(exit_) for exit_ in outcome.exits)
    return _bad(Reason.KVM_GUEST_FAILED, what or f"exits of the guest: {seen or 'none'}", facts)


def _explain_absence(what: str, facts: KvmFacts) -> Finding:
    """Why no driver serves /dev/kvm: the hardware first, since without it no module helps."""
    machine, modules = facts.machine, facts.modules
    off = Reason.KVM_NESTED_OFF if machine.virtual else Reason.KVM_DISABLED_IN_FIRMWARE
    if machine.firmware_lock:
        return _bad(off, f"{what}; {machine.firmware_lock}", facts)
    if any(_SAYS_DISABLED.search(line) or _SAYS_UNSUPPORTED.search(line) for line in facts.lines):
        return _bad(off, what, facts)
    # Since Linux 5.6 (vmx) and 6.7 (svm) the kernel hides the flag when the firmware locked it, so absence on bare
    # metal is the firmware, or a CPU that has none at all.
    if machine.architecture == "x86_64" and not machine.flag:
        return _bad(off, what, facts)
    drivers = [name for name in wanted_modules(machine.vendor) if name.startswith("kvm_")]
    for name in drivers:
        state = modules.state(name)
        barrier = modules.barriers.get(name)
        if state is ModuleState.MISSING:
            return _bad(Reason.KVM_MODULE_MISSING, f"{what}; no {name} for kernel {modules.release}", facts)
        if state is ModuleState.AVAILABLE and barrier is not None:
            reason = Reason.KVM_MODULE_MISSING if barrier.hard else Reason.KVM_DEVICE_MISSING
            return _bad(reason, f"{what}; {name} is not loaded: {barrier.where}", facts)
        return _bad(Reason.KVM_DEVICE_MISSING, f"{what}; {name} is {state}", facts)
    if modules.state("kvm") is ModuleState.MISSING:
        return _bad(Reason.KVM_MODULE_MISSING, f"{what}; kernel {modules.release} has no KVM", facts)
    return _bad(Reason.KVM_DEVICE_MISSING, what, facts)


def _bad(reason: Reason, evidence: str, facts: KvmFacts) -> Finding:
    lines = (evidence, facts.machine.words, *(f"kernel: {line}" for line in facts.lines))
    return bad(CHECK, reason, "\n".join(lines), capability=Capability.KVM)


def _exit_words(exit_: tuple[int, ...]) -> str:
    number, *more = exit_
    return " ".join((f"{number} ({_EXITS.get(number, 'unexpected')})", *map(hex, more)))
