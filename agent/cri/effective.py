"""Effective configurations compared: an edit may bring our handlers, and nothing else."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from agent.cri.credentials import is_secret, without
from agent.cri.handler import Handler

_SECRET = re.compile(r"(?i)pass|auth|token|secret|header|key")
_PLUGINS = ("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri")
"""Where the runtimes are: in schema 3 and 4, and in schema 2. A dump is always in the daemon's own schema."""


_IMAGE_SETTINGS = ("snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers")
"""Settings of images that schema 2 keeps in the CRI plugin's `containerd` table."""


def runtimes(dump: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The runtime handlers of an effective configuration, name to table."""
    for plugin in _PLUGINS:
        table = _dig(dump, "plugins", plugin, "containerd", "runtimes")
        if isinstance(table, dict):
            return table
    return {}


def containerd_table(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """The CRI plugin's `containerd` table in a file of ours: what it restates stands in there."""
    for plugin in _PLUGINS:
        table = _dig(tree, "plugins", plugin, "containerd")
        if isinstance(table, dict):
            return table
    return {}


def to_restate(before: Mapping[str, Any], after: Mapping[str, Any], ours: Collection[str]) -> dict[str, Any]:
    """What an edit would take away though nobody wrote it off: see `block.restated`."""
    kept: dict[str, Any] = {}
    for key in _IMAGE_SETTINGS:
        was = _dig(before, "plugins", "io.containerd.cri.v1.images", key)
        if was is not None and was != _dig(after, "plugins", "io.containerd.cri.v1.images", key):
            kept[key] = was
    lost = runtimes(before).keys() - runtimes(after).keys() - set(ours)
    if lost:
        kept["runtimes"] = {name: runtimes(before)[name] for name in sorted(lost)}
    return kept


def others_changed(before: Mapping[str, Any], after: Mapping[str, Any], ours: Sequence[str]) -> list[str]:
    """What differs besides the handlers named `ours`, a line each; empty when nothing does.

    `imports` is left out: it lists what was read, which is the very difference that is wanted.
    """
    old, new = dict(_leaves(before, ours)), dict(_leaves(after, ours))
    lines = []
    for path in sorted(old.keys() | new.keys()):
        was, now = (repr(tree[path]) if path in tree else "(not there)" for tree in (old, new))
        if was != now:  # as text: for Python 1, 1.0 and True are equal, for containerd they are not
            name = ".".join(path)
            hidden = _SECRET.search(name) or is_secret(f"{was} {now}")  # a list of tables is one value
            lines += without([f"{name}: … → …" if hidden else f"{name}: {was} → {now}"])
    return lines


def without_effect(after: Mapping[str, Any], handlers: Sequence[Handler], gone: Sequence[str]) -> list[str]:
    """What of the wish is not in the effective configuration, a line each; empty when all of it is."""
    found = runtimes(after)
    lines = [f"{name} is still there" for name in gone if name in found]
    for handler in handlers:
        table = found.get(handler.name)
        if table is None:
            lines.append(f"{handler.name} is not there")
            continue
        wanted = {
            "runtime_type": handler.runtime_type,
            "pod_annotations": list(handler.pod_annotations),
            "privileged_without_host_devices": handler.privileged_without_host_devices,
            "options.ConfigPath": handler.config_path,
        }
        if handler.snapshotter and "snapshotter" in table:  # containerd 1.6 does not know it
            wanted["snapshotter"] = handler.snapshotter
        if handler.runtime_path:
            wanted["runtime_path"] = handler.runtime_path
        for key, value in wanted.items():
            have = _dig(table, *key.split("."))
            if have != value:
                lines.append(f"{handler.name}.{key} is {have!r} instead of {value!r}")
    return lines


def _leaves(tree: Mapping[str, Any], ours: Sequence[str]) -> Iterator[tuple[tuple[str, ...], object]]:
    skipped: set[tuple[str, ...]] = {("imports",)}
    for plugin in _PLUGINS:
        skipped |= {("plugins", plugin, "containerd", "runtimes", name) for name in ours}
    skipped |= {("plugins", "io.containerd.cri.v1.images", "runtime_platforms", name) for name in ours}

    def walk(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
        if path in skipped:
            return
        if isinstance(value, dict):
            for key, item in value.items():
                yield from walk(item, (*path, key))
        else:
            yield path, value

    return walk(dict(tree), ())


def _dig(tree: object, *path: str) -> object:
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
