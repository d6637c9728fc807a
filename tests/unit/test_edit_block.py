"""The block in a 1.x root file: whatever the file looks like, it comes, changes and goes, and nothing else does."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cri import block
from agent.cri.handler import Handler
from agent.errors import KatanodeError
from agent.reasons import Reason

CLH = Handler("kata-clh", "io.containerd.kata.v2", "/opt/shim", "/etc/kata/clh.toml")
FC = Handler("kata-fc", "io.containerd.kata.v2", "", "/etc/kata/fc.toml", snapshotter="devmapper")
CRI = "io.containerd.grpc.v1.cri"

KEYS = (
    "root = '/var/lib/containerd'",
    "  oom_score = -999  # why",
    "\tratio = 1.0",
    'address.tcp = "x"',
    "flags = [\n  'a', # first\n  'b',\n]",
    "limits = { cpu = 1, name = 'x' }",
    'text = "a # no comment"',
    "lines = '''\n[not.a.table]\n# nor a comment\n'''",
)


@st.composite
def configurations(draw: st.DrawFn) -> bytes:
    """Schema 2 files in the layouts of HAZARDS 12-24: comments, indents, arrays of tables, any line and file end."""
    lines = draw(st.lists(st.sampled_from(("# a comment", "", "   ", "# [plugins.commented]")), max_size=3))
    lines.append("version = 2")
    lines += draw(st.lists(st.sampled_from(KEYS), max_size=3, unique=True))
    for number in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(("plain", "runtime", "array", "snapshotter")))
        lines += {
            "plain": [f"[section{number}]  "],
            "runtime": [f"    [plugins.'{CRI}'.containerd.runtimes.\"r{number}\"]", "  runtime_type = 'x'"],
            "array": [f'[[plugins."a.b{number}".items]]'] * draw(st.integers(1, 2)),
            "snapshotter": [f'\t[proxy_plugins."s{number}"]  # trailing'],
        }[kind]
        lines += draw(st.lists(st.sampled_from(KEYS), max_size=3, unique=True))
        lines += draw(st.lists(st.sampled_from(("", "  # inside", "# äöü")), max_size=2))
    text = "\n".join(lines) + "\n" * draw(st.integers(0, 3))
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    return (b"\xef\xbb\xbf" if draw(st.booleans()) else b"") + text.encode()


def parsed(data: bytes) -> dict[str, object]:
    return tomllib.loads(data.removeprefix(b"\xef\xbb\xbf").decode())


@given(configurations())
def test_taken_out_it_leaves_the_very_bytes(original: bytes) -> None:
    assert block.remove(block.edit(original, [CLH, FC])) == original


@given(configurations(), st.sampled_from((b"# earlier\n", b"[debug]\nlevel = 'info'\n")))
def test_text_that_somebody_wrote_before_the_block_stays(original: bytes, inserted: bytes) -> None:
    closed = original if original.endswith(b"\n") else original + block.line_end(original)
    after = block.edit(closed, [CLH]).replace(closed, closed + inserted, 1)
    assert block.remove(block.edit(after, [FC])) == closed + inserted


@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
def test_new_lines_end_as_the_files_own(eol: bytes) -> None:  # HAZARDS 20
    after = block.edit(b"version = 2" + eol + b"[grpc]" + eol, [CLH])
    assert after.count(b"\n") == after.count(eol)


@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
def test_a_missing_final_newline_glues_no_header(eol: bytes) -> None:  # HAZARDS 19
    after = block.edit(b"version = 2" + eol + b"[grpc]" + eol + b"  uid = 0", [CLH])
    assert b"uid = 0" + eol + b"# >>>" in after
    assert block.JOINED.encode() in after


def test_tables_after_an_array_of_tables_are_not_its_own() -> None:  # HAZARDS 14, 15
    after = parsed(block.edit(b"version = 2\n[[plugins.'x.y'.unpack]]\n  platform = 'linux'\n", [CLH]))
    assert after["plugins"]["x.y"] == {"unpack": [{"platform": "linux"}]}  # type: ignore[index]


def test_a_file_of_comments_gets_its_version_from_the_block() -> None:  # HAZARDS 27
    after = block.edit(b"# root = '/x'\n# [plugins]\n", [CLH], version=2)
    assert parsed(after)["version"] == 2
    assert block.remove(after) == b"# root = '/x'\n# [plugins]\n"


def test_what_was_edited_by_hand_inside_is_replaced() -> None:
    once = block.edit(b"version = 2\n", [CLH])
    assert block.edit(once.replace(b"/opt/shim", b"/tmp/other\n# note"), [CLH]) == once


@pytest.mark.parametrize("spoil", ["no begin", "no end", "twice", "turned round", "nested"])
def test_damaged_marks_are_refused_and_their_lines_named(spoil: str) -> None:
    begin, end = block.BEGIN.encode() + b"\n", block.END.encode() + b"\n"
    body = {
        "no begin": b"x = 1\n" + end,
        "no end": begin + b"x = 1\n",
        "twice": begin + end + begin + end,
        "turned round": end + begin,
        "nested": begin + begin + end + end,
    }[spoil]
    for action in (block.remove, block.inside, lambda data: block.edit(data, [CLH])):
        with pytest.raises(KatanodeError) as caught:
            action(b"version = 2\n" + body)
        assert caught.value.reason is Reason.EDIT_IMPOSSIBLE
        first = 3 if spoil == "no begin" else 2
        assert f"lines {first}" in caught.value.evidence


def test_a_restated_runtime_has_the_values_and_types_that_it_had() -> None:  # HAZARDS 26
    runc = {"runtime_type": "r", "weight": 1.0, "on": False, "list": ["a"], "options": {}, "x.y": {"n": 0}}
    lines = block.restated({"snapshotter": 'nat"ive', "runtimes": {"runc": runc}}, 2)
    table = tomllib.loads("\n".join(lines))["plugins"][CRI]["containerd"]
    assert table == {"snapshotter": 'nat"ive', "runtimes": {"runc": runc}}
    assert isinstance(table["runtimes"]["runc"]["weight"], float)
