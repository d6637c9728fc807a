"""The image as it is built here: what is in it, that it is the same twice, and that a real containerd runs it."""

from __future__ import annotations

import json
import platform
import shutil
import struct
import subprocess
import tomllib
from typing import TYPE_CHECKING

import pytest

from hack.imaging import archive, project, tools
from hack.lab.containerd import PrivateContainerd
from hack.lab.lab import Lab

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator
    from pathlib import Path

    from images import Built

pytestmark = pytest.mark.runtime

LIMIT = 120_000_000
SITE = "usr/local/lib/python3.13/dist-packages"
ELF_MACHINES = {"amd64": 62, "arm64": 183}

EVERY_MODULE = """
import agent, importlib, pkgutil, sys
sys.path.append(agent.__path__[0] + "/probes/children")  # as a probe's child has it
names = [m.name for m in pkgutil.walk_packages(agent.__path__, "agent.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
EVERY_EXTENSION = """
import importlib, pathlib, sysconfig
found = []
for folder in (sysconfig.get_path("stdlib") + "/lib-dynload", "/usr/local/lib/python3.13/dist-packages"):
    for path in pathlib.Path(folder).rglob("*.so"):
        found.append(".".join(path.relative_to(folder).parts).split(".cpython")[0].removesuffix(".so").removesuffix(".abi3"))
for name in found:
    importlib.import_module(name)
print(len(found))
"""
AUTHORITIES = "import ssl; print(ssl.create_default_context().cert_store_stats()['x509_ca'])"
REQUIREMENTS = """
from importlib.metadata import distributions
print(*sorted({d.name.lower().replace('_', '-') for d in distributions()}))
"""


@pytest.fixture(scope="module")
def layers(built: Built) -> list[tarfile.TarFile]:
    """The base, and what the image adds."""
    return archive.layers(built.file)


@pytest.fixture(scope="module")
def names(layers: list[tarfile.TarFile]) -> list[str]:
    """Every path that the image adds."""
    return layers[-1].getnames()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def containerd(lab: Lab, built: Built) -> Iterator[PrivateContainerd]:
    """A real containerd 2.1 that has imported the archive."""
    with PrivateContainerd(lab, "2.1") as containerd:
        containerd.import_image(built.file, timeout=120)
        yield containerd


class Pod:
    """Runs programs in the image as the DaemonSet does: read-only, and where asked with the host around it."""

    def __init__(self, lab: Lab, image: str) -> None:
        self.lab = lab
        self.image = image
        self._count = 0

    def run(self, *argv: str, host: bool = False, check: bool = True) -> subprocess.CompletedProcess[str]:
        self._count += 1
        options = ["--rm", "--read-only", "--mount", "type=tmpfs,dst=/tmp"]
        if host:
            options += ["--privileged", "--net-host", "--with-ns", "pid:/proc/1/ns/pid"]
            options += ["--mount", "type=bind,src=/,dst=/host,options=rbind:rw"]
            options += ["--env", "KUBERNETES_SERVICE_HOST=192.0.2.1"]
        return self.lab.run(
            ["ctr", "-n", "k8s.io", "run", *options, self.image, f"pod-{self._count}", *argv],
            check=check,
            timeout=120,
        )

    def python(self, program: str) -> str:
        return self.run("/usr/bin/python3.13", "-sP", "-c", program).stdout.strip()


@pytest.fixture
def pod(lab: Lab, containerd: PrivateContainerd, built: Built) -> Pod:
    return Pod(lab, built.image.name)


def test_the_image_has_the_name_that_the_daemonset_asks_for(built: Built) -> None:
    version = tomllib.loads((project.REPO / "pyproject.toml").read_text())["project"]["version"]
    assert built.image.name == project.image_name(version)


def test_its_labels_and_its_command_say_what_it_is(built: Built) -> None:
    config = built.image.config["config"]
    assert config["Entrypoint"] == ["katanode"]
    assert config["Cmd"] == ["run"]
    assert config["User"] == "0:0"
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["title"] == "katanode"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"] in built.image.name
    assert labels["source"].startswith("https://")


def test_it_adds_one_layer_of_at_most_120_mb_to_its_base(built: Built) -> None:
    print(f"{built.image.added / 1e6:.1f} MB above the base")
    assert len(built.image.layers) == 2
    assert built.image.added <= LIMIT


def test_nothing_is_in_it_that_only_a_build_needs(layers: list[tarfile.TarFile], names: list[str]) -> None:
    every = [name for layer in layers for name in layer.getnames()]
    programs = {name.split("/")[-1] for name in every if name.startswith(("usr/bin/", "usr/local/bin/"))}
    assert not programs & {"pip", "pip3", "gcc", "cc", "g++", "ld", "as", "make", "git"}
    assert "nsenter" in programs
    lists = [name for name in every if name.startswith("var/lib/apt/lists/")]
    assert not [name for name in lists if name.endswith(("Packages", "Release"))]
    assert not [name for name in every if name.endswith((".deb", ".whl"))]
    assert not [name for name in names if name.split("/")[-1] in {"pip", "setuptools", "wheel", "pytest", "mypy"}]
    assert not [name for name in names if name.endswith((".pyi", "_test.py")) or "/tests/" in name]
    assert not [name for name in names if name.startswith("usr/share/") and name.endswith((".gz", ".1", ".html"))]
    assert {name.split("/")[0] for name in names} == {"etc", "usr", "var"}


def test_licences_and_the_lists_that_scanners_read_are_in_it(names: list[str]) -> None:
    assert f"{SITE}/katanode-{_version()}.dist-info/licenses/LICENSE" in names
    assert "usr/share/doc/python3.13-minimal/copyright" in names
    assert "var/lib/dpkg/status.d/python3.13-minimal" in names
    for line in (project.REPO / "image/requirements.lock").read_text().splitlines():
        name, _, version = line.removesuffix(" \\").partition("==")
        if version and name not in _left_out():
            assert _metadata(names, name, version), line


def test_every_module_of_the_daemon_has_its_bytecode_beside_it(layers: list[tarfile.TarFile], names: list[str]) -> None:
    sources = [name for name in names if name.startswith(f"{SITE}/agent/") and name.endswith(".py")]
    assert len(sources) > 50
    for name in sources:
        folder, _, module = name.rpartition("/")
        assert f"{folder}/__pycache__/{module.removesuffix('.py')}.cpython-313.pyc" in names
    file = layers[-1].extractfile(f"{SITE}/agent/__pycache__/cli.cpython-313.pyc")
    assert file is not None
    # Hash-based and not checked (PEP 552): layers set all times anew, which would make every other kind stale.
    assert struct.unpack("<I", file.read(8)[4:])[0] == 0b01


def test_this_machines_access_to_its_package_sources_is_in_no_layer(
    built: Built, layers: list[tarfile.TarFile]
) -> None:
    secrets = {"apt.conf", "pip.conf", "ca.pem"}
    for layer in layers:
        assert not [m.name for m in layer if m.isfile() and m.size and m.name.split("/")[-1] in secrets]
    history = json.dumps(built.image.config)
    assert "PIP_" not in history
    assert "APT_CONFIG" not in history


def test_the_same_inputs_give_the_same_image_twice(built: Built, built_again: Built) -> None:
    assert built_again.image.layers == built.image.layers
    assert built_again.image.digest == built.image.digest
    assert built_again.file.read_bytes() == built.file.read_bytes()


def test_an_image_for_another_architecture_is_that_architectures_throughout(built_for_another: Built) -> None:
    arch = built_for_another.image.config["architecture"]
    assert arch != tools.own_architecture()
    count = 0
    for layer in archive.layers(built_for_another.file):
        for member in layer:
            if not member.isfile() or member.size < 20:
                continue
            file = layer.extractfile(member)
            assert file is not None
            head = file.read(20)
            if head[:4] == b"\x7fELF":
                count += 1
                assert struct.unpack_from("<H", head, 18)[0] == ELF_MACHINES[arch], member.name
    assert count > 300
    assert built_for_another.image.added <= LIMIT


def test_an_image_for_another_architecture_runs_under_emulation(built_for_another: Built, tmp_path: Path) -> None:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}[built_for_another.image.config["architecture"]]
    emulator = shutil.which(f"qemu-{machine}-static")
    if emulator is None:
        pytest.skip(reason=f"qemu-{machine}-static is not here: apt-get install qemu-user-static")
    for layer in archive.layers(built_for_another.file):
        layer.extractall(tmp_path, filter="fully_trusted")
    shutil.copy(emulator, tmp_path / "emulator")
    # In one process: most of the time is the emulator's, for modules that both import.
    argv = ["chroot", str(tmp_path), "/emulator", "/usr/bin/python3.13", "-sP", "-c", EVERY_MODULE + EVERY_EXTENSION]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    modules, extensions = map(int, done.stdout.split())
    assert modules > 50
    assert extensions == _extensions(archive.layers(built_for_another.file)[-1].getnames())


def test_the_command_answers_inside(pod: Pod) -> None:
    assert pod.run("katanode", "--version").stdout.strip() == f"katanode {_version()}"
    assert "nsenter" in pod.run("nsenter", "--version").stdout


def test_every_module_of_the_daemon_imports_inside(pod: Pod) -> None:
    assert int(pod.python(EVERY_MODULE)) > 50


def test_every_extension_module_that_is_in_it_finds_its_libraries(pod: Pod, names: list[str]) -> None:
    assert int(pod.python(EVERY_EXTENSION)) == _extensions(names)


def test_public_certificate_authorities_are_trusted_inside(pod: Pod) -> None:
    assert int(pod.python(AUTHORITIES)) > 100


def test_what_pyproject_asks_for_is_inside(pod: Pod) -> None:
    inside = set(pod.python(REQUIREMENTS).split())
    wanted = tomllib.loads((project.REPO / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {line.split(">")[0].split("=")[0].strip().lower() for line in wanted} <= inside
    assert not {"pip", "setuptools", "wheel"} & inside


def test_a_pod_of_it_looks_at_its_host_through_nsenter(pod: Pod, containerd: PrivateContainerd) -> None:
    done = pod.run("katanode", "check", "--json", host=True, check=False)
    said = json.loads(done.stdout)
    findings = {finding["check"]: finding for finding in said["findings"]}
    # The host's system and not the image's own.
    assert findings["operating system"]["evidence"] == platform.freedesktop_os_release()["PRETTY_NAME"]
    runtime = findings["a container runtime serves CRI"]
    assert runtime["severity"] == "ok"
    assert containerd.binaries.version in runtime["evidence"]
    # The host's containerd was run, in the host's namespaces, to print its configuration.
    assert findings["its configuration can be added to"]["severity"] == "ok"


def test_the_probes_children_run_inside(pod: Pod, lab: Lab) -> None:
    done = pod.run("katanode", "check", "--json", host=True, check=False)
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["frames pass between a pod's veth and a sandbox's tap"]["severity"] == "ok"


def _version() -> str:
    version = tomllib.loads((project.REPO / "pyproject.toml").read_text())["project"]["version"]
    assert isinstance(version, str)
    return version


def _extensions(names: list[str]) -> int:
    """How many compiled modules of Python are among paths."""
    found = [name for name in names if name.endswith(".so") and name.startswith((SITE, "usr/lib/python3.13/"))]
    assert any("grpc" in name for name in found)
    assert any("lib-dynload/_ssl." in name for name in found)
    return len(found)


def _left_out() -> set[str]:
    return set(tomllib.loads((project.REPO / "image/trim.toml").read_text())["distributions"])


def _metadata(names: list[str], name: str, version: str) -> bool:
    """Whether a distribution's metadata is there: its folder spells the name in one of several ways."""
    wanted = f"{name}-{version}".lower().replace("_", "-")
    return any(
        path.endswith(".dist-info/METADATA") and path.split("/")[-2].lower().replace("_", "-") == f"{wanted}.dist-info"
        for path in names
    )
