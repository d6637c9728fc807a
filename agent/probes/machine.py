"""What kind of machine the node is, by its own files: CPU, virtual or not, and who made it."""

import contextlib
import os
import struct
from dataclasses import dataclass

from agent.errors import KatanodeError
from agent.host.files import read_if_there
from agent.host.modules import cpu_field
from agent.host.root import HostRoot

_VIRTUAL_VENDORS = (
    "QEMU",
    "KVM",
    "Amazon EC2",
    "VMware",
    "innotek",
    "Xen",
    "Bochs",
    "OpenStack",
    "Google",
    "Alibaba Cloud",
    "Tencent Cloud",
    "DigitalOcean",
    "Hetzner",
    "Red Hat",
    "Apple Virtualization",
)
"""Starts of DMI's sys_vendor that hypervisors set; the list of systemd's detect-virt, where no CPU flag says it."""

_IA32_FEATURE_CONTROL = 0x3A
_VM_CR = 0xC0010114


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of the machine.

    Attributes:
        architecture: as `uname -m`.
        vendor: the CPU's vendor, as /proc/cpuinfo has it.
        flag: `vmx` or `svm` when the CPU shows it, else empty. Evidence only: paravirtual KVM works without either.
        virtual: it is a virtual machine.
        product: vendor and name by DMI, empty where there is none.
        firmware_lock: what a model-specific register says about virtualization being locked off; empty when it does not
            or cannot be read.
    """

    architecture: str
    vendor: str = ""
    flag: str = ""
    virtual: bool = False
    product: str = ""
    firmware_lock: str = ""

    @property
    def words(self) -> str:
        """In one line, for evidence."""
        kind = "virtual machine" if self.virtual else "bare metal"
        flag = f", CPU flag {self.flag}" if self.flag else ", neither vmx nor svm among the CPU flags"
        return f"{kind}{f' ({self.product})' if self.product else ''}{flag if self.architecture == 'x86_64' else ''}"


def survey_machine(root: HostRoot) -> Machine:
    """Reads what the machine is; what cannot be read counts as not said."""
    architecture = os.uname().machine
    flags = cpu_field(root, "flags").split()
    vendor, product = (text(root, f"/sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))
    on_x86 = architecture == "x86_64"
    virtual = "hypervisor" in flags
    if not on_x86:
        virtual = (
            (vendor.startswith(_VIRTUAL_VENDORS) and "metal" not in product)
            or bool(text(root, "/sys/hypervisor/type"))
            or bool(text(root, "/proc/device-tree/hypervisor/compatible"))
        )
    flag = next((name for name in ("vmx", "svm") if name in flags), "")
    return Machine(
        architecture,
        cpu_field(root, "vendor_id"),
        flag,
        virtual,
        " ".join(filter(None, (vendor, product))),
        _firmware_lock(root) if on_x86 else "",
    )


def text(root: HostRoot, path: str) -> str:
    """A short file of /proc, /sys or /etc, stripped; empty when there is none or it cannot be read."""
    with contextlib.suppress(KatanodeError):
        # A small bound: for a sysctl the kernel allocates as much as is asked for, and gives ENOMEM above 4 MiB.
        return (read_if_there(root(path), 1 << 16) or b"").decode("utf-8", "replace").strip(" \n\t\0")
    return ""


def _firmware_lock(root: HostRoot) -> str:
    """Whether the firmware locked virtualization off, where the msr module happens to be loaded."""
    intel = _msr(root, _IA32_FEATURE_CONTROL)  # Intel SDM vol. 4: bit 0 lock, bit 2 VMX outside SMX
    if intel is not None and intel & 0b101 == 0b001:
        return f"MSR IA32_FEATURE_CONTROL (0x3a) = {intel:#x}: locked without VMX"
    amd = _msr(root, _VM_CR)  # AMD APM vol. 2, 15.30.1: bit 4 SVMDIS
    if amd is not None and amd & 0x10:
        return f"MSR VM_CR (0xc0010114) = {amd:#x}: SVM disabled"
    return ""


def _msr(root: HostRoot, register: int) -> int | None:
    with contextlib.suppress(OSError, KatanodeError):
        fd = os.open(root("/dev/cpu/0/msr"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(fd, 8, register)
        finally:
            os.close(fd)
        if len(data) == 8:
            return int(struct.unpack("<Q", data)[0])
    return None
