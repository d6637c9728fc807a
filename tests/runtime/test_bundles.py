"""Bundles of real nodes, well and broken: secrets are planted wherever one can be, and none is in the archive."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest

from agent.cri.daemon import Daemon
from agent.cri.journal import Entry, FileChange, Journal
from hack.lab.containerd import CONFIG, RESTART

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Machine

pytestmark = pytest.mark.runtime

SECRETS = {
    "password": "Zq7-pass/word+1",
    "auth": "Zq7-auth-2",
    "identity": "Zq7-identity-3",
    "header": "Zq7-header-4",
    "mirror": "Zq7-mirror-5",
    "comment": "Zq7-comment-6",
    "lines": "Zq7-later-line-7",
    "import": "Zq7-import-8",
    "variable": "Zq7-variable-9",
    "command": "Zq7-command-10",
    "proxy": "Zq7-proxy-11",
    "journal": "Zq7-journal-12",
    "log": "Zq7-log-13",
    "kernel": "Zq7-kernel-14",
    "argument": "Zq7-argument-15",
    "hosts": "Zq7-hosts-16",
    "network": "Zq7-network-17",
    "settings": "Zq7-settings-18",
    "tls": "Zq7-private-key-19",
    "broken": "Zq7-broken-20",
}


def cri(machine: Machine) -> str:
    """The table of CRI's registries in the machine's own schema, up to its last quote."""
    newest = machine.config.find(b"version = 3") >= 0
    return 'plugins."io.containerd.cri.v1.images"' if newest else 'plugins."io.containerd.grpc.v1.cri"'


def registries(machine: Machine) -> str:
    """What an administrator might have written below the rest of containerd's configuration."""
    auth = base64.b64encode(f"robot:{SECRETS['auth']}".encode()).decode()
    table = cri(machine)
    return f"""
# [{table}.registry.configs."old.example.com".auth]
#   password = "{SECRETS["comment"]}"
[{table}.registry.mirrors."docker.io"]
  endpoint = ["https://robot:{SECRETS["mirror"]}@mirror.example.com"]
[{table}.registry.configs."a.example.com".auth]
  username = "robot"
  password = "{SECRETS["password"]}"
[{table}.registry.configs."b.example.com".auth]
  auth = "{auth}"
[{table}.registry.configs."c.example.com".auth]
  identitytoken = '''
{SECRETS["identity"]}'''
[{table}.registry.headers]
  X-Custom = [
    "first",
    "{SECRETS["header"]}",
  ]
[stream_processors."x.example.com"]
  accepts = ["application/x"]
  returns = "application/y"
  path = "/bin/true"
  args = ["--key-token", \"\"\"
{SECRETS["lines"]}\"\"\"]
  env = ["SMTP_LOGIN={SECRETS["variable"]}"]
"""


STAND_IN = """#!/bin/sh
# A stand-in for {name}: the lab has none of its own.
cat <<'END'
{text}
END
"""


def plant(machine: Machine, said: str = "nothing") -> None:
    """Puts the secrets where they would be found, but for those of containerd's own file.

    Args:
        machine: the node.
        said: a line of Kata's log that nothing marks as a secret's: only what the configuration holds tells it.
    """
    escaped = json.dumps(json.dumps({"auths": {"x": {"auth": SECRETS["log"]}}}))
    key = f"-----BEGIN RSA PRIVATE KEY-----\nMII{SECRETS['tls']}\n-----END RSA PRIVATE KEY-----"
    lines = f"kata[1]: level=info msg={escaped}\nkata[1]: said {said}\n{key}"
    kernel = f"[1] kvm: Command line: agent.token={SECRETS['kernel']}\n[2] nothing"
    for name, text in (("journalctl", lines), ("dmesg", kernel)):
        machine.write(f"/usr/local/bin/{name}", STAND_IN.format(name=name, text=text))
        machine.path(f"/usr/local/bin/{name}").chmod(0o755)
    hosts = f'[host."https://h.example.com".header]\n  Authorization = "Basic {SECRETS["hosts"]}"\n'
    machine.write("/etc/containerd/certs.d/h.example.com/hosts.toml", hosts)
    machine.write("/etc/cni/net.d/99-secret.conf.d/x", f"token: {SECRETS['network']}")
    machine.settings(
        runtime=f"# the settings' password: {SECRETS['settings']}\nquiet_timeout_seconds = 0\n",
        more=f'[handlers.kata-clh.hypervisor.clh]\nkernel_params = "a.proxy=http://u:{SECRETS["proxy"]}@p.example.com"\n',
    )
    text = machine.path("/etc/katanode/katanode.toml").read_text()
    command = f'restart_command = ["{RESTART}"]'
    assert command in text
    secret = f'restart_command = ["env", "LAB_TOKEN={SECRETS["command"]}", "{RESTART}"]'
    machine.write_settings(text.replace(command, secret))


def interrupt(machine: Machine) -> None:
    """Leaves a change in the middle, whose journal holds whole files."""
    before = f'[auth]\npassword = "{SECRETS["journal"]}"\n'.encode()
    daemon = Daemon("/run/containerd/containerd.sock", 1, "/usr/local/bin/containerd", CONFIG, "", "", "2.1.9")
    Journal(machine.path("/var/lib/katanode/journal.json")).write(
        Entry(daemon, (FileChange("/etc/x.toml", before, None),), (), (), {})
    )


def bundle(machine: Machine, tmp_path: Path, *arguments: str) -> Path:
    """Makes a bundle as one would from afar; gives the folder that plain tar makes of it."""
    with machine.popen("bundle", "--output", "-", *arguments, stdout=subprocess.PIPE) as process:
        data, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    subprocess.run(["tar", "-xzf", "-", "-C", tmp_path], input=data, check=True)
    (folder,) = tmp_path.iterdir()
    every = b"\0".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    every += "\0".join(str(path) for path in folder.rglob("*")).encode()
    for name, secret in SECRETS.items():
        robot = base64.b64encode(f"robot:{secret}".encode()).decode()
        plain = base64.b64encode(secret.encode()).decode().rstrip("=")
        for form in (secret, urllib.parse.quote(secret, safe=""), json.dumps(secret)[1:-1], robot, plain):
            assert form.encode() not in every, name
    assert b"[masked]" in every
    index = (folder / "INDEX.txt").read_text()
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in files if f"  {name}" in index} == files
    return folder


def parsed(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def by_name(report: Any) -> dict[str, bool]:
    return {handler["name"]: handler["ready"] for handler in report["handlers"]}


@pytest.mark.parametrize(("name", "where"), [("1.7", "in a pod"), ("2.1", "on the host")])
def test_a_node_that_serves_is_in_it_whole_and_without_its_secrets(
    start_machine: Callable[..., Machine], tmp_path: Path, name: str, where: str
) -> None:
    machine = start_machine(name)
    plant(machine, f"{SECRETS['password']} and {SECRETS['import']}")
    imported = '[proxy_plugins.x]\n  type = "snapshot"\n  address = "/run/x.sock"\n'
    machine.write("/etc/containerd/more/x.toml", f"{imported}# the token: {SECRETS['import']}\n")
    plain = machine.config.decode()
    assert plain.count("\nversion = ") == 1
    imports = plain.replace("\nversion = ", '\nimports = ["/etc/containerd/more/*.toml"]\nversion = ')
    machine.config = (imports + registries(machine)).encode()
    machine.containerd.restart()
    machine.katanode("apply")
    sandbox = machine.run_pod("kata-clh", name="seen")
    interrupt(machine)
    seen: tuple[str, ...] = ()
    if where == "in a pod":
        machine.lab.run(["sh", "-c", "mkdir -p /run/pod/host && mount --rbind / /run/pod/host"])
        seen = ("--root", "/run/pod/host", "--settings", "/etc/katanode/katanode.toml")
    argument = machine.lab.popen(["sh", "-c", f"exec -a kata-x sleep 100 # --token {SECRETS['argument']}"])
    try:
        before = machine.stamps()
        folder = bundle(machine, tmp_path, *seen)
        assert machine.stamps() == before, "to make it changes nothing"
    finally:
        argument.kill()
        argument.wait()

    report = parsed(folder, "report.json")
    assert by_name(report)["kata-clh"]
    assert parsed(folder, "status.json")["details"]["interrupted"]
    assert "steps" in parsed(folder, "plan.json")
    config = (folder / f"containerd{CONFIG}").read_text()
    assert len(config.splitlines()) == len(machine.config.decode().splitlines())
    assert 'root = "/var/lib/containerd"' in config.replace("'", '"')
    assert 'endpoint = ["https://[masked]@mirror.example.com"]' in config
    assert "proxy_plugins" in (folder / "containerd/etc/containerd/more/x.toml").read_text()
    assert parsed(folder, "containerd/handlers.json")["runtimes"]["kata-clh"]["runtime_type"] == "io.containerd.kata.v2"
    assert "kata-clh" in parsed(folder, "containerd/cri.json")["handlers"]
    assert parsed(folder, "katanode/journal.json")["files"][0]["before"] == ["[auth]", 'password = "[masked]"', ""]
    assert parsed(folder, "katanode/state.json")["release"].startswith("3.2.0-")
    rendered = (folder / f"kata/kata-clh/{parsed(folder, 'katanode/state.json')['release']}").rglob("*.toml")
    assert any("http://[masked]@p.example.com" in path.read_text() for path in rendered)
    assert "LAB_TOKEN" not in (folder / "settings.toml").read_text()
    assert [box["name"] for box in parsed(folder, "sandboxes/cri.json")["kata"]] == ["seen"]
    assert sandbox in (folder / "sandboxes/processes.txt").read_text()
    assert sandbox in (folder / "sandboxes/folders.txt").read_text()
    assert "kata[1]: said [masked] and [masked]" in (folder / "logs/kata.txt").read_text()
    assert (folder / "logs/kernel.txt").read_text() == "[1] kvm: Command line: agent.token=[masked]\n"
    has_the_machine(folder, name)


def has_the_machine(folder: Path, name: str) -> None:
    versions = parsed(folder, "node/versions.json")
    assert versions["containerd"]["version"].lstrip("v").startswith(name)
    assert versions["runc"].startswith("runc version")
    for file in ("modules", "sysctls", "meminfo", "cpu", "mounts", "space"):
        assert (folder / f"node/{file}.txt").stat().st_size > 50, file
    assert "10-lab.conflist" in (folder / "node/cni.txt").read_text()
    assert "hosts.toml" in (folder / "containerd/folder.txt").read_text()
    assert "no systemd unit runs the container runtime" in (folder / "INDEX.txt").read_text()


def test_a_plain_node_has_one_too_and_the_list_is_what_is_in_it(
    start_machine: Callable[..., Machine], tmp_path: Path
) -> None:
    machine = start_machine("2.1")
    listed = machine.json("bundle", "--list")
    assert not list(machine.path("/root").glob("katanode-bundle-*"))
    plant(machine)
    done = machine.lab.run(["sh", "-c", "umask 0; cd /root && exec katanode bundle"], check=False, env=path_of(machine))
    assert done.returncode == 0, done.stderr
    (written,) = machine.path("/root").glob("katanode-bundle-*.tar.gz")
    assert f"{written.name}: " in done.stderr
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    subprocess.run(["tar", "-xf", written, "-C", tmp_path], check=True)
    (folder,) = tmp_path.iterdir()
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    came = {"settings.toml", "logs/kata.txt"}  # what was planted since
    assert files - came == {file["name"] for file in listed["files"]} - came
    assert parsed(folder, "report.json")["state"] in {"absent", "blocked"}
    assert not machine.path("/var/lib/katanode").exists(), "to look leaves nothing behind"


def path_of(machine: Machine) -> dict[str, str]:
    from conftest import KATANODE  # noqa: PLC0415

    return {**machine.environment, "PATH": f"{KATANODE.parent}:{os.environ['PATH']}"}


def test_a_broken_configuration_a_dead_daemon_and_wrong_settings_are_in_it(
    start_machine: Callable[..., Machine], tmp_path: Path
) -> None:
    machine = start_machine("2.1")
    plant(machine)
    machine.katanode("apply")
    broken = f'\n[{cri(machine)}.registry.configs."a".auth]\n  password = "unclosed\n{SECRETS["broken"]}"\nroot = [\n'
    machine.config = machine.config + broken.encode() + registries(machine).encode()
    machine.containerd.kill9()
    machine.write("/etc/katanode/katanode.toml", f'[kata]\nverzion = "{SECRETS["settings"]}"  # token\n')
    machine.write("/var/lib/katanode/state.json", f'{{"token": "{SECRETS["command"]}"')
    folder = bundle(machine, tmp_path)
    index = (folder / "INDEX.txt").read_text()
    assert "kata.verzion" in index
    assert "/run/containerd/containerd.sock" in index
    assert "state.json is damaged" in index
    assert "KVM runs guest instructions" in [finding["check"] for finding in parsed(folder, "probes.json")]
    config = (folder / f"containerd{CONFIG}").read_text()
    assert len(config.split("\n")) == len(machine.config.decode().split("\n"))
    assert 'default_runtime_name = "runc"' in config.replace("'", '"')
    assert "containerd/handlers.json: containerd refuses /etc/containerd/config.toml" in index
    assert (folder / "kata/kata-clh").is_dir()
    assert "katanode.toml" in (folder / "containerd/folder.txt").read_text()
