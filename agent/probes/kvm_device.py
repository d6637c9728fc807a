"""The device node /dev/kvm: what `ls -l` says of it."""

import grp
import os
import stat
from dataclasses import dataclass

from agent.errors import KatanodeError
from agent.host.root import HostRoot
from agent.reasons import Reason
from agent.report import Finding, bad, ok

CHECK_PERMISSIONS = "permissions of /dev/kvm"
DEVICE = "/dev/kvm"


@dataclass(frozen=True, slots=True)
class Node:
    """What `ls -l /dev/kvm` says."""

    mode: int
    owner: str
    group: str

    @property
    def words(self) -> str:
        """As ls writes it."""
        return f"{stat.filemode(self.mode)} {self.owner}:{self.group} {DEVICE}"


def device_node(root: HostRoot) -> Node | None:
    """The device node as it stands, or None."""
    try:
        status = os.stat(root(DEVICE))
    except (OSError, KatanodeError):
        return None
    return Node(status.st_mode, "root" if status.st_uid == 0 else str(status.st_uid), _group(root, status.st_gid))


def _group(root: HostRoot, gid: int) -> str:
    if root.is_own:
        try:
            return grp.getgrgid(gid).gr_name
        except KeyError:
            return str(gid)
    try:
        with open(root("/etc/group"), encoding="utf-8", errors="replace") as lines:
            return next((f[0] for f in (line.split(":") for line in lines) if f[2:3] == [str(gid)]), str(gid))
    except (OSError, KatanodeError):
        return str(gid)


def judge_permissions(node: Node) -> Finding:
    """Whether the device is as distributions have it: not open to everybody."""
    if not stat.S_ISCHR(node.mode):
        return bad(CHECK_PERMISSIONS, Reason.KVM_PERMISSIONS_LOOSE, f"{node.words} is no character device")
    if node.mode & 0o006:
        return bad(CHECK_PERMISSIONS, Reason.KVM_PERMISSIONS_LOOSE, node.words)
    return ok(CHECK_PERMISSIONS, node.words)
