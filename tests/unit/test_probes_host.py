import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent import probes
from agent.errors import KatanodeError
from agent.host.process import Completed, Runner
from agent.host.root import HostRoot
from agent.probes import host as system
from agent.probes import hypervisors, resources
from agent.probes.hypervisors import Vmm, cpu_list, ranges
from agent.reasons import Reason, Severity

GIB = 1 << 30


def write(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


@dataclass(frozen=True)
class Says(Runner):
    words: str = ""

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        if not self.words:
            raise KatanodeError(Reason.COMMAND_FAILED, "kubelet failed")
        return Completed(tuple(argv), 0, self.words.encode(), b"")


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        ("5.10.0", None),
        ("6.1.0-18-amd64", None),
        ("5.4.0-150-generic", Reason.KERNEL_TOO_OLD),
        ("4.18", Reason.KERNEL_TOO_OLD),
    ],
)
def test_the_kernel_is_recommended_from_5_10_on(release: str, reason: Reason | None) -> None:
    assert system.judge_kernel(release).reason is reason


def test_a_kernel_whose_version_cannot_be_read_is_not_judged() -> None:
    assert system.judge_kernel("").severity is Severity.INFO


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_architectures_that_kata_serves(architecture: str) -> None:
    assert system.judge_architecture(architecture).severity is Severity.OK


def test_other_architectures_are_an_error() -> None:
    assert system.judge_architecture("riscv64").reason is Reason.ARCHITECTURE_UNSUPPORTED


def test_only_root_prepares_nodes() -> None:
    assert system.judge_user(1000).reason is Reason.NOT_ROOT
    assert system.judge_user(0).severity is Severity.OK


@pytest.mark.parametrize(
    ("said", "reason", "severity"),
    [
        ("Kubernetes v1.31.2\n", None, Severity.OK),
        ("Kubernetes v1.24.0\n", None, Severity.OK),
        ("Kubernetes v1.23.17\n", Reason.KUBERNETES_TOO_OLD, Severity.WARNING),
        ("k3s version v1.28.4+k3s2 (6ba6c1b6)\ngo version go1.20.11\n", None, Severity.OK),
        ("what?\n", None, Severity.INFO),
        ("", Reason.COMMAND_FAILED, Severity.WARNING),
    ],
)
def test_the_kubelets_version(tmp_path: Path, said: str, reason: Reason | None, severity: Severity) -> None:
    write(tmp_path, "usr/bin/kubelet", "")
    finding = system.probe_kubelet(HostRoot(tmp_path), Says(words=said))
    assert (finding.reason, finding.severity) == (reason, severity)


def test_a_machine_without_kubernetes_is_no_fault(tmp_path: Path) -> None:
    finding = system.probe_kubelet(HostRoot(tmp_path), Says(words=""))
    assert (finding.reason, finding.severity) == (None, Severity.INFO)


@pytest.mark.parametrize("name", ["talos", "bottlerocket"])
def test_systems_with_their_own_way_are_pointed_to_it(name: str) -> None:
    finding = system.judge_system({"ID": name}, ())
    assert finding.reason is Reason.OS_IMMUTABLE
    assert finding.remedy


def test_read_only_folders_make_a_system_immutable() -> None:
    finding = system.judge_system({"PRETTY_NAME": "Some OS"}, ("/opt",))
    assert finding.reason is Reason.OS_IMMUTABLE
    assert "read-only: /opt" in finding.evidence


def test_os_release_is_read_with_its_quotes_and_comments(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/os-release", '# x=y\nPRETTY_NAME="Debian GNU/Linux 12"\nID=debian\n')
    assert system.os_release(HostRoot(tmp_path)) == {"PRETTY_NAME": "Debian GNU/Linux 12", "ID": "debian"}


def test_folders_that_do_not_exist_are_judged_by_their_parents(tmp_path: Path) -> None:
    assert system.read_only(HostRoot(tmp_path), ("/etc", "/opt/deep/er")) == ()


@pytest.mark.parametrize(
    ("path", "version"),
    [("cgroup.controllers", "v2"), ("unified/x", "v1 and v2 (hybrid)"), ("memory/x", "v1")],
)
def test_the_version_of_control_groups(tmp_path: Path, path: str, version: str) -> None:
    write(tmp_path, f"sys/fs/cgroup/{path}", "")
    assert system.cgroups(HostRoot(tmp_path)).evidence == version


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [("1", Reason.SELINUX_ENFORCING, "enforcing"), ("0", None, "permissive"), (None, None, "off")],
)
def test_the_mode_of_selinux(tmp_path: Path, content: str | None, reason: Reason | None, words: str) -> None:
    if content is not None:
        write(tmp_path, "sys/fs/selinux/enforce", content)
    finding = system.selinux(HostRoot(tmp_path))
    assert (finding.reason, finding.evidence) == (reason, words)


def test_apparmor_and_confidential_computing_are_read_from_the_kernel(tmp_path: Path) -> None:
    assert system.apparmor(HostRoot(tmp_path)).evidence == "off"
    write(tmp_path, "sys/module/apparmor/parameters/enabled", "Y\n")
    write(tmp_path, "sys/module/kvm_amd/parameters/sev_snp", "Y\n")
    assert system.apparmor(HostRoot(tmp_path)).evidence == "on"
    assert system.confidential_computing(HostRoot(tmp_path)).evidence == "SEV-SNP"


def test_too_little_space_says_how_much_is_needed(tmp_path: Path) -> None:
    finding = resources.disk_space(HostRoot(tmp_path), 1 << 60)
    assert finding.reason is Reason.DISK_SPACE_LOW
    assert "1073741824.0 GiB needed" in finding.evidence


def test_a_release_that_is_there_needs_no_space(tmp_path: Path) -> None:
    assert resources.disk_space(HostRoot(tmp_path), 0).severity is Severity.OK


def test_memory_for_one_guest_is_wanted() -> None:
    assert resources.judge_memory({"MemTotal": 2 * GIB}).reason is Reason.MEMORY_LOW
    assert resources.judge_memory({"MemTotal": 4 * GIB}).severity is Severity.OK
    assert resources.judge_memory({}).severity is Severity.INFO


def test_meminfo_is_read_in_bytes_and_counts() -> None:
    assert resources.meminfo("MemTotal:  1024 kB\nHugePages_Total:       3\nrubbish\n") == {
        "MemTotal": 1 << 20,
        "HugePages_Total": 3,
    }


def test_huge_pages_are_said() -> None:
    assert resources.judge_huge_pages({"HugePages_Total": 3, "Hugepagesize": 2 << 20}).evidence == "3 of 2 MiB reserved"


def test_a_machine_without_shared_memory_is_warned_of(tmp_path: Path) -> None:
    assert resources.shared_memory(HostRoot(tmp_path)).reason is Reason.SHM_SMALL


@pytest.mark.parametrize(
    ("name", "reason"), [("tsc", None), ("kvm-clock", None), ("hpet", Reason.CLOCKSOURCE_SLOW), ("", None)]
)
def test_slow_clock_sources_are_said(tmp_path: Path, name: str, reason: Reason | None) -> None:
    write(tmp_path, "sys/devices/system/clocksource/clocksource0/current_clocksource", name)
    assert resources.clock_source(HostRoot(tmp_path)).reason is reason


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    write(tmp_path, "sys/devices/system/cpu/online", "0-3\n")
    for pid, comm in (("7", "cloud-hyperviso"), ("8", "bash"), ("self", "cloud-hyperviso")):
        write(tmp_path, f"proc/{pid}/comm", comm + "\n")
    for tid, allowed, last in (("7", "2", "2"), ("9", "2", "2")):
        write(tmp_path, f"proc/7/task/{tid}/status", f"Name:\tx\nCpus_allowed_list:\t{allowed}\n")
        fields = " ".join(["S", *"4567890", *["0"] * 28, last, "0"])
        write(tmp_path, f"proc/7/task/{tid}/stat", f"{tid} (v) cpu (0) {fields}\n")
    os.symlink("/opt/kata/bin/cloud-hypervisor", tmp_path / "proc/7/exe")
    return tmp_path


def test_hypervisors_are_found_by_their_name_and_asked_for_their_cpus(proc: Path) -> None:
    assert hypervisors.running_vmms(HostRoot(proc)) == (Vmm(7, "cloud-hypervisor", 2, frozenset({2}), frozenset({2})),)


def test_a_hypervisor_with_all_threads_on_one_cpu_is_warned_of(proc: Path) -> None:
    (finding,) = hypervisors.probe_hypervisors(HostRoot(proc))
    assert finding.reason is Reason.VMM_PINNED
    assert finding.severity is Severity.WARNING
    assert finding.evidence == "cloud-hypervisor (process 7): 2 threads, all on CPU 2 of 0-3"


def test_threads_on_different_cpus_are_well() -> None:
    (finding,) = hypervisors.judge((Vmm(7, "firecracker", 3, frozenset({0, 1}), frozenset({1})),), frozenset({0, 1, 2}))
    assert finding.severity is Severity.OK
    assert finding.evidence == "1 running, 3 threads in all, allowed on CPUs 0-1"


def test_a_machine_with_one_cpu_pins_nobody() -> None:
    (finding,) = hypervisors.judge((Vmm(7, "firecracker", 3, frozenset({0}), frozenset({0})),), frozenset({0}))
    assert finding.severity is Severity.OK


def test_without_hypervisors_there_is_nothing_to_judge(tmp_path: Path) -> None:
    (finding,) = hypervisors.probe_hypervisors(HostRoot(tmp_path))
    assert (finding.severity, finding.evidence) == (Severity.INFO, "no hypervisor runs")


@pytest.mark.parametrize(("words", "cpus"), [("0-3,8", {0, 1, 2, 3, 8}), ("5", {5}), ("", set()), ("0,2", {0, 2})])
def test_lists_of_cpus_are_read_and_written_as_the_kernel_does(words: str, cpus: set[int]) -> None:
    assert cpu_list(words) == cpus
    assert ranges(frozenset(cpus)) == words


def test_a_probe_that_breaks_is_a_finding_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    def refused(*_: object) -> None:
        raise KatanodeError(Reason.FILE_READ_FAILED, "no")

    monkeypatch.setattr(probes.kvm, "probe_kvm", broken)
    monkeypatch.setattr(probes.network, "probe_network", refused)
    findings = probes.probe_all(HostRoot(tmp_path), Says(words=""))
    assert findings[0].reason is Reason.INTERNAL_ERROR
    assert "oops" in findings[0].evidence
    assert Reason.FILE_READ_FAILED in {f.reason for f in findings}
    assert findings[-1].evidence == "no hypervisor runs"
