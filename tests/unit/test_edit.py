"""The edit of containerd's files: against documents of every make, real files, and the hazards that were collected."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cri import block, effective, imports, recognise
from agent.cri.handler import Handler
from agent.errors import KatanodeError
from agent.reasons import Reason

CLH = Handler("kata-clh", "io.containerd.kata.v2", "/opt/katanode/releases/1/shim", "/etc/kata-containers/clh.toml")
QEMU = Handler("kata-qemu", "io.containerd.kata.v2", "", "/etc/kata-containers/qemu.toml", pod_annotations=())
FC = Handler("kata-fc", "io.containerd.kata.v2", '/odd "shim" \\', "/etc/fc.toml", snapshotter="devmapper")
WISHES = st.sampled_from([(CLH,), (CLH, QEMU), (QEMU, FC), (FC,)])
GLOB = "/etc/containerd/katanode.d/*.toml"
ROOT = "/etc/containerd/config.toml"
BOM = b"\xef\xbb\xbf"

_values = st.sampled_from(
    [
        *("1", "-3", "0x1f", "1.0", "1e9", "true", "inf", "1979-05-27T07:32:00Z", "''", '""', "[]", "{}", "[[]]"),
        *('"a # b"', "'c \\ d'", '"[x] \\" = \\\\"', '"ünïcode ☃"', "'{\"auths\": {}}'"),
        *(
            '"""x\n[y]\nimports = ["z"]"""',
            "'''\n# >\n[z]\n'''",
            '"""a\\"""b"""',
            '"""two quotes ""\\""""',
            "'''it''s'''",
        ),
        *('"""one more""""', "'''two more'''''", '"""\\\n  folded"""'),
        *(
            '["a", "b"]',
            "[ 1, 2, ]",
            '[\n  "a", # one ]\n\n  "b"\n]',
            "[\n\t[1],\n\t[ # x\n\t2]\n]",
            '{ a = 1, b = "}" }',
        ),
    ]
)
_comments = st.sampled_from(
    ["", "# text", "  # [table]", '# imports = ["x"]', "\t", "#", '#version = 2 "', "# ''' é", " "]
)
_gaps = st.sampled_from(["", " ", "  # why", "\t# [x] = 'y", ' # "'])
_equals = st.sampled_from(["=", " = ", "\t=  "])
_imports = st.sampled_from(
    [
        None,
        None,
        "imports = []",
        "imports=[ ]",
        "imports = [\n]",
        'imports = [ # "none"\n  # yet\n]',
        'imports = ["/etc/a.toml"]',
        'imports = ["""/etc/a.toml"""]',
        "imports = ['/etc/a.toml', \"/etc/b.toml\",]",
        'imports = [\n  "/etc/a.toml", # first ]\n  "/etc/b.toml"  # last "\n]  # end',
        'imports = [\n\t"/etc/a.toml"\n\t, # after\n]',
        "'imports' = ['/etc/[a]#.toml']",
        '"imports" = ["/etc/a \\" b.toml"]',
        f'# was "{GLOB}"\nimports = [\n  "/etc/a.toml", # , "{GLOB}"\n]',
    ]
)
_headers = st.sampled_from(
    [
        *(
            '[plugins."io.containerd.grpc.v1.cri"]',
            "[grpc]",
            "[[plugins.x.unpack]]",
            "  [debug]",
            "\t[ttrpc]",
            "[ a . 'b' ]",
        ),
        *("[plugins.'a.b'.c]", "[plugins.'io.containerd.grpc.v1.cri'.containerd]", "[imports2]", "[x.imports]"),
    ]
)
_dotted = st.sampled_from(["dots.b = 1", "plugins2.'x y'.z = 2", '"imports.x" = 3', "version2 = 'imports = []'"])


@st.composite
def lines_of(draw: st.DrawFn) -> list[str]:
    """The lines of a TOML file."""

    def key(name: str) -> str:
        return f"{draw(st.sampled_from(['', '  ']))}{name}{draw(_equals)}{draw(_values)}{draw(_gaps)}"

    lines = draw(st.lists(_comments, max_size=3))
    top = [key("version").replace(key("version"), "version = 2")] if draw(st.booleans()) else []
    top = [f"version{draw(_equals)}2{draw(_gaps)}"] if top else []
    listed = draw(_imports)
    top += [listed] if listed else []
    top += [key(f"top{i}") for i in range(draw(st.integers(0, 2)))]
    top += draw(st.lists(_dotted, max_size=2, unique=True))
    for line in draw(st.permutations(top)):
        lines += [line, *draw(st.lists(_comments, max_size=1))]
    for number, header in enumerate(draw(st.lists(_headers, max_size=4, unique=True))):
        lines += [draw(_comments), header + draw(_gaps)]
        lines += [key(f"key{number}_{i}") for i in range(draw(st.integers(0, 2)))]
        if draw(st.booleans()) and "imports" not in header:
            lines.append(key("imports"))  # somebody else's, in a table
    return lines + draw(st.lists(_comments, max_size=2))


@st.composite
def documents(draw: st.DrawFn, *, bom: bool = True) -> bytes:
    r"""A TOML file with one kind of line end or several, with none at its end, many, or blanks."""
    ends = draw(st.sampled_from([["\n"], ["\r\n"], ["\n", "\r\n"]]))
    whole = "\n".join(draw(lines_of()))
    text = "".join(line + draw(st.sampled_from(ends)) for line in whole.split("\n"))
    tail = draw(st.sampled_from(["", "as it is", "\n\n\n", "\r\n\r\n", "  \n\t\n", "   "]))
    text = text.rstrip("\r\n") if tail == "" else text if tail == "as it is" else text + tail
    return (BOM if bom and draw(st.integers(0, 4)) == 0 else b"") + text.encode()


def tree(data: bytes) -> dict[str, object]:
    return tomllib.loads(data.removeprefix(BOM).decode())


@given(documents(), WISHES, WISHES)
def test_a_block_is_put_replaced_and_taken_back(
    data: bytes, one: tuple[Handler, ...], two: tuple[Handler, ...]
) -> None:
    edited = block.edit(data, one)
    assert edited.startswith(data)
    assert block.edit(edited, one) == edited
    assert block.edit(edited, two) == block.edit(data, two)
    assert block.remove(edited) == data
    assert block.remove(data) == data
    assert block.inside(data) == b""
    assert edited == data + edited[len(data) :].partition(block.inside(edited))[0] + block.inside(edited)


@given(documents(), WISHES)
def test_a_block_adds_the_handlers_and_alters_nothing_for_a_parser(data: bytes, wish: tuple[Handler, ...]) -> None:
    before, after = tree(data), tree(block.edit(data, wish))
    dialect = {"plugins": after["plugins"]}
    assert set(effective.runtimes(dialect)) == {handler.name for handler in wish}
    assert effective.others_changed(before, after, [handler.name for handler in wish]) == []
    assert effective.without_effect(dialect, wish, ()) == []


@given(documents(), WISHES, documents(bom=False), documents(bom=False))
def test_what_others_write_around_a_block_survives(
    data: bytes, wish: tuple[Handler, ...], before: bytes, after: bytes
) -> None:
    ours = block.edit(data, wish)
    edited = before + b"\n" + ours + after
    assert block.edit(edited, wish)[: len(before) + 1 + len(data)] == before + b"\n" + data
    taken = block.remove(edited)
    assert taken.startswith(before + b"\n" + data)
    assert taken.endswith(after)
    gap = taken[len(before) + 1 + len(data) : len(taken) - len(after)]
    assert gap in ({b""} if not after or data.endswith(b"\n") or not data else {b"\n", b"\r\n"})
    assert block.inside(edited).lstrip().startswith(block.BEGIN.encode())


@given(documents(), WISHES, st.data())
def test_damaged_marks_are_refused_with_the_lines_and_the_way_out(
    data: bytes, wish: tuple[Handler, ...], choice: st.DataObject
) -> None:
    lines = block.edit(data, wish).split(b"\n")
    marks = [i for i, line in enumerate(lines) if line.startswith((block.BEGIN.encode(), block.END.encode()))]
    which = choice.draw(st.sampled_from(marks))
    damage = choice.draw(st.sampled_from(["gone", "twice", "swapped"]))
    if damage == "gone":
        del lines[which]
    elif damage == "twice":
        lines.insert(which, lines[which].rstrip(b"\r"))
    else:
        lines[marks[0]], lines[marks[1]] = lines[marks[1]], lines[marks[0]]
    spoilt = b"\n".join(lines)
    there = [i for i, line in enumerate(lines, 1) if line.startswith((block.BEGIN.encode(), block.END.encode()))]
    for action in (block.remove, block.inside, lambda x: block.edit(x, wish)):
        with pytest.raises(KatanodeError) as caught:
            action(spoilt)
        assert caught.value.reason is Reason.EDIT_IMPOSSIBLE
        assert f"lines {', '.join(map(str, there))}; one pair" in caught.value.evidence
        assert "by hand" in caught.value.remedy


def _gap(before: bytes, after: bytes) -> bytes:
    """The one piece by which two files differ."""
    at = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
    size = len(after) - len(before)
    while at > 0 and before[:at] + after[at + size :] != before:
        at -= 1
    assert before == after[:at] + after[at + size :], "more than one place was touched"
    return after[at : at + size]


@given(documents())
def test_an_import_is_one_piece_more_and_taken_back(data: bytes) -> None:
    before = tree(data)
    added = imports.add(data, GLOB)
    after = tree(added)
    assert GLOB.encode() in _gap(data, added)
    assert after.pop("imports") == [*before.pop("imports", []), GLOB]
    assert after == before
    assert imports.drop(added, GLOB) == data
    assert added.startswith(BOM) is data.startswith(BOM)


@given(documents())
def test_a_drop_in_is_placed_once_and_its_import_is_removable(data: bytes) -> None:
    placed = imports.place(data, ROOT)
    assert imports.place(placed.root, ROOT) == placed
    assert imports.remove(placed.root, ROOT) == imports.remove(data, ROOT) == data
    assert placed.path == imports.own_glob(ROOT).replace("*", imports.NAME)


@given(documents())
def test_taking_away_what_is_not_there_changes_nothing(data: bytes) -> None:
    assert imports.drop(data, "/etc/never/*.toml") == data


@given(documents(), st.lists(st.sampled_from(["/x/1", "/x/2", "/x/3"]), max_size=3))
def test_a_candidate_has_the_given_imports_and_no_others(data: bytes, paths: list[str]) -> None:
    before, after = tree(data), tree(imports.replaced(data, paths))
    assert after.pop("imports") == paths
    before.pop("imports", None)
    assert after == before


@pytest.mark.parametrize(
    ("edited", "taken"),
    [
        (f'imports = ["{GLOB}", "/etc/b.toml"]\n', 'imports = ["/etc/b.toml"]\n'),
        (f'imports = ["{GLOB}" , "/etc/b.toml"]\n', 'imports = ["/etc/b.toml"]\n'),
        (f'imports = [\n  "{GLOB}",\n  "/etc/b.toml",\n]\n', 'imports = [\n  \n  "/etc/b.toml",\n]\n'),
        (f'imports = [\n  "/etc/b.toml",\n  "{GLOB}"\n]\n', 'imports = [\n  "/etc/b.toml",\n  \n]\n'),
        (f'imports = ["{GLOB}"]\n', "imports = []\n"),
        (f'imports = ["{GLOB}"]  # katanode\nversion = 2\n', "version = 2\n"),
        (f'# "{GLOB}"\nimports = ["/etc/b.toml"]\n', f'# "{GLOB}"\nimports = ["/etc/b.toml"]\n'),
        (f'[x]\nimports = ["{GLOB}"]\n', f'[x]\nimports = ["{GLOB}"]\n'),
    ],
)
def test_an_import_that_people_moved_is_taken_so_that_the_file_stays_valid(edited: str, taken: str) -> None:
    left = imports.drop(edited.encode(), GLOB)
    assert tree(left) == tomllib.loads(taken)
    assert left.count(b"#") == taken.count("#")


@pytest.mark.parametrize(
    "odd", ['imports = "/etc/a.toml"', "imports = 3", "imports = [1]", "imports = [['a']]", "[imports]\nx = 1"]
)
def test_imports_that_are_no_array_of_strings_are_refused(odd: str) -> None:
    with pytest.raises(KatanodeError) as caught:
        imports.place(f"version = 3\n{odd}\n".encode(), ROOT)
    assert caught.value.reason is Reason.EDIT_IMPOSSIBLE


def test_k0s_keeps_its_first_line() -> None:
    data = b"# k0s_managed=true\n# more\nversion = 3\n"
    assert imports.add(data, GLOB).split(b"\n")[0] == b"# k0s_managed=true"
    assert imports.add(b"# k0s_managed=true", GLOB).split(b"\n")[0] == b"# k0s_managed=true"


CRI = '[plugins."io.containerd.grpc.v1.cri"'
HAZARDS = {
    "12: a parent behind its child": f"version = 2\n{CRI}.containerd.runtimes.runc]\n{CRI}]\na = 1\n",
    "13: a runtime in pieces": f"version = 2\n{CRI}.a.runtimes.r]\n[grpc]\n{CRI}.a.runtimes.r.options]\n",
    "14: arrays of tables under a quoted id": 'version = 2\n[[plugins."a.b".u]]\nx = 1\n[[plugins."a.b".u]]\nx = 2\n',
    "15: another table last": "version = 2\n[timeouts]\n  'x' = '5s'\n",
    "16: comments that look like tables": f"# {CRI}.containerd.runtimes.kata-clh]\nversion = 2  # [x]\n",
    "17: tabs and blanks": f"  version = 2\n\t{CRI}]\n  \t x = 1\n",
    "18: blank lines around": "\n\n  \nversion = 2   \n\n\n\n",
    "19: no line end": "version = 2\n[grpc]\n  gid = 0",
    "20: CRLF": "version = 2\r\n[grpc]\r\n  gid = 0\r\n",
    "20: both": "version = 2\r\n[grpc]\n  gid = 0",
    "22: other scripts, braces and backslashes": '# 中文\nversion = 2\n[x]\n y = \'{"a": "\\d"}\'\n',
    "23: no blanks": 'version=2\n[x]\ny=[ "a" ,]\n',
    "25: dotted keys": f"version = 2\n{CRI}]\ncontainerd.runtimes.runc = {{}}\n",
    "26: numbers as they are written": "version = 2\n[x]\ny = 1.0\nz = 0x10\n",
    "27: comments alone": "# nothing\n",
    "27: an empty table": "version = 2\n[plugins]\n",
    "28: imports before the version": 'imports = ["/a", "/a"]\nversion = 2\n',
    "30: k0s": "# k0s_managed=true\nversion = 2\n",
}


@pytest.mark.parametrize("what", HAZARDS)
def test_a_collected_hazard_is_edited_and_taken_back(what: str) -> None:
    data = HAZARDS[what].encode()
    edited = block.edit(data, (CLH, FC), version=None if tree(data) else 2)
    assert effective.runtimes(tree(edited)).keys() >= {"kata-clh", "kata-fc"}
    assert [x for x in effective.others_changed(tree(data), tree(edited), ["kata-clh", "kata-fc"]) if tree(data)] == []
    assert block.remove(edited) == data
    last = edited[len(data) :].split(b"\n")[1:-1]
    assert {line.endswith(b"\r") for line in last} == {block.line_end(data) == b"\r\n"}
    assert imports.drop(imports.add(data, GLOB), GLOB) == data


COLLISIONS = {
    "24: an inline table": 'version = 2\n[plugins]\n"io.containerd.grpc.v1.cri" = { containerd = {} }\n',
    "37: the runtimes as a value": f"version = 2\n{CRI}.containerd]\nruntimes = 1\n",
}


@pytest.mark.parametrize("what", COLLISIONS)
def test_what_no_header_can_extend_shows_in_the_edited_file(what: str) -> None:
    """`configuration` parses what it is about to write and refuses it then."""
    data = COLLISIONS[what].encode()
    with pytest.raises(tomllib.TOMLDecodeError):
        tree(block.edit(data, (CLH,)))


def _corpus(shared: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted((shared / "corpus/files").iterdir()):
        yield path.name, path.read_bytes()


def test_every_real_file_that_can_be_edited_is_given_back_byte_for_byte(shared: Path) -> None:
    done = 0
    for name, data in _corpus(shared):
        if not re.match(r"[012]", name):
            continue  # CRI-O's
        try:
            document = recognise.read(data, ROOT)
        except KatanodeError:
            continue
        done += 1
        for wish in ((CLH,), (CLH, QEMU, FC)):
            edited = block.edit(data, wish)
            assert block.remove(edited) == data, name
            assert block.edit(edited, wish) == edited, name
        placed = imports.place(data, ROOT)
        assert imports.remove(placed.root, ROOT) == data, name
        after = tree(placed.root)
        assert effective.others_changed(document.tree, after, ()) == [], name
        assert placed.root == data or GLOB.encode() in _gap(data, placed.root), name
        paths = tree(imports.replaced(data, ["/x"]))
        assert paths.pop("imports") == ["/x"], name
        assert effective.others_changed(document.tree, paths, ()) == [], name
    assert done > 40
