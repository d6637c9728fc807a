"""``hack/node``: start and stop nodes, run commands in them, and break them."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hack.lab.errors import LabError
from hack.lab.packages import GENERATIONS
from hack.nodes.disk import Disk, disk
from hack.nodes.machine import Node
from hack.nodes.pods import Pods

if TYPE_CHECKING:
    from collections.abc import Sequence

PLACE = Path("/var/tmp/katanode-nodes")
"""Where nodes of the command live; a reboot of this machine does not remove them, `hack/node remove` does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line says."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.do(options))
    except LabError as error:
        print(f"hack/node: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hack/node", description=__doc__)
    parser.add_argument("--name", default="node", help="which node, if there are several; `node`")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, do: object, words: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=words, description=words)
        made.set_defaults(do=do)
        return made

    start = command("start", _start, "boots it and waits for the system; a stopped one goes on with its own disk")
    start.add_argument("generation", choices=GENERATIONS, help="containerd's")
    build = command("build", _build, "makes the disk of a generation, or all, and prints where it is")
    build.add_argument("generation", choices=GENERATIONS, nargs="*", help="containerd's")
    command("list", _list, "the nodes there are")
    run = command("run", _run, "runs a command as root; its exit status is the command's")
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND")
    command("shell", _shell, "the console, as root; Ctrl-] leaves it")
    for name, words in (("put", "copies a file in"), ("get", "copies a file out")):
        copy = command(name, _copy, words)
        copy.add_argument("source")
        copy.add_argument("target")
        copy.set_defaults(inward=name == "put")
    load = command("load", _load, "imports an image's archive for CRI, and the pause image")
    load.add_argument("archive", type=Path)
    for name, words in (("snapshot", "keeps memory and disk under a name"), ("restore", "goes back to a snapshot")):
        keep = command(name, _snapshot, words)
        keep.add_argument("snapshot", nargs="?", default="kept")
        keep.set_defaults(keep=name == "snapshot")
    command("wait", _wait, "waits until the system is up")
    command("reset", _reset, "the reset button: memory is lost, and it boots again")
    command("stop", _stop, "pulls the plug; its disk stays")
    command("remove", _remove, "pulls the plug and removes its disk")
    return parser


def _node(options: argparse.Namespace) -> Node:
    """The running node of this name."""
    return Node(_known(PLACE / options.name), PLACE / options.name).attach()


def _known(folder: Path) -> Disk:
    generation = (folder / "generation").read_text() if (folder / "generation").exists() else GENERATIONS[-1]
    # What boots it is not needed to talk to it.
    return Disk(next(g for g in GENERATIONS if g == generation), Path(), Path(), Path())


def _start(options: argparse.Namespace) -> int:
    folder = PLACE / options.name
    node = Node(disk(options.generation), folder)
    if node.pid:
        raise LabError(f"{options.name} runs already", remedy="hack/node stop, or another --name")
    was = folder / "generation"
    if was.exists() and was.read_text() != options.generation:
        raise LabError(f"{options.name} has containerd {was.read_text()}", remedy="hack/node remove, or another --name")
    folder.mkdir(parents=True, exist_ok=True)
    was.write_text(options.generation)
    node.start(detached=True)
    node.wait()
    print(node.run("containerd", "--version").stdout.strip())
    return 0


def _build(options: argparse.Namespace) -> int:
    for generation in options.generation or GENERATIONS:
        print(disk(generation).image)
    return 0


def _list(_options: argparse.Namespace) -> int:
    for folder in sorted(PLACE.glob("*/generation")):
        name = folder.parent.name
        pid = Node(_known(folder.parent), folder.parent).pid
        print(f"{name:12} containerd {folder.read_text()}  {f'runs, process {pid}' if pid else 'stopped'}")
    return 0


def _run(options: argparse.Namespace) -> int:
    if not options.argv:
        raise LabError("no command", remedy="hack/node run COMMAND …")
    done = _node(options).run(*options.argv, check=False, timeout=3600)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode


def _shell(options: argparse.Namespace) -> int:
    node = _node(options)
    print("Ctrl-] leaves; press Enter for the prompt", file=sys.stderr)
    return subprocess.run(
        ["socat", "STDIO,raw,echo=0,escape=0x1d", f"UNIX-CONNECT:{node.folder}/console.sock"], check=False
    ).returncode


def _copy(options: argparse.Namespace) -> int:
    node = _node(options)
    if options.inward:
        node.guest.write(options.target, Path(options.source).read_bytes())
    else:
        Path(options.target).write_bytes(node.guest.read(options.source))
    return 0


def _load(options: argparse.Namespace) -> int:
    node = _node(options)
    pods = Pods(node)
    pods.import_pause()
    node.guest.write("/var/tmp/image.tar", options.archive.read_bytes())
    pods.import_image("/var/tmp/image.tar")
    node.run("rm", "/var/tmp/image.tar")
    return 0


def _snapshot(options: argparse.Namespace) -> int:
    node = _node(options)
    (node.snapshot if options.keep else node.restore)(options.snapshot)
    return 0


def _wait(options: argparse.Namespace) -> int:
    _node(options).wait()
    return 0


def _reset(options: argparse.Namespace) -> int:
    node = _node(options)
    node.reset()
    node.wait()
    return 0


def _stop(options: argparse.Namespace) -> int:
    _node(options).close()
    return 0


def _remove(options: argparse.Namespace) -> int:
    folder = PLACE / options.name
    Node(_known(folder), folder).remove()
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
