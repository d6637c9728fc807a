"""An API server stand-in inside a lab's network, for a daemon that runs there."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING

from pyroute2 import netns

from hack.apistandin import ApiStandin, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hack.lab.lab import Lab

NODE = "node-1"
AGENT = (
    Rule(verbs=("get", "watch", "patch"), groups=("",), resources=("nodes", "nodes/status")),
    Rule(verbs=("create",), groups=("events.k8s.io",), resources=("events",)),
    Rule(
        verbs=("get", "list", "watch", "create", "update"),
        groups=("coordination.k8s.io",),
        resources=("leases",),
        namespaces=("katanode",),
    ),
)
"""What the manifests' RBAC lets an agent do."""
_KUBECONFIG = "/run/kubeconfig"


@contextlib.contextmanager
def api_server(lab: Lab, *taints: dict[str, str]) -> Iterator[tuple[ApiStandin, dict[str, str]]]:
    """A stand-in that knows one Node, and the environment of a daemon that is to use it.

    Args:
        lab: where it is reached.
        taints: the Node's.
    """
    standin = ApiStandin()

    def enter() -> None:
        # A thread has a network namespace of its own, and the threads that it starts are in it too.
        netns.setns(f"/proc/{lab.holder}/ns/net")
        standin.__enter__()

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    node = standin.add_node(NODE)
    standin.put("nodes", {**node, "spec": {"taints": list(taints)}})
    standin.add_token("agent", "system:serviceaccount:katanode:katanode", node=NODE, rules=AGENT)
    user = {"name": "agent", "user": {"token": "agent"}}
    cluster = {"name": "standin", "cluster": {"server": standin.url}}
    context = {"name": "standin", "context": {"cluster": "standin", "user": "agent"}}
    known = {"clusters": [cluster], "users": [user], "contexts": [context], "current-context": "standin"}
    lab.path(_KUBECONFIG).write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **known}))
    try:
        yield standin, {"KUBECONFIG": _KUBECONFIG, "NODE_NAME": NODE, "POD_NAMESPACE": "katanode", "POD_NAME": "pod-1"}
    finally:
        standin.finish_watches()
        standin.__exit__(None, None, None)
