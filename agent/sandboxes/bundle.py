"""Which pod a sandbox is, by the bundle that containerd made for it: known before CRI lists it, and without CRI."""

import json
from typing import NamedTuple

from agent.sandboxes import procfs

LIMIT = 1 << 20
"""Bytes of a config.json that are read; a usual one has 10 to 30 kB, one with many mounts some hundred."""
_PREFIX = "io.kubernetes.cri.sandbox-"
_LONGEST = 253
"""Characters of a name that is taken over; Kubernetes allows no longer one (RFC 1123 subdomain)."""


class Owner(NamedTuple):
    """The pod of a sandbox; "" what is not known."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


UNKNOWN = Owner()


def owner(proc: str, shim: int) -> Owner | None:
    """The pod by the annotations of config.json (containerd, `pkg/cri/annotations`).

    A shim's working folder is its bundle, and /proc leads there whatever mount namespace this process has.

    Args:
        proc: the /proc.
        shim: the shim's pid.

    Returns:
        None when there is no such file, or it is no such file.
    """
    data = procfs.read_whole(f"{proc}/{shim}/cwd/config.json", LIMIT)
    if data is None:
        return None
    try:
        annotations = json.loads(data)["annotations"]
        found = Owner(*(annotations.get(_PREFIX + key, "") for key in ("namespace", "name", "uid")))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not all(isinstance(value, str) and len(value) <= _LONGEST for value in found):
        return None
    return found
