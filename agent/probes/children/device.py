"""Makes the first harmless call on one device and prints what came of it, as one line of JSON.

Numbers are those of Linux's include/uapi/linux/{if_tun,vhost,vm_sockets}.h.
"""

import ctypes
import fcntl
import json
import os
import signal
import struct

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
TUNGETFEATURES = 0x800454CF
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
VHOST_GET_FEATURES = 0x8008AF00
VHOST_SET_OWNER = 0xAF01
IOCTL_VM_SOCKETS_GET_LOCAL_CID = 0x7B9


def program(kind: str, device: str, seconds: str) -> None:
    """Prints `step`, the one under way at the end or `done`, `errno` if it failed, and what was learnt.

    Args:
        kind: `tun`, `vhost-net`, `vhost-vsock` or `vsock`.
        device: path of the device.
        seconds: after which this process ends itself, should nobody else do it.
    """
    signal.alarm(int(seconds))
    said: dict[str, object] = {"step": "open"}
    try:
        if kind == "tun":
            _tun(device, said)
        elif kind == "vsock":
            _local_cid(device, said)
        else:
            _vhost(device, said)
        said["step"] = "done"
    except OSError as error:
        said["errno"] = error.errno
    print(json.dumps(said))  # noqa: T201 - the answer


def _tun(device: str, said: dict[str, object]) -> None:
    """A tap with the flags that hypervisors use, in a network namespace of its own: nobody on the node sees it."""
    said["step"] = "namespace"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    said["step"] = "open"
    tun = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    said["step"] = "TUNGETFEATURES"
    features = bytearray(4)
    fcntl.ioctl(tun, TUNGETFEATURES, features)
    said["features"] = struct.unpack("=I", features)[0]
    said["step"] = "TUNSETIFF"
    name = b"kn%d" % os.getpid()
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("=16sH22x", name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))


def _vhost(device: str, said: dict[str, object]) -> None:
    """The driver's features, and a worker of its own, as a hypervisor begins; both end with the descriptor."""
    vhost = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    said["step"] = "VHOST_GET_FEATURES"
    features = bytearray(8)
    fcntl.ioctl(vhost, VHOST_GET_FEATURES, features)
    said["features"] = struct.unpack("=Q", features)[0]
    said["step"] = "VHOST_SET_OWNER"
    fcntl.ioctl(vhost, VHOST_SET_OWNER, 0)


def _local_cid(device: str, said: dict[str, object]) -> None:
    """The node's own vsock address: 2 on a host, more in a guest of a hypervisor that gave it one."""
    vsock = os.open(device, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    said["step"] = "IOCTL_VM_SOCKETS_GET_LOCAL_CID"
    cid = bytearray(4)
    fcntl.ioctl(vsock, IOCTL_VM_SOCKETS_GET_LOCAL_CID, cid)
    said["cid"] = struct.unpack("=I", cid)[0]
