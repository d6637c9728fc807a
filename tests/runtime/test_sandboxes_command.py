"""`katanode sandboxes` on a real containerd: the table, one sandbox, the watch, and the debug switch."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import termios
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from crashing import Crasher
from daemon import FAST, hide_kvm, running, show_kvm

from agent.kata import debug

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator

    from conftest import Machine

pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="the stand-in's machines are KVM's: there is no /dev/kvm"),
]

RENDERINGS = "/etc/kata-containers/katanode"
PATIENCE = 20.0


@pytest.fixture(scope="module")
def applied(launch: Callable[..., contextlib.AbstractContextManager[Machine]]) -> Iterator[Machine]:
    """A machine with handlers; each test leaves it as it was."""
    with launch("2.1") as machine:
        machine.katanode("apply")
        yield machine


def wanted_loud(machine: Machine, handler: str = "kata-clh") -> bool:
    """Whether the next sandbox of a handler gets a configuration with debug output, as containerd leads its shim."""
    path = machine.path(machine.loaded()[handler]["options"]["ConfigPath"])
    said = []
    for file in (path, *sorted(path.parent.glob("config.d/*"))):
        table = tomllib.loads(file.read_text())
        for part in ("hypervisor", "agent", "runtime"):
            inner = table.get(part, {})
            tables = [inner] if part == "runtime" else list(inner.values())
            said += [(part, each["enable_debug"]) for each in tables if "enable_debug" in each]
    last = dict(said)
    assert len(set(last.values())) <= 1, f"debug output is on in part: {last}"
    return any(last.values())


def files_of(machine: Machine) -> dict[str, object]:
    """All that katanode could change, less its memory: proofs have the seconds of their canary in them."""
    return {path: seen for path, seen in machine.snapshot().items() if not path.startswith("/var/lib/katanode/")}


def reasons(made: dict[str, Any]) -> list[str]:
    return [finding["reason"] for finding in made["findings"] if finding["reason"]]


class TestTheTable:
    """What it says of sandboxes that run."""

    @pytest.fixture(scope="class")
    @staticmethod
    def pods(applied: Machine) -> Iterator[dict[str, str]]:
        made = {
            name: applied.run_pod(handler, name=name)
            for name, handler in (("web-0", "kata-clh"), ("db-0", "kata-qemu"), ("plain", "runc"))
        }
        yield made
        for sandbox in made.values():
            applied.remove_pod(sandbox)

    def test_it_has_kata_pods_with_their_handlers_and_no_others(self, applied: Machine, pods: dict[str, str]) -> None:
        told = applied.json("sandboxes")
        rows = {row["id"]: row for row in told["sandboxes"]}
        assert rows.keys() == {pods["web-0"], pods["db-0"]}
        web, db = rows[pods["web-0"]], rows[pods["db-0"]]
        assert [(row["pod"], row["handler"], row["hypervisor"]) for row in (web, db)] == [
            ("web-0", "kata-clh", "clh"),
            ("db-0", "kata-qemu", "qemu"),
        ]
        for row in rows.values():
            assert (row["namespace"], row["release"]) == ("default", told["release"])
            assert (row["holds_vm"], row["vcpus"], row["mark"]) == (True, 1, None)
            assert row["memory_is"] == "proportional"
            assert row["cpu_cores"] is not None
            assert set(row["processes"]) == {"vmm", "virtiofsd", "shim"}
        assert told["total"]["memory_bytes"] == sum(row["memory_bytes"] for row in rows.values()) > 0

    def test_people_see_a_line_each_and_the_sums(self, applied: Machine, pods: dict[str, str]) -> None:
        lines = applied.katanode("sandboxes").stdout.splitlines()
        assert [line.split()[1:4] for line in lines[1:3]] == [
            ["default/db-0", "kata-qemu", "qemu"],
            ["default/web-0", "kata-clh", "clh"],
        ]
        assert pods["db-0"].startswith(lines[1].split()[0])
        assert "2 sandboxes: 1 kata-clh, 1 kata-qemu" in lines

    def test_one_is_shown_by_the_beginning_of_its_id_and_by_its_pod(
        self, applied: Machine, pods: dict[str, str]
    ) -> None:
        sandbox = pods["web-0"]
        told = applied.json("sandboxes", "show", sandbox[:12])
        assert told["id"] == sandbox == applied.json("sandboxes", "show", "default/web-0")["id"]
        assert {each["component"] for each in told["processes"]} == {"vmm", "virtiofsd", "shim"}
        for path in (told["bundle"], told["network_namespace"], told["configuration"], *told["folders"]):
            assert applied.path(path.replace("/var/run/", "/run/")).exists(), path
        assert all(applied.path(path).is_socket() for path in told["sockets"])
        lines = [each["line"] for each in told["commands"]]
        listed = next(line for line in lines if line.endswith("tasks ls"))
        assert sandbox in applied.lab.run(["sh", "-c", listed]).stdout
        network = next(line for line in lines if line.startswith("nsenter"))
        assert "eth0" in applied.lab.run(["sh", "-c", network]).stdout

    def test_an_id_that_none_has_is_refused_with_what_there_is(self, applied: Machine, pods: dict[str, str]) -> None:
        made = applied.json("sandboxes", "show", "zzz", check=False)
        assert (made["error"]["reason"], made["exit_status"]) == ("SandboxUnknown", 2)
        assert "default/web-0" in made["error"]["evidence"]

    def test_a_watch_without_a_terminal_prints_tables_until_ctrl_c(
        self, applied: Machine, pods: dict[str, str]
    ) -> None:
        watch = applied.popen("sandboxes", "--watch", "--json", "--interval", "0.2", stdout=-1)
        assert watch.stdout is not None
        told = [json.loads(watch.stdout.readline()) for _ in range(3)]
        assert [len(each["sandboxes"]) for each in told] == [2, 2, 2]
        interrupt(applied)
        assert watch.wait(PATIENCE) == 0

    def test_a_watch_on_a_terminal_ends_with_ctrl_c_and_leaves_the_last_table(
        self, applied: Machine, pods: dict[str, str]
    ) -> None:
        status, printed = on_terminal(applied, "sandboxes", "--watch", "--interval", "0.2")
        assert status == 0
        screen, _, after = printed.rpartition("\x1b[?1049l")
        assert "\x1b[?1049h" in screen
        assert "default/web-0" in screen
        assert "default/web-0" in after
        assert "Traceback" not in printed


def interrupt(machine: Machine) -> None:
    listed = machine.lab.run(["pgrep", "-f", "katanode sandboxes --watch"]).stdout
    machine.lab.run(["kill", f"-{int(signal.SIGINT)}", *listed.split()])


def on_terminal(machine: Machine, *arguments: str) -> tuple[int, str]:
    """Runs katanode on a terminal of 100 columns, types Ctrl-C when it has drawn twice; gives status and output."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = machine.popen(
        *arguments, stdin=theirs, stdout=theirs, stderr=theirs, env={"TERM": "xterm"}, start_new_session=True
    )
    os.close(theirs)
    printed, typed, deadline = b"", False, time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # nobody holds the other end any more
                break
            printed += part
        if not typed and printed.count(b"default/web-0") >= 2:
            interrupt(machine)
            typed = True
    os.close(ours)
    return process.wait(PATIENCE), printed.decode()


class TestTheDebugSwitch:
    """It is on for new sandboxes, stays on, and leaves nothing when it is off."""

    @pytest.fixture(autouse=True)
    @staticmethod
    def _as_before(applied: Machine) -> Iterator[None]:
        files, pid = files_of(applied), applied.containerd.pid
        yield
        applied.settings(version="3.2.0")
        applied.katanode("sandboxes", "debug", "kata-clh", "off")
        assert files_of(applied) == files
        assert applied.containerd.pid == pid
        assert debug.DROP_IN.encode() not in applied.path("/var/lib/katanode/state.json").read_bytes()

    def test_it_reaches_the_next_sandbox_and_apply_leaves_it(self, applied: Machine) -> None:
        settings = applied.path("/etc/katanode/katanode.toml").read_bytes()
        assert not wanted_loud(applied)
        made = applied.json("sandboxes", "debug", "kata-clh", "on")
        assert (made["debug"], made["changed"]) == (True, True)
        assert made["canary_seconds"] > 0
        assert wanted_loud(applied)
        assert not wanted_loud(applied, "kata-qemu")
        applied.remove_pod(applied.run_pod("kata-clh", name="loud"))
        assert applied.json("plan")["steps"] == []
        told = applied.json("apply")
        assert told["note"].startswith("nothing to do")
        assert reasons(told).count("DebugOutputOn") == 1
        assert wanted_loud(applied)
        assert applied.path("/etc/katanode/katanode.toml").read_bytes() == settings

    def test_everybody_who_looks_is_reminded_until_it_is_off(self, applied: Machine) -> None:
        said = applied.katanode("sandboxes", "debug", "kata-clh", "on").stdout
        assert "katanode sandboxes debug kata-clh off" in said
        assert "DebugOutputOn" in reasons(applied.json("check"))
        assert "debug output" in applied.katanode("status").stdout
        assert "katanode sandboxes debug kata-clh off" in applied.katanode("sandboxes").stdout
        applied.katanode("sandboxes", "debug", "kata-clh", "off")
        assert "DebugOutputOn" not in reasons(applied.json("status"))
        assert "debug" not in applied.katanode("sandboxes").stdout

    def test_switched_twice_it_is_as_switched_once(self, applied: Machine) -> None:
        assert applied.json("sandboxes", "debug", "kata-clh", "off")["changed"] is False
        first = applied.json("sandboxes", "debug", "kata-clh", "on")
        files, stamps = applied.snapshot(), applied.stamps()
        again = applied.json("sandboxes", "debug", "kata-clh", "on")
        assert (again["changed"], again["since"], again["tables"]) == (False, first["since"], first["tables"])
        assert applied.snapshot() == files
        assert {p: s for p, s in applied.stamps().items() if p != "/var/lib/katanode"} == {
            p: s for p, s in stamps.items() if p != "/var/lib/katanode"
        }

    def test_it_carries_out_nothing_else_that_is_waiting(self, applied: Machine) -> None:
        applied.settings(version="4.1.0", more="[handlers.kata-clh.hypervisor.clh]\ndefault_memory = 512")
        applied.katanode("sandboxes", "debug", "kata-clh", "on")
        assert wanted_loud(applied)
        assert applied.releases() == [Path(applied.release_path("3.2.0")).name]
        assert b"512" not in b"".join(f.read_bytes() for f in applied.path(RENDERINGS).rglob("50-*.toml"))

    def test_where_no_sandbox_starts_any_more_it_is_undone_and_said_so(self, applied: Machine) -> None:
        files = files_of(applied)
        hide_kvm(applied)
        try:
            made = applied.json("sandboxes", "debug", "kata-clh", "on", check=False)
        finally:
            show_kvm(applied)
        assert made["exit_status"] == 1
        assert made["error"]["reason"].startswith("Canary")
        assert files_of(applied) == files
        assert not wanted_loud(applied)
        assert applied.json("plan")["steps"] == []

    def test_a_handler_that_this_node_has_not_is_refused(self, applied: Machine) -> None:
        made = applied.json("sandboxes", "debug", "kata-fc", "on", check=False)
        assert (made["error"]["reason"], made["exit_status"]) == ("HandlerUnknown", 2)
        assert "kata-clh" in made["error"]["remedy"]

    def test_the_daemon_leaves_it_alone_and_says_so(self, applied: Machine) -> None:
        applied.settings(more=FAST)
        try:
            with running(applied) as daemon:
                daemon.until_ready()
                applied.katanode("sandboxes", "debug", "kata-clh", "on")
                told = re.compile(r'^katanode_reason\{[^}]*reason="DebugOutputOn"[^}]*\} 1', re.MULTILINE)
                daemon.until(lambda: told.search(daemon.fetch("/metrics")[1]))
                assert wanted_loud(applied)
                assert daemon.metric("drift_repairs_total", kind="hypervisor-configuration") == 0
                assert daemon.metric("handler_ready", handler="kata-clh") == 1
                applied.katanode("sandboxes", "debug", "kata-clh", "off")
                daemon.until(lambda: not told.search(daemon.fetch("/metrics")[1]))
                assert not wanted_loud(applied)
                daemon.stop()
        finally:
            applied.settings()


def test_it_outlives_an_upgrade_and_leaves_nothing_for_a_rollback_or_after_an_uninstall(
    start_machine: Callable[..., Machine],
) -> None:
    machine = start_machine("1.7")
    plain = machine.snapshot()
    told = machine.katanode("sandboxes").stdout
    assert told.startswith("No Kata sandbox runs on this node")
    assert "katanode check" in told
    assert machine.json("sandboxes", "debug", "kata-clh", "on", check=False)["error"]["reason"] == "NotInstalled"
    assert machine.snapshot() == plain
    machine.katanode("apply")
    machine.katanode("sandboxes", "debug", "kata-clh", "on")
    machine.settings(version="4.1.0")
    assert "DebugOutputOn" in reasons(machine.json("apply"))
    assert wanted_loud(machine)
    loud = list(machine.path(RENDERINGS).rglob(Path(debug.DROP_IN).name))
    assert {file.parents[1].name.split("-")[0] for file in loud} == {".3.2.0", ".4.1.0"}
    assert b'log_level = "debug"' in b"".join(file.read_bytes() for file in loud)
    machine.katanode("sandboxes", "debug", "kata-clh", "off")
    assert not list(machine.path(RENDERINGS).rglob(Path(debug.DROP_IN).name))
    assert not wanted_loud(machine)
    machine.katanode("sandboxes", "debug", "kata-clh", "on")
    machine.katanode("uninstall")
    machine.settings(version="3.2.0")
    assert machine.snapshot() == plain


STEPS = {
    "on": (r"^rename .*/state\.json", r"^rename .*/3\.2\.0[^/]*$", "^canary stop_sandbox"),
    "off": (r"^rename .*/3\.2\.0[^/]*$", "^remove 90-katanode-debug"),
}
"""Before what it is killed: the wish, the link to the rendering, the proof, the cleaning."""


def test_killed_in_the_middle_it_is_on_or_off_and_the_next_apply_makes_it_whole(applied: Machine) -> None:
    files = files_of(applied)
    with Crasher(applied) as katanode:
        for wanted, step in ((wanted, step) for wanted, steps in STEPS.items() for step in steps):
            if wanted == "off":
                assert katanode("sandboxes", "debug", "kata-clh", "on").status == 0
            assert katanode("sandboxes", "debug", "kata-clh", wanted, fatal=step).killed, step
            done = katanode("apply")
            assert done.status == 0, done
            remembered = json.loads(applied.path("/var/lib/katanode/state.json").read_text())["debug"]
            assert wanted_loud(applied) == ("kata-clh" in remembered), step
            assert katanode("sandboxes", "debug", "kata-clh", "off").status == 0
            assert files_of(applied) == files, step
