"""The command `katanode bundle`."""

import argparse
import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from agent import settings
from agent.bundle import archive, bundle
from agent.bundle.bundle import Bundle
from agent.bundle.gather import words
from agent.bundle.piece import human
from agent.bundle.scene import Scene, looked_up
from agent.errors import KatanodeError
from agent.host.process import NSENTER, Runner
from agent.host.root import HostRoot
from agent.node import Node
from agent.reasons import Reason


def run(root: HostRoot, options: argparse.Namespace) -> int:
    """Makes a bundle; gives the exit status.

    Raises:
        KatanodeError: `FILE_WRITE_FAILED`; `SETTINGS_INVALID` for arguments that do not go together.
    """
    wish = _wish(options)
    if not wish.only_list and not wish.to_stdout:
        archive.refuse(wish.file or Path(f"katanode-bundle-{os.getpid()}"))
    made = _made(root, options.settings)
    if wish.only_list:
        sys.stdout.write(json.dumps(made.as_json(), indent=2) + "\n" if wish.as_json else made.words())
        return 0
    if not wish.as_json and sys.stderr.isatty():
        sys.stderr.write(made.words() + "\n")
    file = wish.file or Path(f"{made.name}.tar.gz")
    data = archive.packed(made.name, made.files(), made.at, zstandard=file.name.endswith(archive.ZSTANDARD))
    if wish.to_stdout:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        archive.write(file, data)
    if wish.as_json:
        told = {"file": str(file), "archive_bytes": len(data), **made.as_json()}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
        return 0
    _tell(made, "standard output" if wish.to_stdout else str(file), len(data))
    return 0


@dataclass(frozen=True, slots=True)
class _Wish:
    only_list: bool
    as_json: bool
    to_stdout: bool
    file: Path | None


def _wish(options: argparse.Namespace) -> _Wish:
    to_stdout = options.output == "-"
    if to_stdout and options.json and not options.list:
        raise KatanodeError(
            Reason.SETTINGS_INVALID,
            "--json and --output - cannot be together",
            remedy="The archive and the JSON would both go to standard output: name a file.",
        )
    if to_stdout and not options.list and sys.stdout.isatty():
        raise KatanodeError(
            Reason.SETTINGS_INVALID,
            "an archive is not written to a terminal",
            remedy="Send it somewhere: katanode bundle --output - > bundle.tar.gz.",
        )
    file = Path(options.output) if options.output and not to_stdout else None
    return _Wish(options.list, options.json, to_stdout, file)


def _made(root: HostRoot, named: str | None) -> Bundle:
    """The bundle; a terminal is told that it takes a while."""
    if sys.stderr.isatty():
        sys.stderr.write("gathering: some seconds, on a node that hangs up to four minutes\n")
    path, problem, wishes = Path(named or settings.DEFAULT_PATH), "", settings.Settings()
    try:
        path = path if named is not None else root(settings.DEFAULT_PATH)
        wishes = settings.load(path, required=named is not None)
    except KatanodeError as error:
        problem = words(error)
    runner = Runner() if root.is_own else Runner(NSENTER)
    node = Node(root, runner, wishes, lambda _: None, lambda _what, _done, _total: None)
    name = os.environ.get("NODE_NAME") or platform.node()
    return bundle.make(looked_up(Scene(node, path, problem)), name)


def _tell(made: Bundle, where: str, size: int) -> None:
    """What was written; where nobody saw the list, also what is missing."""
    lines = [f"{where}: {len(made.pieces) + 1} files, {human(made.size)} in {human(size)}, {made.masked} masked"]
    if not sys.stderr.isatty():
        lines += [f"could not be had: {failure.name}: {failure.why.partition(chr(10))[0]}" for failure in made.failures]
    sys.stderr.write("\n".join(lines) + "\n")
