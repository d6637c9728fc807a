"""The way to a cluster by a kubeconfig, and what people are told when there is none."""

import contextlib
import difflib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, load_incluster_config
from kubernetes.config.kube_config import KubeConfigMerger, new_client_from_config

from agent.cluster.api import Api, ApiError
from agent.errors import KatanodeError
from agent.reasons import Reason

_DEFAULT = "~/.kube/config"
_SHAPE = (TypeError, KeyError, AttributeError)  # what the kubernetes package meets where a file has something else


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection leads, for messages.

    Attributes:
        server: its address.
        context: the kubeconfig's context; "" in a pod.
        complaints: what went wrong while the credentials were made, such as a plugin's failure.
    """

    server: str
    context: str
    complaints: str

    def __str__(self) -> str:
        return f"{self.server} (context {self.context})" if self.context else self.server


@dataclass(frozen=True, slots=True)
class Cluster:
    """A connection and where it leads."""

    api: Api
    target: Target


def connect(kubeconfig: str = "", context: str = "") -> Cluster:
    """Makes a connection; asks the server for nothing yet.

    Args:
        kubeconfig: a file; "" for KUBECONFIG, which may name several, then ~/.kube/config, then a pod's own account.
        context: one of its contexts; "" for the current one.

    Raises:
        KatanodeError: `CLUSTER_CONFIG_INVALID`.
    """
    files = kubeconfig or os.environ.get("KUBECONFIG", "")
    where = files or _DEFAULT
    there = [path for path in where.split(os.pathsep) if path and Path(path).expanduser().is_file()]
    if not there:
        if not files and not context and "KUBERNETES_SERVICE_HOST" in os.environ:
            return _in_pod()
        raise _none(kubeconfig, where)
    try:
        context = _existing_context(where, context)
        with _complaints() as complaints:
            configuration = Configuration()
            # Not persisted: whoever only looks does not write into the user's kubeconfig.
            client = new_client_from_config(where, context, persist_config=False, client_configuration=configuration)
        server = _checked(configuration.host)
        used = iter([client])

        def make() -> ApiClient:
            """The client made here first; fresh credentials whenever the server does not take the old ones."""
            with _complaints():
                made: ApiClient = next(used, None) or new_client_from_config(where, context, persist_config=False)
            return made

        return Cluster(Api(make), Target(server, context, "\n".join(complaints)))
    except (ConfigException, yaml.YAMLError, OSError, ValueError, *_SHAPE) as error:
        raise KatanodeError(
            Reason.CLUSTER_CONFIG_INVALID,
            f"the kubeconfig {where} cannot be used",
            evidence=f"it has not the shape of a kubeconfig: {error}" if isinstance(error, _SHAPE) else str(error),
            remedy="Correct it where the evidence says, or name another one with --kubeconfig.",
        ) from error


def _existing_context(where: str, context: str) -> str:
    """The context to use.

    Raises:
        KatanodeError: `CLUSTER_CONFIG_INVALID`, with the nearest name or with all of them.
    """
    merged: Any = KubeConfigMerger(where).config
    content = {} if merged is None else merged.value
    names = [str(c["name"]) for c in content.get("contexts") or ()]
    chosen = context or str(content.get("current-context") or "")
    if chosen in names:
        return chosen
    near = difflib.get_close_matches(chosen, names, n=1)
    known = f"did you mean {near[0]}?" if near else f"it has: {', '.join(sorted(names)[:20]) or 'none'}"
    what = f"no context {chosen!r}" if chosen else "no current context"
    raise KatanodeError(
        Reason.CLUSTER_CONFIG_INVALID,
        f"the kubeconfig {where} has {what} ({known})",
        remedy="Name one with --context; `kubectl config get-contexts` lists them.",
    )


def _checked(server: str) -> str:
    if urllib3.util.parse_url(server).scheme not in {"https", "http"}:
        raise ValueError(f"the server's address is {server!r}, which is neither https:// nor http://")
    return server


def _none(named: str, where: str) -> KatanodeError:
    message = f"there is no kubeconfig {where}"
    if not named and where == _DEFAULT:
        message = f"there is no kubeconfig: KUBECONFIG is not set, and {where} does not exist"
    remedy = "Name one with --kubeconfig FILE or KUBECONFIG; a managed cluster's own tool writes it."
    return KatanodeError(Reason.CLUSTER_CONFIG_INVALID, message, remedy=remedy)


def _in_pod() -> Cluster:
    configuration = Configuration()

    def make() -> ApiClient:
        load_incluster_config(client_configuration=configuration)
        return ApiClient(configuration)

    try:
        return Cluster(Api(make), Target(configuration.host, "", ""))
    except ConfigException as error:
        raise KatanodeError(
            Reason.CLUSTER_CONFIG_INVALID, "this pod's service account cannot be used", evidence=str(error)
        ) from error


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """What the kubernetes package logs: it tells of a failed credential plugin in no other way, and goes on without."""
    said: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    root, keeping = logging.getLogger(), Keeping()
    root.addHandler(keeping)
    try:
        yield said
    finally:
        root.removeHandler(keeping)


def told(error: ApiError, target: Target) -> KatanodeError:
    """What people are told when the cluster does not do what it is asked."""
    anonymous = error.status == 403 and "system:anonymous" in error.message
    complaints = f"while the credentials were made: {target.complaints}" if target.complaints else ""
    evidence = "\n".join(filter(None, (complaints, str(error) if error.status else error.message)))
    login = f"kubectl --context {target.context} get nodes" if target.context else "kubectl get nodes"
    if error.status == 401 or anonymous:
        return KatanodeError(
            Reason.CLUSTER_FORBIDDEN,
            f"the API server {target} does not take these credentials",
            evidence=evidence,
            remedy=f"They are expired, wrong or missing: log in again as for kubectl (`{login}` fails the same way).",
        )
    if error.status == 403:
        return KatanodeError(
            Reason.CLUSTER_FORBIDDEN,
            f"the API server {target} does not let you see its nodes",
            evidence=evidence,
            remedy="Ask for the right to list nodes, and with --watch to watch them; pods and runtimeclasses are "
            "needed for the column SANDBOXES only.",
        )
    if error.status == 404 or error.reason == "BadAnswer":
        return KatanodeError(
            Reason.CLUSTER_CONFIG_INVALID,
            f"{target} does not answer as a Kubernetes API does",
            evidence=evidence,
            remedy="Correct the server's address in the kubeconfig.",
        )
    if error.status:
        return KatanodeError(
            Reason.CLUSTER_UNREACHABLE,
            f"the API server {target} is in trouble",
            evidence=evidence,
            remedy="Try again in a moment; if it stays so, the cluster's control plane needs its owner.",
        )
    return KatanodeError(
        Reason.CLUSTER_UNREACHABLE,
        f"the API server {target} cannot be reached",
        evidence=evidence,
        remedy=_way(error.message, login),
    )


_WAYS: Mapping[str, str] = {
    "CERTIFICATE_VERIFY_FAILED": "The kubeconfig does not vouch for its certificate: another server answers at this "
    "address, or the kubeconfig is old. Fetch it anew.",
    "Failed to resolve": "Its name is not known here: check the address, the DNS server and the VPN.",
    "Connection refused": "Nothing listens at this address: check it, and that the API server runs.",
    "timed out": "Nothing answers at this address: check the VPN, the proxy and the firewall.",
}


def _way(message: str, login: str) -> str:
    return next((_WAYS[sign] for sign in _WAYS if sign in message), f"See whether `{login}` gets there from here.")
