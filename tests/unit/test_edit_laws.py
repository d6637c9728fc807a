"""Laws of the edit, for any configuration: what is added is taken back byte for byte, and nothing else moves."""

import tomllib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cri import block, imports
from agent.cri.handler import Handler
from agent.errors import KatanodeError
from agent.reasons import Reason

CLH = Handler("kata-clh", "io.containerd.kata.v2", "/opt/katanode/releases/1/shim", "/etc/kata-containers/clh.toml")
QEMU = Handler("kata-qemu", "io.containerd.kata.v2", "/opt/katanode/releases/1/shim", "/etc/kata-containers/qemu.toml")
FC = Handler("kata-fc", "/abs/shim", "", "/etc/kata-containers/fc.toml", snapshotter="devmapper")
HANDLERS = st.sampled_from([(CLH,), (CLH, QEMU), (QEMU, FC), (FC,)])
GLOB = "/etc/containerd/katanode.d/*.toml"
ROOT = "/etc/containerd/config.toml"

_values = st.one_of(
    st.integers(-5, 1 << 40).map(str),
    st.sampled_from(["true", "false", "1.0", "1979-05-27", '"a # b"', "'c \\ d'", '"""x\ny"""', "'''\n[z]\n'''", "[]"]),
    st.sampled_from(['["a", "b"]', "[ 1, 2, ]", '[\n  "a", # one\n  "b"\n]', "{ a = 1 }", "{}"]),
)
_comments = st.sampled_from(["", "# text", "  # [table]", '# imports = ["x"]', "\t"])
_imports = st.sampled_from(
    [
        None,
        "imports = []",
        "imports=[ ]",
        'imports = ["/etc/a.toml"]',
        "imports = ['/etc/a.toml', \"/etc/b.toml\",]",
        'imports = [\n  "/etc/a.toml", # first ]\n  "/etc/b.toml"  # last\n]  # end',
        'imports = [\n\t"/etc/a.toml",\n]',
        '"imports" = ["/etc/a.toml"]',
    ]
)
_tables = st.sampled_from(
    ['[plugins."io.containerd.grpc.v1.cri"]', "[grpc]", "[[plugins.x.unpack]]", "  [debug]", "[plugins.'a.b'.c]  # t"]
)


@st.composite
def configurations(draw: st.DrawFn) -> bytes:
    """A TOML file: comments, top-level keys, perhaps imports, tables with keys; any line end, or none at the end."""
    lines = draw(st.lists(_comments, max_size=3))
    top = [draw(st.sampled_from(["version = 2", "version = 3"]))] if draw(st.booleans()) else []
    listed = draw(_imports)
    top += [listed] if listed else []
    top += [f"top{i} = {draw(_values)}" for i in range(draw(st.integers(0, 2)))]
    lines += draw(st.permutations(top))
    for number, table in enumerate(draw(st.lists(_tables, max_size=4, unique=True))):
        lines += [draw(_comments), table]
        lines += [f"key{number}_{i} = {draw(_values)}" for i in range(draw(st.integers(0, 2)))]
    lines += draw(st.lists(_comments, max_size=2))
    eol = draw(st.sampled_from(["\n", "\r\n"]))
    text = eol.join(lines).replace("\r\n", "\n").replace("\n", eol) + draw(st.sampled_from(["", eol, eol * 3]))
    return text.encode()


@given(configurations(), HANDLERS, HANDLERS)
def test_a_block_is_idempotent_replaceable_and_taken_back(
    data: bytes, one: tuple[Handler, ...], two: tuple[Handler, ...]
) -> None:
    edited = block.edit(data, one)
    assert block.edit(edited, one) == edited
    assert block.remove(edited) == data
    assert block.edit(edited, two) == block.edit(data, two)
    assert block.remove(data) == data
    assert edited.startswith(data)


@given(configurations(), HANDLERS)
def test_a_block_brings_the_handlers_and_nothing_else(data: bytes, handlers: tuple[Handler, ...]) -> None:
    before, after = tomllib.loads(data.decode()), tomllib.loads(block.edit(data, handlers).decode())
    runtimes = after["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
    assert set(runtimes) == {handler.name for handler in handlers}
    for handler in handlers:
        assert runtimes[handler.name]["options"]["ConfigPath"] == handler.config_path
    del after["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]
    if "io.containerd.grpc.v1.cri" not in before.get("plugins", {}):
        del after["plugins"]["io.containerd.grpc.v1.cri"]
    if "plugins" not in before:
        del after["plugins"]
    assert after == before


@given(configurations(), HANDLERS, configurations())
def test_what_is_written_behind_a_block_stays(data: bytes, handlers: tuple[Handler, ...], more: bytes) -> None:
    edited = block.edit(data, handlers) + more
    assert block.edit(edited, handlers) == edited
    gap = block.line_end(data) if more and data and not data.endswith(b"\n") else b""
    assert block.remove(edited) == data + gap + more


@given(configurations())
def test_an_import_is_added_once_and_taken_back(data: bytes) -> None:
    before = tomllib.loads(data.decode())
    try:
        added = imports.add(data, GLOB)
    except KatanodeError as error:
        assert error.reason is Reason.EDIT_IMPOSSIBLE
        return
    after = tomllib.loads(added.decode())
    assert after.pop("imports") == [*before.pop("imports", []), GLOB]
    assert after == before
    assert imports.drop(added, GLOB) == data
    assert imports.place(added, ROOT).root == added


@given(configurations())
def test_a_candidate_has_just_the_imports_that_it_is_given(data: bytes) -> None:
    after = tomllib.loads(imports.replaced(data, ["/x/1", "/x/2"]).decode())
    before = tomllib.loads(data.decode())
    assert after.pop("imports") == ["/x/1", "/x/2"]
    before.pop("imports", None)
    assert after == before


@pytest.mark.parametrize(
    ("listed", "path"),
    [
        ('imports = ["/etc/containerd/conf.d/*.toml"]', "/etc/containerd/conf.d/katanode.toml"),
        ('imports = ["/etc/containerd/runtime_*.toml"]', "/etc/containerd/runtime_katanode.toml"),
        ('imports = ["conf.d/*.toml"]', "/etc/containerd/conf.d/katanode.toml"),
        ('imports = ["/etc/*/conf.d/*.toml"]', "/etc/containerd/katanode.d/katanode.toml"),
        ('imports = ["/etc/containerd/*.conf"]', "/etc/containerd/katanode.d/katanode.toml"),
        ('imports = ["/etc/a.toml"]', "/etc/containerd/katanode.d/katanode.toml"),
        ("", "/etc/containerd/katanode.d/katanode.toml"),
    ],
)
def test_a_drop_in_goes_where_the_root_file_looks_already(listed: str, path: str) -> None:
    data = f"version = 3\n{listed}\n[grpc]\n".encode()
    placement = imports.place(data, ROOT)
    assert placement.path == path
    assert (placement.root == data) is ("katanode.d" not in path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(block.END.encode(), b""),
        lambda data: data.replace(block.BEGIN.encode(), b"# gone"),
        lambda data: data + data,
    ],
)
def test_damaged_marks_are_refused_with_their_lines(damage: Callable[[bytes], bytes]) -> None:
    data = damage(block.edit(b"version = 2\n", (CLH,)))
    for action in (block.remove, lambda x: block.edit(x, (CLH,))):
        with pytest.raises(KatanodeError, match="marks in the file are damaged") as caught:
            action(data)
        assert "lines" in caught.value.evidence


def test_a_dropped_in_file_says_the_root_files_schema() -> None:
    for version, plugin in (
        (2, "io.containerd.grpc.v1.cri"),
        (3, "io.containerd.cri.v1.runtime"),
        (4, "io.containerd.cri.v1.runtime"),
    ):
        tree = tomllib.loads(imports.content((CLH, FC), {}, version).decode())
        assert tree["version"] == version
        assert set(tree["plugins"][plugin]["containerd"]["runtimes"]) == {"kata-clh", "kata-fc"}
        if version > 2:
            assert (
                tree["plugins"]["io.containerd.cri.v1.images"]["runtime_platforms"]["kata-fc"]["snapshotter"]
                == "devmapper"
            )
