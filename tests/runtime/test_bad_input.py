"""Whatever is wrong with what katanode is given: a clear error, a status that is not 0, and nothing changed."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from hack.lab import configs, cri
from hack.lab.containerd import CONFIG, RESTART

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator

    from conftest import Machine

    Launch = Callable[..., contextlib.AbstractContextManager[Machine]]

pytestmark = pytest.mark.runtime

SETTINGS = "/etc/katanode/katanode.toml"
OLD_CRI = 'plugins."io.containerd.grpc.v1.cri"'


def refused(machine: Machine, *arguments: str, reason: str, status: int = 1, names: str) -> dict[str, Any]:
    """The error of a command, `apply` if none is given, that must fail and change nothing; it names `names`."""
    before, pid = machine.snapshot(), machine.containerd.pid
    made = machine.json(*(arguments or ("apply",)), check=False)
    assert "error" in made, f"not refused: {made}"
    error = made["error"]
    assert (error["reason"], made["exit_status"]) == (reason, status), error
    assert error["message"]
    assert error["remedy"]
    # What is wrong with settings is all in the message, with the key or the line.
    assert error["evidence"] or status == 2
    assert names in error["message"] + error["evidence"], error
    after = machine.snapshot()
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert not changed
    assert machine.containerd.pid == pid
    return dict(error)


@pytest.fixture(scope="module", params=["1.7", "2.1"])
def served(request: pytest.FixtureRequest, launch: Launch) -> Iterator[Machine]:
    """A plain machine of its generation, for all tests of this module that leave it plain."""
    with launch(request.param) as machine:
        yield machine


@pytest.fixture(scope="module")
def settled(launch: Launch) -> Iterator[Machine]:
    """A plain machine for tests of settings, which are the same for every generation."""
    with launch("1.7") as machine:
        yield machine


@pytest.fixture
def machine(served: Machine) -> Iterator[Machine]:
    """The module's machine; its configuration file is put back after the test."""
    data = served.config
    yield served
    path = served.path(CONFIG)
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    served.config = data


@pytest.fixture
def node(settled: Machine) -> Iterator[Machine]:
    """The module's machine; its settings are put back after the test."""
    yield settled
    settled.settings(version="3.2.0")


WRONG_SETTINGS = {
    "unknown-table": ("[katta]\nversion = '3.2.0'", "kata"),
    "unknown-key": ("[canary]\ntimeuot_seconds = 3", "did you mean timeout_seconds?"),
    "unknown-key-in-a-handler": ("[handlers.kata-clh.hypervsior.clh]\ndefault_memory = 1", "did you mean hypervisor?"),
    "text-for-a-number": ('[canary]\ntimeout_seconds = "60"', "canary.timeout_seconds"),
    "number-for-a-truth": ("[node]\nmodules = 1", "node.modules"),
    "truth-for-a-number": ("[canary]\ntimeout_seconds = true", "canary.timeout_seconds"),
    "text-for-a-list": ('[runtime]\nrestart_command = "systemctl restart containerd"', "runtime.restart_command"),
    "number-in-a-list": ('[runtime]\nrestart_command = ["systemctl", 1]', "runtime.restart_command[1]"),
    "text-for-a-table": ('node = "all"', "node"),
    "no-seconds": ("[canary]\ntimeout_seconds = 0", "canary.timeout_seconds"),
    "less-than-nothing-kept": ("[kata]\nkeep = -1", "kata.keep"),
    "no-handlers": ("[kata]\nhandlers = []", "kata.handlers"),
    "a-handler-twice": ('[kata]\nhandlers = ["kata-clh", "kata-clh"]', "kata.handlers"),
    "tunables-of-nobody": ("[handlers.kata-chl.runtime]\nenable_debug = true", "did you mean kata-clh?"),
    "no-version": ('[kata]\nversion = "../../etc"', "kata.version"),
    "plain-http": ('[kata]\nsource = "http://example.org"', "https"),
    "a-relative-source": ('[kata]\nsource = "releases"', "kata.source"),
    "half-a-digest": ('[kata]\nsha256 = { "kata-static-3.2.0-amd64.tar.xz" = "abc" }', "kata.sha256"),
    "a-relative-socket": ('[runtime]\nsocket = "containerd.sock"', "runtime.socket"),
    "no-sysctl": ('[node]\nsysctl = { "net/../x" = 1 }', "node.sysctl"),
    "an-unknown-state": ('state = "gone"', "'present', 'absent'"),
    "broken-toml": ("[kata]\nversion = 3.2.0", "line 2"),
    "a-key-twice": ("[kata]\nkeep = 1\nkeep = 2\nversion = '3.2.0'", "line 3"),
}


@pytest.mark.parametrize(("text", "names"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS.keys())
def test_wrong_settings_are_refused_with_the_key_or_the_line(node: Machine, text: str, names: str) -> None:
    node.write_settings(text)
    error = refused(node, reason="SettingsInvalid", status=2, names=names)
    assert SETTINGS in error["message"]


@pytest.mark.parametrize("data", [b"\xff\xfe[\x00k\x00", b"\x00\x01\x80\x90", b"[kata]\nkeep = 1 # caf\xe9\n"])
def test_settings_that_are_no_text_are_refused(node: Machine, data: bytes) -> None:
    node.write_settings(data)
    refused(node, reason="SettingsInvalid", status=2, names=SETTINGS)


def test_settings_that_are_named_and_missing_are_refused(node: Machine) -> None:
    for path in ("/etc/katanode/none.toml", "/etc/katanode"):
        refused(node, "apply", "--settings", path, reason="SettingsInvalid", status=2, names=path)


@pytest.mark.parametrize("command", ["check", "plan", "status", "rollback", "uninstall"])
def test_no_command_goes_by_wrong_settings(node: Machine, command: str) -> None:
    node.write_settings("[kata]\nkep = 1\n")
    refused(node, command, reason="SettingsInvalid", status=2, names="did you mean keep?")


def test_an_unknown_handler_is_refused(node: Machine) -> None:
    node.settings(kata='handlers = ["kata-clh", "kata-xen"]')
    refused(node, reason="HandlerUnknown", status=2, names="kata-xen")


def test_what_is_wrong_is_told_to_people_in_the_same_words(node: Machine) -> None:
    node.write_settings("[kata]\nkep = 1\n")
    error = node.json("apply", check=False)["error"]
    done = node.katanode("apply", check=False)
    assert done.returncode == 2
    # But for the line breaks of a terminal.
    said = "".join((done.stdout + done.stderr).split())
    for part in ("message", "remedy"):
        assert "".join(error[part].split()) in said
    assert "Traceback" not in said


def test_a_wrong_tunable_is_refused_and_leaves_the_release_at_most(start_machine: Callable[..., Machine]) -> None:
    """It is the release that says which tunables there are."""
    machine = start_machine("1.7")
    machine.settings(more="[handlers.kata-clh.hypervisor.clh]\ndefualt_memory = 512")
    before, pid = machine.snapshot(), machine.containerd.pid
    for _ in range(2):
        made = machine.json("apply", check=False)
        assert (made["error"]["reason"], made["exit_status"]) == ("TunableUnknown", 2)
        assert "did you mean default_memory?" in made["error"]["evidence"]
        after = machine.snapshot()
        assert {path: state for path, state in after.items() if not path.startswith("/opt/katanode")} == before
        assert machine.containerd.pid == pid
    machine.settings()
    before = machine.snapshot()
    machine.katanode("uninstall")
    assert {path: state for path, state in before.items() if not path.startswith("/opt/katanode")} == machine.snapshot()


def test_a_release_without_a_pin_is_refused(node: Machine) -> None:
    node.settings(version="3.31.0", pins={})
    refused(node, reason="ReleaseUnpinned", names="kata-static-3.31.0")


def test_a_release_whose_archive_is_missing_is_refused(node: Machine) -> None:
    node.settings(source="/opt/no-such-folder")
    refused(node, reason="ReleaseUnreachable", names="/opt/no-such-folder")


def test_an_archive_with_another_digest_is_refused(node: Machine) -> None:
    archive = node.standin["3.2.0"]
    node.settings(pins={archive.path.name: "0" * 64})
    error = refused(node, reason="ReleaseDigestMismatch", names=archive.path.name)
    assert archive.sha256 in error["evidence"]


def test_a_node_without_a_way_to_restart_the_runtime_is_refused(node: Machine) -> None:
    node.write_settings("[kata]\nkeep = 1\n")
    refused(node, reason="RestartUnknown", names="containerd")


def foreign(good: bytes) -> bytes:
    """The file with a table of somebody else's for a handler of ours."""
    cri_table = "io.containerd.cri.v1.runtime" if b"version = 3" in good else "io.containerd.grpc.v1.cri"
    return good + f"\n[plugins.'{cri_table}'.containerd.runtimes.kata-clh]\nruntime_type = 'io.other.v1'\n".encode()


def without_cri(good: bytes) -> bytes:
    """The file of a containerd that does not serve CRI once it is restarted."""
    return b'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"]\n' + good


WRONG_CONFIGURATIONS: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
    "empty": (lambda _: b"", "RuntimeConfigEmpty", CONFIG),
    "blank": (lambda _: b" \n\t\n", "RuntimeConfigEmpty", CONFIG),
    "binary": (lambda _: bytes(range(256)), "RuntimeConfigNotText", CONFIG),
    "nul": (lambda good: good + b"# \0\n", "RuntimeConfigNotText", CONFIG),
    "utf-16": (lambda good: good.decode().encode("utf-16"), "RuntimeConfigNotText", CONFIG),
    "broken": (lambda _: b"version = 2\n\n[plugins\n", "RuntimeConfigInvalid", "line 3"),
    "a-key-twice": (lambda good: b"version = 2\n" + good, "RuntimeConfigInvalid", "line 3"),
    "template": (lambda good: b'{{ template "base" . }}\n' + good, "RuntimeConfigIsTemplate", "line 1"),
    "generated": (lambda good: b"# Managed by Ansible\n" + good, "RuntimeConfigGenerated", "Managed by Ansible"),
    "schema-1": (lambda _: b"version = 1\n[plugins.cri]\n", "RuntimeConfigSchemaOld", CONFIG),
    "schema-9": (lambda _: b"version = 9\n", "RuntimeConfigSchemaUnknown", CONFIG),
    "cri-off": (without_cri, "CRIDisabled", CONFIG),
    "foreign": (foreign, "HandlerInForeignHands", "runtimes.kata-clh"),
    "refused": (
        lambda good: re.sub(rb"default_runtime_name = .*", b"default_runtime_name = 7", good),
        "RuntimeConfigRefused",
        CONFIG,
    ),
    "dangling-import": (
        lambda good: b'imports = ["/etc/containerd/gone.toml"]\n' + good,
        "RuntimeConfigRefused",
        "/etc/containerd/gone.toml",
    ),
}


@pytest.mark.parametrize("what", WRONG_CONFIGURATIONS)
def test_a_configuration_that_cannot_be_added_to_is_left_alone(machine: Machine, what: str) -> None:
    spoil, reason, names = WRONG_CONFIGURATIONS[what]
    machine.config = spoil(machine.config)
    error = refused(machine, reason=reason, names=names)
    assert CONFIG in error["message"] + error["evidence"]


@pytest.mark.parametrize("what", ["missing", "folder", "dangling-link", "fifo"])
def test_a_configuration_that_cannot_be_read_is_left_alone(machine: Machine, what: str) -> None:
    path = machine.path(CONFIG)
    path.unlink()
    match what:
        case "folder":
            path.mkdir()
        case "dangling-link":
            path.symlink_to("gone.toml")
        case "fifo":
            os.mkfifo(path)
    reason = "RuntimeConfigUnreadable" if what in {"folder", "fifo"} else "RuntimeConfigMissing"
    refused(machine, reason=reason, names=CONFIG)


def test_a_file_without_a_version_is_schema_1_to_an_old_containerd(start_machine: Callable[..., Machine]) -> None:
    machine = start_machine("1.7")
    machine.config = machine.config.replace(b"version = 2\n", b"")
    refused(machine, reason="RuntimeConfigSchemaOld", names="version")


@pytest.mark.parametrize("name", ["1.7", "2.1"])
def test_two_containerds_that_serve_cri_are_one_too_many(name: str, start_machine: Callable[..., Machine]) -> None:
    machine = start_machine(name)
    socket = "/run/k3s/containerd/containerd.sock"
    machine.write(
        "/etc/second.toml",
        'version = 2\nroot = "/var/lib/second"\nstate = "/run/second"\n'
        f'[grpc]\naddress = "{socket}"\n[{OLD_CRI}]\n{configs.restrict_oom_lines()}',
    )
    log = machine.path("/var/log/second.log").open("wb")
    second = machine.lab.popen(["containerd", "--config", "/etc/second.toml"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not cri.serves(machine.path(socket)):
            assert time.monotonic() < deadline, machine.path("/var/log/second.log").read_text()
            time.sleep(0.05)
        error = refused(machine, reason="RuntimeAmbiguous", names=socket)
        assert "/run/containerd/containerd.sock" in error["evidence"]
        assert "runtime.socket" in error["remedy"]
        machine.settings(runtime='socket = "/run/containerd/containerd.sock"')
        assert machine.json("plan")["steps"]
    finally:
        os.killpg(second.pid, signal.SIGTERM)
        second.wait(30)
        log.close()


def test_without_a_containerd_nothing_is_done(start_machine: Callable[..., Machine]) -> None:
    machine = start_machine("1.7")
    machine.containerd.kill9()
    refused(machine, reason="RuntimeUnreachable", names="/run/containerd/containerd.sock")
    machine.path("/run/containerd/containerd.sock").unlink()
    refused(machine, reason="RuntimeNotFound", names="/run/containerd/containerd.sock")
    machine.settings(runtime='socket = "/run/nowhere.sock"')
    refused(machine, reason="RuntimeNotFound", names="/run/nowhere.sock")
    machine.settings()
    for command in ("check", "plan"):
        assert machine.katanode(command, check=False).returncode == 1
    assert machine.json("status")["state"] == "absent"


@pytest.mark.parametrize("name", ["1.7", "2.1"])
def test_a_containerd_that_runs_without_cri_is_left_alone(name: str, start_machine: Callable[..., Machine]) -> None:
    machine = start_machine(name)
    machine.config = without_cri(machine.config)
    machine.lab.run([RESTART])
    refused(machine, reason="CRIDisabled", names="/run/containerd/containerd.sock")
