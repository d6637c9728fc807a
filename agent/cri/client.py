"""A small CRI client: what the runtime says of itself, and the sandboxes that it runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from agent.cri import cri_pb2 as pb
from agent.errors import KatanodeError
from agent.reasons import Reason

CALL_TIMEOUT = 10.0
"""Seconds for a call that only asks; a busy containerd answers within one or two."""


@dataclass(frozen=True, slots=True)
class Version:
    """Who serves: for instance `containerd` and `1.7.24`."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """CRI `Status`.

    Attributes:
        ready: the condition RuntimeReady.
        network_ready: the condition NetworkReady: a CNI configuration is loaded.
        network_message: what the runtime says of the network when it is not.
        handlers: name to the handler's table as loaded: `runtimeType`, `runtimePath`, `options`, …
    """

    ready: bool
    network_ready: bool
    network_message: str
    handlers: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A pod sandbox as CRI lists it; `ready` is false once its task has ended."""

    id: str
    name: str
    namespace: str
    uid: str
    ready: bool
    handler: str
    labels: Mapping[str, str]


class CRIError(KatanodeError):
    """A call that the runtime refused or did not answer.

    Attributes:
        code: the name of gRPC's status code.
        details: the runtime's own words.
    """

    def __init__(self, socket: Path, call: str, code: grpc.StatusCode, details: str) -> None:
        served = code is not grpc.StatusCode.UNIMPLEMENTED
        super().__init__(
            Reason.RUNTIME_UNREACHABLE if served else Reason.CRI_DISABLED,
            f"the runtime behind {socket} " + ("does not answer" if served else "answers, but does not serve CRI"),
            evidence=f"{call}: {code.name}: {details}",
        )
        self.code = code.name
        self.details = details


class Client:
    """CRI over a unix socket; use it as a context manager.

    Args:
        socket: the socket as this process sees it.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        # Local only: no proxy, no name resolution, and no back-off of many seconds after a restart of the daemon.
        self._channel = grpc.insecure_channel(
            f"unix://{socket}",
            options=(
                ("grpc.enable_http_proxy", 0),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 5000),
                ("grpc.max_reconnect_backoff_ms", 200),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.max_receive_message_length", 64 << 20),
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._channel.close()

    def version(self, timeout: float = CALL_TIMEOUT) -> Version:
        """Name and version of the runtime."""
        answer = self._call("Version", pb.VersionRequest(), pb.VersionResponse, timeout)
        return Version(answer.runtime_name, answer.runtime_version)

    def status(self, timeout: float = CALL_TIMEOUT) -> RuntimeStatus:
        """Conditions, and the handlers with their tables as the daemon loaded them.

        containerd 1.6 and 1.7 leave `runtime_handlers` empty (measured), so the tables come from the verbose
        status's `config`, which all generations have.
        """
        answer = self._call("Status", pb.StatusRequest(verbose=True), pb.StatusResponse, timeout)
        conditions = {c.type: c for c in answer.status.conditions}
        handlers = _handlers(answer.info.get("config", ""))
        for handler in answer.runtime_handlers:
            if handler.name:  # an unnamed one is the default
                handlers.setdefault(handler.name, {})
        network = conditions.get("NetworkReady")
        runtime = conditions.get("RuntimeReady")
        return RuntimeStatus(
            ready=runtime is not None and runtime.status,
            network_ready=network is not None and network.status,
            network_message="" if network is None or network.status else network.message,
            handlers=handlers,
        )

    def run_sandbox(
        self,
        handler: str,
        *,
        name: str,
        namespace: str,
        uid: str,
        timeout: float,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> str:
        """Starts a pod sandbox on the pod network through a handler; gives its id."""
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=name, uid=uid, namespace=namespace),
            hostname=name,
            labels=dict(labels or {}),
            annotations=dict(annotations or {}),
            linux=pb.LinuxPodSandboxConfig(),
        )
        request = pb.RunPodSandboxRequest(config=config, runtime_handler=handler)
        return str(self._call("RunPodSandbox", request, pb.RunPodSandboxResponse, timeout).pod_sandbox_id)

    def stop_sandbox(self, sandbox_id: str, timeout: float) -> None:
        """Stops a sandbox and what runs in it; no error when it is stopped or gone."""
        self._call(
            "StopPodSandbox", pb.StopPodSandboxRequest(pod_sandbox_id=sandbox_id), pb.StopPodSandboxResponse, timeout
        )

    def remove_sandbox(self, sandbox_id: str, timeout: float) -> None:
        """Removes a sandbox; no error when it is gone."""
        request = pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)
        self._call("RemovePodSandbox", request, pb.RemovePodSandboxResponse, timeout)

    def sandboxes(self, labels: Mapping[str, str] | None = None, timeout: float = CALL_TIMEOUT) -> tuple[Sandbox, ...]:
        """The pod sandboxes that the runtime knows, ready or not."""
        request = pb.ListPodSandboxRequest(filter=pb.PodSandboxFilter(label_selector=dict(labels or {})))
        answer = self._call("ListPodSandbox", request, pb.ListPodSandboxResponse, timeout)
        return tuple(
            Sandbox(
                id=item.id,
                name=item.metadata.name,
                namespace=item.metadata.namespace,
                uid=item.metadata.uid,
                ready=item.state == pb.SANDBOX_READY,
                handler=item.runtime_handler,
                labels=dict(item.labels),
            )
            for item in answer.items
        )

    def running_containers(self, timeout: float = CALL_TIMEOUT) -> Mapping[str, str]:
        """Id to name of the containers that run."""
        answer = self._call("ListContainers", pb.ListContainersRequest(), pb.ListContainersResponse, timeout)
        return {c.id: c.metadata.name for c in answer.containers if c.state == pb.CONTAINER_RUNNING}

    def _call(self, method: str, request: Any, response: Any, timeout: float) -> Any:
        call = self._channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        try:
            return call(request, timeout=timeout)
        except grpc.RpcError as error:
            raise CRIError(self._socket, method, error.code(), error.details() or "") from error


def _handlers(config: str) -> dict[str, Mapping[str, Any]]:
    """The runtimes of `info["config"]`, the JSON of the CRI plugin's configuration: `containerd.runtimes`."""
    try:
        runtimes = json.loads(config)["containerd"]["runtimes"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: table for name, table in runtimes.items() if isinstance(table, dict)}
