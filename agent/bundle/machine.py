"""The machine: versions, modules, kernel parameters, memory, CPU, mounts, and the names of the network's files."""

import os
import platform
import re
import time
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from agent import __version__
from agent.bundle.masking import json_piece, text_piece
from agent.bundle.piece import Failure, Piece, human
from agent.bundle.reading import head, listed
from agent.bundle.scene import Scene
from agent.errors import KatanodeError
from agent.host import modules
from agent.host.sysctl import Sysctls
from agent.kata import releases
from agent.probes.machine import survey_machine, text

_TIMEOUT = 10.0
_PACKAGES = ("grpcio", "protobuf", "kubernetes", "pyroute2", "prometheus-client", "tomlkit", "zstandard")
_SYSCTLS = (
    "fs.file-max",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "kernel.pid_max",
    "kernel.threads-max",
    "net.core.somaxconn",
    "net.ipv4.ip_forward",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv6.conf.all.forwarding",
    "vm.max_map_count",
    "vm.nr_hugepages",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "vm.swappiness",
)
_FLAGS = re.compile(
    r"^(?:vmx|svm|hypervisor|ept|vpid|npt|nrip_save|lm|sse4_1|sse4_2|avx2?|avx512f|smep|smap|umip|pku|la57|x2apic"
    r"|invpcid|pdpe1gb|constant_tsc|nonstop_tsc|tsc_deadline_timer|sev|sev_es|sev_snp|tdx_guest|tdx_host_platform"
    r"|atomics|asimd|sve|pmull)$"
)
"""CPU flags that Kata's hypervisors look at or that tell one machine's guests from another's."""
_PODS = re.compile(r"^/(?:var/lib/kubelet/pods|run/containerd|run/netns|run/k3s|run/kata-containers|var/lib/docker)/")
_CNI = ("/etc/cni/net.d", "/var/lib/rancher/k3s/agent/etc/cni/net.d", "/opt/cni/bin")
_SPACE = ("/", "/opt", "/var", "/var/lib/containerd", "/run", "/dev/shm")


def versions(scene: Scene) -> Iterator[Piece | Failure]:
    """Versions of all that takes part."""
    root, daemon = scene.root, scene.daemon
    tree = {
        "katanode": __version__,
        "python": platform.python_version(),
        "packages": {name: _package(name) for name in _PACKAGES},
        "kernel": f"{platform.release()} {platform.version()}",
        "machine": platform.machine(),
        "system": _system(scene),
        "up_for_seconds": (text(root, "/proc/uptime") or "?").split()[0],
        "now": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "containerd": {
            "version": daemon.version if daemon else "",
            "trouble": scene.trouble,
            "program": _said(scene, daemon.exe, "--version") if daemon else "",
            "path": daemon.exe if daemon else "",
            "process": daemon.pid if daemon else 0,
            "unit": daemon.unit if daemon else "",
            "configuration": daemon.config_path if daemon else "",
        },
        "runc": _said(scene, "runc", "--version"),
        "kata": [release.id for release in releases.installed(root)],
    }
    yield json_piece("node/versions.json", tree)


def _package(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _system(scene: Scene) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', text(scene.root, "/etc/os-release"), re.MULTILINE)
    return found[1] if found else ""


def _said(scene: Scene, *argv: str) -> str:
    try:
        done = scene.runner.run(argv, timeout=_TIMEOUT, check=False)
    except KatanodeError as error:
        return error.message
    return (done.stdout or done.stderr).decode("utf-8", "replace").strip()[:500]


def kernel_modules(scene: Scene) -> Iterator[Piece | Failure]:
    """Kata's modules with their parameters, and what is loaded."""
    facts = modules.survey(scene.root)
    wanted = modules.wanted_modules(facts.vendor)
    lines = [f"{name}: {facts.state(name)}" for name in wanted]
    for name in wanted:
        folder = f"/sys/module/{name}/parameters"
        lines += [f"{name}.{item} = {text(scene.root, f'{folder}/{item}')}" for item in _names(scene, folder)]
    lines.append("\nname size used by")
    # The last column is where it is in the kernel's memory, which is nobody's business.
    lines += [" ".join(line.split()[:4]) for line in text(scene.root, "/proc/modules").splitlines()]
    yield text_piece("node/modules.txt", "\n".join(lines) + "\n")


def kernel_parameters(scene: Scene) -> Iterator[Piece | Failure]:
    """The sysctls that katanode raises, and others that sandboxes depend on."""
    sysctls = Sysctls(scene.root, scene.runner)
    lines = []
    for key in sorted({*_SYSCTLS, *scene.node.settings.node.sysctl}):
        try:
            value = sysctls.read(key)
        except KatanodeError as error:
            lines.append(f"{key}: {error.message}")
        else:
            lines.append(f"{key}: not there" if value is None else f"{key} = {value}")
    yield text_piece("node/sysctls.txt", "\n".join(lines) + "\n")


def memory_and_cpu(scene: Scene) -> Iterator[Piece | Failure]:
    """/proc/meminfo as it is, and what /proc/cpuinfo says of one CPU."""
    root = scene.root
    yield text_piece("node/meminfo.txt", text(root, "/proc/meminfo") + "\n")
    machine = survey_machine(root)
    said = text(root, "/proc/cpuinfo")
    cpu = dict(re.findall(r"^([^\t:]+?)\s*:[ \t]*(.*)$", said.partition("\n\n")[0], re.MULTILINE))
    flags = (cpu.get("flags") or cpu.get("Features") or "").split()
    lines = [
        f"{machine.words}{f'; {machine.firmware_lock}' if machine.firmware_lock else ''}",
        f"CPUs: {os.cpu_count()}",
        *(f"{name}: {cpu[name]}" for name in ("vendor_id", "model name", "microcode", "bugs") if name in cpu),
        f"flags: {' '.join(flag for flag in flags if _FLAGS.match(flag))} (of {len(flags)})",
        *(f"pressure of {name}:\n{text(root, f'/proc/pressure/{name}')}" for name in ("cpu", "memory", "io")),
    ]
    yield text_piece("node/cpu.txt", "\n".join(lines) + "\n")


def mounts(scene: Scene) -> Iterator[Piece | Failure]:
    """The host's mounts without those of pods, which are counted, and the space on those that matter."""
    try:
        said = head(_host_proc(scene) / "mounts")[0].decode("utf-8", "replace").splitlines()
    except OSError as error:
        yield Failure("node/mounts.txt", str(error.strerror or error))
        return
    rows = [line.split() for line in said]
    own = [row for row in rows if len(row) >= 4 and not _PODS.match(row[1])]
    pods = Counter(row[2] for row in rows if len(row) >= 4 and _PODS.match(row[1]))
    lines = [f"{row[1]} {row[2]} {row[0]} {row[3][:200]}" for row in own]
    lines += [
        "",
        f"of pods and sandboxes: {', '.join(f'{count} {kind}' for kind, count in pods.items()) or 'none'}",
        "",
    ]
    yield text_piece("node/mounts.txt", "\n".join(lines))
    # After the rest: a dead server's file system may never answer.
    space = []
    for path in _SPACE:
        try:
            status = os.statvfs(scene.root(path))
        except (OSError, KatanodeError) as error:
            space.append(f"{path}: {getattr(error, 'strerror', None) or error}")
            continue
        free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
        space.append(f"{path}: {human(free)} free of {human(size)}, {status.f_favail} of {status.f_files} inodes")
    yield text_piece("node/space.txt", "\n".join(space) + "\n")


def network_files(scene: Scene) -> Iterator[Piece | Failure]:
    """What stands in the folders of the pod network, without its content."""
    there = [folder for folder in _CNI if scene.root(folder).is_dir()]
    lines = [line for folder in there for line in (folder, *listed(scene.root, folder, depth=1))]
    yield text_piece("node/cni.txt", "\n".join(lines or ["none of " + ", ".join(_CNI)]) + "\n")


def _host_proc(scene: Scene) -> Path:
    """Process 1 sees the host's mounts, in a pod too, where the agent has hostPID."""
    return Path("/proc/self" if scene.root.is_own else "/proc/1")


def _names(scene: Scene, folder: str) -> list[str]:
    try:
        return sorted(os.listdir(scene.root(folder)))
    except (OSError, KatanodeError):
        return []
