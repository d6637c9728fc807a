"""Debug output of a handler: what is written for it, that it is remembered, and the reminder."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent import state
from agent.host.root import HostRoot
from agent.kata import basefile, debug, render, tunables
from agent.kata.handlers import DEFAULTS, HANDLERS, SHIMS, Flavour, ResolvedHandler
from agent.reasons import CATALOGUE, Reason, Severity
from agent.settings import Handler

if TYPE_CHECKING:
    from agent.kata.basefile import BaseFile

SHIPPED = Path(__file__).resolve().parents[2] / "hack/standin/defaults"
RELEASE = "/opt/katanode/releases/x"
EVERY: list[tuple[str, str, Flavour]] = [
    ("3.2.0", "kata-clh", "go"),
    ("3.2.0", "kata-qemu", "go"),
    ("3.2.0", "kata-fc", "go"),
    ("4.1.0", "kata-clh", "go"),
    ("4.1.0", "kata-fc", "go"),
    ("4.1.0", "kata-clh", "rust"),
    ("4.1.0", "kata-qemu", "rust"),
    ("4.1.0", "kata-dragonball", "rust"),
]
every = pytest.mark.parametrize(("version", "name", "runtime"), EVERY)


def base_of(version: str, name: str, runtime: Flavour) -> BaseFile:
    kind = HANDLERS[name]
    path = next(SHIPPED / version / f for f in kind.base_files[runtime] if (SHIPPED / version / f).is_file())
    base = f"{RELEASE}/{DEFAULTS}/{path.name}"
    handler = ResolvedHandler(kind, runtime, base, f"{RELEASE}/{SHIMS[runtime]}", RELEASE, version)
    return basefile.parse(handler, path.read_bytes())


def rendered(base: BaseFile, wanted: Handler, *, with_debug: bool) -> dict[str, bytes]:
    checked = tunables.check(base, wanted, HostRoot(Path("/nowhere")))
    return dict(render.render(base, checked, with_debug=with_debug))


@every
def test_each_runtime_and_hypervisor_prints_what_it_does(version: str, name: str, runtime: Flavour) -> None:
    base = base_of(version, name, runtime)
    made: dict[str, Any] = render.effective(rendered(base, Handler(), with_debug=True))
    tables = made["hypervisor"][base.handler.hypervisor], made["agent"]["kata"], made["runtime"]
    assert [table["enable_debug"] for table in tables] == [True, True, True]
    levels = [table.get("log_level") for table in tables]
    assert levels == (["debug"] * 3 if runtime == "rust" else [None] * 3)


@every
def test_nothing_is_written_that_the_release_does_not_know(version: str, name: str, runtime: Flavour) -> None:
    base = base_of(version, name, runtime)
    for table, keys in debug.tables(base).items():
        assert keys.keys() <= base.known[table].keys()


@every
def test_without_it_the_files_are_the_same_bytes(version: str, name: str, runtime: Flavour) -> None:
    base = base_of(version, name, runtime)
    plain, loud = (rendered(base, Handler(), with_debug=on) for on in (False, True))
    assert loud.pop(debug.DROP_IN)
    assert loud == plain


def test_it_is_on_whatever_the_settings_say() -> None:
    base = base_of("3.2.0", "kata-clh", "go")
    quiet = {"enable_debug": False}
    wanted = Handler(hypervisor={"clh": quiet}, agent={"kata": quiet}, runtime=quiet)
    assert not render.effective(rendered(base, wanted, with_debug=False))["runtime"]["enable_debug"]
    assert render.effective(rendered(base, wanted, with_debug=True))["runtime"]["enable_debug"]


def test_the_file_says_how_it_goes_away_again() -> None:
    made = rendered(base_of("4.1.0", "kata-clh", "rust"), Handler(), with_debug=True)[debug.DROP_IN].decode()
    assert "katanode sandboxes debug kata-clh off" in made.splitlines()[0]


@every
def test_what_was_written_is_read_back(version: str, name: str, runtime: Flavour) -> None:
    base = base_of(version, name, runtime)
    data = rendered(base, Handler(), with_debug=True)[debug.DROP_IN]
    assert tomllib.loads(data.decode())
    assert debug.read(data) == debug.tables(base)
    assert debug.read(b"") == {}


def test_the_wish_is_remembered_and_an_older_memory_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state.save(path, state.State(release="x", debug={"kata-clh": 1000.5}))
    assert state.load(path).debug == {"kata-clh": 1000.5}
    old = json.loads(path.read_text())
    del old["debug"]
    path.write_text(json.dumps(old))
    assert state.load(path).debug == {}


def test_the_reminder_names_the_handler_the_time_and_the_way_out() -> None:
    (made,) = debug.findings({"kata-clh": 0.0, "kata-fc": 0.0}, ["kata-clh", "kata-qemu"])
    assert (made.reason, made.severity, made.handlers) == (Reason.DEBUG_OUTPUT_ON, Severity.WARNING, ("kata-clh",))
    assert "1970-01-01 00:00:00 UTC" in made.evidence
    assert "katanode sandboxes debug kata-clh off" in made.remedy
    assert debug.findings({}, ["kata-clh"]) == ()


def test_the_catalogue_has_the_line_that_names_are_put_into() -> None:
    assert debug.line_of("HANDLER") in CATALOGUE[Reason.DEBUG_OUTPUT_ON].remedy
    both = debug.remedy("kata-clh", "kata-qemu")
    assert debug.line_of("kata-clh") in both
    assert debug.line_of("kata-qemu") in both
    assert "HANDLER" not in both
