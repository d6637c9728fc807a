"""What is accepted is what Kata reads: written TOML reads back, for every key of every base file."""

import math
import os
import string
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import KatanodeError
from agent.host.root import HostRoot
from agent.kata import assets, basefile, render, tomlwrite, tunables
from agent.kata.basefile import BaseFile, Kind
from agent.kata.handlers import HANDLERS, SHIMS, Flavour, ResolvedHandler
from agent.settings import Handler

RELEASE = "/opt/katanode/releases/x"
EVERY: list[tuple[str, str, Flavour]] = [
    ("3.2.0", "kata-clh", "go"),
    ("3.2.0", "kata-qemu", "go"),
    ("3.2.0", "kata-fc", "go"),
    ("4.1.0", "kata-clh", "go"),
    ("4.1.0", "kata-qemu", "go"),
    ("4.1.0", "kata-fc", "go"),
    ("4.1.0", "kata-clh", "rust"),
    ("4.1.0", "kata-qemu", "rust"),
    ("4.1.0", "kata-dragonball", "rust"),
]
every = pytest.mark.parametrize(("version", "name", "runtime"), EVERY)


def base_of(shared: Path, version: str, name: str, runtime: Flavour) -> BaseFile:
    kind = HANDLERS[name]
    folder = shared / "kata-configs" / version
    found = [folder / candidate for candidate in kind.base_files[runtime] if (folder / candidate).exists()]
    if not found:
        pytest.skip(reason=f"{version} has no base file of {name} for {runtime}")
    handler = ResolvedHandler(kind, runtime, str(found[0]), f"{RELEASE}/{SHIMS[runtime]}", RELEASE, version)
    return basefile.parse(handler, found[0].read_bytes())


def node_with(base: BaseFile, folder: Path) -> HostRoot:
    """A node whose release has every file that the base file names."""
    for key in assets.FILES & base.hypervisor.keys():
        for item in [base.hypervisor[key]] if isinstance(base.hypervisor[key], str) else base.hypervisor[key]:
            path = folder / assets.in_release(item, RELEASE).lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.exists() or path.touch()
    return HostRoot(folder)


def one(table: str, key: str, item: object) -> Handler:
    """Settings with a single tunable."""
    section, *rest = table.split(".")
    return Handler(**{section: {rest[0]: {key: item}} if rest else {key: item}})


def in_force(base: BaseFile, wanted: Handler, root: HostRoot, table: str, key: str) -> Any:
    here: Any = render.effective(render.render(base, tunables.check(base, wanted, root)))
    for part in (*table.split("."), key):
        here = here[part]
    return here


@every
def test_every_key_of_a_base_file_is_accepted_with_its_own_value(
    shared: Path, tmp_path: Path, version: str, name: str, runtime: Flavour
) -> None:
    base = base_of(shared, version, name, runtime)
    root = node_with(base, tmp_path)
    for table, keys in base.known.items():
        for key in keys:
            shipped = base.value(table, key)
            if shipped is None or key == "enable_annotations":  # that one has a setting of its own
                continue
            pinned = shipped
            if isinstance(shipped, str):
                pinned = assets.in_release(shipped, RELEASE)
            elif isinstance(shipped, list):
                pinned = [assets.in_release(part, RELEASE) for part in shipped]
            assert in_force(base, one(table, key, shipped), root, table, key) == pinned, f"{table}.{key}"


@every
def test_a_value_of_another_type_is_refused(
    shared: Path, tmp_path: Path, version: str, name: str, runtime: Flavour
) -> None:
    base = base_of(shared, version, name, runtime)
    others: tuple[object, ...] = (True, 1, 1.5, "x", ["x"], [1], {"a": 1}, math.nan, math.inf)
    fitting = {Kind.BOOL: (0,), Kind.INT: (1,), Kind.FLOAT: (1, 2), Kind.STR: (3,), Kind.STRINGS: (4,)}
    for table, keys in base.known.items():
        for key, kind in keys.items():
            for number, item in enumerate(others):
                if number not in fitting[kind] and key != "enable_annotations":
                    with pytest.raises(KatanodeError, match="1 tunable is wrong") as caught:
                        tunables.check(base, one(table, key, item), HostRoot(tmp_path))
                    assert f"must be {kind}" in caught.value.evidence


def test_keys_that_upstream_shows_but_does_not_know_are_refused(shared: Path, tmp_path: Path) -> None:
    """Kata 3.2.0 would refuse to load the drop-in: its base file shows them commented out, its code lacks them."""
    base = base_of(shared, "3.2.0", "kata-qemu", "go")
    for key, item in (("hotplug_vfio_on_root_bus", True), ("pcie_root_port", 2)):
        with pytest.raises(KatanodeError, match="1 tunable is wrong"):
            tunables.check(base, one("hypervisor.qemu", key, item), HostRoot(tmp_path))
    assert "pcie_root_port" in base_of(shared, "4.1.0", "kata-qemu", "go").known["hypervisor.qemu"]


_TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
_VALUES: dict[Kind, st.SearchStrategy[object]] = {
    Kind.BOOL: st.booleans(),
    Kind.INT: st.integers(-5, 1 << 40),
    Kind.FLOAT: st.one_of(st.integers(-2, 300), st.floats(allow_nan=False, allow_infinity=False)),
    Kind.STR: _TEXT,
    Kind.STRINGS: st.lists(_TEXT, max_size=3),
}


@every
@given(data=st.data())
def test_an_accepted_tunable_is_what_kata_reads(
    shared: Path, version: str, name: str, runtime: Flavour, data: st.DataObject
) -> None:
    base = base_of(shared, version, name, runtime)
    table = data.draw(st.sampled_from(sorted(base.known)))
    key = data.draw(st.sampled_from(sorted(base.known[table])))
    item = data.draw(_VALUES[base.known[table][key]])
    with tempfile.TemporaryDirectory() as folder:
        try:
            seen = in_force(base, one(table, key, item), HostRoot(Path(folder)), table, key)
        except KatanodeError as error:
            assert error.evidence.startswith(f"handlers.{name}.")
            return
    assert seen == item
    assert type(seen) is type(item)


@given(
    st.dictionaries(
        st.text(string.ascii_lowercase + "_", min_size=1, max_size=8),
        st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), _TEXT),
    ),
    st.lists(_TEXT),
)
def test_what_is_written_reads_back(scalars: dict[str, tomlwrite.Value], strings: list[str]) -> None:
    keys = {**scalars, "x1": strings}
    written = tomlwrite.document("One line.\nAnother, with \\ and ünïcode.", {"hypervisor.clh": keys, "runtime": {}})
    assert tomllib.loads(written.decode()) == {"hypervisor": {"clh": keys}}
    assert written.startswith(b"# One line.\n# Another")


def test_drop_ins_merge_as_kata_merges_them() -> None:
    rendered = {
        "configuration.toml": b"[a]\nx = [1, 2]\ny = 1\n[a.b]\nz = 1\n",
        "config.d/50-b.toml": b"[a]\nx = [3]\n[a.b]\nw = 2\n",
        "config.d/10-a.toml": b"[a]\nx = [9]\ny = 5\n[c]\nk = 1\n",
    }
    assert render.effective(rendered) == {"a": {"x": [3], "y": 5, "b": {"z": 1, "w": 2}}, "c": {"k": 1}}


def test_a_program_of_the_operators_own_is_added_to_the_list_that_kata_wants_it_in(
    shared: Path, tmp_path: Path
) -> None:
    base = base_of(shared, "4.1.0", "kata-clh", "go")
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    (tmp_path / "usr/local/bin/cloud-hypervisor").touch()
    wanted = one("hypervisor.clh", "path", "/usr/local/bin/cloud-hypervisor")
    allowed = in_force(base, wanted, HostRoot(tmp_path), "hypervisor.clh", "valid_hypervisor_paths")
    assert allowed == [f"{RELEASE}/bin/cloud-hypervisor", "/usr/local/bin/cloud-hypervisor"]


ONE = {render.BASE: b"a = 1\n", render.RELEASE: b"a = 2\n"}
TWO = {**ONE, render.SETTINGS: b"a = 3\n"}
THREE = {**ONE, render.SETTINGS: b"a = 4\n"}


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """Every entry with what tells whether it was touched."""
    found = {}
    for path in folder.rglob("*"):
        stat = path.lstat()
        target = os.readlink(path) if path.is_symlink() else ""
        found[str(path.relative_to(folder))] = (target, stat.st_ino, stat.st_mtime_ns, stat.st_mode)
    return found


def home_of(root: HostRoot, handler: str = "kata-clh") -> Path:
    return root(f"{render.FOLDER}/{handler}")


def test_the_runtimes_path_leads_over_one_link_to_a_folder_without_links(tmp_path: Path) -> None:
    root = HostRoot(tmp_path)
    assert render.install(root, "kata-clh", "4.1.0-aa", TWO) == ""
    render.publish(root, "kata-clh", "4.1.0-aa")
    links = {name: what[0] for name, what in tree(home_of(root)).items() if what[0]}
    target = links.pop("4.1.0-aa")
    assert str(target).startswith(".4.1.0-aa.")
    assert links == {render.BASE: f"4.1.0-aa/{render.BASE}"}
    folder = home_of(root) / str(target)
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == set(TWO)
    assert render.config_path("kata-clh", "4.1.0-aa") == f"{render.FOLDER}/kata-clh/4.1.0-aa/{render.BASE}"


def test_what_is_installed_already_is_not_touched(tmp_path: Path) -> None:
    root = HostRoot(tmp_path)
    render.install(root, "kata-clh", "r1", ONE)
    render.publish(root, "kata-clh", "r1")
    before = tree(tmp_path)
    name = render.install(root, "kata-clh", "r1", ONE)
    assert name.startswith(".r1.")
    assert render.is_published(root, "kata-clh", "r1")
    render.publish(root, "kata-clh", "r1")
    render.collect(root, {"kata-clh": None}, frozenset({"r1"}))
    assert tree(tmp_path) == before


def test_the_rendering_before_stays_for_sandboxes_that_read_it_and_older_ones_go(tmp_path: Path) -> None:
    root = HostRoot(tmp_path)
    render.install(root, "kata-clh", "r2", ONE)
    render.install(root, "kata-clh", "r1", ONE)
    first = os.readlink(home_of(root) / "r1")
    assert render.install(root, "kata-clh", "r1", TWO) == first
    second = os.readlink(home_of(root) / "r1")
    assert {first, second} <= {p.name for p in home_of(root).iterdir()}
    assert render.install(root, "kata-clh", "r1", THREE) == second
    there = {p.name for p in home_of(root).iterdir()}
    assert second in there
    assert first not in there
    assert render.installed(root, "kata-clh", "r2") == ONE


def test_a_switch_back_after_a_first_installation_leaves_no_path(tmp_path: Path) -> None:
    root = HostRoot(tmp_path)
    before = render.install(root, "kata-clh", "r1", ONE)
    for _ in range(2):
        render.switch_back(root, "kata-clh", "r1", before)
        assert render.installed(root, "kata-clh", "r1") == {}
        assert not (home_of(root) / "r1").is_symlink()
    render.install(root, "kata-clh", "r1", ONE)
    render.switch_back(root, "kata-clh", "r1", ".r1.gone")
    assert render.installed(root, "kata-clh", "r1") == ONE, "a path that works is better than one that leads nowhere"


def test_what_a_killed_run_left_half_written_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = HostRoot(tmp_path)
    for after in range(4):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            _interrupt_write(patch, after)
            render.install(root, "kata-clh", "r1", TWO)
        assert render.installed(root, "kata-clh", "r1") == {}
    render.install(root, "kata-clh", "r1", TWO)
    assert render.installed(root, "kata-clh", "r1") == TWO
    render.collect(root, {}, frozenset())
    assert list(root(render.FOLDER).iterdir()) == []


def _interrupt_write(patch: pytest.MonkeyPatch, after: int) -> None:
    count = iter(range(100))

    def counted(plain: Any) -> Any:
        def call(*arguments: Any, **more: Any) -> None:
            if next(count) == after:
                raise KeyboardInterrupt
            plain(*arguments, **more)

        return call

    for name in ("write_atomic", "link_atomic"):
        patch.setattr(render.files, name, counted(getattr(render.files, name)))


def test_a_collection_takes_what_nobody_wants_and_leaves_the_rest(tmp_path: Path) -> None:
    root = HostRoot(tmp_path)
    for handler in ("kata-clh", "kata-qemu"):
        for release in ("r1", "r2"):
            render.install(root, handler, release, ONE)
        render.publish(root, handler, "r2")
    (root(render.FOLDER) / "README").write_text("somebody's")
    (home_of(root) / ".configuration.toml.swp").write_text("an editor's")
    render.collect(root, {"kata-clh": None}, frozenset({"r2"}))
    assert render.installed(root, "kata-clh", "r1") == {}
    assert render.installed(root, "kata-clh", "r2") == ONE
    assert render.installed(root, "kata-qemu", "r2") == ONE, "sandboxes of a handler may outlive the wish for it"
    render.collect(root, {"kata-clh": None}, frozenset())
    assert not home_of(root, "kata-qemu").exists()
    assert (root(render.FOLDER) / "README").exists()


def test_removing_all_takes_katanodes_folder_and_nothing_else(tmp_path: Path) -> None:
    root = HostRoot(tmp_path)
    render.install(root, "kata-clh", "r1", ONE)
    root(f"{render.HOME}/configuration.toml").write_text("theirs")
    for _ in range(2):
        render.remove_all(root)
        assert [p.name for p in root(render.HOME).iterdir()] == ["configuration.toml"]
    render.collect(root, {}, frozenset())


@every
def test_every_path_in_force_is_in_the_release_and_drop_ins_hold_known_keys_only(
    shared: Path, tmp_path: Path, version: str, name: str, runtime: Flavour
) -> None:
    base = base_of(shared, version, name, runtime)
    hypervisor = base.handler.hypervisor
    wanted = Handler(
        hypervisor={hypervisor: {"enable_debug": True, "kernel": base.hypervisor["kernel"]}},
        annotations=("default_vcpus",),
    )
    rendered = render.render(base, tunables.check(base, wanted, node_with(base, tmp_path)))
    assert set(rendered) == {render.BASE, render.RELEASE, render.SETTINGS}
    for path in _strings(render.effective(rendered)):
        assert not path.startswith("/opt/kata/"), path
    for drop_in in (render.RELEASE, render.SETTINGS):
        for kind, tables in tomllib.loads(rendered[drop_in].decode()).items():
            for key, item in tables.items():
                if isinstance(item, dict):
                    assert item.keys() <= base.known[f"{kind}.{key}"].keys(), drop_in
                else:
                    assert key in base.known[kind], drop_in
    assert tomllib.loads(rendered[render.SETTINGS].decode())["hypervisor"][hypervisor]["enable_debug"]


def _strings(item: object) -> list[str]:
    if isinstance(item, dict):
        return [text for part in item.values() for text in _strings(part)]
    if isinstance(item, list):
        return [text for part in item for text in _strings(part)]
    return [item] if isinstance(item, str) else []
