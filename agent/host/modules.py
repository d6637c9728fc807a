"""Kernel modules: which the node has, which Kata wants, and loading them."""

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from agent.errors import KatanodeError
from agent.host.files import read_if_there
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.reasons import Reason

LOAD_FILE = "/etc/modules-load.d/katanode.conf"
"""What systemd-modules-load reads at boot (modules-load.d(5))."""

_FOLDERS = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")
_MODULE_FILE = re.compile(r"(?P<name>[^/]+)\.ko(\.(gz|xz|zst))?$")
_INDEX_LIMIT = 16 << 20  # modules.dep of a distribution's full kernel has about 1 MB
_LOAD_TIMEOUT = 30.0

_VENDOR_MODULES = {
    "GenuineIntel": "kvm_intel",
    "CentaurHauls": "kvm_intel",
    "Shanghai": "kvm_intel",
    "AuthenticAMD": "kvm_amd",
    "HygonGenuine": "kvm_amd",
}
"""CPU vendor of /proc/cpuinfo to the module that drives its virtualization (arch/x86/kvm/{vmx,svm})."""

_DEVICES = {"kvm": "kvm", "tun": "tun", "vhost-net": "vhost_net", "vhost-vsock": "vhost_vsock"}
"""Name in /proc/misc to module: a driver that is built in shows there even where it has no folder in /sys/module."""


class ModuleState(StrEnum):
    """How a node has a module."""

    LOADED = "loaded"
    BUILT_IN = "built in"
    AVAILABLE = "available"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Barrier:
    """A line that keeps a module out.

    Attributes:
        where: the line and its place.
        hard: modprobe by name is refused too; a mere `blacklist` only stops loading by alias and at boot.
    """

    where: str
    hard: bool


@dataclass(frozen=True, slots=True)
class ModuleFacts:
    """The node's modules; names with `_`.

    Attributes:
        release: of the running kernel, `uname -r`.
        vendor: `vendor_id` of /proc/cpuinfo; empty where there is none (arm64).
        loaded: loadable modules in memory.
        built_in: parts of the kernel image.
        available: modules on disk for this kernel.
        barriers: module to the line that keeps it out.
        kvm_served: some driver serves /dev/kvm at present.
    """

    release: str
    vendor: str
    loaded: frozenset[str] = frozenset()
    built_in: frozenset[str] = frozenset()
    available: frozenset[str] = frozenset()
    barriers: Mapping[str, Barrier] = field(default_factory=dict)
    kvm_served: bool = False

    def state(self, name: str) -> ModuleState:
        """How the node has module `name`, written with `-` or `_`."""
        name = canonical(name)
        if name in self.loaded:
            return ModuleState.LOADED
        if name in self.built_in:
            return ModuleState.BUILT_IN
        return ModuleState.AVAILABLE if name in self.available else ModuleState.MISSING


def canonical(name: str) -> str:
    """A module's name as the kernel spells it: `-` and `_` are the same (modprobe(8))."""
    return name.replace("-", "_")


def wanted_modules(vendor: str) -> tuple[str, ...]:
    """What Kata uses, in the order of loading.

    Args:
        vendor: `vendor_id` of /proc/cpuinfo. Where it is empty or unknown (arm64, whose KVM is always built in), KVM's
            own modules are not asked for.
    """
    driver = _VENDOR_MODULES.get(vendor)
    return (*(("kvm", driver) if driver else ()), "vhost_net", "vhost_vsock", "tun")


def persistent(facts: ModuleFacts) -> tuple[str, ...]:
    """Those of the wanted modules that are loadable on this machine: what has to be named for the next boot."""
    return tuple(
        name
        for name in wanted_modules(facts.vendor)
        if facts.state(name) in {ModuleState.LOADED, ModuleState.AVAILABLE} and not _served_otherwise(name, facts)
    )


def to_load(facts: ModuleFacts) -> tuple[str, ...]:
    """Those that are on disk and not yet in memory."""
    return tuple(name for name in persistent(facts) if facts.state(name) is ModuleState.AVAILABLE)


def absent(facts: ModuleFacts) -> tuple[str, ...]:
    """Wanted modules that this kernel does not have at all; the functional probes say what follows from it."""
    return tuple(
        name
        for name in wanted_modules(facts.vendor)
        if facts.state(name) is ModuleState.MISSING and not _served_otherwise(name, facts)
    )


def _served_otherwise(name: str, facts: ModuleFacts) -> bool:
    """Whether /dev/kvm has another driver (kvm_pvm, or one built in unseen): the kernel refuses a second one."""
    return (
        facts.kvm_served
        and name in _VENDOR_MODULES.values()
        and facts.state(name) not in {ModuleState.LOADED, ModuleState.BUILT_IN}
    )


def desired_file(facts: ModuleFacts, *, refused: Iterable[str] = ()) -> bytes:
    """The content of `LOAD_FILE`; empty when nothing needs to be loaded at boot, so that no file is needed.

    Args:
        facts: the node's modules.
        refused: modules that did not load: naming them would leave systemd-modules-load failed at each boot.
    """
    out = {canonical(name) for name in refused}
    names = [name for name in persistent(facts) if name not in out]
    if not names:
        return b""
    return "".join(f"{line}\n" for line in ("# katanode: kernel modules of Kata Containers", *names)).encode()


def survey(root: HostRoot) -> ModuleFacts:
    """Reads what the node's kernel has.

    Raises:
        KatanodeError: `FILE_READ_FAILED` when something stands in the place of a file and cannot be read.
    """
    # A small bound: for a sysctl the kernel allocates as much as is asked for, and gives ENOMEM above 4 MiB.
    release = _text(root("/proc/sys/kernel/osrelease"), 4096).strip()
    loaded = {line.split()[0] for line in _text(root("/proc/modules")).splitlines() if line.strip()}
    # /proc/misc: minor and name of each registered device.
    devices = {words[-1] for line in _text(root("/proc/misc")).splitlines() if (words := line.split())}
    built_in = {module for name, module in _DEVICES.items() if name in devices}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        # A built-in part has a folder here when it has parameters; `initstate` is only in a loadable module's folder.
        for folder in root("/sys/module").iterdir():
            (loaded if (folder / "initstate").exists() else built_in).add(folder.name)
    available: set[str] = set()
    if release:
        base = root(f"/lib/modules/{release}")
        built_in |= set(_built_in(base))
        available = set(_available(base))
    loaded, built_in, available = ({canonical(n) for n in names} for names in (loaded, built_in, available))
    return ModuleFacts(
        release,
        cpu_field(root, "vendor_id"),
        frozenset(loaded),
        frozenset(built_in - loaded),
        frozenset(available),
        _barriers(root),
        kvm_served="kvm" in devices,
    )


def cpu_field(root: HostRoot, name: str) -> str:
    """The first CPU's value of a field of /proc/cpuinfo; empty when there is none."""
    with contextlib.suppress(OSError), open(root("/proc/cpuinfo"), encoding="utf-8", errors="replace") as lines:
        # Line by line up to the first CPU's end: with hundreds of CPUs the kernel takes long to write the whole.
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
            if not line.strip():
                break
    return ""


def _built_in(base: Path) -> Iterator[str]:
    for line in _text(base / "modules.builtin").splitlines():
        if match := _MODULE_FILE.search(line.strip()):
            yield match["name"]
    # NUL-separated `module.key=value` (Documentation/kbuild/kbuild.rst): knows what has no .ko line above.
    for record in _text(base / "modules.builtin.modinfo").split("\0"):
        if "." in record.partition("=")[0]:
            yield record.partition(".")[0]


def _available(base: Path) -> Iterator[str]:
    index = _text(base / "modules.dep")
    if index:
        paths: Iterable[str] = (line.partition(":")[0] for line in index.splitlines())
    else:  # depmod never ran: the files are there all the same
        paths = (name for _, _, names in os.walk(base) for name in names)
    for path in paths:
        if match := _MODULE_FILE.search(path):
            yield match["name"]


def _barriers(root: HostRoot) -> dict[str, Barrier]:
    found: dict[str, Barrier] = {}
    seen: set[Path] = set()
    for folder in _FOLDERS:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for path in sorted(root(folder).glob("*.conf")):
                if path in seen:  # /lib is /usr/lib nowadays
                    continue
                seen.add(path)
                for line in _text(root(f"{folder}/{path.name}")).splitlines():
                    match line.split():
                        case ["blacklist", name]:
                            found.setdefault(
                                canonical(name), Barrier(f"{line.strip()} in {folder}/{path.name}", hard=False)
                            )
                        case ["install", name, program, *_] if Path(program).name in {"true", "false"}:
                            found[canonical(name)] = Barrier(f"{line.strip()} in {folder}/{path.name}", hard=True)
    for word in _text(root("/proc/cmdline")).split():
        key, _, value = word.partition("=")
        if key in {"module_blacklist", "modprobe.blacklist"}:
            for name in value.split(","):
                found[canonical(name)] = Barrier(f"{word} on the kernel's command line", hard=key == "module_blacklist")
    return found


def _text(path: Path, limit: int = _INDEX_LIMIT) -> str:
    return (read_if_there(path, limit) or b"").decode("utf-8", "replace")


def load(root: HostRoot, runner: Runner, name: str) -> None:
    """Loads a module with all that it depends on; one that is in memory already is left as it is.

    Raises:
        KatanodeError: `MODULE_LOAD_FAILED`, with modprobe's words and the kernel's lines that name the module.
    """
    try:
        runner.run(["modprobe", name], timeout=_LOAD_TIMEOUT, reason=Reason.MODULE_LOAD_FAILED)
    except KatanodeError as error:
        lines = kernel_lines(root, about(name), last=5)
        evidence = "\n".join((error.evidence, *(f"kernel: {line}" for line in lines)))
        raise KatanodeError(
            Reason.MODULE_LOAD_FAILED, f"kernel module {name} does not load: {error.message}", evidence=evidence
        ) from error


def about(name: str) -> re.Pattern[str]:
    """What finds a module's lines in the kernel's log; a vendor's KVM module also speaks as `kvm:` or `kvm [PID]:`."""
    spelled = canonical(name).replace("_", "[-_]")
    return re.compile(rf"^kvm( \[\d+\])?:|\b{spelled}\b" if name.startswith("kvm_") else rf"\b{spelled}\b")


def kernel_lines(root: HostRoot, pattern: re.Pattern[str], *, last: int, seconds: float = 0.3) -> list[str]:
    """The last lines of the kernel's log that a pattern finds; none where the log may not be read.

    Args:
        root: the host.
        pattern: searched for in each line.
        last: how many at most.
        seconds: bound for the reading; a log that grows meanwhile does not keep it longer.
    """
    found: list[str] = []
    deadline = time.monotonic() + seconds
    try:
        # Non-blocking: at its end /dev/kmsg (Documentation/ABI/testing/dev-kmsg) waits for the next line otherwise.
        fd = os.open(root("/dev/kmsg"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, KatanodeError):
        return found
    try:
        while time.monotonic() < deadline:
            try:
                record = os.read(fd, 8192)  # one record a read, and EINVAL when it does not fit
            except BrokenPipeError:  # overwritten meanwhile: the next read goes on behind it
                continue
            if not record:
                break
            for line in record.decode("utf-8", "replace").splitlines():
                message = line.partition(";")[2]
                if message and pattern.search(message):
                    found.append(message)
    except OSError:
        pass  # EAGAIN: all read
    finally:
        os.close(fd)
    return found[-last:]
