"""The last words of the container runtime, of Kata and of the kernel."""

import re
from collections.abc import Iterator, Sequence

from agent.bundle.gather import words
from agent.bundle.masking import text_piece
from agent.bundle.piece import PIECE_LIMIT, Failure, Piece
from agent.bundle.scene import Scene
from agent.errors import KatanodeError
from agent.host.modules import kernel_lines

_LINES = 2000
"""Of one log. journald's lines have 48 kB at most, so that even these fit into the memory of the agent's pod."""
_TIMEOUT = 20.0
_KATA = ("kata", "kata-runtime", "containerd-shim-kata-v2", "virtiofsd", "cloud-hypervisor")
"""By what name Kata's parts speak to syslog; the Go shim as `kata`, whatever its program."""
_PROGRAMS = ("containerd-shim", "virtiofsd", "cloud-hyperviso", "qemu-system-x86", "qemu-system-aar", "firecracker")
"""Names of their processes, which the kernel cuts at 15 letters (proc_pid_comm(5))."""
_KERNEL = re.compile(
    r"\b(?:kvm|svm|vmx|vhost|vsock|tun|tap\d*|virtio|iommu|dmar|amd-vi|sev|tdx|cgroup)\b|kvm_|vhost_|vsock_"
    r"|out of memory|oom[-_ ]|killed process|hung_task|blocked for more than|soft lockup|segfault"
    r"|cloud-hyperviso|qemu-system|virtiofsd|firecracker|containerd",
    re.IGNORECASE,
)


def runtime_log(scene: Scene) -> Iterator[Piece | Failure]:
    """What containerd's unit logged."""
    name = "logs/containerd.txt"
    if scene.daemon is None:
        yield Failure(name, "there is no container runtime")
    elif not scene.daemon.unit:
        yield Failure(name, "no systemd unit runs the container runtime: its log is where who started it put it")
    else:
        yield from _journal(scene, name, ("--unit", scene.daemon.unit))


def kata_log(scene: Scene) -> Iterator[Piece | Failure]:
    """What Kata's shims, hypervisors and file system daemons logged."""
    matches = [*(f"SYSLOG_IDENTIFIER={name}" for name in _KATA)]
    for program in _PROGRAMS:
        matches += ["+", f"_COMM={program}"]
    yield from _journal(scene, "logs/kata.txt", matches)


def _journal(scene: Scene, name: str, what: Sequence[str]) -> Iterator[Piece | Failure]:
    asked = ("journalctl", "--no-pager", "--quiet", "--utc", "--output=short-iso", f"--lines={_LINES}", *what)
    said = scene.runner.run(asked, timeout=_TIMEOUT).stdout.decode("utf-8", "replace")
    if not said.strip():
        yield Failure(name, "the journal has no such line")
        return
    note = "" if said.count("\n") < _LINES else f"the last {_LINES} lines"
    yield _log(name, said, note)


def _log(name: str, said: str, note: str) -> Piece:
    """A log as a piece; of a very long one no more is masked than can be kept, which takes a second per megabyte."""
    gone = max(0, len(said) - PIECE_LIMIT)
    if gone:
        said = f"[cut: what was before is left out]\n{said[gone:].partition(chr(10))[2]}"
        note = "; ".join(filter(None, (note, "cut: what was before is left out")))
    return text_piece(name, said, keep="end", note=note)


def kernel_log(scene: Scene) -> Iterator[Piece | Failure]:
    """The kernel's lines on KVM, vhost, memory and Kata's programs."""
    name = "logs/kernel.txt"
    try:
        said = scene.runner.run(("dmesg", "-T"), timeout=_TIMEOUT).stdout.decode("utf-8", "replace")
        lines, note = [line for line in said.splitlines() if _KERNEL.search(line)], ""
    except KatanodeError as error:
        lines = kernel_lines(scene.root, _KERNEL, last=_LINES, seconds=2.0)
        note = "without times"
        if not lines:
            yield Failure(name, words(error))
            return
    text = "".join(f"{line}\n" for line in lines[-_LINES:])
    yield _log(name, text, note if lines else "no line on KVM, vhost or memory")
