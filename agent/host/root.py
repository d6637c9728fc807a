"""Where the host's files are: at `/` on a bare machine, at `/host` in the agent's pod."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agent.errors import KatanodeError
from agent.reasons import Reason

_MAX_LINKS = 40  # the kernel's own limit for one path (path_resolution(7))


@dataclass(frozen=True, slots=True)
class HostRoot:
    """Maps a path as the host knows it to the path at which this process can open it.

    Args:
        path: the folder where the host's root file system is seen.

    Symbolic links are followed inside the root: an absolute link on the host would otherwise lead into the
    agent's own container.
    """

    path: Path = Path("/")

    @property
    def is_own(self) -> bool:
        """True when the host's root is this process's root, so that no mapping is needed."""
        return self.path == Path("/")

    def __call__(self, host_path: str | PurePosixPath) -> Path:
        """Where `host_path` is, its links followed; what does not exist (yet) is mapped as it stands.

        Raises:
            KatanodeError: `FILE_READ_FAILED` for a relative path or a loop of links.
        """
        return self._map(host_path, follow_last=True)

    def entry(self, host_path: str | PurePosixPath) -> Path:
        """As a call, but the last component is the directory entry itself, be it a link or not."""
        return self._map(host_path, follow_last=False)

    def host_path(self, path: Path) -> str:
        """The host's name of a path that this process sees below the root."""
        return str(path) if self.is_own else "/" + str(path.relative_to(self.path)).removeprefix(".")

    def _map(self, host_path: str | PurePosixPath, *, follow_last: bool) -> Path:
        if not PurePosixPath(host_path).is_absolute():
            raise KatanodeError(Reason.FILE_READ_FAILED, f"{host_path} is not an absolute path")
        pending = [part for part in PurePosixPath(host_path).parts[1:] if part != "."][::-1]
        done: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                del done[-1:]
                continue
            here = self.path.joinpath(*done, part)
            if (not pending and not follow_last) or not here.is_symlink():
                done.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise KatanodeError(Reason.FILE_READ_FAILED, f"{host_path} is a loop of symbolic links")
            target = PurePosixPath(os.readlink(here))
            if target.is_absolute():
                done = []
            pending += [p for p in target.parts if p not in {"/", "."}][::-1]
        return self.path.joinpath(*done)
