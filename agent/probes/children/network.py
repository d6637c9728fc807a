"""Builds a sandbox's network path in a namespace of its own and sends a frame through, both ways.

It is what Kata's `tcfilter` model makes of a pod's network (virtcontainers/network_linux.go, setupTCFiltering): the
pod's end of a veth pair and a tap, an ingress queueing discipline on each, and u32 filters that match all and redirect
to the other. The namespace has no name: it ends with this process, however that ends.
"""

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import time

CLONE_NEWNET = 0x40000000  # linux/sched.h
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
ETH_P_ALL = 0x0003  # linux/if_ether.h
ETH_P_EXPERIMENT = 0x88B5  # IEEE 802, local experimental 1: no other frame is taken for the probe's
INGRESS = 0xFFFF0000  # TC_H_INGRESS's major number as a parent, linux/pkt_sched.h
U32_ANY = "0x0/0x0+0"

FRAME = b"\xff" * 6 + b"\x02\x00\x00\x00\x00\x01" + struct.pack("!H", ETH_P_EXPERIMENT) + b"katanode".ljust(46, b".")
FRAME_SECONDS = 1.0


def program(device: str, seconds: str) -> None:
    """Prints `step`, the one under way at the end or `done`, and `errno` and `message` if it failed.

    Args:
        device: path of /dev/net/tun.
        seconds: after which this process ends itself, should nobody else do it.
    """
    signal.alarm(int(seconds))
    said: dict[str, object] = {"step": "namespace"}
    try:
        _build(device, said)
        said["step"] = "done"
    except TimeoutError as error:
        said["message"] = str(error)
    except OSError as error:
        said.update(errno=error.errno, message=error.strerror or str(error))
    except Exception as error:  # noqa: BLE001 - NetlinkError, whose class is known only after the slow import
        said.update(errno=getattr(error, "code", 0), message=str(error))
    print(json.dumps(said))  # noqa: T201 - the answer


def _build(device: str, said: dict[str, object]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")

    from pyroute2.iproute.linux import IPRoute  # noqa: PLC0415 - a namespace that fails needs no slow import

    said["step"] = "netlink"
    with IPRoute() as netlink:
        said["step"] = "veth"
        netlink.link("add", ifname="eth0", kind="veth", peer="outside")
        said["step"] = "tap"
        tap_fd = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        fcntl.ioctl(tap_fd, TUNSETIFF, struct.pack("=16sH22x", b"tap0_kata", IFF_TAP | IFF_NO_PI))
        eth0, outside, tap = (socket.if_nametoindex(name) for name in ("eth0", "outside", "tap0_kata"))
        said["step"] = "up"
        for index in (eth0, outside, tap):
            netlink.link("set", index=index, state="up")
        said["step"] = "ingress"
        for index in (eth0, tap):
            netlink.tc("add", "ingress", index=index)
        for here, there in ((eth0, tap), (tap, eth0)):
            _redirect(netlink, here, there, said)
    _exchange(tap_fd, said)


def _redirect(netlink: object, here: int, there: int, said: dict[str, object]) -> None:
    """All that comes in at `here` goes out at `there`."""
    action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": there}
    said["step"] = "mirred"
    try:
        _u32(netlink, here, action=[action])
    except Exception:
        # Classifier and action are two modules, and one error stands for either: which is it?
        said["step"] = "u32"
        _u32(netlink, here)
        said["step"] = "mirred"
        raise


def _u32(netlink: object, index: int, **more: object) -> None:
    netlink.tc(  # type: ignore[attr-defined]
        "add-filter",
        "u32",
        index=index,
        parent=INGRESS,
        protocol=ETH_P_ALL,
        target=0x10000,
        keys=[U32_ANY],
        **more,
    )


def _exchange(tap: int, said: dict[str, object]) -> None:
    """A frame from the pod's network to the tap, and one back.

    Raises:
        TimeoutError: it did not arrive.
    """
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_EXPERIMENT)) as outside:
        outside.bind(("outside", ETH_P_EXPERIMENT))
        said["step"] = "frame to the guest"
        outside.send(FRAME)
        _await(tap, lambda: os.read(tap, 2048))
        said["step"] = "frame from the guest"
        os.write(tap, FRAME)
        _await(outside.fileno(), lambda: outside.recv(2048, socket.MSG_DONTWAIT))


def _await(fd: int, read: object) -> None:
    """Waits for the frame among others: the kernel sends IPv6 ones of its own when an interface comes up."""
    deadline = time.monotonic() + FRAME_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        if select.select([fd], [], [], left)[0] and read() == FRAME:  # type: ignore[operator]
            return
    raise TimeoutError(f"the frame did not arrive within {FRAME_SECONDS:g} s")
