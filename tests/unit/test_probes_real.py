"""The probes on this very machine; what it does not have is skipped."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.probes import child, devices, kvm, network, probe_all
from agent.reasons import Reason, Severity

HERE = HostRoot()

needs_kvm = pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="no /dev/kvm for this user here")
needs_tun = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/net/tun", os.W_OK), reason="needs root and /dev/net/tun"
)


def can_unshare() -> bool:
    """Whether a child may have a network namespace of its own; tried in one, since it changes who tries."""
    code = "import ctypes,sys; sys.exit(ctypes.CDLL(None).unshare(0x40000000) != 0)"
    return subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False).returncode == 0


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(child, "CHILDREN", tmp_path)
    return tmp_path


@needs_kvm
def test_kvm_runs_a_guest_here() -> None:
    outcome = kvm.run_guest(HERE)
    if (outcome.step, outcome.exits) != ("done", ((2, 0x3F8, 0x4B, 1), (5,))):
        pytest.skip(reason=f"KVM does not run guests here: {outcome}")
    assert outcome.api == 12
    assert kvm.probe_kvm(HERE)[0].severity is Severity.OK


@needs_kvm
def test_kvm_is_probed_within_an_eye_blink() -> None:
    assert min(kvm.run_guest(HERE).milliseconds for _ in range(5)) < 300  # 13 on an idle machine


def test_a_device_that_is_not_kvm_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kvm").touch()
    (finding, permissions) = kvm.probe_kvm(HostRoot(tmp_path))
    assert finding.reason is Reason.KVM_API_UNKNOWN
    assert "ENOTTY" in finding.evidence
    assert permissions.reason is Reason.KVM_PERMISSIONS_LOOSE


def test_a_folder_in_the_devices_place_counts_as_missing(tmp_path: Path) -> None:
    (tmp_path / "dev/kvm").mkdir(parents=True)
    assert kvm.run_guest(HostRoot(tmp_path)).step == "open"


def test_a_child_that_hangs_is_left_within_its_time(programs: Path) -> None:
    (programs / "kvm.py").write_text("import time\ndef program(*_): time.sleep(60)\n")
    began = time.monotonic()
    outcome = kvm.run_guest(HERE, timeout=0.3)
    assert outcome.hung
    assert time.monotonic() - began < 2


def test_a_child_that_is_killed_says_by_which_signal(programs: Path) -> None:
    (programs / "kvm.py").write_text("import os\ndef program(*_): os.kill(os.getpid(), 11)\n")
    assert kvm.run_guest(HERE).failure.startswith("killed by SIGSEGV")


def test_a_child_that_breaks_shows_its_traceback(programs: Path) -> None:
    (programs / "kvm.py").write_text("def program(*_): raise ValueError('here')\n")
    assert "ValueError: here" in kvm.run_guest(HERE).failure


@needs_tun
def test_a_tap_is_made_and_nothing_of_it_is_left() -> None:
    if not can_unshare():
        pytest.skip(reason="no network namespaces for this user here")
    before = sorted(os.listdir("/sys/class/net"))
    (finding,) = devices.probe_device(HERE, devices.TUN)
    assert finding.severity is Severity.OK, finding
    assert sorted(os.listdir("/sys/class/net")) == before


@needs_tun
def test_frames_pass_through_katas_network_path_here_and_nothing_of_it_is_left() -> None:
    if not can_unshare():
        pytest.skip(reason="no network namespaces for this user here")
    before = sorted(os.listdir("/sys/class/net"))
    (finding,) = network.probe_network(HERE)
    if finding.reason is not None and "lacks" in finding.evidence:
        pytest.skip(reason=finding.evidence)
    assert finding.severity is Severity.OK, finding
    assert sorted(os.listdir("/sys/class/net")) == before


def test_all_probes_together_take_little_time_and_never_raise() -> None:
    probe_all(HERE, Runner())  # the page cache is filled
    began = time.monotonic()
    findings = probe_all(HERE, Runner(), space_needed=1)
    assert time.monotonic() - began < 5  # 0.3 s on an idle machine
    assert Reason.INTERNAL_ERROR not in {f.reason for f in findings}
    assert [f.check for f in findings] == [f.check for f in probe_all(HERE, Runner(), space_needed=1)]


def test_importing_the_probes_imports_nothing_slow() -> None:
    code = "import sys, agent.probes; print(*sorted({'pyroute2', 'psutil', 'ctypes', 'asyncio'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=os.getcwd())
    assert done.stdout.strip() == ""


def test_this_process_keeps_its_network_namespace() -> None:
    before = os.readlink("/proc/self/ns/net")
    probe_all(HERE, Runner())
    assert os.readlink("/proc/self/ns/net") == before
