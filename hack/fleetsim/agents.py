"""Some agents' cluster sides in one process: `python -m hack.fleetsim.agents`, told by a line of JSON.

Everything of an agent that talks to the cluster is the real thing; what is simulated is its node, which is always
ready, and the restart of its container runtime, which is a pause.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import threading
import time
from typing import Any

from kubernetes.client import ApiClient, Configuration

from agent.cluster.api import Api, ApiError
from agent.cluster.cluster import Cluster, Identity
from agent.cluster.saying import Saying
from agent.cluster.slots import Cancelled, Policy

_PR_SET_PDEATHSIG = 1
READY = Saying({"kata-clh": True, "kata-qemu": True}, "ready", "4.1.0", "True", "Ready", "Sandboxes start.", {})


def main() -> int:
    """Starts the agents, lets them take turns, and says what happened."""
    order: dict[str, Any] = json.loads(sys.stdin.readline())
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # not to outlive a fleet that was killed
    threading.stack_size(256 << 10)
    # Each thread that waits for the interpreter asks for it once in this time: at 5 ms, thousands do nothing else.
    sys.setswitchinterval(0.1)
    policy = Policy(order["slots"], order["lease_seconds"], 3, "digest")
    clusters = [_cluster(order, name) for name in order["nodes"]]
    for cluster in clusters:
        cluster.start()
        cluster.tell(READY, policy)
    _say({"started": time.monotonic()})
    while any(c.published_at is None for c in clusters):
        time.sleep(0.05)
    _say({"published": time.monotonic()})
    cancelled = threading.Event()
    for line in sys.stdin:
        match json.loads(line):
            case "rollout":
                for name, cluster in zip(order["nodes"], clusters, strict=True):
                    threading.Thread(target=_turn, args=(name, cluster, policy, order, cancelled), daemon=True).start()
            case "stop":
                cancelled.set()
                break
    for cluster in clusters:
        cluster.stop()
    return 0


def _cluster(order: dict[str, Any], name: str) -> Cluster:
    def connect() -> ApiClient:
        configuration = Configuration(host=order["url"])
        configuration.api_key["BearerToken"] = f"Bearer {name}"  # each node's agent has a token of its own
        return ApiClient(configuration)

    return Cluster(Api(connect), Identity(name, "katanode", name), lambda: None, order["heartbeat"])


def _turn(name: str, cluster: Cluster, policy: Policy, order: dict[str, Any], cancelled: threading.Event) -> None:
    """One node's restart: the slot, the pause, the slot given back; some vanish with their slot instead."""
    try:
        slot = cluster.slots.acquire(policy, cancelled, lambda _: None)
    except Cancelled:
        return
    number = slot._lease["metadata"]["name"]  # noqa: SLF001 - for the measurement only
    _say({"node": name, "slot": number, "got": time.monotonic()})
    time.sleep(order["restart_seconds"])
    if name in order["vanishing"]:
        slot._done.set()  # noqa: SLF001 - its process is gone: nobody renews and nobody gives back
        _say({"node": name, "vanished": time.monotonic()})
        return
    _say({"node": name, "gave": time.monotonic()})
    while True:
        try:
            slot.give_back("")
        except ApiError:
            time.sleep(0.2)
        else:
            return


_lock = threading.Lock()


def _say(what: dict[str, Any]) -> None:
    with _lock:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
