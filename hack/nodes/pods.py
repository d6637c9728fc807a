"""Pods in a node, by CRI as a kubelet makes them; first of all the agent's own, as the DaemonSet describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from agent.cri import cri_pb2
from hack.imaging.project import REPO
from hack.lab import pause
from hack.lab.containerd import sandbox_images
from hack.lab.cri import field
from hack.nodes.errors import NodeError
from hack.nodes.machine import FORWARD
from hack.nodes.recipe import HELPER

if TYPE_CHECKING:
    from hack.nodes.machine import Node

DAEMONSET = REPO / "manifests/50-daemonset.yaml"
_PAUSE_ARCHIVE = "/var/tmp/pause.tar"
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_DOWNWARD = {"NODE_NAME": "node", "POD_NAME": "katanode-1", "POD_NAMESPACE": "katanode"}
# Numbers of CRI's own: NamespaceMode NODE, MountPropagation PROPAGATION_HOST_TO_CONTAINER.
_OF_THE_NODE, _HOST_TO_CONTAINER = 2, 1


@dataclass(frozen=True, slots=True)
class Pod:
    """A sandbox and its container.

    Attributes:
        sandbox: its id.
        container: its id; empty for a sandbox alone.
    """

    sandbox: str
    container: str = ""


class Pods:
    """What a kubelet would do on a node.

    Args:
        node: whose runtime is asked.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._attempt = 0

    def call(self, method: str, request: bytes = b"", *, timeout: float = 150.0) -> bytes:
        """One call of `runtime.v1.RuntimeService`.

        Raises:
            NodeError: it is refused, with the journal's lines.
        """
        words = ["env", f"PYTHONPATH={HELPER}", "python3", "-B", "-m", "hack.nodes.inside", method, request.hex()]
        done = self._node.run(*words, check=False, timeout=timeout)
        if done.returncode != 0:
            raise NodeError(f"CRI {method}: {done.stderr.strip()}", evidence=self._node.evidence())
        return bytes.fromhex(done.stdout.strip())

    def import_image(self, archive: str) -> None:
        """Imports an image archive of the node's for CRI."""
        self._node.run("ctr", "-n", "k8s.io", "images", "import", archive, timeout=300)

    def import_pause(self) -> None:
        """Imports the pause image under the name that the node's containerd looks for."""
        names = sandbox_images(self._node.run("containerd", "config", "dump").stdout)
        self._node.guest.write(_PAUSE_ARCHIVE, pause.archive(names))
        self.import_image(_PAUSE_ARCHIVE)
        self._node.run("rm", _PAUSE_ARCHIVE)

    def sandbox(self, name: str, handler: str = "") -> Pod:
        """A sandbox alone: its pause process is what runs."""
        return Pod(self._sandbox(self._config(name, host=False), handler))

    def agent(self, settings: str, account: str) -> Pod:
        """The DaemonSet's pod: its image, command, environment, mounts and privileges, as a kubelet makes it.

        Args:
            settings: the folder of the node that stands for the ConfigMap.
            account: the folder that stands for the service account's secret.
        """
        pod = yaml.safe_load(DAEMONSET.read_text())["spec"]["template"]["spec"]
        (spec,) = pod["containers"]
        scratch = self._node.shell("mktemp -d /var/tmp/emptydir-XXXXXX").strip()
        sources = {"configMap": settings, "emptyDir": scratch}
        volumes = {
            volume["name"]: volume["hostPath"]["path"]
            if "hostPath" in volume
            else next(path for kind, path in sources.items() if kind in volume)
            for volume in pod["volumes"]
        }
        host, _, port = FORWARD.partition(":")
        env = {entry["name"]: entry.get("value") or _DOWNWARD[entry["name"]] for entry in spec["env"]}
        env |= {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        volumes["account"] = account
        spec["volumeMounts"].append({"name": "account", "mountPath": _ACCOUNT, "readOnly": True})
        spec["env"] = [{"name": name, "value": value} for name, value in env.items()]
        config = self._config("katanode", host=pod["hostNetwork"] and pod["hostPID"])
        sandbox = self._sandbox(config, "")
        return Pod(sandbox, self._start(sandbox, config, spec, volumes))

    def exec(self, pod: Pod, *argv: str, timeout: float = 120.0) -> tuple[int, str, str]:
        """Runs a command in a pod's container; gives status, output and errors."""
        request = field(1, pod.container) + b"".join(field(2, word) for word in argv) + field(3, int(timeout))
        reply = _fields(self.call("ExecSync", request, timeout=timeout + 30))
        texts = [bytes(reply.get(number, b"")).decode(errors="replace") for number in (1, 2)]
        return int(reply.get(3, 0)), *texts

    def running(self, pod: Pod) -> bool:
        """Whether a pod's container, or its sandbox if it has none, runs."""
        if not pod.container:
            return any(item.id == pod.sandbox and item.state == 0 for item in self.sandboxes())
        reply = cri_pb2.ListContainersResponse.FromString(self.call("ListContainers"))
        return any(item.id == pod.container and item.state == cri_pb2.CONTAINER_RUNNING for item in reply.containers)

    def sandboxes(self) -> list[cri_pb2.PodSandbox]:
        """What CRI lists."""
        return list(cri_pb2.ListPodSandboxResponse.FromString(self.call("ListPodSandbox")).items)

    def remove(self, pod: Pod) -> None:
        """Ends a pod as a kubelet does."""
        if pod.container:
            self.call("StopContainer", field(1, pod.container) + field(2, 10))
            self.call("RemoveContainer", field(1, pod.container))
        self.call("StopPodSandbox", field(1, pod.sandbox))
        self.call("RemovePodSandbox", field(1, pod.sandbox))

    def _config(self, name: str, *, host: bool) -> bytes:
        """PodSandboxConfig."""
        self._attempt += 1
        metadata = field(1, name) + field(2, f"{name}-{self._attempt}") + field(3, "default") + field(4, self._attempt)
        # A pod of the node's own network has the node's host name, and none may be given.
        config = field(1, metadata) + field(2, "" if host else name) + field(3, f"/var/log/pods/{name}-{self._attempt}")
        # LinuxPodSandboxConfig, its security context, in it the namespaces and whether containers may be privileged.
        context = field(1, _namespaces(host=host)) + field(6, int(host))
        return config + field(8, field(2, context))

    def _sandbox(self, config: bytes, handler: str) -> str:
        return _text(self.call("RunPodSandbox", field(1, config) + field(2, handler)))

    def _start(self, sandbox: str, config: bytes, spec: dict[str, Any], volumes: dict[str, str]) -> str:
        """Creates a container of the node's own namespaces, as a pod's specification has it, and starts it."""
        context = spec.get("securityContext", {})
        mounts = [
            field(1, mount["mountPath"])
            + field(2, volumes[mount["name"]])
            + field(3, int(mount.get("readOnly", False)))
            + field(5, _HOST_TO_CONTAINER if mount.get("mountPropagation") == "HostToContainer" else 0)
            for mount in spec.get("volumeMounts", [])
        ]
        security = field(2, int(context.get("privileged", False))) + field(3, _namespaces(host=True))
        security += field(7, int(context.get("readOnlyRootFilesystem", False)))
        container = b"".join(
            [
                field(1, field(1, spec["name"])),
                field(2, field(1, spec["image"])),
                *(field(3, word) for word in spec.get("command", [])),
                *(field(6, field(1, entry["name"]) + field(2, entry["value"])) for entry in spec.get("env", [])),
                *(field(7, mount) for mount in mounts),
                field(11, f"{spec['name']}.log"),
                field(15, field(2, security)),
            ]
        )
        request = field(1, sandbox) + field(2, container) + field(3, config)
        made = _text(self.call("CreateContainer", request))
        self.call("StartContainer", field(1, made))
        return made


def _namespaces(*, host: bool) -> bytes:
    """NamespaceOption: network and processes of the node, or of the pod and the container (as a kubelet has it)."""
    return field(1, _OF_THE_NODE) + field(2, _OF_THE_NODE) if host else field(2, 1)


def _text(reply: bytes) -> str:
    """The one string of a reply."""
    return bytes(_fields(reply)[1]).decode()


def _fields(message: bytes) -> dict[int, Any]:
    """A message's fields, the last of each number: bytes, or a number."""
    found: dict[int, Any] = {}
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    while place < len(message):
        key = varint()
        if key & 7 == 0:
            found[key >> 3] = varint()
        else:
            size = varint()
            found[key >> 3] = message[place : place + size]
            place += size
    return found
