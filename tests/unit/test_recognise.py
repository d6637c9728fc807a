"""Every refusal of a root file names the file, and the place in it where there is one; and shows no credential."""

from pathlib import Path
from typing import Any

import pytest

from agent import plan
from agent.cri import effective, recognise
from agent.cri.masking import masked
from agent.errors import KatanodeError
from agent.reasons import Reason

PATH = "/etc/containerd/config.toml"
SECRET = "hunter2"


def refused(data: str | bytes, path: str = PATH) -> KatanodeError:
    with pytest.raises(KatanodeError) as caught:
        recognise.read(data if isinstance(data, bytes) else data.encode(), path)
    assert path in caught.value.message
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("data", "reason", "evidence"),
    [
        (b" \n", Reason.CONFIG_EMPTY, "2 bytes"),
        (b"version = 2\n\xfe\n", Reason.CONFIG_NOT_TEXT, "byte 12: invalid start byte"),
        (b"version = 2\n\0", Reason.CONFIG_NOT_TEXT, "character 12"),
        (b"version = 2\n[a]\nx = 1\n[a]\n", Reason.CONFIG_INVALID, "line 4: [a]"),
        (b"version = 2\r\n[a]\r\nx = 1\r\nx = 2\r\n", Reason.CONFIG_INVALID, "line 4: x = 2"),
        (b'version = 2\nx = "never closed\n', Reason.CONFIG_INVALID, 'line 2: x = "never closed'),
        (b"version = 2\nx = [1\n", Reason.CONFIG_INVALID, "end of document"),
        (b"version = 2\n\n  {{ if .X }}\n", Reason.CONFIG_TEMPLATE, "line 3: {{ if …"),
        (b'version = 2\n# x\n# {{- template "base" . }}\n', Reason.CONFIG_TEMPLATE, "line 3: {{- template …"),
        (b"version = 1\n[plugins.cri]\n", Reason.CONFIG_SCHEMA_OLD, "version = 1"),
        (b"version = 99\n", Reason.CONFIG_SCHEMA_UNKNOWN, "version = 99; known are 2, 3, 4"),
        (b'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n', Reason.CRI_DISABLED, "io.containerd.grpc.v1.cri"),
    ],
)
def test_a_refusal_names_the_file_and_the_place_in_it(data: bytes, reason: Reason, evidence: str) -> None:
    error = refused(data)
    assert error.reason is reason
    assert evidence in error.evidence


def test_deep_nesting_is_invalid_and_no_crash() -> None:
    assert refused("x = " + "[" * 20_000).reason is Reason.CONFIG_INVALID


@pytest.mark.parametrize(
    "broken",
    [
        f'password = "{SECRET}',
        f'  auth = {{ username = "u", password = "{SECRET} }}',
        f'identitytoken = {SECRET}"',
        f'"auth": "{SECRET}",',  # JSON, pasted
        f'"auth": "{SECRET}=="',
        f'headers = {{ Authorization = ["Basic {SECRET}] }}',
        f'["Authorization: Basic {SECRET}" "x"]',
        f'x = [ "Authorization: Basic {SECRET}",\n "Token {SECRET}" "y" ]',
        f'auth = [\n  "{SECRET}" "y",\n]',
        f'password = """\n{SECRET}\x01"""',
        f'password = """\n{SECRET}==\n{SECRET}\x01"""',
        f"# password = {SECRET}\x01",
        f'"x" = {{ "auths" = {{ a = "{SECRET} }} }}',
    ],
)
def test_the_line_of_a_syntax_error_shows_no_credential(broken: str) -> None:
    error = refused(f"version = 2\n[x]\n{broken}\nmore = 1\n")
    assert error.reason is Reason.CONFIG_INVALID
    assert "line" in error.evidence
    assert SECRET not in error.evidence + error.message + error.remedy


CREDENTIALS: list[dict[str, Any]] = [
    {"password": SECRET},
    {"auth": SECRET},
    {"identitytoken": SECRET},
    {"headers": {"Authorization": [SECRET]}},
    {"hosts": [{"auth": SECRET}]},
    {"hosts": [{"a": [{"password": SECRET}]}]},
]


@pytest.mark.parametrize("table", CREDENTIALS)
def test_a_difference_of_effective_configurations_shows_no_credential(table: dict[str, Any]) -> None:
    tree = {"plugins": {"io.containerd.grpc.v1.cri": {"registry": {"configs": {"a:5000": table}}}}}
    for before, after in ((tree, {}), ({}, tree)):
        (line,) = effective.others_changed(before, after, ())
        assert "a:5000" in line
        assert SECRET not in line


@pytest.mark.parametrize(
    "line",
    [
        f'password = "{SECRET}"',
        f"    auth='{SECRET}'",
        f'identitytoken = "{SECRET}"  # x',
        f'auth = {{ username = "u", password = "{SECRET}" }}',
        f'"docker.io" = {{ auth = {{ password = "{SECRET}" }} }}',
        f'headers = {{ Authorization = ["Basic {SECRET}"] }}',
        f'# password = "{SECRET}"',
        f'#   auth = "{SECRET}"',
        f'"X-Registry-Token" = ["{SECRET}"]',
        f'client_secret = "{SECRET}"',
        f'"x-api-key" = "{SECRET}"',
        f"a.b.'c'.password = '{SECRET}'",
    ],
)
def test_a_diff_shows_no_credential_whether_it_changes_or_only_stands_near(line: str) -> None:
    near = f"version = 2\n{line}\n".encode()
    for before, after in ((near, near + b"# new\n"), (near, b"version = 2\n"), (b"version = 2\n", near)):
        text = plan.diff(PATH, before, after)
        assert SECRET not in text
        assert "…" in text


def test_a_diff_shows_all_else_as_it_is() -> None:
    before = b'[plugins."x".registry.configs."a:5000".auth]\n[x]\nroot = "/x"\n'
    text = plan.diff("/etc/auth.toml", before, before.replace(b'"/x"', b'"/y"'))
    assert text.splitlines()[:2] == ["--- /etc/auth.toml", "+++ /etc/auth.toml"]
    assert ' [plugins."x".registry.configs."a:5000".auth]' in text
    assert '-root = "/x"\n+root = "/y"' in text


def test_a_diff_of_bytes_that_are_no_text_is_made_all_the_same() -> None:
    assert "+\\xff" in plan.diff("x", b"", b"\xff\n")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("gid = 0", "gid = 0"),
        ("password = 'x'", "password = …"),
        ('"auth": "x"', '"auth": …'),
        ("a token", "…"),
        ("[a.auth]", "[a.auth]"),
        ('["auth x"]', "…"),
    ],
)
def test_only_what_stands_before_a_value_is_left(line: str, shown: str) -> None:
    assert masked(line) == shown


def test_every_real_file_and_template_is_taken_or_refused_with_a_reason(shared: Path) -> None:
    told: dict[str, list[str]] = {}
    for folder in ("files", "templates"):
        for path in sorted((shared / "corpus" / folder).iterdir()):
            try:
                document = recognise.read(path.read_bytes(), f"/etc/{path.name}")
            except KatanodeError as error:
                assert f"/etc/{path.name}" in error.message
                told.setdefault(str(error.reason), []).append(path.name)
            else:
                told.setdefault("taken", []).append(path.name)
                assert document.version in {None, *recognise.SCHEMAS}
                assert not path.name.endswith((".tmpl", ".j2", ".gtpl"))
    needed = (Reason.CONFIG_INVALID, Reason.CONFIG_TEMPLATE, Reason.CRI_DISABLED, Reason.CONFIG_EMPTY)
    assert set(told) >= {"taken", *map(str, needed)}
    assert len(told["taken"]) > 40
