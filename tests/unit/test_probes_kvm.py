import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from agent.host.modules import Barrier, ModuleFacts
from agent.host.root import HostRoot
from agent.probes.child import Answer
from agent.probes.kvm import KvmFacts, Outcome, explain, outcome_of
from agent.probes.kvm_device import Node, device_node, judge_permissions
from agent.probes.machine import Machine, survey_machine
from agent.reasons import Reason, Severity
from agent.report import Capability, Finding

X86_PROOF = ((2, 0x3F8, 0x4B, 1), (5,))
ARM_PROOF = ((6, 0x10000000, 0x4B, 1), (24, 1))
METAL = Machine("x86_64", "GenuineIntel", "vmx")
GUEST = Machine("x86_64", "AuthenticAMD", "", virtual=True)
LOADED = ModuleFacts("6.1", "GenuineIntel", loaded=frozenset({"kvm", "kvm_intel"}))
ON_DISK = ModuleFacts("6.1", "GenuineIntel", available=frozenset({"kvm", "kvm_intel"}))
NONE = ModuleFacts("6.1", "GenuineIntel")
USUAL = Node(stat.S_IFCHR | 0o660, "root", "kvm")


def said(facts: KvmFacts, **outcome: Any) -> Finding:
    return explain(Outcome(**outcome), facts)


@pytest.mark.parametrize("exits", [X86_PROOF, ARM_PROOF])
def test_a_guest_that_writes_its_byte_and_stops_is_the_proof(exits: tuple[tuple[int, ...], ...]) -> None:
    finding = said(KvmFacts(METAL, LOADED), step="done", api=12, exits=exits)
    assert finding.severity is Severity.OK
    assert finding.capability is Capability.KVM


def test_flags_and_modules_do_not_matter_when_the_guest_runs() -> None:
    facts = KvmFacts(GUEST, NONE, lines=("kvm: disabled by bios",))
    assert said(facts, step="done", api=12, exits=X86_PROOF).severity is Severity.OK


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV, errno.ENXIO])
@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        pytest.param(KvmFacts(METAL, NONE), Reason.KVM_MODULE_MISSING, id="no module on disk"),
        pytest.param(KvmFacts(METAL, ON_DISK), Reason.KVM_DEVICE_MISSING, id="module not loaded"),
        pytest.param(KvmFacts(METAL, LOADED), Reason.KVM_DEVICE_MISSING, id="module loaded"),
        pytest.param(
            KvmFacts(METAL, LOADED, lines=("kvm: disabled by bios",)),
            Reason.KVM_DISABLED_IN_FIRMWARE,
            id="kernel says bios",
        ),
        pytest.param(
            KvmFacts(METAL, LOADED, lines=("x86/cpu: VMX (outside TXT) disabled by BIOS",)),
            Reason.KVM_DISABLED_IN_FIRMWARE,
            id="kernel says bios at boot",
        ),
        pytest.param(
            KvmFacts(Machine("x86_64", "AuthenticAMD", "svm", firmware_lock="MSR VM_CR = 0x18"), LOADED),
            Reason.KVM_DISABLED_IN_FIRMWARE,
            id="register says locked",
        ),
        pytest.param(
            KvmFacts(Machine("x86_64", "GenuineIntel"), ON_DISK), Reason.KVM_DISABLED_IN_FIRMWARE, id="metal, no flag"
        ),
        pytest.param(KvmFacts(GUEST, NONE), Reason.KVM_NESTED_OFF, id="guest, no flag"),
        pytest.param(
            KvmFacts(Machine("x86_64", "GenuineIntel", "vmx", virtual=True), LOADED, lines=("kvm: disabled by bios",)),
            Reason.KVM_NESTED_OFF,
            id="guest, its virtual bios",
        ),
        pytest.param(
            KvmFacts(Machine("x86_64", "AuthenticAMD", "svm", virtual=True), NONE),
            Reason.KVM_MODULE_MISSING,
            id="nested guest without module",
        ),
        pytest.param(
            KvmFacts(Machine("aarch64", virtual=True), NONE, lines=("kvm [1]: HYP mode not available",)),
            Reason.KVM_NESTED_OFF,
            id="arm guest",
        ),
        pytest.param(
            KvmFacts(Machine("aarch64"), NONE, lines=("kvm [1]: HYP mode not available",)),
            Reason.KVM_DISABLED_IN_FIRMWARE,
            id="arm booted at EL1",
        ),
        pytest.param(KvmFacts(Machine("aarch64"), NONE), Reason.KVM_MODULE_MISSING, id="arm kernel without KVM"),
        pytest.param(
            KvmFacts(Machine("aarch64"), ModuleFacts("6.1", "", built_in=frozenset({"kvm"}))),
            Reason.KVM_DEVICE_MISSING,
            id="arm, no node",
        ),
    ],
)
def test_absence_is_explained_by_what_is_known(facts: KvmFacts, reason: Reason | None, number: int) -> None:
    finding = said(facts, step="open", errno=number)
    assert finding.reason is reason
    assert finding.severity is Severity.ERROR
    assert finding.capability is Capability.KVM
    assert finding.remedy
    assert errno.errorcode[number] in finding.evidence


def test_absence_shows_the_kernels_own_words() -> None:
    finding = said(KvmFacts(METAL, LOADED, lines=("kvm: disabled by bios",)), step="open", errno=errno.ENOENT)
    assert "kernel: kvm: disabled by bios" in finding.evidence


@pytest.mark.parametrize(("hard", "reason"), [(True, Reason.KVM_MODULE_MISSING), (False, Reason.KVM_DEVICE_MISSING)])
def test_a_line_that_keeps_the_module_out_is_shown(reason: Reason | None, *, hard: bool) -> None:
    barriers = {"kvm_intel": Barrier("blacklist kvm_intel in /etc/modprobe.d/x.conf", hard=hard)}
    facts = ModuleFacts("6.1", "GenuineIntel", available=frozenset({"kvm_intel"}), barriers=barriers)
    finding = said(KvmFacts(METAL, facts), step="open", errno=errno.ENOENT)
    assert finding.reason is reason
    assert "/etc/modprobe.d/x.conf" in finding.evidence


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_refusal_shows_mode_owner_and_user(number: int) -> None:
    finding = said(KvmFacts(METAL, LOADED, node=USUAL, uid=1000), step="open", errno=number)
    assert finding.reason is Reason.KVM_PERMISSION_DENIED
    assert "crw-rw---- root:kvm" in finding.evidence
    assert "uid 1000" in finding.evidence
    assert "device cgroup" not in finding.evidence


def test_a_refusal_to_root_points_to_the_device_cgroup() -> None:
    finding = said(KvmFacts(METAL, LOADED, node=USUAL), step="open", errno=errno.EPERM)
    assert "device cgroup" in finding.evidence


@pytest.mark.parametrize("step", ["open", "vm", "vcpu"])
def test_another_hypervisor_makes_kvm_busy(step: str) -> None:
    assert said(KvmFacts(METAL, LOADED), step=step, errno=errno.EBUSY).reason is Reason.KVM_BUSY


def test_another_api_version_is_said() -> None:
    finding = said(KvmFacts(METAL, LOADED), step="api", api=13)
    assert finding.reason is Reason.KVM_API_UNKNOWN
    assert "KVM_GET_API_VERSION = 13" in finding.evidence


def test_a_device_that_is_not_kvm_has_an_unknown_api() -> None:
    finding = said(KvmFacts(METAL, LOADED), step="api", errno=errno.ENOTTY)
    assert finding.reason is Reason.KVM_API_UNKNOWN
    assert "ENOTTY" in finding.evidence


@pytest.mark.parametrize(
    ("exits", "words"),
    [
        (((17, 1),), "internal error of KVM"),
        (((9, 0x80000021),), "entry refused by the hardware) 0x80000021"),
        (((8,),), "triple fault"),
        ((), "none"),
        (((2, 0x3F8, 0x00, 1), (5,)), "IO) 0x3f8 0x0"),
        (((5,),), "5 (HLT)"),
        (((99,),), "unexpected"),
    ],
)
def test_a_guest_that_does_anything_else_failed(exits: tuple[tuple[int, ...], ...], words: str) -> None:
    finding = said(KvmFacts(METAL, LOADED), step="done", api=12, exits=exits)
    assert finding.reason is Reason.KVM_GUEST_FAILED
    assert words in finding.evidence


@pytest.mark.parametrize("step", ["vm", "memory", "vcpu", "registers", "run"])
def test_a_call_that_fails_is_named(step: str) -> None:
    finding = said(KvmFacts(METAL, LOADED), step=step, errno=errno.EIO)
    assert finding.reason is Reason.KVM_GUEST_FAILED
    assert "EIO" in finding.evidence


def test_no_answer_is_a_hang() -> None:
    assert said(KvmFacts(METAL, LOADED), hung=True, milliseconds=3000.0).reason is Reason.KVM_HANGS


def test_a_child_that_was_killed_blames_kvm_and_one_that_crashed_blames_katanode() -> None:
    killed = said(KvmFacts(METAL, LOADED), failure="killed by SIGBUS")
    crashed = said(KvmFacts(METAL, LOADED), failure="exit status 1\nTraceback")
    assert killed.reason is Reason.KVM_GUEST_FAILED
    assert crashed.reason is Reason.INTERNAL_ERROR


def test_the_childs_answer_is_understood() -> None:
    answer = Answer({"step": "done", "api": 12, "exits": [[2, 1016, 75, 1], [5]]}, seconds=0.012)
    assert outcome_of(answer) == Outcome("done", api=12, exits=X86_PROOF)


@pytest.mark.parametrize(
    ("mode", "reason"),
    [(0o660, None), (0o600, None), (0o666, Reason.KVM_PERMISSIONS_LOOSE), (0o662, Reason.KVM_PERMISSIONS_LOOSE)],
)
def test_permissions_are_shown_as_ls_does(mode: int, reason: Reason | None) -> None:
    finding = judge_permissions(Node(stat.S_IFCHR | mode, "root", "kvm"))
    assert finding.reason is reason
    assert finding.evidence.startswith("crw")
    assert finding.evidence.endswith("root:kvm /dev/kvm")
    assert finding.severity.rank <= Severity.INFO.rank


def test_a_file_in_the_devices_place_is_said() -> None:
    finding = judge_permissions(Node(stat.S_IFREG | 0o600, "root", "root"))
    assert "no character device" in finding.evidence


def test_the_devices_group_is_the_hosts(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kvm").touch()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text(f"root:x:99999:\nkvm:x:{os.getgid()}:\n")
    node = device_node(HostRoot(tmp_path))
    assert node is not None
    assert node.group == "kvm"


def test_a_machine_without_the_device_has_no_node(tmp_path: Path) -> None:
    assert device_node(HostRoot(tmp_path)) is None


def test_a_virtual_machine_is_known_by_the_cpus_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "n", "6.1", "v", "x86_64")))
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("vendor_id\t: GenuineIntel\nflags\t\t: fpu vmx hypervisor\n")
    machine = survey_machine(HostRoot(tmp_path))
    assert (machine.virtual, machine.flag, machine.vendor) == (True, "vmx", "GenuineIntel")


@pytest.mark.parametrize(
    ("vendor", "product", "virtual"),
    [("QEMU", "KVM Virtual Machine", True), ("Amazon EC2", "m7g.metal", False), ("Ampere", "eMAG", False)],
)
def test_an_arm_machine_is_known_by_its_maker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, product: str, *, virtual: bool
) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "n", "6.1", "v", "aarch64")))
    dmi = tmp_path / "sys/class/dmi/id"
    dmi.mkdir(parents=True)
    (dmi / "sys_vendor").write_text(vendor + "\n")
    (dmi / "product_name").write_text(product + "\n")
    machine = survey_machine(HostRoot(tmp_path))
    assert machine.virtual is virtual
    assert machine.product == f"{vendor} {product}"
