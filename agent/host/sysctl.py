"""Kernel parameters: raised to what Kata nodes want, never lowered, and set back by the uninstall."""

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agent.errors import KatanodeError
from agent.host.files import read_if_there
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.reasons import Reason

SYSCTL_FILE = "/etc/sysctl.d/99-katanode.conf"
"""What systemd-sysctl reads at boot (sysctl.d(5))."""

_FOLDERS = ("/usr/lib/sysctl.d", "/usr/local/lib/sysctl.d", "/run/sysctl.d", "/etc/sysctl.d")
_TIMEOUT = 10.0
_ASSIGNMENT = re.compile(r"^\s*-?\s*(?P<key>[\w./-]+)\s*=\s*(?P<value>-?\d+)\s*$")


@dataclass(frozen=True, slots=True)
class SysctlPlan:
    """What is to be done.

    Attributes:
        raises: key to the value that it gets.
        unknown: wanted keys that this kernel does not have, or whose value is no single number.
    """

    raises: Mapping[str, int]
    unknown: tuple[str, ...]


def plan(now: Mapping[str, int | None], wanted: Mapping[str, int]) -> SysctlPlan:
    """Compares the node's values with the least ones wanted.

    Args:
        now: as `Sysctls.read_all` gives them.
        wanted: key to its least value.
    """
    raises = {}
    unknown = []
    for key, value in wanted.items():
        have = now.get(key)
        if have is None:
            unknown.append(key)
        elif have < value:
            raises[key] = value
    return SysctlPlan(raises, tuple(unknown))


def desired_file(
    before: Mapping[str, int], wanted: Mapping[str, int], others: Mapping[str, int] | None = None
) -> bytes:
    """The content of `SYSCTL_FILE`; empty when there is nothing to raise at boot, so that no file is needed.

    It names only what katanode raises. A key that the node has high enough by itself is left out, since a line for it
    would lower what somebody sets higher later.

    Args:
        before: the values without katanode: as first read, from the state file, or the present ones at the first time.
        wanted: key to its least value.
        others: as `configured` gives them: what other files set at boot.
    """
    others = others or {}
    lines = [
        f"{key} = {value}"
        for key, value in sorted(wanted.items())
        if key in before and max(before[key], others.get(key, 0)) < value
    ]
    if not lines:
        return b""
    return "".join(f"{line}\n" for line in ("# katanode: raised for Kata Containers", *lines)).encode()


def configured(root: HostRoot) -> dict[str, int]:
    """The highest number that the node's other sysctl files set for each key; what cannot be read is passed over."""
    found: dict[str, int] = {}
    paths: list[str] = ["/etc/sysctl.conf"]
    for folder in _FOLDERS:
        with contextlib.suppress(OSError, KatanodeError):
            paths += [f"{folder}/{entry.name}" for entry in root(folder).iterdir() if entry.suffix == ".conf"]
    for path in paths:
        if path == SYSCTL_FILE:
            continue
        text = b""
        with contextlib.suppress(KatanodeError):
            text = read_if_there(root(path)) or b""
        for line in text.decode("utf-8", "replace").splitlines():
            if match := _ASSIGNMENT.match(line):
                key = match["key"].replace("/", ".")
                found[key] = max(int(match["value"]), found.get(key, 0))
    return found


@dataclass(frozen=True, slots=True)
class Sysctls:
    """The node's kernel parameters.

    Args:
        root: the host's files.
        runner: reaches the host's network namespace from a pod: /proc/sys/net shows the reader's own namespace, all the
            rest of /proc/sys is the kernel's.
    """

    root: HostRoot
    runner: Runner

    def read(self, key: str) -> int | None:
        """The value of `key`; None when the kernel does not have it or it is no single number.

        Raises:
            KatanodeError: `SYSCTL_FAILED` when it is there and cannot be read.
        """
        try:
            text = self._read_text(key)
            return None if text is None else int(text)
        except ValueError:
            return None

    def read_all(self, keys: Iterable[str]) -> dict[str, int | None]:
        """As `read`, of several.

        Raises:
            KatanodeError: as `read`.
        """
        return {key: self.read(key) for key in keys}

    def raise_to(self, key: str, value: int) -> bool:
        """Raises `key` to `value`; False when it was that high.

        Raises:
            KatanodeError: `SYSCTL_FAILED`, when it is not there, is refused, or is lower than `value` afterwards.
        """
        have = self.read(key)
        if have is None:
            raise KatanodeError(Reason.SYSCTL_FAILED, f"the kernel has no number named {key}")
        if have >= value:
            return False
        self._write(key, value)
        got = self.read(key)
        if got is None or got < value:
            raise KatanodeError(
                Reason.SYSCTL_FAILED, f"{key} was set to {value} and is {got}", evidence=f"before: {have}"
            )
        return True

    def restore(self, before: Mapping[str, int], raised: Mapping[str, int]) -> tuple[KatanodeError, ...]:
        """Sets back what katanode raised; a value that is no longer katanode's is somebody else's and stays.

        Args:
            before: key to the value that it had.
            raised: key to the value that katanode gave it.

        Returns:
            The failures; all keys are tried.
        """
        failures = []
        for key, value in raised.items():
            try:
                if key in before and self.read(key) == value:
                    self._write(key, before[key])
            except KatanodeError as error:
                failures.append(error)
        return tuple(failures)

    def _through_runner(self, key: str) -> bool:
        return key.startswith("net.") and not self.root.is_own

    def _read_text(self, key: str) -> str | None:
        if self._through_runner(key):
            # cat, not sysctl: it is on every node, and its failure tells a missing key from a refused one.
            done = self.runner.run(["cat", str(_path(key))], timeout=_TIMEOUT, check=False)
            if done.returncode == 0:
                return done.stdout.decode("ascii", "replace")
            if b"No such file" in done.stderr:
                return None
            raise KatanodeError(Reason.SYSCTL_FAILED, f"{key} cannot be read", evidence=done.words)
        try:
            return self._file(key).read_text(encoding="ascii", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise KatanodeError(Reason.SYSCTL_FAILED, f"{key} cannot be read", evidence=str(error)) from error

    def _write(self, key: str, value: int) -> None:
        if self._through_runner(key):
            self.runner.run(["sysctl", "-w", f"{key}={value}"], timeout=_TIMEOUT, reason=Reason.SYSCTL_FAILED)
            return
        try:
            self._file(key).write_text(f"{value}\n", encoding="ascii")
        except OSError as error:
            raise KatanodeError(Reason.SYSCTL_FAILED, f"{key} cannot be set", evidence=str(error)) from error

    def _file(self, key: str) -> Path:
        return self.root(_path(key))


def _path(key: str) -> PurePosixPath:
    """Where a key is: `.` and `/` part its words; the kernel has no key with a dot that settings may name."""
    return PurePosixPath("/proc/sys", *re.split(r"[./]", key))
