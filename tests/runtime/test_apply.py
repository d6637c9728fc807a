"""The main job on real daemons: plain, applied, a sandbox, plain again; and what must not happen on the way."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from labnode import GENERATIONS, LabNode, extra_daemons, lab_node

from hack.lab import configs
from hack.standin.archive import Archive
from hack.standin.build import build_release

pytestmark = pytest.mark.runtime

EVERY = [*GENERATIONS, *extra_daemons()]


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Archive]:
    folder = tmp_path_factory.mktemp("standin")
    return {v: build_release(folder / v, v)["kata-static"] for v in ("3.2.0", "3.32.0", "4.1.0")}


@pytest.fixture(params=EVERY)
def node(request: pytest.FixtureRequest, archives: Mapping[str, Archive]) -> Iterator[LabNode]:
    with lab_node(request.param, archives) as made:
        yield made


@pytest.fixture(params=["1.7", "2.1"])
def either(request: pytest.FixtureRequest, archives: Mapping[str, Archive]) -> Iterator[LabNode]:
    with lab_node(request.param, archives) as made:
        yield made


def handlers(effective: dict[str, object]) -> dict[str, object]:
    plugins: dict[str, dict[str, dict[str, dict[str, object]]]] = effective["plugins"]  # type: ignore[assignment]
    cri = plugins.get("io.containerd.cri.v1.runtime") or plugins["io.containerd.grpc.v1.cri"]
    return cri["containerd"]["runtimes"]


def test_a_node_goes_from_plain_to_proved_and_back(node: LabNode) -> None:
    before, effective = node.snapshot(), node.effective()
    proc = node.lab.path("/proc")
    with node.sandbox("") as old:
        pids = {p.pid for p in node.processes(old)}
        made = node.json("apply")
        assert made["state"] == "degraded" if not Path("/dev/vhost-vsock").exists() else "ready"
        ready = {h["name"]: h for h in made["handlers"]}
        assert ready["kata-clh"]["ready"], made
        if not Path("/dev/vhost-vsock").exists():
            assert "VhostVsockMissing" in ready["kata-qemu"]["reasons"]
        with node.sandbox("kata-clh") as sandbox:
            assert node.shim(sandbox).startswith("/opt/katanode/releases/3.2.0-")
            assert any(p.holds_vm(proc) for p in node.processes(sandbox))
            error = node.error("uninstall")
            assert error["reason"] == "SandboxesRunning"
            assert "test/" in error["evidence"]
        after = node.effective()
        for name in ("kata-clh", "kata-qemu"):
            handlers(after).pop(name)
        assert after == effective
        node.katanode("uninstall")
        assert node.ready(old), "the pod that ran before still runs"
        assert {p.pid for p in node.processes(old)} == pids
    assert node.effective() == effective
    assert node.snapshot() == before


def test_a_schema_2_file_on_containerd_2_is_served_too(archives: Mapping[str, Archive]) -> None:
    with lab_node("2.1", archives, schema=2) as node:
        before, effective = node.snapshot(), node.effective()
        node.katanode("apply")
        after = node.effective()
        assert handlers(after).pop("kata-clh")
        handlers(after).pop("kata-qemu")
        assert after == effective
        node.katanode("uninstall")
        assert node.snapshot() == before


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_file_that_names_no_runtime_keeps_runc(archives: Mapping[str, Archive], generation: str) -> None:
    schema = 3 if generation == "2.1" else 2
    lines = [line for line in configs.default(schema).decode().splitlines() if "runc" not in line]
    lines = [line for line in lines if "SystemdCgroup" not in line]
    with lab_node(generation, archives, config=("\n".join(lines) + "\n").encode()) as node:
        before = node.snapshot()
        assert "runc" in handlers(node.effective())
        node.katanode("apply")
        with node.sandbox(""), node.sandbox("runc"), node.sandbox("kata-clh"):
            pass
        node.katanode("uninstall")
        assert node.snapshot() == before


def test_a_second_apply_changes_nothing_and_is_quick(either: LabNode) -> None:
    either.katanode("apply")

    def stamps() -> dict[str, tuple[int, int]]:
        found = {}
        for path in either.snapshot():
            state = either.lab.path(path).lstat()
            if not path.endswith("/lock") and path != "/var/lib/katanode":
                found[path] = (state.st_ino, state.st_mtime_ns)
        return found

    written, pid = stamps(), either.containerd.pid
    times, starts = [], []
    for _ in range(5):
        begin = time.monotonic()
        either.lab.run([sys.executable, "-c", "pass"])
        starts.append(time.monotonic() - begin)
        begin = time.monotonic()
        said = either.katanode("apply").stdout
        times.append(time.monotonic() - begin)
        assert "nothing to do" in said
    assert stamps() == written
    assert either.containerd.pid == pid
    assert min(times) - min(starts) < 0.5


def test_looking_changes_nothing(either: LabNode) -> None:
    before, pid = either.snapshot(), either.containerd.pid
    for command in ("check", "plan", "status"):
        either.katanode(command)
        either.json(command)
    either.katanode("apply", "--dry-run")
    either.katanode("uninstall", "--dry-run")
    assert either.snapshot() == before
    assert either.containerd.pid == pid


def test_a_changed_tunable_restarts_nothing_and_reaches_the_next_sandbox(either: LabNode) -> None:
    either.katanode("apply")
    pid = either.containerd.pid
    with either.sandbox("kata-clh") as sandbox:
        assert either.vmm_environment(sandbox)["KATANODE_STANDIN_MEMORY_MIB"] == "2048"
        either.wish(more="[handlers.kata-clh.hypervisor.clh]\ndefault_memory = 512\ndefault_vcpus = 2")
        plan = either.json("plan")
        assert not plan["restarts"]
        either.katanode("apply")
        with either.sandbox("kata-clh") as new:
            environment = either.vmm_environment(new)
        assert environment["KATANODE_STANDIN_MEMORY_MIB"] == "512"
        assert environment["KATANODE_STANDIN_VCPUS"] == "2"
    assert either.containerd.pid == pid


def test_a_wrong_tunable_is_refused_with_the_right_one(either: LabNode) -> None:
    either.katanode("apply")
    before = either.snapshot()
    either.wish(
        more='[handlers.kata-clh.hypervisor.clh]\nblock_device_driver = "virtio-blk-pci"\ndefault_memroy = 512\n'
        '[handlers.kata-clh.runtime]\nname = "kata-clh"\ndisable_guest_selinux = true'
    )
    error = either.error("apply", status=2)
    for words in ('"virtio-blk"', "did you mean default_memory?", "runtime.name", "[handlers.kata-clh.hypervisor.clh]"):
        assert words in error["evidence"]
    either.wish()
    assert either.snapshot() == before


def test_a_changed_release_restarts_once_and_old_sandboxes_keep_theirs(either: LabNode) -> None:
    either.katanode("apply")
    with either.sandbox("kata-clh") as old:
        shim, pid = either.shim(old), either.containerd.pid
        either.wish("3.32.0")
        done = either.katanode("apply")
        assert done.stderr.count("restarting containerd") == 1
        assert either.containerd.pid != pid
        assert either.shim(old) == shim
        with either.sandbox("kata-clh") as new:
            assert "/3.32.0-" in either.shim(new)
        assert either.ready(old)
    assert not either.processes(old), "the old sandbox is gone for good"
    assert either.json("status")["details"]["kept releases"].startswith("3.2.0-")


def test_a_rollback_goes_back_and_stays_there(either: LabNode) -> None:
    either.katanode("apply")
    assert either.error("rollback")["reason"] == "NothingToRollBack"
    either.wish("3.32.0")
    either.katanode("apply")
    assert either.katanode("rollback").stderr.count("restarting containerd") == 1
    with either.sandbox("kata-clh") as sandbox:
        assert "/3.2.0-" in either.shim(sandbox)
    assert "nothing to do" in either.katanode("apply").stdout
    either.katanode("apply", "--release-hold")
    with either.sandbox("kata-clh") as sandbox:
        assert "/3.32.0-" in either.shim(sandbox)


def test_the_rust_runtime_of_4_1_is_served(either: LabNode) -> None:
    either.wish("4.1.0")
    either.katanode("apply")
    with either.sandbox("kata-clh") as sandbox:
        assert either.shim(sandbox).endswith("/runtime-rs/bin/containerd-shim-kata-v2")


def test_what_others_put_there_stays(either: LabNode) -> None:
    program = either.lab.path("/usr/local/bin/kata-runtime")
    program.symlink_to("/opt/kata/bin/kata-runtime")
    either.lab.path("/opt/kata/bin").mkdir(parents=True)
    either.lab.path("/opt/kata/bin/kata-runtime").write_text("somebody else's")
    before = either.snapshot()
    made = either.json("apply")
    assert "ForeignFile" in {finding["reason"] for finding in made["findings"]}
    either.katanode("uninstall")
    assert either.snapshot() == before


def test_a_missing_device_is_told_and_nothing_is_installed(archives: Mapping[str, Archive]) -> None:
    with lab_node("2.1", archives) as node:
        node.lab.run(["mount", "--bind", "/dev/null", "/dev/kvm"])
        made = node.json("apply", status=1)
        assert made["state"] == "blocked"
        assert "KVMApiUnknown" in made["handlers"][0]["reasons"]
        assert not node.lab.path("/opt/katanode").exists()


def test_from_a_pod_the_host_is_served_through_its_mapped_root(either: LabNode) -> None:
    before = either.snapshot()
    either.lab.run(["sh", "-c", "mkdir -p /run/pod/host && mount --rbind / /run/pod/host"])
    seen = ("--root", "/run/pod/host", "--settings", "/etc/katanode/katanode.toml")
    either.katanode("apply", *seen)
    assert either.json("status")["handlers"][0]["ready"], "what was done from the pod holds on the host"
    with either.sandbox("kata-clh") as sandbox:
        assert either.shim(sandbox).startswith("/opt/katanode/releases/")
    either.katanode("uninstall", *seen)
    assert either.snapshot() == before


def test_the_command_says_how_it_is_used() -> None:
    program = str(Path(sys.executable).with_name("katanode"))
    for command in ("check", "plan", "apply", "status", "rollback", "uninstall", "pin"):
        done = subprocess.run([program, command, "--help"], capture_output=True, text=True, check=True)
        assert f"katanode {command}" in done.stdout.partition("examples:")[2]
