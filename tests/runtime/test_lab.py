"""The lab itself: a real containerd of each generation, in private, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from hack.lab import configs, cri, pause  # noqa: E402
from hack.lab.containerd import CONFIG, RESTART, SOCKET, PrivateContainerd  # noqa: E402
from hack.lab.errors import LabError  # noqa: E402
from hack.lab.lab import Lab  # noqa: E402
from hack.lab.packages import GENERATIONS, Generation  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root"),
]


@pytest.fixture(scope="module", params=GENERATIONS)
def containerd(request: pytest.FixtureRequest) -> Iterator[PrivateContainerd]:
    with Lab() as lab, PrivateContainerd(lab, request.param) as daemon:
        yield daemon


def machine(scratch: Path, names: set[str]) -> dict[str, object]:
    """What labs with these names, which had their folders in `scratch`, could leave on the machine.

    Of these labs only: others may come and go meanwhile.
    """
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "cgroups": {str(group) for group, _, _ in os.walk("/sys/fs/cgroup") if names & set(Path(group).parts)},
        "labs": names_in(scratch),
        "links": {line.split(": ")[1] for line in links.splitlines()},
        "files": [p for p in (CONFIG, SOCKET, "/opt/cni/bin/ptp", RESTART, "/etc/made") if Path(p).exists()],
    }


def names_in(scratch: Path) -> set[str]:
    """The names of the labs that have their folders there: their control groups have them too."""
    return {path.name for path in scratch.iterdir()}


def living_in(namespace: str) -> list[str]:
    """The processes in the pid namespace `namespace`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/ns/pid"):
        with contextlib.suppress(OSError):
            if os.readlink(entry) == namespace:
                found.append(str(entry))
    return found


def test_a_pod_sandbox_starts_and_is_removed(containerd: PrivateContainerd) -> None:
    sandbox = cri.run_pod_sandbox(containerd.socket, "pod")
    tasks = containerd.lab.run(["ctr", "-n", "k8s.io", "task", "ls"]).stdout
    assert sandbox in tasks
    assert "RUNNING" in tasks
    assert "veth" in containerd.lab.run(["ip", "link"]).stdout
    cri.remove_pod_sandbox(containerd.socket, sandbox)
    assert sandbox not in containerd.lab.run(["ctr", "-n", "k8s.io", "containers", "ls"]).stdout


def test_a_sandbox_outlives_a_restart_and_a_crash_of_the_daemon(containerd: PrivateContainerd) -> None:
    sandbox = cri.run_pod_sandbox(containerd.socket, "survivor")
    before = containerd.pid
    containerd.restart()
    assert containerd.pid != before
    containerd.kill9()
    assert containerd.host_pid == 0
    with pytest.raises(LabError, match="not running"):
        containerd.wait_ready()
    containerd.start()
    tasks = containerd.lab.run(["ctr", "-n", "k8s.io", "task", "ls"]).stdout.splitlines()
    assert any(sandbox in line and "RUNNING" in line for line in tasks)
    cri.remove_pod_sandbox(containerd.socket, sandbox)


def test_the_unit_fails_as_often_as_it_is_told(containerd: PrivateContainerd) -> None:
    containerd.refuse_start(times=1)
    assert containerd.lab.run([RESTART], check=False).returncode == 1
    assert containerd.host_pid == 0
    containerd.lab.run([RESTART])
    containerd.wait_ready()
    containerd.heal()


def test_the_daemon_comes_back_with_another_configuration_when_told(containerd: PrivateContainerd) -> None:
    other = containerd.lab.path(CONFIG).read_text().replace(".runtimes.runc", ".runtimes.other")
    other = other.replace('default_runtime_name = "runc"', 'default_runtime_name = "other"')
    other = other.replace("default_runtime_name = 'runc'", "default_runtime_name = 'other'")
    containerd.lab.path("/etc/containerd/other.toml").write_text(other)
    containerd.start_with_config("/etc/containerd/other.toml", times=1)
    containerd.restart()
    sandbox = cri.run_pod_sandbox(containerd.socket, "other", handler="other")
    cri.remove_pod_sandbox(containerd.socket, sandbox)
    containerd.restart()
    with pytest.raises(LabError, match="refused"):
        cri.run_pod_sandbox(containerd.socket, "no-more", handler="other")
    containerd.heal()


def test_a_daemon_with_a_broken_configuration_is_reported_soon_and_in_its_own_words(
    containerd: PrivateContainerd,
) -> None:
    file = containerd.lab.path(CONFIG)
    good = file.read_bytes()
    file.write_bytes(good + b"[broken\n")
    started = time.monotonic()
    with pytest.raises(LabError, match="containerd"):
        containerd.restart()
    assert time.monotonic() - started < 5
    file.write_bytes(good)
    containerd.start()


def test_the_newest_containerd_serves_the_older_schema_and_its_default_image() -> None:
    with Lab() as lab:
        config = configs.default(2).replace(b"sandbox_image", b"# sandbox_image")
        with PrivateContainerd(lab, "2.1", config=config) as daemon:
            assert pause.PAUSE_IMAGE not in daemon.sandbox_images()
            cri.remove_pod_sandbox(daemon.socket, cri.run_pod_sandbox(daemon.socket, "pod"))


def test_pods_start_in_a_lab_that_writes_to_memory() -> None:
    with Lab(tmpfs=True) as lab, PrivateContainerd(lab, "1.7") as daemon:
        cri.remove_pod_sandbox(daemon.socket, cri.run_pod_sandbox(daemon.socket, "pod"))


def test_two_labs_do_not_meet() -> None:
    with Lab() as one, Lab() as two, PrivateContainerd(one, "1.7") as a, PrivateContainerd(two, "1.7") as b:
        cri.run_pod_sandbox(a.socket, "pod")
        assert len(two.run(["ctr", "-n", "k8s.io", "task", "ls"]).stdout.splitlines()) == 1
        cri.run_pod_sandbox(b.socket, "pod")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_nothing_is_left_on_the_machine(generation: Generation, tmp_path: Path) -> None:
    before = machine(tmp_path, set())
    with Lab(scratch=tmp_path) as lab, PrivateContainerd(lab, generation) as daemon:
        lab.path("/etc/made").write_text("inside")
        lab.run(["sh", "-c", "echo inside >/etc/hostname; rm /etc/passwd"])
        cri.run_pod_sandbox(daemon.socket, "left-running")
        namespace = os.readlink(f"/proc/{lab.holder}/ns/pid")
        assert living_in(namespace)
        names = names_in(tmp_path)
        assert machine(tmp_path, names)["cgroups"]
    assert not living_in(namespace)
    assert machine(tmp_path, names) == before
    assert Path("/etc/passwd").exists()


def test_nothing_is_left_when_the_owner_is_killed(tmp_path: Path) -> None:
    before = machine(tmp_path, set())
    code = (
        "from hack.lab import cri; from hack.lab.containerd import PrivateContainerd\n"
        "from hack.lab.lab import Lab\n"
        f"from pathlib import Path\nwith Lab(scratch=Path({str(tmp_path)!r})) as lab, "
        "PrivateContainerd(lab, '1.7') as daemon:\n"
        "    cri.run_pod_sandbox(daemon.socket, 'orphan'); print(lab.holder, flush=True); input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        namespace = os.readlink(f"/proc/{int(owner.stdout.readline())}/ns/pid")
        names = names_in(tmp_path)
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while machine(tmp_path, names) != before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not living_in(namespace)
    assert machine(tmp_path, names) == before


def test_a_command_that_takes_too_long_is_killed_inside_too() -> None:
    with Lab() as lab:
        with pytest.raises(LabError, match="no end after"):
            lab.run(["sleep", "1234"], timeout=0.3)
        assert "1234" not in lab.run(["ps", "ax", "-o", "args"]).stdout


def test_a_failed_command_tells_what_it_said() -> None:
    with Lab() as lab, pytest.raises(LabError, match="exit status 3\nevidence: why"):
        lab.run(["sh", "-c", "echo why >&2; exit 3"])
