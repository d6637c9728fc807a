"""Runs a few guest instructions under KVM and prints what came of it, as one line of JSON.

A program of its own, without json, ctypes and signal: each of these imports costs more than the whole probe.
Numbers and layouts are those of Linux's include/uapi/linux/kvm.h and arch/*/include/uapi/asm/kvm.h.
"""

import fcntl
import mmap
import os
import resource
import struct
import sys

KVM_GET_API_VERSION = 0xAE00
KVM_CREATE_VM = 0xAE01
KVM_GET_VCPU_MMAP_SIZE = 0xAE04
KVM_CREATE_VCPU = 0xAE41
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_SET_TSS_ADDR = 0xAE47
KVM_RUN = 0xAE80
KVM_SET_REGS = 0x4090AE82
KVM_GET_SREGS = 0x8138AE83
KVM_SET_SREGS = 0x4138AE84
KVM_SET_ONE_REG = 0x4010AEAC
KVM_ARM_VCPU_INIT = 0x4020AEAE
KVM_ARM_PREFERRED_TARGET = 0x8020AEAF

API_VERSION = 12
KVM_EXIT_IO = 2
KVM_EXIT_HLT = 5
KVM_EXIT_MMIO = 6
KVM_EXIT_FAIL_ENTRY = 9
KVM_EXIT_INTERNAL_ERROR = 17
KVM_EXIT_SYSTEM_EVENT = 24

BYTE = 0x4B  # "K"
PORT = 0x3F8
UNMAPPED = 0x1000_0000  # aarch64: the guest's memory ends far below
LOAD_AT = 0x1_0000  # a multiple of every page size in use (4, 16 and 64 KiB)

X86_CODE = bytes(
    (
        *(0xBA, PORT & 0xFF, PORT >> 8),  # mov dx, PORT
        *(0xB0, BYTE),  # mov al, BYTE
        0xEE,  # out dx, al
        0xF4,  # hlt
    )
)
ARM_CODE = struct.pack(
    "<6I",
    0x52800000 | BYTE << 5,  # mov w0, #BYTE
    0xD2A00001 | (UNMAPPED >> 16) << 5,  # mov x1, #UNMAPPED
    0x39000020,  # strb w0, [x1]
    0x52800100,  # mov w0, #0x0008
    0x72B08000,  # movk w0, #0x8400, lsl #16: PSCI SYSTEM_OFF
    0xD4000002,  # hvc #0
)
ARM_REG_PC = 0x6030_0000_0010_0040  # KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | core register 0x40
ARM_PSCI_0_2 = 1 << 2  # KVM_ARM_VCPU_PSCI_0_2: without it the guest's hvc is an undefined instruction

_done: dict[str, object] = {"step": "open"}
_pages: list[mmap.mmap] = []  # the guest's memory stays mapped as long as the process lives


def main(device: str) -> None:
    """Makes the virtual machine step by step; `_done` holds the step under way.

    Raises:
        OSError: of the step that failed.
    """
    kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    _done["step"] = "api"
    _done["api"] = fcntl.ioctl(kvm, KVM_GET_API_VERSION, 0)
    if _done["api"] != API_VERSION:
        return
    _done["step"] = "vm"
    vm = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    _done["step"] = "memory"
    on_x86 = os.uname().machine == "x86_64"
    if on_x86:
        # Intel CPUs without "unrestricted guest" run real mode in a task of three pages; elsewhere it is ignored. The
        # usual place, 0xfffbd000, does not fit the signed int that fcntl.ioctl takes.
        fcntl.ioctl(vm, KVM_SET_TSS_ADDR, 0x7FFF_0000)
    address = _page("katanode-guest", X86_CODE if on_x86 else ARM_CODE)
    fcntl.ioctl(vm, KVM_SET_USER_MEMORY_REGION, struct.pack("=IIQQQ", 0, 0, LOAD_AT, mmap.PAGESIZE, address))
    _done["step"] = "vcpu"
    vcpu = fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)
    run = mmap.mmap(vcpu, fcntl.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0))
    _done["step"] = "registers"
    if on_x86:
        _set_registers_x86(vcpu)
    else:
        _set_registers_arm(vm, vcpu)
    _done["step"] = "run"
    _done["exits"] = _run(vcpu, run)
    # In this order, and not left to the process's end: so the machine is taken down within a millisecond.
    run.close()
    for fd in (vcpu, vm, kvm):
        os.close(fd)
    _done["step"] = "done"


def _page(name: str, content: bytes) -> int:
    """The address of a new page of this process's memory that begins with `content`."""
    # To ask ctypes for an mmap's address takes 20 times as long as to look its name up among the mappings.
    fd = os.memfd_create(name)
    os.ftruncate(fd, mmap.PAGESIZE)
    page = mmap.mmap(fd, mmap.PAGESIZE)
    page[: len(content)] = content
    _pages.append(page)
    with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
        return next(int(line.split("-")[0], 16) for line in maps if name in line)


def _set_registers_x86(vcpu: int) -> None:
    """Real mode with a code segment at 0: struct kvm_sregs begins with cs, struct kvm_regs ends with rip and rflags."""
    special = bytearray(312)
    fcntl.ioctl(vcpu, KVM_GET_SREGS, special)
    struct.pack_into("=QIH", special, 0, 0, 0xFFFF, LOAD_AT >> 4)
    # The code lies above 64 KiB of segment 0: base and selector say the same, as the CPU has it in real mode.
    struct.pack_into("=Q", special, 0, LOAD_AT)
    fcntl.ioctl(vcpu, KVM_SET_SREGS, special)
    general = bytearray(144)
    struct.pack_into("=QQ", general, 128, 0, 2)  # rip; rflags: bit 1 is always set
    fcntl.ioctl(vcpu, KVM_SET_REGS, general)


def _set_registers_arm(vm: int, vcpu: int) -> None:
    """The CPU's own kind, PSCI for the switching-off, and the program counter."""
    kind = bytearray(32)  # struct kvm_vcpu_init: u32 target, u32 features[7]
    fcntl.ioctl(vm, KVM_ARM_PREFERRED_TARGET, kind)
    struct.pack_into("=I", kind, 4, ARM_PSCI_0_2)
    fcntl.ioctl(vcpu, KVM_ARM_VCPU_INIT, kind)
    counter = _page("katanode-register", struct.pack("=Q", LOAD_AT))
    fcntl.ioctl(vcpu, KVM_SET_ONE_REG, struct.pack("=QQ", ARM_REG_PC, counter))


def _run(vcpu: int, run: mmap.mmap) -> list[list[int]]:
    """Runs until the guest halts or does what it should not.

    Returns:
        For each exit its number in kvm.h and up to three numbers that belong to it: port and byte, address and byte,
        or the hardware's reason.
    """
    exits: list[list[int]] = []
    while len(exits) < 4:
        fcntl.ioctl(vcpu, KVM_RUN, 0)
        number = struct.unpack_from("=I", run, 8)[0]
        more: tuple[int, ...] = ()
        if number == KVM_EXIT_IO:
            out, _size, port, _count, offset = struct.unpack_from("=BBHIQ", run, 32)
            more = (port, run[offset], out)
        elif number == KVM_EXIT_MMIO:
            where, data, _length, write = struct.unpack_from("=QQIB", run, 32)
            more = (where, data & 0xFF, write)
        elif number == KVM_EXIT_FAIL_ENTRY:
            more = struct.unpack_from("=Q", run, 32)
        elif number in {KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_SYSTEM_EVENT}:
            more = struct.unpack_from("=I", run, 32)
        exits.append([number, *more])
        if number not in {KVM_EXIT_IO, KVM_EXIT_MMIO}:
            break
    return exits


def program(device: str, seconds: str) -> None:
    """Prints how far `main` came.

    Args:
        device: path of /dev/kvm.
        seconds: CPU time after which the kernel kills this process: a guest that spins must not outlive the agent.
    """
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    try:
        main(device)
    except OSError as error:
        _done["errno"] = error.errno
    # Numbers, lists of numbers and plain words only, so Python's own notation is JSON.
    sys.stdout.write(str(_done).replace("'", '"') + "\n")
