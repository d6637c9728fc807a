"""The network path of a sandbox: veth and tap joined by traffic control, as Kata's tcfilter model makes it."""

import errno

from agent.host.root import HostRoot
from agent.probes.child import Answer, error_name, run_child
from agent.reasons import Reason
from agent.report import Capability, Finding, bad, ok

CHECK = "frames pass between a pod's veth and a sandbox's tap"
SECONDS = 8.0
"""pyroute2 alone takes up to a second to import on a slow disk."""

_REASONS = {
    "namespace": Reason.NETNS_FAILED,
    "netlink": Reason.NETNS_FAILED,
    "veth": Reason.VETH_UNAVAILABLE,
    "tap": Reason.TAP_UNAVAILABLE,
    "up": Reason.VETH_UNAVAILABLE,
    "ingress": Reason.INGRESS_QDISC_UNAVAILABLE,
    "u32": Reason.MIRRED_UNAVAILABLE,
    "mirred": Reason.MIRRED_UNAVAILABLE,
    "frame to the guest": Reason.MIRRED_UNAVAILABLE,
    "frame from the guest": Reason.MIRRED_UNAVAILABLE,
}
_PARTS = {
    "veth": "CONFIG_VETH (veth)",
    "tap": "CONFIG_TUN (tun)",
    "ingress": "CONFIG_NET_SCH_INGRESS (sch_ingress)",
    "u32": "CONFIG_NET_CLS_U32 (cls_u32)",
    "mirred": "CONFIG_NET_ACT_MIRRED (act_mirred)",
}

_LACKING = {errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL, errno.ENODEV, errno.EPROTONOSUPPORT}
"""Errors of netlink for a kind of link, discipline, classifier or action that the kernel does not have. Others (EPERM,
ENOMEM) are not about a part that is lacking."""


def probe_network(root: HostRoot) -> tuple[Finding, ...]:
    """Builds the path in a namespace of a child's own and sends a frame each way.

    Raises:
        OSError: the child cannot be started.
    """
    return (judge(run_child("network", str(root("/dev/net/tun")), timeout=SECONDS, packages=True)),)


def judge(answer: Answer) -> Finding:
    """The finding that the child's answer amounts to; pure."""
    step = str(answer.said.get("step", ""))
    if step == "done":
        return ok(CHECK, "veth, tap, ingress, u32, mirred; one frame each way", Capability.NETWORK_PATH)
    if answer.hung:
        return bad(
            CHECK,
            Reason.NETWORK_PROBE_HANGS,
            f"no answer within {SECONDS:g} s",
            capability=Capability.NETWORK_PATH,
        )
    reason = _REASONS.get(step, Reason.INTERNAL_ERROR)
    if not step:
        return bad(CHECK, reason, answer.failure, capability=Capability.NETWORK_PATH)
    number = int(answer.said.get("errno") or 0)
    words = [f"{step}: {error_name(number) if number else ''}".rstrip(": ")]
    words.append(str(answer.said.get("message", "")))
    if step in _PARTS and number in _LACKING and (step, number) != ("tap", errno.ENOENT):  # that is the node's absence
        words.append(f"the kernel lacks {_PARTS[step]}")
    return bad(CHECK, reason, "; ".join(filter(None, words)), capability=Capability.NETWORK_PATH)
