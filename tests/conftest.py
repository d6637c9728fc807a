"""What every test may ask for."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real files beside the project; tests that need it skip where it is not."""
    if not SHARED.is_dir():
        pytest.skip(reason="../shared is not here: outside its workplace the project stands alone")
    return SHARED
