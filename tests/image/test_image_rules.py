"""The image's making, piece by piece: nothing is built here, and no network is asked."""

from __future__ import annotations

import json
import os
import struct
import tarfile
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hack.imaging import access, archive, lock, project, tools
from hack.imaging.errors import ImageError
from image import seal, trim, wheels

if TYPE_CHECKING:
    from pathlib import Path

PYPROJECT = tomllib.loads((project.REPO / "pyproject.toml").read_text())


def entries(path: Path) -> dict[str, tuple[str, set[str]]]:
    """A lock's distributions: canonical name to version and who requires it."""
    found = {}
    name = version = ""
    for line in path.read_text().splitlines():
        if "==" in line:
            name, _, version = line.removesuffix(" \\").partition("==")
        elif line.startswith("    # via "):
            found[name] = (version, set(line.removeprefix("    # via ").split(", ")))
    return found


# the lock


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (lock.RUNTIME, PYPROJECT["project"]["dependencies"]),
        (lock.BUILD, PYPROJECT["build-system"]["requires"]),
    ],
    ids=["runtime", "build"],
)
def test_a_lock_has_what_pyproject_asks_for_and_nothing_that_it_no_longer_does(path: Path, wanted: list[str]) -> None:
    locked = entries(path)
    asked = {canonicalize_name(Requirement(text).name): Requirement(text) for text in wanted}
    for name, requirement in asked.items():
        assert name in locked, f"{name} is not locked: hack/image --lock"
        version, via = locked[name]
        assert requirement.specifier.contains(version), f"{name} {version}: hack/image --lock"
        assert "katanode" in via
    assert {name for name, (_, via) in locked.items() if "katanode" in via} == set(asked), "hack/image --lock"


def test_everything_in_the_lock_is_required_by_something_that_is_in_it() -> None:
    locked = entries(lock.RUNTIME)
    for name, (_, via) in locked.items():
        assert via <= {"katanode", *locked}, name


def test_every_distribution_has_a_digest() -> None:
    for path in (lock.RUNTIME, lock.BUILD):
        blocks = path.read_text().split("==")[1:]
        assert blocks
        assert all("--hash=sha256:" in block for block in blocks)


def test_the_locks_are_for_one_python() -> None:
    for path in (lock.RUNTIME, lock.BUILD):
        assert f"# Python {lock.PYTHON}\n" in path.read_text()


def test_a_condition_on_the_python_is_judged_by_the_images_own() -> None:
    # pip judges by the Python that it runs on: what only that one needs goes, what the image needs must be there.
    found = {"a": lock.Locked("1.0", requires=["old; python_version < '3.12'", "new; python_version >= '3.13'"])}
    with pytest.raises(ImageError, match="a requires new"):
        lock._reached(dict(found), ["a"])
    found |= {"new": lock.Locked("2.0"), "old": lock.Locked("1.0")}
    assert set(lock._reached(found, ["a"])) == {"a", "new"}


def test_distributions_are_left_out_of_the_lock_whole_or_not_silently() -> None:
    text = lock.render({"a": lock.Locked("1", {"00"}, via={"b"}), "a-b": lock.Locked("2", {"11"}, via={"c"})})
    left = wheels._without(text, ["a"])
    assert "a==1" not in left
    assert "sha256:00" not in left
    assert "a-b==2" in left
    with pytest.raises(SystemExit, match="not in the lock"):
        wheels._without(text, ["c"])


# what is left out


def test_a_rule_that_finds_nothing_any_more_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("")
    trim.leave_out(tmp_path, ["{name}"], {"name": "here"})
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit, match="nothing is at"):
        trim.leave_out(tmp_path, ["here"], {})


def test_generated_classes_stay_when_a_file_that_stays_names_them(tmp_path: Path) -> None:
    files = {
        "agent/api.py": "from client import Lease  # the rest by a string: 'v1_pod'",
        "client/__init__.py": "Lease = Node = Pod = Meta = Unused = None",
        "client/models/lease.py": "class Lease:\n    meta: Meta",
        "client/models/v1_pod.py": "class Pod:\n    pass",
        "client/models/meta.py": "class Meta:\n    pass",
        "client/models/unused.py": "class Unused:\n    friend: Friend",
        "client/models/friend.py": "class Friend:\n    pass",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    rule = {"package": "client", "classes": ["client/models"], "tables": ["client/__init__.py"]}
    trim.leave_out_unnamed(tmp_path, rule, {}, tmp_path / "agent")
    assert {path.name for path in (tmp_path / "client/models").iterdir()} == {"lease.py", "v1_pod.py", "meta.py"}


def test_every_rule_says_why() -> None:
    rules = tomllib.loads((project.REPO / "image/trim.toml").read_text())
    for table in (rules["files"], rules["distributions"], rules["debian"]["without"]):
        assert table
        assert all(isinstance(why, str) and why for why in table.values())


def test_what_is_left_out_whole_nothing_imports(shared_imports: set[str]) -> None:
    rules = tomllib.loads((project.REPO / "image/trim.toml").read_text())
    names = {name.replace("-", "_") for name in rules["distributions"]} - {"attrs"} | {"attr", "attrs"}
    assert not names & shared_imports


@pytest.fixture
def shared_imports() -> set[str]:
    """The packages that the daemon's own modules import, at their top or inside a function."""
    words = set()
    for path in (project.REPO / "agent").rglob("*.py"):
        for line in path.read_text().splitlines():
            match line.split():
                case ["import" | "from", name, *_]:
                    words.add(name.split(".")[0])
    assert "grpc" in words
    return words


# seals


def test_a_program_for_another_machine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(b"\x7fELF" + bytes(14) + struct.pack("<H", 183))
    seal.check(tmp_path, 183)
    with pytest.raises(SystemExit, match=r"lib\.so is for another machine"):
        seal.check(tmp_path, 62)


def test_a_setuid_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "su").write_text("")
    (tmp_path / "su").chmod(0o4755)
    with pytest.raises(SystemExit, match="su is setuid"):
        seal.check(tmp_path, 62)


def test_bytecode_is_valid_whatever_the_time_of_its_source(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/a.py").write_text("A = 1\n")
    (tmp_path / "lib/b.py").write_text("B = 1\n")
    seal.compile_all(tmp_path, ["lib"], {tmp_path / "lib/b.py"})
    (made,) = (tmp_path / "lib/__pycache__").iterdir()
    assert made.name.startswith("a.")
    assert struct.unpack("<I", made.read_bytes()[4:8])[0] == 0b01
    # A traceback names the file where it will be, not where it was made.
    assert b"/lib/a.py" in made.read_bytes()
    assert str(tmp_path).encode() not in made.read_bytes()


# names, versions, times


def manifests(folder: Path, **files: str) -> None:
    (folder / "manifests").mkdir()
    for name, text in files.items():
        (folder / "manifests" / f"{name}.yaml").write_text(text)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "nothing"),
        ({"a": "    image: x/y:1.0\n", "b": "  - image: x/y:1.0\n"}, r"x/y:1\.0 in a\.yaml, x/y:1\.0 in b\.yaml"),
        ({"a": "image: x/y:2.0\n"}, r"project's version is 1\.0"),
    ],
    ids=["none", "two", "another version"],
)
def test_the_name_must_be_in_the_manifests_once_and_of_this_version(
    files: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests(tmp_path, **files)
    monkeypatch.setattr(project, "REPO", tmp_path)
    with pytest.raises(ImageError, match=said):
        project.image_name("1.0")


def test_the_name_is_read_and_images_of_examples_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests(tmp_path, a='containers:\n  - name: a\n    image: "reg:5000/x/y:1.0"  # here\n# image: no/x:1.0\n')
    (tmp_path / "manifests/examples").mkdir()
    (tmp_path / "manifests/examples/b.yaml").write_text("image: nginx:1\n")
    monkeypatch.setattr(project, "REPO", tmp_path)
    assert project.image_name("1.0") == "reg:5000/x/y:1.0"


def test_the_manifests_of_this_repository_name_the_image() -> None:
    assert project.image_name(PYPROJECT["project"]["version"]).startswith("ghcr.io/katanode/katanode:")


def test_the_time_of_everything_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert project.read().epoch == 1_700_000_000


def test_without_history_or_a_set_time_there_is_no_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text((project.REPO / "pyproject.toml").read_text())
    monkeypatch.setattr(project, "REPO", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    with pytest.raises(ImageError, match="SOURCE_DATE_EPOCH"):
        project.read()


def test_the_base_is_a_slim_debian_of_a_named_suite() -> None:
    name, suite = project.default_base()
    assert name.endswith(f"debian:{suite}-slim")


# what of this machine a build may see


def test_a_build_gets_the_machines_proxies_and_time_limits_and_no_path_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {
        "apt-config": 'Acquire::http::Proxy "http://proxy:3128";\nAcquire::Retries "5";\nDir::State "/x";\n'
        'Acquire::https::CAInfo "/etc/own.pem";\n',
        "pip": "global.index-url='https://index/simple'\nglobal.cert='/etc/own.pem'\nuser.find-links='/opt'\n"
        ":env:.default-timeout='180'\n",
    }
    monkeypatch.setattr(access, "_said", lambda *argv: said["apt-config" if argv[0] == "apt-config" else "pip"])
    files = access.write(tmp_path / "access")
    assert files["apt.conf"].read_text() == 'Acquire::http::Proxy "http://proxy:3128";\nAcquire::Retries "5";\n'
    assert files["pip.conf"].read_text() == "[global]\nindex-url = https://index/simple\ntimeout = 180\n"
    assert (tmp_path / "access").stat().st_mode & 0o077 == 0


# tools


def test_a_client_without_its_daemon_is_no_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho no daemon here >&2; exit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(ImageError, match="no daemon here"):
        tools.find("docker", install=False)


# the archive


def layout(path: Path, *, images: int = 1, order: int = 1) -> None:
    files: dict[str, Any] = {
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
        "blobs/sha256/aa": {"a": 1},
        "index.json": {"manifests": [{"digest": "sha256:aa"}] * images},
        "manifest.json": ["of another format"],
    }
    folder = path.with_suffix(".d")
    with tarfile.open(path, "w") as tar:
        for name in list(files)[::order]:
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(files[name]))
            os.utime(file, (order, order))
            tar.add(file, name)


def test_an_archive_is_the_same_bytes_whatever_order_and_times_the_tool_wrote(tmp_path: Path) -> None:
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    layout(one)
    layout(two, order=-1)
    for file in (one, two):
        archive.name_it(file, "x/y:1", 7)
    assert one.read_bytes() == two.read_bytes()
    with tarfile.open(one) as tar:
        assert tar.getnames() == ["blobs/sha256/aa", "index.json", "oci-layout"]
        index = tar.extractfile("index.json")
        assert index is not None
        (entry,) = json.load(index)["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "x/y:1"


def test_an_archive_of_several_images_is_refused(tmp_path: Path) -> None:
    layout(tmp_path / "a.tar", images=2)
    with pytest.raises(ImageError, match="holds 2 images"):
        archive.name_it(tmp_path / "a.tar", "x/y:1", 7)
