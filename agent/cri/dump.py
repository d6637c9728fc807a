"""A configuration as the daemon itself understands it: its own program prints what a file comes to."""

import contextlib
import tomllib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from agent.cri.daemon import Daemon
from agent.errors import KatanodeError
from agent.host import files
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.reasons import Reason

_TIMEOUT = 20.0


def printed(runner: Runner, daemon: Daemon, config_path: str) -> dict[str, Any]:
    """What a configuration file, with its imports, comes to in this daemon.

    containerd 2.0's `config dump` does not migrate: a schema 2 root file's CRI table is missing from it although the
    daemon honours it; its `config migrate` prints it (measured on 2.0.0; one function since 2.0.6).

    Args:
        runner: runs the daemon's own program on the host.
        daemon: whose program it is.
        config_path: the file's path on the host.

    Raises:
        KatanodeError: `CONFIG_REFUSED`, with the daemon's words.
    """
    verb = "migrate" if daemon.generation == (2, 0) else "dump"
    argv = (daemon.exe, "--config", config_path, "config", verb)
    done = runner.run(argv, timeout=_TIMEOUT, check=False)
    if done.returncode != 0:
        raise KatanodeError(Reason.CONFIG_REFUSED, f"containerd refuses {config_path}", evidence=done.words)
    try:
        return tomllib.loads(done.stdout.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise KatanodeError(
            Reason.CONFIG_REFUSED,
            f"containerd's `config {verb}` of {config_path} cannot be read",
            evidence=f"$ {' '.join(argv)}\n{error}",
        ) from error


@contextlib.contextmanager
def staged(root: HostRoot, beside: str, name: str, content: bytes) -> Iterator[str]:
    """A file that stands beside another for as long as a check needs it; gives its host path.

    Beside, since relative imports start from the file's folder; without `.toml` at the end, since a glob of the live
    configuration must not find it (containerd's `*.toml` also matches hidden files, measured on 2.2 and 2.3); and for
    root alone, since the configuration may hold credentials.
    """
    path = str(PurePosixPath(beside).parent / f"{files.TEMP_PREFIX}{name}")
    mapped = root(path)
    try:
        files.remove(mapped)
        files.write_atomic(mapped, content, mode=0o600)
        yield path
    finally:
        files.remove(mapped)
