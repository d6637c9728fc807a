"""``hack/image``: builds the image of katanode's daemon, and writes it as an archive for ``ctr images import``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hack.imaging import access, archive, base, project, tools
from hack.imaging.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

ARCHITECTURES = tuple(tools.ARCHITECTURES.values())
MADE_HERE = "mmdebstrap"
LOCAL_BASE = "localhost/katanode-base"


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line; the exit status is 0 when the archive is written."""
    parser = argparse.ArgumentParser(prog="hack/image", description=__doc__)
    parser.add_argument("--platform", metavar="linux/ARCH", help=f"one of {', '.join(ARCHITECTURES)}; this machine's")
    parser.add_argument(
        "--base",
        metavar="IMAGE",
        help=f"what it stands on; {MADE_HERE} makes one of Debian's packages, also done where no registry answers",
    )
    parser.add_argument("--tool", choices=tools.NAMES, help="the first of them that is here and works")
    parser.add_argument("--name", help="the image's; as the manifests have it")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the archive; dist/katanode-VERSION-ARCH.tar")
    parser.add_argument("--no-cache", action="store_true", help="use nothing of earlier builds")
    parser.add_argument("--install-tools", action="store_true", help="install buildah and mmdebstrap where no tool is")
    parser.add_argument("--lock", action="store_true", help="renew image/*.lock instead")
    options = parser.parse_args(arguments)
    try:
        if options.lock:
            from hack.imaging import lock  # noqa: PLC0415 - needs the virtual environment

            lock.write()
            return 0
        return _build(options)
    except ImageError as error:
        print(f"hack/image: {error}", file=sys.stderr)
        return 1


def _build(options: argparse.Namespace) -> int:
    of_project = project.read()
    name = options.name or project.image_name(of_project.version)
    arch = (options.platform or f"linux/{tools.own_architecture()}").removeprefix("linux/")
    if arch not in ARCHITECTURES:
        raise ImageError(f"no image is made for {arch}", remedy=f"one of {', '.join(ARCHITECTURES)}")
    target = (options.output or project.REPO / f"dist/katanode-{of_project.version}-{arch}.tar").absolute()
    if options.install_tools and options.base == MADE_HERE:
        tools.install_missing()
    tool = tools.find(options.tool, install=options.install_tools)
    with tempfile.TemporaryDirectory(prefix="katanode-image-") as folder:
        work = Path(folder)
        bases = _bases(tool, options.base, arch, of_project.epoch, work)
        context = work / "context"
        context.mkdir()
        project.stage(context)
        order = tools.Order(
            context=context,
            name=name,
            arch=arch,
            epoch=of_project.epoch,
            arguments=bases,
            labels={
                "org.opencontainers.image.title": "katanode",
                "org.opencontainers.image.description": of_project.description,
                "org.opencontainers.image.source": "https://github.com/katanode/katanode",
                "org.opencontainers.image.licenses": of_project.licence,
                "org.opencontainers.image.version": of_project.version,
                "org.opencontainers.image.revision": of_project.revision,
                "org.opencontainers.image.base.name": bases["BASE"],
            },
            secrets=access.write(work / "access"),
            fresh=options.no_cache,
        )
        _tell(f"building {name} for {arch} with {tool}, on {bases['BASE']}")
        tools.build(tool, order, target)
    archive.name_it(target, name, of_project.epoch)
    made = archive.read(target)
    _tell(f"image {made.name} {made.digest}")
    for layer in made.layers:
        _tell(f"layer {layer}")
    _tell(f"{made.added / 1e6:.1f} MB unpacked above the base")
    print(target)
    return 0


def _bases(tool: tools.Name, wanted: str | None, arch: str, epoch: int, work: Path) -> dict[str, str]:
    """The Containerfile's arguments that name what the image stands on and what it is built on."""
    named, suite = project.default_base()
    if wanted not in {None, MADE_HERE}:
        return {"BASE": wanted, "BUILD_BASE": wanted}
    own = tools.own_architecture()
    if wanted is None:
        if all(tools.pull(tool, named, one) for one in {own, arch}):
            return {"BASE": named, "BUILD_BASE": named}
        _tell(f"{named} cannot be pulled: making a base of Debian's packages")
    made = {}
    for one in dict.fromkeys((own, arch)):
        root = work / f"base-{one}.tar"
        if one == own:
            base.native(suite, epoch, root)
        else:
            base.foreign(suite, one, work / f"base-{own}.tar", epoch, root)
        made[one] = f"{LOCAL_BASE}:{suite}-{one}"
        tools.load_base(tool, root, made[one], one, epoch)
    return {"BASE": made[arch], "BUILD_BASE": made[own]}


def _tell(words: str) -> None:
    print(f"hack/image: {words}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
