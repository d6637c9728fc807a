"""What every test may ask for."""

import os
from pathlib import Path

import hypothesis
import pytest
from images import built, built_again, built_for_another, orders  # noqa: F401 - fixtures of several tiers

# CI tries the same cases each time, so that a red run is about the change; a developer's run looks for new ones.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("long", max_examples=3000, deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else os.environ.get("HYPOTHESIS_PROFILE", "dev"))

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real files beside the project; tests that need it skip where it is not."""
    if not SHARED.is_dir():
        pytest.skip(reason="../shared is not here: outside its workplace the project stands alone")
    return SHARED
