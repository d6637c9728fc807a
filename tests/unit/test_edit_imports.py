"""The `imports` of a 2.x root file: ours comes and goes, and whatever people did to the array meanwhile stays."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cri import imports
from agent.errors import KatanodeError
from agent.reasons import Reason

PATH = "/etc/containerd/config.toml"
OWN = imports.own_glob(PATH)
OURS = "/etc/containerd/katanode.d/katanode.toml"


@st.composite
def roots(draw: st.DrawFn) -> bytes:
    """Root files whose imports, if any, hold no usable glob: one line or many, either quote, commas, comments."""
    lines = draw(st.lists(st.sampled_from(("# a comment", f'# imports = ["/a", "{OWN}"]')), max_size=2))
    body = ["version = 3"] if draw(st.booleans()) else []
    if draw(st.booleans()):
        quote = st.sampled_from("\"'")
        elements = [f"{q}/etc/x{n}.toml{q}" for n, q in enumerate(draw(st.lists(quote, max_size=3)))]
        gap = draw(st.sampled_from(("", " ", "\n  ", "\n\t", '  # why, ["really"]\n    ')))
        last = "," if elements and draw(st.booleans()) else ""
        tail = draw(st.sampled_from(("", " ", "\n", "  # end\n", "\n  # 'quoted'\n")))
        equals = draw(st.sampled_from((" = ", "=", "  =\t")))
        key = draw(st.sampled_from(("imports", "  imports", '"imports"')))
        body.append(f"{key}{equals}[{gap}{f',{gap}'.join(elements)}{last}{tail}]" + draw(st.sampled_from(("", " # x"))))
    draw(st.randoms()).shuffle(body)
    lines += [*body, *draw(st.sampled_from(([], ["", "[grpc]", "  uid = 0"], [f"[x]\nnote = '{OWN}'"])))]
    text = "\n".join(lines) + draw(st.sampled_from(("", "\n", "\n\n")))
    return (text.replace("\n", "\r\n") if draw(st.booleans()) else text).encode()


@given(roots())
def test_the_import_goes_byte_for_byte(root: bytes) -> None:
    placed = imports.place(root, PATH)
    assert placed.path == OURS
    assert imports.remove(placed.root, PATH) == root
    assert imports.remove(root, PATH) == root


@given(roots())
def test_a_second_time_nothing_changes(root: bytes) -> None:
    once = imports.place(root, PATH)
    assert imports.place(once.root, PATH) == once


@given(roots(), st.data())
def test_elements_that_people_add_beside_ours_stay(root: bytes, data: st.DataObject) -> None:
    placed = imports.place(root, PATH).root
    ours = f'"{OWN}"'.encode()
    at = placed.rindex(ours) if placed.count(ours) == 1 else placed.index(ours, placed.index(b"imports", 0))
    change = data.draw(st.sampled_from((b'%s, "/m.toml"', b'"/m.toml", %s', b'%s,\n  "/m.toml",', b'"/m.toml",\n%s')))
    changed = placed[:at] + change % ours + placed[at + len(ours) :]
    try:
        before = tomllib.loads(changed.decode())
    except tomllib.TOMLDecodeError:
        return  # a comma more than the array bears: not what this is about
    if OWN not in before.get("imports", []):
        return  # the change met a comment
    after = tomllib.loads(imports.remove(changed, PATH).decode())
    assert after.pop("imports", []) == [item for item in before.pop("imports") if item != OWN]
    assert after == before
    assert imports.place(changed, PATH) == imports.Placement(OURS, changed)


@pytest.mark.parametrize(
    ("changed", "gone"),
    [
        (f'imports = ["{OWN}", "/m.toml"]  # katanode\n', 'imports = ["/m.toml"]  # katanode\n'),
        (f'imports = ["/m.toml", "{OWN}"]  # katanode\n', 'imports = ["/m.toml"]  # katanode\n'),
        (f'imports = [\n  "/a.toml",\n  "{OWN}",\n]\n', 'imports = [\n  "/a.toml",\n]\n'),
        (f'imports = [\n  "{OWN}",  # ours\n  "/a.toml"\n]\n', 'imports = [\n   # ours\n  "/a.toml"\n]\n'),
        (f'imports = [\n  "/a.toml",\n  "{OWN}"\n]\n', 'imports = [\n  "/a.toml"\n  \n]\n'),
        (f"imports = ['{OWN}']\n", "imports = []\n"),  # as `containerd config migrate` prints it
        (f'imports = ["{OWN}"]  # katanode  \n', ""),
        (f'# imports = ["{OWN}"]  # katanode\n', f'# imports = ["{OWN}"]  # katanode\n'),
        (f'# was imports = ["/a", "{OWN}"]\nimports = []\n', f'# was imports = ["/a", "{OWN}"]\nimports = []\n'),
        (f'[x]\nimports = ["{OWN}"]\n', f'[x]\nimports = ["{OWN}"]\n'),
    ],
)
def test_an_array_that_somebody_changed_stays_valid_without_ours(changed: str, gone: str) -> None:
    # confidential-containers/operator#481 left `imports = [ , ]` and a node without a runtime
    head = "version = 3\n"
    assert imports.remove((head + changed).encode(), PATH).decode() == head + gone
    tomllib.loads(head + gone)


@pytest.mark.parametrize("glob", ["/etc/*/x.toml", "/etc/x/*.conf", "/x/[a-k]*.toml", "/x/*a*.toml", "/x/?.toml"])
def test_any_other_glob_is_not_trusted(glob: str) -> None:
    assert imports.place(f'imports = ["{glob}"]\n'.encode(), PATH).path == OURS


def test_the_dropin_stays_where_it_stands_when_globs_are_reordered() -> None:
    root = b'imports = ["/etc/aa/*.toml", "/etc/bb/*.toml"]\n'
    assert imports.place(root, PATH).path == "/etc/aa/katanode.toml"
    assert imports.place(root, PATH, ["/etc/bb/katanode.toml"]).path == "/etc/bb/katanode.toml"
    assert imports.places(root, PATH) == ["/etc/aa/katanode.toml", "/etc/bb/katanode.toml"]


@pytest.mark.parametrize("value", ['"/x"', "[1]", '["/a", 2]', "{ a = 1 }", "true"])
def test_imports_that_are_no_array_of_strings_are_refused(value: str) -> None:
    with pytest.raises(KatanodeError) as caught:
        imports.place(f"version = 3\nimports = {value}\n".encode(), PATH)
    assert caught.value.reason is Reason.EDIT_IMPOSSIBLE


def test_the_line_comes_after_version_and_never_above_a_first_comment() -> None:  # HAZARDS 30
    assert imports.place(b"# k0s_managed=true\n[grpc]\n", PATH).root.startswith(b"# k0s_managed=true\nimports")
    after = imports.place(b"# one\nroot = '/x'\nversion = 3  # two\n[grpc]\n", PATH).root.splitlines()
    assert after[2].startswith(b"version")
    assert after[3].startswith(b"imports")
