"""Images, each built once in a session, for whoever asks: two for this machine and one for another architecture.

The fixtures are in force through `tests/conftest.py`. Who wants the first alone does not wait for the others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from hack.imaging import archive, project, tools
from hack.imaging.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EPOCH = 1_800_000_000
OTHER = {"amd64": "arm64", "arm64": "amd64"}


@dataclass(frozen=True, slots=True)
class Built:
    """A build that succeeded.

    Attributes:
        file: the archive.
        image: what is in it.
    """

    file: Path
    image: archive.Image


class Workshop:
    """Builds by `hack/image` from a copy of the sources, in container stores of their own, from bases made here.

    Args:
        folder: for all of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pool = ThreadPoolExecutor(2)
        self._stores: list[dict[str, str]] = []
        # Frozen: who edits the repository meanwhile changes no second build.
        (folder / "project").mkdir()
        for name in (*project.SOURCES, "hack", "manifests"):
            source = project.REPO / name
            if source.is_dir():
                shutil.copytree(source, folder / "project" / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / "project" / name)

    def order(self, *platforms: str) -> list[Future[Built]]:
        """Has images built one after the other, beside what else was ordered."""
        number = len(self._stores)
        store = self.folder / f"store-{number}"
        store.mkdir()
        (store / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{store}/graph"\nrunroot = "{store}/run"\n'
        )
        environment = {"CONTAINERS_STORAGE_CONF": str(store / "storage.conf")}
        self._stores.append(environment)
        futures: list[Future[Built]] = []
        for index, platform in enumerate(platforms):
            before = futures[-1] if futures else None
            file = store / f"{index}.tar"
            futures.append(self._pool.submit(self._build, platform, file, environment, before))
        return futures

    def _build(self, platform: str, file: Path, environment: dict[str, str], before: Future[Built] | None) -> Built:
        if before:
            before.exception()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "hack.imaging", "--tool", "buildah", "--base", "mmdebstrap", "--no-cache"),
                *("--platform", platform, "--output", file),
            ],
            cwd=self.folder / "project",
            env=os.environ | environment | {"SOURCE_DATE_EPOCH": str(EPOCH)},
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert done.returncode == 0, done.stderr
        return Built(file, archive.read(file))

    def close(self) -> None:
        """Waits for what is being built, and removes the stores with what they hold mounted."""
        self._pool.shutdown(cancel_futures=True)
        for environment in self._stores:
            for words in (["rm", "--all"], ["rmi", "--all", "--force"]):
                subprocess.run(["buildah", *words], env=os.environ | environment, check=False, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Built]]]:
    """The builds under way: `first` and `second` for this machine, `other` for another architecture."""
    if os.geteuid() != 0:
        pytest.skip(reason="building an image here needs root")
    own = tools.own_architecture()
    if own not in OTHER:
        pytest.skip(reason=f"no image is made for {own}")
    try:
        tools.install_missing()
    except ImageError as error:
        pytest.skip(reason=f"no tool that builds images can be had: {error}")
    workshop = Workshop(tmp_path_factory.mktemp("image"))
    try:
        (other,) = workshop.order(f"linux/{OTHER[own]}")
        first, second = workshop.order(f"linux/{own}", f"linux/{own}")
        yield {"first": first, "second": second, "other": other}
    finally:
        workshop.close()


@pytest.fixture(scope="session")
def built(orders: dict[str, Future[Built]]) -> Built:
    """The image for this machine."""
    return orders["first"].result()


@pytest.fixture(scope="session")
def built_again(orders: dict[str, Future[Built]]) -> Built:
    """The same, made from nothing a second time, its base too."""
    return orders["second"].result()


@pytest.fixture(scope="session")
def built_for_another(orders: dict[str, Future[Built]]) -> Built:
    """The image for the architecture that this machine is not."""
    return orders["other"].result()
