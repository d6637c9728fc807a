import errno
from pathlib import Path

import pytest

from agent.host.modules import Barrier, ModuleFacts
from agent.host.root import HostRoot
from agent.probes import devices, network
from agent.probes.child import Answer
from agent.probes.devices import DEVICES, TUN, VHOST_NET, VHOST_VSOCK, Device, judge
from agent.reasons import Reason, Severity
from agent.report import Capability

NOTHING = ModuleFacts("6.1.0-18-amd64", "")


def failed(step: str, number: int) -> Answer:
    return Answer({"step": step, "errno": number})


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: d.kind)
def test_a_device_that_answers_is_well(device: Device) -> None:
    finding = judge(device, Answer({"step": "done", "features": 0x10}), NOTHING)
    assert finding.severity is Severity.OK
    assert finding.capability is device.capability


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: d.kind)
@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV, errno.ENXIO])
def test_a_device_without_a_driver_is_missing(device: Device, number: int) -> None:
    finding = judge(device, failed("open", number), NOTHING)
    assert finding.reason is device.missing
    assert f"module {device.module} is missing" in finding.evidence


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: d.kind)
def test_a_device_that_refuses_has_failed(device: Device) -> None:
    finding = judge(device, failed("open", errno.EACCES), NOTHING)
    assert finding.reason is device.failed
    assert "open: EACCES" in finding.evidence


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: d.kind)
def test_a_device_that_does_not_answer_has_failed(device: Device) -> None:
    assert judge(device, Answer(hung=True), NOTHING).reason is device.failed


def test_a_child_that_broke_has_failed_with_its_words() -> None:
    assert "killed by SIGSEGV" in judge(TUN, Answer(failure="killed by SIGSEGV"), NOTHING).evidence


def test_a_line_that_keeps_the_module_out_is_shown() -> None:
    facts = ModuleFacts("6.1", "", barriers={"vhost_net": Barrier("blacklist vhost_net in /x.conf", hard=False)})
    assert "/x.conf" in judge(VHOST_NET, failed("open", errno.ENOENT), facts).evidence


def test_vmwares_vsock_makes_vhost_vsock_busy() -> None:
    facts = ModuleFacts("6.1", "", loaded=frozenset({"vmw_vsock_vmci_transport"}), available=frozenset({"vhost_vsock"}))
    finding = judge(VHOST_VSOCK, failed("open", errno.ENODEV), facts)
    assert finding.reason is Reason.VHOST_VSOCK_BUSY
    assert "vmw_vsock_vmci_transport is loaded" in finding.evidence


def test_a_guests_own_vsock_is_in_the_way_on_old_kernels_only() -> None:
    loaded = frozenset({"vmw_vsock_virtio_transport"})
    for release, reason in (("5.4.0-1", Reason.VHOST_VSOCK_BUSY), ("5.10.0", Reason.VHOST_VSOCK_MISSING)):
        facts = ModuleFacts(release, "", loaded=loaded, available=frozenset({"vhost_vsock"}))
        assert judge(VHOST_VSOCK, failed("open", errno.ENODEV), facts).reason is reason


def test_a_kernel_without_vhost_vsock_is_not_called_busy() -> None:
    facts = ModuleFacts("6.1", "", loaded=frozenset({"vmw_vsock_vmci_transport"}))
    assert judge(VHOST_VSOCK, failed("open", errno.ENOENT), facts).reason is Reason.VHOST_VSOCK_MISSING


def test_vhost_vsock_that_says_busy_is_busy() -> None:
    assert judge(VHOST_VSOCK, failed("open", errno.EBUSY), NOTHING).reason is Reason.VHOST_VSOCK_BUSY


def test_the_nodes_own_vsock_address_is_evidence() -> None:
    assert "own CID is 3" in judge(VHOST_VSOCK, failed("open", errno.ENOENT), NOTHING, cid=3).evidence
    assert "2 (host)" in judge(VHOST_VSOCK, Answer({"step": "done"}), NOTHING, cid=2).evidence
    assert "unset" in judge(VHOST_VSOCK, Answer({"step": "done"}), NOTHING, cid=0xFFFFFFFF).evidence


def test_without_a_namespace_tun_is_not_blamed() -> None:
    assert judge(TUN, failed("namespace", errno.EPERM), NOTHING).reason is Reason.NETNS_FAILED


def test_a_missing_node_needs_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "run_child", lambda *_, **__: pytest.fail("a child was started"))
    for device in DEVICES:
        assert [f.reason for f in devices.probe_device(HostRoot(tmp_path), device)] == [device.missing]


def test_frames_that_pass_are_well() -> None:
    finding = network.judge(Answer({"step": "done"}))
    assert finding.severity is Severity.OK
    assert finding.capability is Capability.NETWORK_PATH


@pytest.mark.parametrize(
    ("step", "reason", "part"),
    [
        ("namespace", Reason.NETNS_FAILED, ""),
        ("netlink", Reason.NETNS_FAILED, ""),
        ("veth", Reason.VETH_UNAVAILABLE, "CONFIG_VETH"),
        ("tap", Reason.TAP_UNAVAILABLE, "CONFIG_TUN"),
        ("ingress", Reason.INGRESS_QDISC_UNAVAILABLE, "CONFIG_NET_SCH_INGRESS"),
        ("u32", Reason.MIRRED_UNAVAILABLE, "CONFIG_NET_CLS_U32"),
        ("mirred", Reason.MIRRED_UNAVAILABLE, "CONFIG_NET_ACT_MIRRED"),
    ],
)
def test_the_missing_part_of_the_kernel_is_named(step: str, reason: Reason | None, part: str) -> None:
    finding = network.judge(Answer({"step": step, "errno": errno.EOPNOTSUPP, "message": "Operation not supported"}))
    assert finding.reason is reason
    assert finding.severity is Severity.ERROR
    assert part in finding.evidence
    assert "EOPNOTSUPP; Operation not supported" in finding.evidence


def test_a_refusal_is_not_called_a_missing_part() -> None:
    finding = network.judge(Answer({"step": "ingress", "errno": errno.EPERM}))
    assert "lacks" not in finding.evidence


def test_a_missing_device_node_is_not_called_a_missing_part() -> None:
    finding = network.judge(Answer({"step": "tap", "errno": errno.ENOENT}))
    assert finding.reason is Reason.TAP_UNAVAILABLE
    assert "lacks" not in finding.evidence


def test_a_frame_that_is_lost_means_that_redirection_does_not_work() -> None:
    finding = network.judge(Answer({"step": "frame to the guest", "message": "the frame did not arrive"}))
    assert finding.reason is Reason.MIRRED_UNAVAILABLE
    assert finding.evidence == "frame to the guest; the frame did not arrive"


def test_a_network_probe_that_hangs_or_breaks_says_so() -> None:
    assert network.judge(Answer(hung=True)).reason is Reason.NETWORK_PROBE_HANGS
    assert network.judge(Answer(failure="exit status 1")).reason is Reason.INTERNAL_ERROR
