"""The daemon out of its surroundings: in a pod with a cluster behind it, or on a machine without one."""

import os
import platform

from agent import logs
from agent.cluster.api import Api
from agent.cluster.cluster import Cluster, Identity
from agent.errors import KatanodeError
from agent.host.root import HostRoot
from agent.reasons import Reason
from agent.service.service import Service


def service(root: HostRoot, settings_path: str) -> Service:
    """The daemon for this machine.

    Args:
        root: the host's root.
        settings_path: the settings' file; "" for the one at its usual place.

    Raises:
        KatanodeError: `CLUSTER_CONFIG_INVALID`.
    """
    node = os.environ.get("NODE_NAME", "")
    if not logs.in_pod() and not node:
        return Service(root, settings_path, platform.node(), None)
    if not node:
        raise KatanodeError(
            Reason.CLUSTER_CONFIG_INVALID,
            "NODE_NAME is not set although this is a pod",
            evidence="the manifests give it from spec.nodeName",
        )
    api = Api.from_surroundings()
    identity = Identity(node, os.environ.get("POD_NAMESPACE", "katanode"), os.environ.get("POD_NAME", node))
    return Service(root, settings_path, node, lambda changed: Cluster(api, identity, changed))
