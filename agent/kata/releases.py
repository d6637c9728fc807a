"""The releases on a node: immutable trees, each whole and verified or not there at all."""

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent.errors import KatanodeError
from agent.host import files
from agent.host.root import HostRoot
from agent.kata import pins, source
from agent.kata.handlers import SHIMS
from agent.kata.unpack import Budget, unpack, write_failure
from agent.reasons import Reason
from agent.settings import Kata

HOME = "/opt/katanode"
FOLDER = f"{HOME}/releases"
MANIFEST = ".katanode-release.json"
_STAGING = ".staging-"
_TASKS = "/run/containerd/io.containerd.runtime.v2.task"
_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A release that the settings wish for.

    Attributes:
        version: Kata's version.
        id: the name of its folder: the version and eight digits of what it was made from.
        archives: file name and sha256 of each archive, the main one first.
    """

    version: str
    id: str
    archives: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        """Its folder on the host: it has what upstream has below /opt/kata."""
        return f"{FOLDER}/{self.id}"


@dataclass(frozen=True, slots=True)
class Release:
    """A release that is installed.

    Attributes:
        version: Kata's version.
        id: the name of its folder.
        path: its folder on the host.
    """

    version: str
    id: str
    path: str


def wanted(kata: Kata, known: Mapping[str, str], arch: str) -> Wanted:
    """The release that the settings wish for; pure.

    Raises:
        KatanodeError: `RELEASE_UNPINNED`.
    """
    names = pins.archives(kata.version, arch, kata.runtime, kata.handlers)
    archives = pins.look_up(names, known, kata.version)
    digests = [digest for _, digest in archives]
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return Wanted(kata.version, f"{kata.version}-{digest[:8]}", archives)


def installed(root: HostRoot) -> tuple[Release, ...]:
    """The releases on the node, by name."""
    folder = root(FOLDER)
    found = []
    with contextlib.suppress(FileNotFoundError):
        for entry in sorted(folder.iterdir()):
            manifest = _manifest(entry)
            if manifest is not None and not entry.name.startswith("."):
                found.append(Release(str(manifest.get("version")), entry.name, f"{FOLDER}/{entry.name}"))
    return tuple(found)


def find(root: HostRoot, release_id: str) -> Release | None:
    """A release by its id, if it is installed."""
    manifest = _manifest(root(f"{FOLDER}/{release_id}")) if release_id else None
    return None if manifest is None else Release(str(manifest.get("version")), release_id, f"{FOLDER}/{release_id}")


def made_of(root: HostRoot, release: Release) -> Wanted:
    """What an installed release was unpacked from, to unpack it anew.

    Raises:
        KatanodeError: `RELEASE_DAMAGED`: its own manifest does not say so.
    """
    archives = (_manifest(root(release.path)) or {}).get("archives")
    if not isinstance(archives, dict):
        raise KatanodeError(
            Reason.RELEASE_DAMAGED,
            f"{release.path}/{MANIFEST} does not say what the release was unpacked from",
            remedy="go to the release of the settings with `katanode apply --release-hold`",
        )
    return Wanted(release.version, release.id, tuple(archives.items()))


def verify(root: HostRoot, release: Release) -> None:
    """Sees that no file of a release was changed, added or removed since it was unpacked; by sizes and times only.

    Raises:
        KatanodeError: `RELEASE_DAMAGED`, with the files.
    """
    folder = root(release.path)
    then = (_manifest(folder) or {}).get("files")
    now = dict(_fingerprints(folder))
    if then != now:
        then = then if isinstance(then, dict) else {}
        changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        raise KatanodeError(
            Reason.RELEASE_DAMAGED,
            f"{release.path} is not as it was unpacked",
            evidence="\n".join(changed[:10]),
        )


def install(root: HostRoot, kata: Kata, wish: Wanted, progress: Progress) -> Release:
    """Fetches, verifies and unpacks a release; a tree of that id that stands there is exchanged for the new one.

    Args:
        root: the host's root.
        kata: the settings; the version is the wish's.
        wish: what is wanted.
        progress: told of the work.

    Raises:
        KatanodeError: what `source.open_archive` and `unpack` raise, and `RELEASE_INCOMPLETE`. Nothing is left but
            parts of downloads.
    """
    sweep(root)
    kata = replace(kata, version=wish.version)
    staging = root(f"{FOLDER}/{_STAGING}{wish.id}")
    files.make_folder(staging.parent)
    try:
        staging.mkdir()
        staging.chmod(0o755)  # whatever the umask that katanode was called with
        budget = Budget(kata.max_unpacked_bytes, kata.max_unpacked_bytes)
        for name, sha256 in wish.archives:
            _unpack(root, kata, name, sha256, staging, budget, progress)
        if not any((staging / shim).is_file() for shim in SHIMS.values()):
            raise KatanodeError(
                Reason.RELEASE_INCOMPLETE,
                f"{' and '.join(name for name, _ in wish.archives)} hold no shim",
                evidence=f"looked for {' and '.join(SHIMS.values())}",
            )
        manifest = {"version": wish.version, "archives": dict(wish.archives), "files": dict(_fingerprints(staging))}
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        _sync(staging)
        _publish(staging, root(wish.path))
    except OSError as error:
        failure = write_failure(error, staging.parent)
        _clear(root, staging)
        raise failure from error
    except BaseException:
        _clear(root, staging)
        raise
    for name, _ in wish.archives:
        source.discard(root, name)
    return Release(wish.version, wish.id, wish.path)


def _clear(root: HostRoot, staging: Path) -> None:
    shutil.rmtree(staging, ignore_errors=True)
    with contextlib.suppress(KatanodeError):  # a file system of its own may be mounted there
        files.remove_empty(root(FOLDER))
        files.remove_empty(root(HOME))


def sweep(root: HostRoot) -> None:
    """Removes what killed runs left half unpacked; the caller holds the node's lock."""
    with contextlib.suppress(FileNotFoundError):
        for entry in root(FOLDER).iterdir():
            if entry.name.startswith(_STAGING):
                shutil.rmtree(entry)


def remove(root: HostRoot, release: Release) -> None:
    """Removes a release: renamed first, so that a crash leaves no half of it under its name."""
    gone = root(f"{FOLDER}/{_STAGING}gone-{release.id}")
    root(release.path).rename(gone)
    files.fsync_folder(gone.parent)
    shutil.rmtree(gone)


def remove_all(root: HostRoot) -> None:
    """Removes every release and what belongs to them; each out of its name first, as `remove` does."""
    for release in installed(root):
        with contextlib.suppress(OSError):
            root(release.path).rename(root(f"{FOLDER}/{_STAGING}gone-{release.id}"))
    shutil.rmtree(root(HOME), ignore_errors=True)


def in_use(root: HostRoot, proc: Path = Path("/proc")) -> frozenset[str]:
    """The ids of releases that something alive names: a process by its program or arguments, or a sandbox.

    containerd notes each sandbox's shim in `shim-binary-path`. A release that is gone when the daemon starts again
    costs it that sandbox (measured on six versions), so these notes count as uses. What may not be looked at could be
    of any release: then all are in use.
    """
    used: set[str] = set()
    names = {release.id: f"{release.path}/".encode() for release in installed(root)}
    try:
        for text in (*_process_words(proc), *_shim_notes(root)):
            used |= {release_id for release_id, needle in names.items() if needle in text}
    except PermissionError:
        return frozenset(names)
    return frozenset(used)


def _process_words(proc: Path) -> Iterator[bytes]:
    for name in os.listdir(proc):
        if name.isdecimal():
            with _gone():
                yield (proc / name / "cmdline").read_bytes()
            # The program of a process with more capabilities than ours may not be read (ptrace(2), PTRACE_MODE_READ);
            # its arguments may, and a sandbox's shim has its path there.
            with _gone(), contextlib.suppress(PermissionError):
                yield os.fsencode((proc / name / "exe").readlink())


def _shim_notes(root: HostRoot) -> Iterator[bytes]:
    for note in root(_TASKS).glob("*/*/shim-binary-path"):
        with _gone():
            yield note.read_bytes()


def _gone() -> contextlib.suppress:
    """What ended meanwhile uses nothing, and a thread of the kernel has no program (ENOENT)."""
    return contextlib.suppress(FileNotFoundError, ProcessLookupError)


def _unpack(
    root: HostRoot, kata: Kata, name: str, sha256: str, staging: Path, budget: Budget, progress: Progress
) -> None:
    archive, size = source.open_archive(root, kata, name, lambda done, total: progress(f"fetch {name}", done, total))
    try:
        with archive:
            unpack(archive, name, sha256, staging, budget, lambda done: progress(f"unpack {name}", done, size))
    except KatanodeError as error:
        if error.reason in {Reason.RELEASE_DIGEST_MISMATCH, Reason.RELEASE_TRUNCATED}:
            source.discard(root, name)  # a download that is not what was wanted must not be gone on with
        raise


def _publish(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
    else:
        # In one step: shims that run keep their inodes, and the path never leads nowhere.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.renameat2(_AT_FDCWD, os.fsencode(staging), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE) != 0:
            number = ctypes.get_errno()
            raise KatanodeError(
                Reason.FILE_WRITE_FAILED, f"{target} cannot be exchanged for the new tree", evidence=os.strerror(number)
            )
        shutil.rmtree(staging)
    files.fsync_folder(target.parent)


def _sync(folder: Path) -> None:
    """Makes a tree durable: one syncfs(2) instead of an fsync for each of its files."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            number = ctypes.get_errno()  # ENOSPC too: a file system may look for room only now
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)


def _manifest(folder: Path) -> dict[str, object] | None:
    try:
        data = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _fingerprints(folder: Path) -> Iterator[tuple[str, list[object]]]:
    """Name to mode, size and time of change of every entry; of a link its target."""
    pending = [""]
    while pending:
        relative = pending.pop()
        with os.scandir(folder / relative) as entries:
            for entry in entries:
                name = f"{relative}{entry.name}"
                if name == MANIFEST:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name + "/")
                elif entry.is_symlink():
                    yield name, [os.readlink(entry.path)]
                else:
                    stat = entry.stat(follow_symlinks=False)
                    yield name, [stat.st_mode, stat.st_size, stat.st_mtime_ns]
