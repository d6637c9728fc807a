"""Somebody changes containerd's files after katanode did: the next run has nothing to do or mends, and all goes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.cri import effective, imports
from agent.cri.activation import Change
from agent.cri.configuration import Configuration
from agent.cri.daemon import Daemon
from agent.cri.handler import Handler
from agent.errors import KatanodeError
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.reasons import Reason
from hack.lab.packages import Generation, binaries

pytestmark = pytest.mark.runtime

CLH = Handler("kata-clh", "io.containerd.kata.v2", "/opt/shim", "/etc/kata-containers/clh.toml")
FOREIGN = """version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.theirs]
  runtime_type = 'io.containerd.theirs.v2'
"""
RUNC = b"""[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = true
"""


class Node:
    """A folder with a root file, and the daemon's program that reads it."""

    def __init__(self, folder: Path, generation: Generation, root_file: str) -> None:
        self.folder = folder
        self.path = folder / "config.toml"
        self.write(root_file.encode())
        exe = str(binaries(generation).containerd)
        daemon = Daemon("/run/x.sock", 1, exe, str(self.path), "x.service", "", generation)
        self.configuration = Configuration(HostRoot(), Runner(), daemon)

    def write(self, data: bytes) -> None:
        self.path.write_bytes(data.replace(b"@", str(self.folder).encode()))

    @property
    def text(self) -> str:
        return self.path.read_text().replace(str(self.folder), "@")

    def put(self, *handlers: Handler) -> Change:
        change = self.configuration.wish(handlers)
        if change.files:
            change = self.configuration.checked(change)
        for file in change.files:
            if file.after is None:
                Path(file.path).unlink()
            else:
                Path(file.path).parent.mkdir(exist_ok=True)
                Path(file.path).write_bytes(file.after)
        return change

    def runtimes(self) -> set[str]:
        return set(effective.runtimes(self.configuration.current()))


OWN = b'"@/katanode.d/*.toml"'


@pytest.mark.parametrize(
    ("original", "change", "left"),
    [
        ("", lambda t: t.replace(OWN, OWN + b', "@/m/*.toml"'), 'imports = ["@/m/*.toml"]  # katanode\n'),
        ("", lambda t: t.replace(OWN, b'"@/m/*.toml", ' + OWN), 'imports = ["@/m/*.toml"]  # katanode\n'),
        ("", lambda t: t.replace(OWN, b"\n  " + OWN + b",\n"), "imports = [\n]  # katanode\n"),
        ("", lambda t: t.replace(OWN, OWN.replace(b'"', b"'")), "imports = []  # katanode\n"),
        ("imports = []\n", lambda t: t.replace(OWN, OWN + b', "@/m/*.toml"'), 'imports = ["@/m/*.toml"]\n'),
    ],
    ids=["appended", "prepended", "many lines", "other quotes", "appended to an array that was empty"],
)
def test_an_import_line_that_people_changed_is_neither_rewritten_nor_broken(
    tmp_path: Path, original: str, change: Callable[[bytes], bytes], left: str
) -> None:
    node = Node(tmp_path, "2.1", "version = 3\n" + original)
    node.put(CLH)
    node.write(change(node.path.read_bytes().replace(str(tmp_path).encode(), b"@")))
    assert node.put(CLH).files == ()
    assert node.runtimes() >= {"runc", "kata-clh"}
    node.put()
    assert node.text == "version = 3\n" + left
    assert "kata-clh" not in node.runtimes()


def test_an_import_that_people_commented_out_comes_again_and_their_comment_stays(tmp_path: Path) -> None:
    node = Node(tmp_path, "2.1", "version = 3\n")
    node.put(CLH)
    node.write(node.path.read_bytes().replace(b"imports", b"# imports"))
    commented = node.text
    node.put(CLH)
    assert "kata-clh" in node.runtimes()
    node.put()
    assert node.text == commented


def test_the_dropin_stays_and_goes_when_another_glob_comes_before_its_own(tmp_path: Path) -> None:
    for name in ("aa", "conf.d"):
        (tmp_path / name).mkdir()
    node = Node(tmp_path, "2.1", 'version = 3\nimports = ["@/conf.d/*.toml"]\n')
    node.put(CLH)
    node.write(b'version = 3\nimports = ["@/aa/*.toml", "@/conf.d/*.toml"]\n')
    assert node.put(CLH).files == ()
    assert node.put().gone == ("kata-clh",)
    assert "kata-clh" not in node.runtimes()
    assert list(tmp_path.rglob("katanode.toml")) == []


@pytest.mark.parametrize("handlers", [(CLH,), ()], ids=["apply", "uninstall"])
def test_the_dropin_goes_though_the_import_that_found_it_has_gone(
    tmp_path: Path, handlers: tuple[Handler, ...]
) -> None:
    (tmp_path / "conf.d").mkdir()
    node = Node(tmp_path, "2.1", 'version = 3\nimports = ["@/conf.d/*.toml"]\n')
    node.put(CLH)
    node.write(b"version = 3\n")
    node.put(*handlers)
    assert not (tmp_path / "conf.d/katanode.toml").exists()
    node.put()
    assert list(tmp_path.rglob("katanode.toml")) == []


def test_a_foreign_runtime_found_by_a_wildcard_folder_is_neither_lost_nor_taken_over(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/x.toml").write_text(FOREIGN)
    node = Node(tmp_path, "2.1", 'version = 3\nimports = ["@/*/x.toml"]\n')
    node.put(CLH)
    assert node.runtimes() == {"runc", "theirs", "kata-clh"}
    assert b"theirs" not in Path(imports.own_path(str(node.path))).read_bytes()
    node.put()
    assert node.runtimes() == {"runc", "theirs"}


def test_a_broken_dropin_of_ours_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    node = Node(tmp_path, "2.1", "version = 3\n")
    node.put(CLH)
    dropin = Path(imports.own_path(str(node.path)))
    dropin.write_bytes(dropin.read_bytes() + b"oops [")
    with pytest.raises(KatanodeError) as caught:
        node.put(CLH)
    assert caught.value.reason is Reason.CONFIG_REFUSED


@pytest.mark.parametrize("generation", ["1.6", "1.7"])
@pytest.mark.parametrize("handlers", [(CLH,), ()], ids=["apply", "uninstall"])
def test_our_block_gives_way_to_a_runc_that_people_configure_themselves(
    tmp_path: Path, generation: Generation, handlers: tuple[Handler, ...]
) -> None:
    node = Node(tmp_path, generation, "version = 2\n")
    node.put(CLH)
    assert node.runtimes() == {"runc", "kata-clh"}
    node.write(node.path.read_bytes().replace(b"version = 2\n", b"version = 2\n" + RUNC))
    with pytest.raises(KatanodeError):
        node.configuration.current()  # the same table twice
    node.put(*handlers)
    runc = effective.runtimes(node.configuration.current())["runc"]
    assert runc["options"]["SystemdCgroup"] is True
    assert ("kata-clh" in node.runtimes()) == bool(handlers)
    node.put()
    assert node.path.read_bytes() == b"version = 2\n" + RUNC
