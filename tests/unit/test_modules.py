import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.errors import KatanodeError
from agent.host import modules
from agent.host.modules import Barrier, ModuleFacts, ModuleState, survey
from agent.host.process import Completed, Runner
from agent.host.root import HostRoot
from agent.reasons import Reason


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """An AMD machine with Debian's kind of kernel."""
    write(tmp_path, "proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nvendor_id\t: AuthenticAMD\n\nprocessor\t: 1\nvendor_id\t: x\n")
    write(tmp_path, "proc/modules", "kvm_amd 155648 0 - Live 0x0\nkvm 1142784 1 kvm_amd, Live 0x0\n")
    write(tmp_path, "proc/misc", "232 kvm\n200 tun\n")
    write(tmp_path, "proc/cmdline", "quiet\n")
    for name in ("kvm", "kvm_amd"):
        write(tmp_path, f"sys/module/{name}/initstate", "live\n")
    (tmp_path / "sys/module/printk").mkdir()
    base = "usr/lib/modules/6.1.0-18-amd64"
    write(tmp_path, f"{base}/modules.builtin", "kernel/drivers/tty/serial/8250/8250.ko\nkernel/fs/bin-fmt.ko\n")
    write(tmp_path, f"{base}/modules.builtin.modinfo", "kernel.license=GPL\0foo_bar.author=x\0")
    paths = ("kernel/a/vhost_net.ko.xz: kernel/a/vhost.ko.xz", "kernel/a/vhost-vsock.ko:", "kernel/x/kvm-amd.ko.zst:")
    dep = "\n".join(paths)
    write(tmp_path, f"{base}/modules.dep", dep)
    (tmp_path / "lib").symlink_to("/usr/lib")
    return tmp_path


def write(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


class Modprobe(Runner):
    def run(self, argv: Sequence[str], **_: object) -> Completed:
        raise KatanodeError(
            Reason.MODULE_LOAD_FAILED, "modprobe failed", evidence="modprobe: ERROR: Operation not supported"
        )


def test_a_survey_tells_loaded_built_in_and_available_from_missing(node: Path) -> None:
    facts = survey(HostRoot(node))
    assert facts.state("kvm_amd") is ModuleState.LOADED
    assert facts.state("8250") is ModuleState.BUILT_IN
    assert facts.state("vhost_net") is ModuleState.AVAILABLE
    assert facts.state("kvm_intel") is ModuleState.MISSING


def test_hyphens_and_underscores_are_the_same(node: Path) -> None:
    facts = survey(HostRoot(node))
    assert facts.state("vhost-vsock") is facts.state("vhost_vsock") is ModuleState.AVAILABLE
    assert facts.state("bin_fmt") is ModuleState.BUILT_IN


def test_a_driver_whose_device_is_registered_is_there_without_a_folder_in_sysfs(node: Path) -> None:
    assert survey(HostRoot(node)).state("tun") is ModuleState.BUILT_IN


def test_parts_that_only_modinfo_names_are_built_in(node: Path) -> None:
    assert survey(HostRoot(node)).state("foo_bar") is ModuleState.BUILT_IN


@pytest.mark.parametrize("name", ["tap.ko", "tap.ko.gz", "tap.ko.xz", "tap.ko.zst"])
def test_modules_are_found_without_an_index_of_them(node: Path, name: str) -> None:
    (node / "usr/lib/modules/6.1.0-18-amd64/modules.dep").unlink()
    write(node, f"usr/lib/modules/6.1.0-18-amd64/kernel/net/{name}", "")
    assert survey(HostRoot(node)).state("tap") is ModuleState.AVAILABLE


def test_a_machine_without_modules_at_all_is_surveyed(tmp_path: Path) -> None:
    facts = survey(HostRoot(tmp_path))
    assert facts == ModuleFacts("", "")
    assert modules.desired_file(facts) == b""


@pytest.mark.parametrize(
    ("vendor", "driver"),
    [
        ("AuthenticAMD", ("kvm", "kvm_amd")),
        ("HygonGenuine", ("kvm", "kvm_amd")),
        ("GenuineIntel", ("kvm", "kvm_intel")),
        ("CentaurHauls", ("kvm", "kvm_intel")),
        ("Shanghai", ("kvm", "kvm_intel")),
        ("", ()),
        ("SomethingElse", ()),
    ],
)
def test_the_cpus_vendor_decides_on_kvms_modules(vendor: str, driver: tuple[str, ...]) -> None:
    assert modules.wanted_modules(vendor) == (*driver, "vhost_net", "vhost_vsock", "tun")


def test_the_file_names_only_what_is_loadable_on_this_machine(node: Path) -> None:
    lines = modules.desired_file(survey(HostRoot(node))).decode().splitlines()
    assert lines == ["# katanode: kernel modules of Kata Containers", "kvm", "kvm_amd", "vhost_net", "vhost_vsock"]


def test_the_file_leaves_out_what_did_not_load(node: Path) -> None:
    content = modules.desired_file(survey(HostRoot(node)), refused=["vhost-vsock"])
    assert b"vhost_vsock" not in content
    assert b"vhost_net" in content


def test_only_what_is_not_in_memory_is_loaded(node: Path) -> None:
    assert modules.to_load(survey(HostRoot(node))) == ("vhost_net", "vhost_vsock")


def test_no_second_kvm_driver_is_loaded_beside_one_that_serves() -> None:
    facts = ModuleFacts("6", "AuthenticAMD", built_in=frozenset({"kvm", "kvm_pvm"}), available=frozenset({"kvm_amd"}))
    assert modules.to_load(facts) == ("kvm_amd",)
    served = ModuleFacts("6", "AuthenticAMD", built_in=facts.built_in, available=facts.available, kvm_served=True)
    assert modules.to_load(served) == ()
    assert "kvm_amd" not in modules.absent(served)


def test_what_the_kernel_does_not_have_is_named(node: Path) -> None:
    (node / "proc/misc").write_text("")
    assert modules.absent(survey(HostRoot(node))) == ("tun",)


def test_lines_that_keep_a_module_out_are_evidence(node: Path) -> None:
    write(node, "etc/modprobe.d/a.conf", "# blacklist tun\nblacklist vhost-net\ninstall vhost_vsock /bin/false\n")
    write(node, "proc/cmdline", "quiet module_blacklist=kvm_amd,tun modprobe.blacklist=foo\n")
    barriers = survey(HostRoot(node)).barriers
    assert barriers == {
        "vhost_net": Barrier("blacklist vhost-net in /etc/modprobe.d/a.conf", hard=False),
        "vhost_vsock": Barrier("install vhost_vsock /bin/false in /etc/modprobe.d/a.conf", hard=True),
        "kvm_amd": Barrier("module_blacklist=kvm_amd,tun on the kernel's command line", hard=True),
        "tun": Barrier("module_blacklist=kvm_amd,tun on the kernel's command line", hard=True),
        "foo": Barrier("modprobe.blacklist=foo on the kernel's command line", hard=False),
    }


def test_a_module_is_loaded_by_modprobe() -> None:
    asked: list[Sequence[str]] = []

    class Recorder(Runner):
        def run(self, argv: Sequence[str], **_: object) -> Completed:
            asked.append(argv)
            return Completed(tuple(argv), 0, b"", b"")

    modules.load(HostRoot(), Recorder(), "vhost_net")
    assert asked == [["modprobe", "vhost_net"]]


def test_a_module_that_does_not_load_says_modprobes_and_the_kernels_words(node: Path) -> None:
    log = (
        "6,1,1,-;usb: hello\n4,2,2,-;kvm_amd: SVM not supported by CPU 0\n4,3,3,-;kvm: disabled by bios\n SUBSYSTEM=x\n"
    )
    write(node, "dev/kmsg", log)
    with pytest.raises(KatanodeError) as caught:
        modules.load(HostRoot(node), Modprobe(), "kvm_amd")
    assert caught.value.reason is Reason.MODULE_LOAD_FAILED
    assert "Operation not supported" in caught.value.evidence
    assert "kernel: kvm_amd: SVM not supported by CPU 0\nkernel: kvm: disabled by bios" in caught.value.evidence
    assert "usb" not in caught.value.evidence


def test_the_log_of_the_kernel_is_read_without_waiting_for_more(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    os.mkfifo(tmp_path / "dev/kmsg")
    writer = os.open(tmp_path / "dev/kmsg", os.O_RDWR)
    assert modules.kernel_lines(HostRoot(tmp_path), re.compile("x"), last=3) == []
    os.close(writer)


def test_a_log_that_may_not_be_read_is_an_empty_one(tmp_path: Path) -> None:
    assert modules.kernel_lines(HostRoot(tmp_path), re.compile("x"), last=3) == []
