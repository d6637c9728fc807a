"""Programs from Debian's packages: unpacked into the lab's cache on first use, never installed."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import pytest

from hack.lab import packages
from hack.lab.errors import LabError


def unpacked(package: str) -> Path:
    """The folder with a package of `packages.BASE`, without what it depends on; skips the test if the mirror is away.

    Raises:
        LabError: the mirror was reached and the package is not what it was.
    """
    there = _fetched(package)
    if isinstance(there, str):
        pytest.skip(reason=there)
    return there


@functools.cache
def _fetched(package: str) -> Path | str:
    """The folder, or why there is none: asked once, since a mirror that is away takes its time to say nothing."""
    suite = packages.BASE
    folder = packages.cache_folder() / f"{package}-{suite}-{packages._architecture()}"
    with packages._locked(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():
            staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                with mock.patch.dict(packages.PACKAGES, {suite: (package,)}):
                    packages._download(suite, staging)
                (staging / "root").rename(folder)
            except LabError as error:
                if error.evidence.startswith("dpkg") or "Unable to locate package" in error.evidence:
                    raise
                return f"{package} could not be had: {error}"
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    return folder
