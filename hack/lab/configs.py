"""The files with which a lab's containerd starts: as an administrator might have written them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

from hack.lab.pause import PAUSE_IMAGE

CAP_SYS_RESOURCE = 24

_SCHEMA_2 = """\
# containerd on a node of the lab. Keep in sync with the other nodes!
version = 2

root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins]

  # What the kubelet talks to.
  [plugins."io.containerd.grpc.v1.cri"]
    # There is no registry here: the image is imported by hand.
    sandbox_image = "{pause}"
{oom}
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/opt/cni/bin"
      conf_dir = "/etc/cni/net.d"

    [plugins."io.containerd.grpc.v1.cri".containerd]
      snapshotter = "overlayfs"
      default_runtime_name = "runc"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
        runtime_type = "io.containerd.runc.v2"

        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
          SystemdCgroup = false  # no systemd on this node
"""

_SCHEMA_3 = """\
# containerd on a node of the lab. Keep in sync with the other nodes!
version = 3

root = '/var/lib/containerd'
state = '/run/containerd'

[grpc]
  address = '/run/containerd/containerd.sock'

[plugins]

  [plugins.'io.containerd.cri.v1.images']
    snapshotter = 'overlayfs'

    # There is no registry here: the image is imported by hand.
    [plugins.'io.containerd.cri.v1.images'.pinned_images]
      sandbox = '{pause}'

  # What the kubelet talks to.
  [plugins.'io.containerd.cri.v1.runtime']
{oom}
    [plugins.'io.containerd.cri.v1.runtime'.cni]
      bin_dirs = ['/opt/cni/bin']
      conf_dir = '/etc/cni/net.d'

    [plugins.'io.containerd.cri.v1.runtime'.containerd]
      default_runtime_name = 'runc'

      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
        runtime_type = 'io.containerd.runc.v2'

        [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
          SystemdCgroup = false  # no systemd on this node
"""

_RESTRICT_OOM = "    # Without CAP_SYS_RESOURCE no process may be made less likely to be killed.\n"
_RESTRICT_OOM += "    restrict_oom_score_adj = true\n"


def default(schema: Literal[2, 3]) -> bytes:
    """A configuration in `schema` that starts pod sandboxes on this machine."""
    template = _SCHEMA_2 if schema == 2 else _SCHEMA_3
    return template.format(pause=PAUSE_IMAGE, oom=restrict_oom_lines()).encode()


def restrict_oom_lines() -> str:
    """The lines for the CRI runtime's table that this machine needs, with a final newline; or none.

    Measured on 1.6.20, 1.7.24 and 2.1.9: without them no sandbox starts where root lacks
    ``CAP_SYS_RESOURCE``, since the kernel refuses its `oom_score_adj` of -998. runc then says "can't get
    final child's PID from pipe: EOF", and nothing about the score.
    """
    match = re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return "" if match and int(match[1], 16) >> CAP_SYS_RESOURCE & 1 else _RESTRICT_OOM


def network() -> bytes:
    """A CNI network for pods that needs neither bridge nor netfilter: a veth pair each."""
    plugin = {
        "type": "ptp",
        "ipMasq": False,
        "ipam": {"type": "host-local", "subnet": "10.88.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]},
    }
    return json.dumps({"cniVersion": "1.0.0", "name": "lab", "plugins": [plugin]}, indent=2).encode() + b"\n"
