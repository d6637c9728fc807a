"""What people are told when `katanode fleet` finds no usable kubeconfig, or nobody at the address in it."""

import argparse
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.config.kube_config import new_client_from_config

import agent.fleet.connect
from agent.cluster.api import ApiError
from agent.errors import KatanodeError
from agent.fleet import command
from agent.fleet.connect import Target, connect, told
from agent.reasons import Reason


def kubeconfig(folder: Path, server: str, user: dict[str, Any] | None = None, **changes: Any) -> str:
    """A kubeconfig with the contexts `production`, which is the current one, and `staging`."""
    contexts = [{"name": name, "context": {"cluster": "c", "user": "u"}} for name in ("production", "staging")]
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "production",
        "contexts": contexts,
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user if user is not None else {"token": "secret-token"}}],
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(content | changes))
    return str(file)


def refused(*argv: str) -> KatanodeError:
    """The error with which `katanode fleet` ends."""
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    options = parser.parse_args(["fleet", *argv])
    with pytest.raises(KatanodeError) as caught:
        options.command(options)
    return caught.value


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without a kubeconfig, outside a pod."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def deaf() -> str:
    """The address of a port on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_without_any_kubeconfig_the_places_are_named() -> None:
    error = refused()
    assert error.reason is Reason.CLUSTER_CONFIG_INVALID
    assert error.message == "there is no kubeconfig: KUBECONFIG is not set, and ~/.kube/config does not exist"
    assert "--kubeconfig FILE" in error.remedy


def test_a_kubeconfig_that_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused("--kubeconfig", "/nowhere/config").message == "there is no kubeconfig /nowhere/config"
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/a:{tmp_path}/b")
    assert refused().message == f"there is no kubeconfig {tmp_path}/a:{tmp_path}/b"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "file is empty"),
        ("contexts: [", "expected the node content"),
        ("[1]", "it has not the shape of a kubeconfig"),
        ("contexts: 5", "it has not the shape of a kubeconfig"),
        ("contexts: [{}]", "Expected key name"),
        ("\x00", "special characters are not allowed"),
    ],
)
def test_a_broken_kubeconfig_is_refused_with_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    error = refused("--kubeconfig", str(file))
    assert error.reason is Reason.CLUSTER_CONFIG_INVALID
    assert str(file) in error.message
    assert says in error.evidence


def test_a_kubeconfig_without_what_its_context_names_is_refused(tmp_path: Path, deaf: str) -> None:
    error = refused("--kubeconfig", kubeconfig(tmp_path, deaf, clusters=[]))
    assert error.reason is Reason.CLUSTER_CONFIG_INVALID
    assert "clusters" in error.evidence


def test_a_context_that_is_none_is_refused_with_the_nearest_or_with_all(tmp_path: Path, deaf: str) -> None:
    file = kubeconfig(tmp_path, deaf)
    near = refused("--kubeconfig", file, "--context", "prodution")
    assert near.message == f"the kubeconfig {file} has no context 'prodution' (did you mean production?)"
    far = refused("--kubeconfig", file, "--context", "x")
    assert far.message == f"the kubeconfig {file} has no context 'x' (it has: production, staging)"
    none = refused("--kubeconfig", kubeconfig(tmp_path, deaf, **{"current-context": ""}))
    assert "has no current context (it has: production, staging)" in none.message


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    error = refused("--kubeconfig", kubeconfig(tmp_path, "10.0.0.1:6443"))
    assert error.reason is Reason.CLUSTER_CONFIG_INVALID
    assert "neither https:// nor http://" in error.evidence


def test_a_server_that_does_not_listen_is_unreachable(tmp_path: Path, deaf: str) -> None:
    error = refused("--kubeconfig", kubeconfig(tmp_path, deaf))
    assert error.reason is Reason.CLUSTER_UNREACHABLE
    assert error.message == f"the API server {deaf} (context production) cannot be reached"
    assert "Connection refused" in error.evidence
    assert error.remedy.startswith("Nothing listens at this address")
    assert "secret-token" not in str(error) + error.evidence


def test_the_files_of_kubeconfig_are_merged_as_kubectl_does(
    tmp_path: Path, deaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tmp_path / "second"
    second.mkdir()
    other = kubeconfig(second, deaf, contexts=[{"name": "lab", "context": {"cluster": "c", "user": "u"}}])
    monkeypatch.setenv("KUBECONFIG", f"{kubeconfig(tmp_path, deaf)}:{tmp_path}/missing:{other}")
    assert connect(context="lab").target == Target(deaf, "lab", "")
    assert connect().target.context == "production"


def test_renewed_tokens_are_not_written_into_the_users_kubeconfig(
    tmp_path: Path, deaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    persisting = []

    def made(*arguments: Any, **options: Any) -> Any:
        persisting.append(options.get("persist_config", True))
        return new_client_from_config(*arguments, **options)

    monkeypatch.setattr(agent.fleet.connect, "new_client_from_config", made)
    cluster = connect(kubeconfig(tmp_path, deaf))
    cluster.api._connect()  # as after an answer 401
    assert persisting == [False, False]


def test_a_credential_plugin_that_fails_is_told_with_what_follows(tmp_path: Path, deaf: str) -> None:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/no/such-plugin", "interactiveMode": "Never"}
    error = refused("--kubeconfig", kubeconfig(tmp_path, deaf, {"exec": plugin}))
    assert "while the credentials were made" in error.evidence
    assert "/no/such-plugin" in error.evidence


@pytest.mark.parametrize(
    ("status", "message", "reason", "says"),
    [
        (401, "Unauthorized", Reason.CLUSTER_FORBIDDEN, "does not take these credentials"),
        (403, 'User "system:anonymous" cannot list', Reason.CLUSTER_FORBIDDEN, "does not take these credentials"),
        (403, 'User "eve" cannot list', Reason.CLUSTER_FORBIDDEN, "does not let you see its nodes"),
        (404, "page not found", Reason.CLUSTER_CONFIG_INVALID, "does not answer as a Kubernetes API does"),
        (429, "too many", Reason.CLUSTER_UNREACHABLE, "is in trouble"),
        (503, "etcd", Reason.CLUSTER_UNREACHABLE, "is in trouble"),
        (0, "[SSL: CERTIFICATE_VERIFY_FAILED] x", Reason.CLUSTER_UNREACHABLE, "cannot be reached"),
    ],
)
def test_each_refusal_is_told_in_words_of_its_own(status: int, message: str, reason: Reason, says: str) -> None:
    error = told(ApiError(status, "Word", message), Target("https://c:6443", "production", ""))
    assert error.reason is reason
    assert says in error.message
    assert "https://c:6443 (context production)" in error.message
    assert message in error.evidence
    assert error.remedy.endswith(".")


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("CERTIFICATE_VERIFY_FAILED", "does not vouch for its certificate"),
        ("Failed to resolve 'c'", "Its name is not known here"),
        ("Connection refused", "Nothing listens"),
        ("timed out", "Nothing answers"),
        ("something new", "See whether `kubectl --context production get nodes` gets there"),
    ],
)
def test_each_way_of_not_reaching_a_server_has_its_remedy(message: str, remedy: str) -> None:
    error = told(ApiError(0, "Unreachable", message), Target("https://c:6443", "production", ""))
    assert remedy in error.remedy


def test_a_pod_without_a_kubeconfig_uses_its_account_and_says_if_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    error = refused()
    assert error.reason is Reason.CLUSTER_CONFIG_INVALID
    assert error.message == "this pod's service account cannot be used"
