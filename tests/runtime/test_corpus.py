"""Real configurations through real daemons: an edit takes effect, brings nothing else, and goes byte for byte."""

import collections
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cri import block, imports
from agent.cri.configuration import Configuration
from agent.cri.daemon import Daemon
from agent.cri.handler import Handler
from agent.errors import KatanodeError
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.reasons import Reason
from hack.lab.packages import binaries

pytestmark = pytest.mark.runtime

HANDLERS = (
    Handler("kata-clh", "io.containerd.kata.v2", "/opt/katanode/releases/x/shim", "/etc/kata-containers/clh.toml"),
    Handler("kata-qemu", "io.containerd.kata.v2", "/opt/katanode/releases/x/shim", "/etc/kata-containers/qemu.toml"),
)
OURS = frozenset(
    {
        Reason.CONFIG_EMPTY,
        Reason.CONFIG_SCHEMA_OLD,
        Reason.CONFIG_SCHEMA_UNKNOWN,
        Reason.CONFIG_GENERATED,
        Reason.CONFIG_TEMPLATE,
        Reason.CRI_DISABLED,
        Reason.EDIT_IMPOSSIBLE,
        Reason.HANDLER_FOREIGN,
    }
)
"""Reasons of our own to leave alone a file that containerd accepts."""


def daemons() -> Iterator[tuple[str, str]]:
    """The generations of Debian, and further daemons named in KATANODE_EXTRA_CONTAINERD as VERSION=PATH:…"""
    yield from (("1.6", ""), ("1.7", ""), ("2.1", ""))
    for item in filter(None, os.environ.get("KATANODE_EXTRA_CONTAINERD", "").split(":")):
        version, _, path = item.partition("=")
        yield version, path


@pytest.fixture(scope="module", params=list(daemons()), ids=lambda pair: pair[0])
def daemon(request: pytest.FixtureRequest) -> tuple[str, str]:
    version, path = request.param
    return version, path or str(binaries(version).containerd)


def configuration(
    folder: Path, data: bytes, daemon: tuple[str, str], name: str = "config.toml"
) -> tuple[Configuration, Path]:
    version, exe = daemon
    path = folder / name
    path.write_bytes(data)
    return Configuration(HostRoot(), Runner(), Daemon("/run/x.sock", 1, exe, str(path), "x.service", "", version)), path


def outcome(folder: Path, data: bytes, daemon: tuple[str, str]) -> str:
    config, path = configuration(folder, data, daemon)
    try:
        config.current()
        config._refuse_dangling()
    except KatanodeError as error:
        assert error.reason is Reason.CONFIG_REFUSED
        with pytest.raises(KatanodeError):
            config.checked(config.wish(HANDLERS))
        assert path.read_bytes() == data
        return "containerd refuses it, so do we"
    if daemon[0] >= "2.3" and b"\nversion" not in data and any(config.current() != config.current() for _ in range(5)):
        return "containerd reads it another way each time"
    try:
        change = config.checked(config.wish(HANDLERS))
    except KatanodeError as error:
        assert path.read_bytes() == data
        assert list(folder.iterdir()) == [path], "a check left something"
        assert error.reason in OURS, f"{error.reason}: {error.message}\n{error.evidence}"
        assert error.message
        assert error.remedy
        return str(error.reason)
    root_file = next((f for f in change.files if f.path == str(path)), None)
    after = root_file.after if root_file else data
    assert after is not None
    opposite = imports.remove(after, str(path)) if daemon[0][0] == "2" else block.remove(after)
    assert opposite == data, "taking it back gives other bytes"
    for file in change.files:
        if Path(file.path).is_relative_to(folder):
            Path(file.path).parent.mkdir(exist_ok=True)
            Path(file.path).write_bytes(file.after or b"")
    if all(Path(file.path).is_relative_to(folder) for file in change.files):
        assert config.wish(HANDLERS).files == (), "the edit is not idempotent"
        back = config.wish(())
        assert back.gone == ("kata-clh", "kata-qemu")
        config.checked(back)
        assert {f.path: f.after for f in back.files}[str(path)] == data
    return "edited"


def test_every_file_is_edited_or_left_alone_with_a_reason(
    shared: Path, daemon: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes: dict[str, list[str]] = collections.defaultdict(list)
    wrong = []
    for source in sorted((shared / "corpus/files").glob("[012]*.toml")):
        folder = tmp_path / source.stem
        folder.mkdir()
        try:
            outcomes[outcome(folder, source.read_bytes(), daemon)].append(source.name)
        except (AssertionError, KatanodeError) as error:
            wrong.append(f"{source.name}: {error} {getattr(error, 'evidence', '')}")
        shutil.rmtree(folder)
    with capsys.disabled():
        print(f"\ncontainerd {daemon[0]}:")
        for what, names in sorted(outcomes.items()):
            print(f"  {len(names):3} {what}: {', '.join(n.partition('-')[0] for n in names)[:110]}")
    assert not wrong, "\n".join(wrong)
    assert len(outcomes["edited"]) > 25


def test_no_template_is_ever_edited(shared: Path, daemon: tuple[str, str], tmp_path: Path) -> None:
    for source in sorted((shared / "corpus/templates").iterdir()):
        config, path = configuration(tmp_path, source.read_bytes(), daemon, source.name)
        with pytest.raises(KatanodeError) as caught:
            config.checked(config.wish(HANDLERS))
            pytest.fail(f"{source.name} was edited")
        assert caught.value.reason in {
            Reason.CONFIG_TEMPLATE,
            Reason.CONFIG_GENERATED,
            Reason.CONFIG_INVALID,
        }, f"{source.name}: {caught.value}"
        assert path.read_bytes() == source.read_bytes()
