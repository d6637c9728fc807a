"""Which archives make a release, and the digests that they must have."""

import re
import tomllib
from pathlib import Path
from typing import Literal

import pytest

from agent.errors import KatanodeError
from agent.host.root import HostRoot
from agent.kata import pins, releases
from agent.reasons import Reason
from agent.settings import Kata

CLH = ("kata-clh", "kata-qemu")
FC = ("kata-clh", "kata-fc")


@pytest.mark.parametrize(
    ("version", "arch", "runtime", "handlers", "names"),
    [
        ("3.2.0", "amd64", "auto", CLH, ["kata-static-3.2.0-amd64.tar.xz"]),
        ("3.20.0", "arm64", "auto", CLH, ["kata-static-3.20.0-arm64.tar.xz"]),
        ("3.21.0", "arm64", "auto", CLH, ["kata-static-3.21.0-arm64.tar.zst"]),
        ("4.0.0", "amd64", "go", FC, ["kata-static-4.0.0-amd64.tar.zst"]),
        ("4.0.0", "amd64", "rust", CLH, ["kata-static-4.0.0-amd64.tar.zst"]),
        ("4.1.0", "amd64", "auto", CLH, ["kata-static-4.1.0-amd64.tar.zst"]),
        ("4.1.0", "amd64", "rust", CLH, ["kata-static-4.1.0-amd64.tar.zst"]),
        (
            "4.1.0",
            "amd64",
            "auto",
            FC,
            ["kata-static-4.1.0-amd64.tar.zst", "kata-go-static-4.1.0-amd64.tar.zst"],
        ),
        ("10.0.0", "amd64", "auto", CLH, ["kata-static-10.0.0-amd64.tar.zst"]),
        ("nightly", "amd64", "auto", CLH, ["kata-static-nightly-amd64.tar.zst"]),
    ],
)
def test_a_version_an_architecture_and_a_wish_make_the_archives_names(
    version: str, arch: str, runtime: Literal["auto", "go", "rust"], handlers: tuple[str, ...], names: list[str]
) -> None:
    assert list(pins.archives(version, arch, runtime, handlers)) == names


def test_the_go_runtime_of_a_split_release_brings_its_archive() -> None:
    assert "kata-go-static-4.1.0-amd64.tar.zst" in pins.archives("4.1.0", "amd64", "go", CLH)


def test_the_shipped_pins_are_the_researched_ones(shared: Path) -> None:
    table = (shared / "facts/kata.md").read_text().split("## 1.")[0]
    rows = dict(re.findall(r"^\| [\d.]+ \| (kata-\S+) \| ([0-9a-f]{64}) \|", table, re.MULTILINE))
    assert rows
    assert pins.shipped() == rows


def test_the_default_version_is_pinned_on_both_architectures(tmp_path: Path) -> None:
    kata = Kata()
    for arch in ("amd64", "arm64"):
        assert releases.wanted(kata, pins.known(HostRoot(tmp_path), kata), arch).archives


def test_the_settings_overrule_the_node_and_the_node_the_package(tmp_path: Path) -> None:
    root = HostRoot(tmp_path)
    name = "kata-static-4.1.0-amd64.tar.zst"
    assert pins.known(root, Kata())[name].startswith("3dc6b69c")
    pins.add(root, {name: "a" * 64})
    assert pins.known(root, Kata())[name] == "a" * 64
    assert pins.known(root, Kata(sha256={name: "b" * 64}))[name] == "b" * 64


def test_what_is_not_pinned_is_refused_with_the_command_that_pins_it() -> None:
    kata = Kata(version="4.1.0", handlers=FC)
    with pytest.raises(KatanodeError) as caught:
        releases.wanted(kata, pins.shipped(), "arm64")
    error = caught.value
    assert error.reason is Reason.RELEASE_UNPINNED
    assert "kata-go-static-4.1.0-arm64.tar.zst" in error.message
    assert "kata-static-4.1.0-arm64" not in error.message
    assert error.remedy == "katanode pin 4.1.0 --sha256 kata-go-static-4.1.0-arm64.tar.zst=DIGEST"
    assert error.evidence == "pinned releases: 3.2.0, 3.32.0, 4.0.0, 4.1.0, 4.2.0"


def test_added_pins_are_kept_beside_each_other(tmp_path: Path) -> None:
    root = HostRoot(tmp_path)
    pins.add(root, {"one": "1" * 64})
    pins.add(root, {"two": "2" * 64, "one": "3" * 64})
    assert pins.added(root) == {"one": "3" * 64, "two": "2" * 64}


def test_no_name_can_damage_the_file(tmp_path: Path) -> None:
    root = HostRoot(tmp_path)
    odd = 'a"b\\c\n[d]'
    pins.add(root, {odd: "1" * 64})
    assert pins.added(root) == {odd: "1" * 64}
    assert tomllib.loads(root(pins.ADDED).read_text())


@pytest.mark.parametrize("text", ["no toml", "", "sha256 = 7", "\xff"])
def test_a_damaged_file_of_added_pins_is_said_and_not_ignored(tmp_path: Path, text: str) -> None:
    root = HostRoot(tmp_path)
    root(pins.ADDED).parent.mkdir(parents=True)
    root(pins.ADDED).write_bytes(text.encode("latin-1"))
    with pytest.raises(KatanodeError) as caught:
        pins.known(root, Kata())
    assert caught.value.reason is Reason.FILE_READ_FAILED


def test_another_digest_makes_another_release() -> None:
    name = "kata-static-9.9.9-amd64.tar.zst"
    kata = Kata(version="9.9.9")
    one, two = (releases.wanted(kata, {name: digit * 64}, "amd64") for digit in "12")
    assert one.id == "9.9.9-11111111"
    assert one.id != two.id
    assert one.path == "/opt/katanode/releases/9.9.9-11111111"
