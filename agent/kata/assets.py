"""Paths in an operator's tunables: what upstream has below /opt/kata is meant of the pinned release."""

import difflib
import os
from pathlib import PurePosixPath

from agent.host.root import HostRoot
from agent.kata.furtherkeys import names
from agent.kata.handlers import ResolvedHandler

PREFIX = "/opt/kata"
"""Where upstream's archives and base files have everything."""

_RELEASES = "/opt/katanode/releases"

FILES = names("path jailer_path kernel image initrd firmware firmware_volume virtio_fs_daemon pflashes")
"""Keys that name files of the node: Kata does not start without them."""

_OTHERS = names(
    """ctlpath dan_conf entropy_source guest_hook_path guest_memory_dump_path guest_swap_path kubelet_root_dir
    pod_resource_api_sock sandbox_bind_mounts template_path valid_ctlpaths valid_entropy_sources
    valid_hypervisor_paths valid_jailer_paths valid_vhost_user_store_paths valid_virtio_fs_daemon_paths
    vhost_user_store_path"""
)

ALLOWED_BY = {
    "path": "valid_hypervisor_paths",
    "jailer_path": "valid_jailer_paths",
    "virtio_fs_daemon": "valid_virtio_fs_daemon_paths",
}
"""Keys whose path must also be in a list."""


def is_path(key: str) -> bool:
    """Whether a key holds a path or paths."""
    return key in FILES or key in _OTHERS


def in_release(path: str, release_path: str) -> str:
    """The path with upstream's prefix replaced by the release's folder; others as they are."""
    if path == PREFIX or path.startswith(f"{PREFIX}/"):
        return release_path + path.removeprefix(PREFIX)
    return path


def check(handler: ResolvedHandler, root: HostRoot, key: str, path: str) -> tuple[str, str]:
    """Checks a path.

    Returns:
        The path to give Kata, and what is wrong with it (empty when nothing is).
    """
    if not path:
        return path, ""
    pure = PurePosixPath(path)
    if not pure.is_absolute():
        return path, f"is not an absolute path: for a file of the release write {PREFIX}/…"
    if ".." in pure.parts:
        return path, 'has ".." in it: write the path straight'
    if pure.is_relative_to(_RELEASES):
        inner = "/".join(pure.parts[5:])
        return path, f'would stay with one release for ever: write "{PREFIX}/{inner}", which means the pinned release'
    real = in_release(path, handler.release_path)
    if key in FILES and not root(real).is_file():
        what = "is no file of this node" if real == path else f"is no file of release {handler.release_version}"
        return path, what + _instead(root, real, path)
    if key == "sandbox_bind_mounts" and not root(real.rsplit(":", 1)[0]).exists():
        return path, "does not exist on this node"
    return real, ""


def _instead(root: HostRoot, real: str, path: str) -> str:
    folder, name = os.path.split(real)
    try:
        there = os.listdir(root(folder))
    except OSError:
        return ""
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
    return f': did you mean "{os.path.dirname(path)}/{near[0]}"?' if near else ""
