"""The names under which the cluster knows what katanode says."""

from typing import Final

FIELD_MANAGER: Final = "katanode"
"""Owner, in server-side apply, of exactly the labels and the condition below."""
CONTROLLER: Final = "katanode"
"""Who reports events."""

GATE: Final = "katacontainers.io/kata-runtime"
"""The ecosystem's own label: RuntimeClasses of other installers select on it too."""
HANDLER_PREFIX: Final = "handler.katanode.io/"
VERSION: Final = "katanode.io/kata-version"
STATE: Final = "katanode.io/state"
INSTALL: Final = "katanode.io/install"
"""The operator's wish for one node, `disabled` or `absent`; katanode never writes it."""

CONDITION: Final = "KataReady"
TAINT: Final = "katanode.io/not-ready"
TAINT_EFFECT: Final = "NoSchedule"
TAINT_WITHDRAWN: Final = "withdrawn"
"""Value of the taint that katanode itself set. A startup taint, which a kubelet or an autoscaler gave, has another."""

SLOT_PREFIX: Final = "katanode-restart-"
"""Name of a restart slot, a Lease, without its number."""
FAILED_PREFIX: Final = "katanode-failed-"
"""Name of the Lease, one a node, in which a node says that its restart failed, without the node's name."""
FAILED: Final = "katanode.io/failed"
"""Label of those Leases while they say so, `true`, and annotation: the reason."""
SETTINGS: Final = "katanode.io/settings"
"""Annotation of those Leases: a digest of the settings with which it failed."""
EVENT_NAMESPACE: Final = "default"
"""Where events about objects without a namespace are kept, by the kubelet's example."""


def ours(key: str) -> bool:
    """Whether a label is one that katanode writes."""
    return key in {GATE, VERSION, STATE} or key.startswith(HANDLER_PREFIX)
