"""A handler is resolved to what its release really has, or refused with where it is to be had."""

from pathlib import Path
from typing import Literal

import pytest

from agent.errors import KatanodeError
from agent.host.root import HostRoot
from agent.kata.handlers import DEFAULTS, HANDLERS, SHIMS, expected_shim, lookup, resolve, version_tuple
from agent.reasons import Reason
from agent.report import Capability

RELEASE = "/opt/katanode/releases/x"
GO = (SHIMS["go"], f"{DEFAULTS}/configuration-clh.toml", f"{DEFAULTS}/configuration-fc.toml")
RUST = (
    SHIMS["rust"],
    f"{DEFAULTS}/runtime-rs/configuration-clh-runtime-rs.toml",
    f"{DEFAULTS}/runtime-rs/configuration-dragonball.toml",
)


def release(tmp_path: Path, *names: str) -> HostRoot:
    for name in names:
        path = tmp_path / RELEASE[1:] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return HostRoot(tmp_path)


def refusal(name: str, choice: Literal["auto", "go", "rust"], version: str, root: HostRoot) -> KatanodeError:
    with pytest.raises(KatanodeError) as caught:
        resolve(name, choice, version, root, RELEASE)
    assert caught.value.reason is Reason.HANDLER_NOT_IN_RELEASE
    return caught.value


@pytest.mark.parametrize(
    ("name", "choice", "version", "runtime"),
    [
        ("kata-clh", "auto", "3.2.0", "go"),
        ("kata-clh", "auto", "4.0.0", "go"),
        ("kata-clh", "auto", "4.1.0", "rust"),
        ("kata-clh", "auto", "nightly", "rust"),
        ("kata-clh", "go", "4.1.0", "go"),
        ("kata-clh", "rust", "3.2.0", "rust"),
        ("kata-fc", "auto", "4.1.0", "go"),
        ("kata-dragonball", "auto", "3.2.0", "rust"),
    ],
)
def test_the_runtime_is_chosen_by_setting_and_version(
    tmp_path: Path, name: str, choice: Literal["auto", "go", "rust"], version: str, runtime: Literal["go", "rust"]
) -> None:
    found = resolve(name, choice, version, release(tmp_path, *GO, *RUST), RELEASE)
    assert found.runtime == runtime
    assert found.shim == f"{RELEASE}/{SHIMS[runtime]}" == f"{RELEASE}/{expected_shim(name, choice, version)}"
    assert found.base_file.startswith(f"{RELEASE}/{DEFAULTS}/")


def test_the_other_runtime_serves_when_the_usual_one_is_not_in_the_release(tmp_path: Path) -> None:
    assert resolve("kata-clh", "auto", "4.1.0", release(tmp_path, *GO), RELEASE).runtime == "go"


def test_the_first_base_file_that_exists_wins(tmp_path: Path) -> None:
    older = f"{DEFAULTS}/runtime-rs/configuration-cloud-hypervisor.toml"
    root = release(tmp_path, SHIMS["rust"], older)
    assert resolve("kata-clh", "auto", "4.1.0", root, RELEASE).base_file == f"{RELEASE}/{older}"
    release(tmp_path, *RUST)
    assert resolve("kata-clh", "auto", "4.1.0", root, RELEASE).base_file == f"{RELEASE}/{RUST[1]}"


def test_a_shim_that_leads_nowhere_does_not_count(tmp_path: Path) -> None:
    root = release(tmp_path, RUST[1])
    shim = tmp_path / RELEASE[1:] / SHIMS["rust"]
    shim.parent.mkdir(parents=True)
    shim.symlink_to("/nowhere")
    assert SHIMS["rust"] in refusal("kata-clh", "rust", "4.1.0", root).evidence


def test_a_refusal_says_where_the_handler_is_to_be_had(tmp_path: Path) -> None:
    root = release(tmp_path, *RUST)
    assert (
        "Firecracker and the Go runtime are in kata-go-static-4.1.0" in refusal("kata-fc", "auto", "4.1.0", root).remedy
    )
    assert "the Go runtime is in kata-go-static-4.1.0" in refusal("kata-clh", "go", "4.1.0", root).remedy
    assert "Rust runtime only" in refusal("kata-dragonball", "go", "4.1.0", root).remedy
    assert "Go runtime only" in refusal("kata-fc", "rust", "4.1.0", root).remedy
    assert "4.1.0" in refusal("kata-dragonball", "rust", "3.2.0", HostRoot(tmp_path / "empty")).remedy
    with pytest.raises(KatanodeError, match="kata-clh, kata-qemu") as unknown:
        lookup("kata-xen")
    assert unknown.value.reason is Reason.HANDLER_UNKNOWN


def test_only_qemu_needs_the_vhost_devices() -> None:
    vhost = {Capability.VHOST_NET, Capability.VHOST_VSOCK}
    assert [name for name, kind in HANDLERS.items() if kind.needs & vhost] == ["kata-qemu"]
    assert all(Capability.KVM in kind.needs for kind in HANDLERS.values())


def test_only_firecracker_needs_a_snapshotter_of_block_devices() -> None:
    assert {name: kind.snapshotter for name, kind in HANDLERS.items() if kind.snapshotter} == {"kata-fc": "devmapper"}


def test_what_is_no_version_counts_as_the_newest() -> None:
    assert version_tuple("3.2.0") < version_tuple("3.32.0-rc1") < version_tuple("4.1.0") < version_tuple("main")
