"""Settings say what is wrong with them, and never half-apply."""

from pathlib import Path

import pytest

from agent import settings
from agent.errors import KatanodeError
from agent.reasons import Reason


def refusal(text: str) -> str:
    with pytest.raises(KatanodeError) as caught:
        settings.parse(text)
    assert caught.value.reason is Reason.SETTINGS_INVALID
    return caught.value.message


def test_nothing_said_means_the_defaults() -> None:
    assert settings.parse("") == settings.Settings()


def test_a_full_file_is_taken() -> None:
    made = settings.parse(
        """
        state = "present"
        [kata]
        version = "3.2.0"
        runtime = "go"
        handlers = ["kata-clh", "kata-fc"]
        source = "/srv/releases"
        sha256 = { "kata-static-3.2.0-amd64.tar.xz" = "%s" }
        [handlers.kata-clh]
        annotations = ["default_vcpus"]
        [handlers.kata-clh.hypervisor.clh]
        default_memory = 512
        [node]
        modules = false
        sysctl = { "vm.max_map_count" = 300000 }
        [runtime]
        restart_command = ["/sbin/restart-it"]
        """
        % ("0" * 64)
    )
    assert made.kata.handlers == ("kata-clh", "kata-fc")
    assert made.handlers["kata-clh"].hypervisor == {"clh": {"default_memory": 512}}
    assert made.handlers["kata-clh"].annotations == ("default_vcpus",)
    assert made.runtime.restart_command == ("/sbin/restart-it",)
    assert made.node.sysctl == {"vm.max_map_count": 300000}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[kata]\nverson = '4.1.0'", "unknown key kata.verson (did you mean version?)"),
        (
            "paint = 1",
            "unknown key paint (known: canary, handlers, kata, node, rollout, run, runtime, sandboxes, serve, state)",
        ),
        ("[kata]\nversion = 4", "kata.version = 4 is not a string"),
        ("[kata]\nkeep = true", "kata.keep = True is not a whole number"),
        ("[kata]\nkeep = 1.0", "kata.keep = 1.0 is not a whole number"),
        ("[kata]\nhandlers = 'kata-clh'", "kata.handlers = 'kata-clh' is not an array"),
        ("[kata]\nhandlers = [1]", "kata.handlers[0] = 1 is not a string"),
        ("[kata]\nhandlers = []", "kata.handlers is empty"),
        ("[kata]\nhandlers = ['a', 'a']", "names a handler twice"),
        ("kata = 3", "kata = 3 is not a table"),
        ("state = 'gone'", "state = 'gone' is not one of 'present', 'absent'"),
        ("[kata]\nsource = 'http://mirror/kata'", "is not https"),
        ("[kata]\nsource = 'releases'", "neither an https address nor an absolute path"),
        ("[kata]\nsha256 = { 'f' = 'ABC' }", "is not a sha256"),
        ("[kata]\nversion = '../../etc'", "is not a version"),
        ("[handlers.kata-qemo]", "kata.handlers does not name it (did you mean kata-qemu?)"),
        ("[runtime]\nrestart_timeout_seconds = 0", "runtime.restart_timeout_seconds is below 1"),
        ("[runtime]\nsocket = 'run/x'", "runtime.socket 'run/x' is not an absolute path"),
        ("[node]\nsysctl = { 'a/../b' = 1 }", "is not a sysctl"),
        ("[node]\nsysctl = { 'vm.x' = '1' }", "is not a whole number"),
        ("a = ", "not valid TOML: Invalid value (at end of document)"),
        ("x = " + "[" * 5000, "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_the_keys_path(text: str, says: str) -> None:
    assert says in refusal(text)


def test_a_missing_file_is_an_error_only_when_it_was_named(tmp_path: Path) -> None:
    assert settings.load(tmp_path / "none.toml", required=False) == settings.Settings()
    with pytest.raises(KatanodeError, match="does not exist"):
        settings.load(tmp_path / "none.toml", required=True)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "katanode.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KatanodeError, match="not UTF-8"):
        settings.load(path, required=True)


def test_an_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "katanode.toml"
    path.write_text("[kata]\nkeep = -1\n")
    with pytest.raises(KatanodeError, match=rf"{path}: kata\.keep is below 0"):
        settings.load(path, required=True)
