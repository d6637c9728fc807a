"""`katanode sandboxes show`: where the parts of a sandbox are, and the commands to look further."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from agent.host.process import NSENTER
from agent.host.root import HostRoot
from agent.listing import detail, explain, hints
from agent.listing.gather import Gathering
from agent.sandboxes.census import Census
from hack.lab.fakeproc import RELEASE, FakeProc, sandbox_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.listing.detail import Detail

ID = sandbox_id(7)
CONTAINERD = "/run/containerd/containerd.sock"
NETNS = "/var/run/netns/cni-1234"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, since sockets are made in it (unix(7): 107 bytes)."""
    made = Path(tempfile.mkdtemp(prefix="kn", dir="/tmp"))
    yield made
    shutil.rmtree(made)


def bind(root: Path, path: str) -> None:
    """Makes a socket at a path of the node; the name is made short by going there."""
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as made:
        short = root / "s"
        made.bind(str(short))
        short.rename(place)


def looked(folder: Path, hypervisor: str = "clh", **options: object) -> Detail:
    proc = FakeProc(folder / "proc")
    proc.sandbox(7, 7000, pod="web-0", namespace="shop", vcpus=2)
    if hypervisor == "qemu":
        argv = [f"{RELEASE}/bin/qemu-system-x86_64", "-name", f"sandbox-{ID},debug-threads=on"]
        proc.process(7001, argv, parent=7000, start=5009)
        proc.holds(7001, 2)
        proc.taps(7001, {"tap0_kata": (1, 2, 3, 4)})
    spec = proc.path / "7000/cwd/config.json"
    content = json.loads(spec.read_text())
    content["linux"] = {"namespaces": [{"type": "pid"}, {"type": "network", "path": NETNS}]}
    spec.write_text(json.dumps(content))
    (proc.path / "7001/cgroup").write_text("12:cpu,cpuacct:/c\n4:memory:/kubepods/pod1/kata\n0::/x\n")
    (proc.path / "7000/cgroup").write_text("0::/kata_overhead/7\n")
    gathering = Gathering(proc.path, Census(proc.path, patience=0.0))
    (row,) = gathering.look()
    return detail.look(HostRoot(folder), proc.path, row, **options)  # type: ignore[arg-type]


def test_processes_cgroups_interfaces_and_the_network_namespace_are_told(folder: Path) -> None:
    seen = looked(folder)
    assert {each.component: each.pid for each in seen.processes} == {"vmm": 7001, "virtiofsd": 7002, "shim": 7000}
    assert {each.component: each.program for each in seen.processes}["vmm"] == f"{RELEASE}/bin/cloud-hypervisor"
    assert {each.component: each.cgroups for each in seen.processes} == {
        "vmm": "/kubepods/pod1/kata",
        "shim": "/kata_overhead/7",
        "virtiofsd": "",
    }
    assert seen.namespace == NETNS
    assert set(seen.taps) == {"eth0", "tap0_kata"}


def test_state_folders_and_sockets_are_found_for_both_runtimes(folder: Path) -> None:
    for path in (
        f"/run/vc/sbs/{ID}/shim-monitor.sock",
        f"/run/vc/vm/{ID}/clh-api.sock",
        f"/run/vc/firecracker/{ID[:32]}/root/run/firecracker.socket",
        f"/run/kata/{ID}/root/virtiofsd.sock",
        f"/run/kata/{sandbox_id(8)}/shim-monitor.sock",
    ):
        bind(folder, path)
    (folder / f"run/kata/{ID}/state.json").write_text("{}")
    seen = looked(folder)
    assert seen.folders == (
        f"/run/vc/sbs/{ID}",
        f"/run/vc/vm/{ID}",
        f"/run/vc/firecracker/{ID[:32]}",
        f"/run/kata/{ID}",
    )
    assert seen.sockets == (
        f"/run/vc/sbs/{ID}/shim-monitor.sock",
        f"/run/vc/vm/{ID}/clh-api.sock",
        f"/run/vc/firecracker/{ID[:32]}/root/run/firecracker.socket",
        f"/run/kata/{ID}/root/virtiofsd.sock",
    )


@pytest.mark.parametrize("text", ["", "{", "[]", '{"linux": 1}', '{"linux": {"namespaces": [{"path": "/x"}]}}'])
def test_a_bundle_that_says_nothing_of_its_network_is_no_trouble(folder: Path, text: str) -> None:
    assert detail._network_namespace(text.encode()) == ""


def lines_of(seen: Detail, prefix: tuple[str, ...] = (), unit: str = "containerd.service") -> list[str]:
    return [each.line for each in hints.commands(seen, CONTAINERD, unit, prefix)]


def test_the_commands_ask_the_log_containerd_the_shim_the_hypervisor_and_the_network(folder: Path) -> None:
    bind(folder, f"/run/vc/sbs/{ID}/shim-monitor.sock")
    bind(folder, f"/run/vc/vm/{ID}/clh-api.sock")
    told = lines_of(looked(folder))
    assert [line for line in told if line.startswith("journalctl --since @") and line.endswith(f"--grep={ID}")]
    assert [line for line in told if line.endswith("SYSLOG_IDENTIFIER=kata + _SYSTEMD_UNIT=containerd.service")]
    assert f"ctr --address {CONTAINERD} --namespace k8s.io tasks ls" in told
    assert [line for line in told if line.endswith(f"containers info {ID}")]
    metrics = next(line for line in told if line.endswith("http://shim/metrics"))
    assert f"--unix-socket /run/vc/sbs/{ID}/shim-monitor.sock" in metrics
    machine = next(line for line in told if line.endswith("http://localhost/api/v1/vm.info"))
    assert f"--unix-socket /run/vc/vm/{ID}/clh-api.sock" in machine
    assert f"nsenter --net={NETNS} ip -statistics address" in told
    assert "top -H -p 7001,7002,7000" in told


def test_in_a_pod_each_command_goes_to_the_node_first(folder: Path) -> None:
    seen = looked(folder)
    for bare, inside in zip(lines_of(seen), lines_of(seen, NSENTER), strict=True):
        assert shlex.split(inside) == [*NSENTER, *shlex.split(bare)]


@pytest.mark.parametrize(
    ("socket_folder", "hypervisor", "asked"),
    [
        ("/run/kata", "qemu", "http://shim/agent-url"),
        ("/run/vc/sbs", "qemu", "http://shim/metrics"),
        ("/run/kata", "clh", "http://shim/metrics"),
    ],
)
def test_a_shim_that_would_panic_is_not_asked_for_metrics(
    folder: Path, socket_folder: str, hypervisor: str, asked: str
) -> None:
    bind(folder, f"{socket_folder}/{ID}/shim-monitor.sock")
    told = lines_of(looked(folder, hypervisor))
    assert [line.rsplit(" ", 1)[1] for line in told if "shim-monitor.sock" in line] == [asked]


def test_without_a_bundle_the_network_is_reached_through_a_process(folder: Path) -> None:
    seen = looked(folder)
    (folder / "proc/7000/cwd/config.json").unlink()
    proc = folder / "proc"
    again = detail.look(HostRoot(folder), proc, seen.row)
    assert again.namespace == ""
    assert "nsenter --net=/proc/7001/ns/net ip -statistics address" in lines_of(again)


def test_lines_to_copy_are_whole_on_a_narrow_terminal(folder: Path) -> None:
    bind(folder, f"/run/vc/sbs/{ID}/shim-monitor.sock")
    seen = looked(folder, allowed=130 << 20, config="/etc/kata-containers/katanode/kata-clh/x/configuration.toml")
    told = hints.commands(seen, CONTAINERD, "containerd.service", NSENTER)
    out = io.StringIO()
    explain.sandbox(
        Console(file=out, width=80, highlight=False), seen, told, seen.row.sandbox.started + 60, in_pod=True
    )
    printed = out.getvalue().splitlines()
    for each in told:
        assert each.line in printed
    assert f"/run/vc/sbs/{ID}/shim-monitor.sock" in printed
    assert printed[0] == f"shop/web-0  {ID}"
    assert any(line.split()[:4] == ["machine", "2", "vCPUs"] or "2 vCPUs" in line for line in printed)


def test_a_shell_reads_the_lines_as_they_are_meant(folder: Path) -> None:
    odd = f"/run/kata/{ID}/a b'$(x)"
    bind(folder, f"{odd}/shim-monitor.sock")
    line = next(line for line in lines_of(looked(folder)) if "shim-monitor" in line)
    argv = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert f"{odd}/shim-monitor.sock" in argv


def test_machines_get_paths_and_processes(folder: Path) -> None:
    bind(folder, f"/run/vc/sbs/{ID}/shim-monitor.sock")
    told = json.loads(json.dumps(looked(folder).as_json(0.0)))
    assert told["id"] == ID
    assert [each["pid"] for each in told["processes"]] == [7001, 7002, 7000]
    assert told["sockets"] == [f"/run/vc/sbs/{ID}/shim-monitor.sock"]
    assert told["network_namespace"] == NETNS
