"""What the examples run is run: the scripts as they stand, nginx with its configuration, the password's maker."""

from __future__ import annotations

import http.server
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import debian_packages
import pytest
import test_examples as examples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
SERVER = "https://kubernetes.default.svc"


def script(file: str, name: str) -> str:
    """The Python program of a container."""
    (found,) = [c for pod in examples.pods(file) for c in pod.containers if c["name"] == name]
    assert found["command"] == ["python", "-u", "-c"]
    (text,) = found["args"]
    return str(text)


# --- scripts


@pytest.mark.parametrize("tenant", ["a", "b"])
def test_a_tenant_s_job_processes_ten_batches_into_its_volume(tmp_path: Path, tenant: str) -> None:
    (pod,) = [pod for pod in examples.pods("tenant-jobs.yaml") if pod.namespace == f"tenant-{tenant}"]
    (text,) = pod.containers[0]["args"]
    text = text.replace("/data/", f"{tmp_path}/").replace("time.sleep(2)", "time.sleep(0)")
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2] == "Processed batch 10/10"
    assert len({path.read_text() for path in tmp_path.iterdir()}) == 10


def test_the_sized_pod_prints_its_size_and_ends_when_it_is_told_to() -> None:
    text = script("sized-by-annotation.yaml", "app")
    # As process 1, as in a container: there a signal without a handler is not delivered.
    argv = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-u", "-c", text]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = process.stdout.readline()
        assert said.startswith(f"{os.cpu_count()} CPUs, ")
        child = int(subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(process.pid)], text=True))
        os.kill(child, signal.SIGTERM)
        assert process.wait(timeout=10) == 0


# --- the password


class Api(http.server.BaseHTTPRequestHandler):
    """The two calls of the Kubernetes API on one Secret."""

    refuses: ClassVar[dict[str, int]] = {}
    secret: ClassVar[dict[str, Any]] = {}
    seen: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        self._answer({})

    def do_PATCH(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: dict[str, Any]) -> None:
        told = {name: self.headers[name] for name in ("Authorization", "Content-Type")}
        self.seen.append({"method": self.command, "path": self.path, "body": body} | told)
        self.send_response(self.refuses.get(self.command, 200))
        self.end_headers()
        self.wfile.write(json.dumps(self.secret).encode())

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """A service account's folder, whose ca.crt is the certificate of a server on this machine."""
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost "
        f"-keyout {tmp_path}/tls.key -out {tmp_path}/ca.crt",
        shell=True,
        check=True,
        capture_output=True,
    )
    (tmp_path / "token").write_text("token-of-the-pod")
    (tmp_path / "namespace").write_text("kata-database")
    return tmp_path


@pytest.fixture
def api(account: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.HTTPServer]:
    """Answers as an API server whose Secret is there and empty."""
    monkeypatch.setattr(Api, "seen", [])
    monkeypatch.setattr(Api, "secret", {"metadata": {"name": "postgres", "resourceVersion": "41"}})
    server = http.server.HTTPServer(("localhost", 0), Api)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(account / "ca.crt", account / "tls.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def make_password(account: Path, api: http.server.HTTPServer) -> subprocess.CompletedProcess[str]:
    text = script("postgresql.yaml", "make-password")
    assert ACCOUNT in text
    assert SERVER in text
    text = text.replace(ACCOUNT, str(account)).replace(SERVER, f"https://localhost:{api.server_port}")
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return subprocess.run(
        [sys.executable, "-c", text], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_the_password_is_long_new_each_time_and_told_to_nobody(account: Path, api: http.server.HTTPServer) -> None:
    for _ in range(2):
        done = make_password(account, api)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "made a password\n"
    assert [call["method"] for call in Api.seen] == ["GET", "PATCH"] * 2
    assert {call["path"] for call in Api.seen} == {"/api/v1/namespaces/kata-database/secrets/postgres"}
    assert {call["Authorization"] for call in Api.seen} == {"Bearer token-of-the-pod"}
    patches = [call for call in Api.seen if call["method"] == "PATCH"]
    assert {patch["Content-Type"] for patch in patches} == {"application/merge-patch+json"}
    # Whoever fills it in between makes this one fail.
    assert all(patch["body"]["metadata"] == {"resourceVersion": "41"} for patch in patches)
    passwords = {patch["body"]["stringData"]["password"] for patch in patches}
    assert len(passwords) == 2
    assert min(map(len, passwords)) >= 40


def test_a_password_that_is_there_stays(
    account: Path, api: http.server.HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Api.secret, "data", {"password": "b3du"})
    done = make_password(account, api)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "there is a password already\n"
    assert [call["method"] for call in Api.seen] == ["GET"]


@pytest.mark.parametrize(("method", "status"), [("GET", 403), ("PATCH", 409), ("PATCH", 500)])
def test_a_refusal_is_a_failure_so_that_it_is_tried_again(
    account: Path, api: http.server.HTTPServer, monkeypatch: pytest.MonkeyPatch, method: str, status: int
) -> None:
    monkeypatch.setattr(Api, "refuses", {method: status})
    assert make_password(account, api).returncode == 1
    (pod,) = [pod for pod in examples.pods("postgresql.yaml") if pod.owner["metadata"]["name"] == "make-password"]
    assert pod.spec["restartPolicy"] == "OnFailure"


def test_the_secret_is_the_one_that_the_database_and_its_client_read(
    account: Path, api: http.server.HTTPServer
) -> None:
    assert make_password(account, api).returncode == 0
    call = Api.seen[-1]
    read = [
        variable["valueFrom"]["secretKeyRef"]
        for pod in examples.pods("postgresql.yaml")
        for container in pod.containers
        for variable in container.get("env", ())
        if "valueFrom" in variable
    ]
    assert read == [{"name": call["path"].rpartition("/")[2], "key": "password"}] * 2
    assert set(call["body"]["stringData"]) == {"password"}


def test_the_maker_of_the_password_may_touch_that_secret_and_nothing_else() -> None:
    (secret,) = examples.documents("postgresql.yaml", "Secret")
    (role,) = examples.documents("postgresql.yaml", "Role")
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": [secret["metadata"]["name"]],
            "verbs": ["get", "patch"],
        }
    ]
    (binding,) = examples.documents("postgresql.yaml", "RoleBinding")
    (subject,) = binding["subjects"]
    pods = examples.pods("postgresql.yaml")
    assert [pod.spec["serviceAccountName"] for pod in pods if "serviceAccountName" in pod.spec] == [subject["name"]]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


# --- nginx

POD = """
set -e
ip link set lo up
mount --make-rprivate /
mount -t tmpfs none "$1/root" && mkdir "$1/root/all" && mount --rbind / "$1/root/all"
mount -t tmpfs -o mode=1777 none "$1/root/all/tmp"
mount -t tmpfs none "$1/root/all/srv" && cp "$2" "$3" "$1/root/all/srv/"
mount -o remount,bind,ro "$1/root/all"
exec "$4" -c "$5" "$1/root/all" "$6"
"""
INSIDE = """
import encodings.idna, http.client, os, subprocess, sys, time
root, user = sys.argv[1], int(sys.argv[2])
output, said = os.pipe()
os.fchown(said, user, user)  # as runc and Kata's agent do
os.chroot(root)
os.chdir("/")
os.setgroups([])
os.setgid(user)
os.setuid(user)
try:
    open("/etc/written", "w")
    sys.exit("the root is not read-only")
except OSError:
    pass
argv = ["/srv/nginx", "-e", "stderr", "-c", "/srv/nginx.conf", "-g", "daemon off;"]
nginx = subprocess.Popen(argv, stdout=said, stderr=said)
for attempt in range(100):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=5)
        connection.request("GET", "/")
        print(connection.getresponse().read().decode(), end="")
        break
    except OSError:
        if nginx.poll() is not None:
            break
        time.sleep(0.05)
nginx.poll() is None and nginx.terminate()
print("ended with", nginx.wait(10))
print(os.read(output, 4096).decode())
"""


def test_nginx_serves_with_the_example_s_configuration_as_its_user_on_a_read_only_root(tmp_path: Path) -> None:
    """Debian's nginx in a private view of this machine; the image's own nginx is not to be had here."""
    program = debian_packages.unpacked("nginx") / "usr/sbin/nginx"
    if subprocess.run([program, "-v"], capture_output=True, check=False).returncode:
        pytest.skip(reason="Debian's nginx does not run here: its libraries are missing")
    (settings,) = examples.documents("nginx.yaml", "ConfigMap")
    (pod,) = [pod for pod in examples.pods("nginx.yaml") if pod.owner["kind"] == "Deployment"]
    (container,) = pod.containers
    assert container["command"] == [
        "nginx", "-e", "stderr", "-c", "/etc/nginx/conf.d/nginx.conf", "-g", "daemon off;"
    ]  # fmt: skip
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"nginx-config": "/etc/nginx/conf.d", "tmp": "/tmp"}
    (tmp_path / "nginx.conf").write_text(settings["data"]["nginx.conf"])
    (tmp_path / "root").mkdir()
    user = str(pod.spec["securityContext"]["runAsUser"])
    places = [str(tmp_path), str(program), str(tmp_path / "nginx.conf"), sys.executable, INSIDE, user]
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", POD, "sh", *places],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, second, *log = done.stdout.splitlines()
    assert first.startswith("nginx in the virtual machine of pod "), done.stdout
    assert second == "ended with 0", done.stdout
    assert any('"GET / HTTP/1.1" 200' in line for line in log), done.stdout
