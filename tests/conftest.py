"""What every test shares: Hypothesis profiles, and the way to data that is not part of the repository."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: on a busy machine the first example pays for imports. In CI the same examples every time.
settings.register_profile("dev", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def shared_path(name: str) -> Path:
    """A file or folder under `shared/` beside the repository; skips the test where it is absent."""
    path = Path(__file__).resolve().parents[2] / "shared" / name
    if not path.exists():
        pytest.skip(f"shared/{name} does not lie beside this checkout")
    return path
