"""What every test shares: Hypothesis profiles, and the way to data that is not part of the repository."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

# No deadline: on a busy machine the first example pays for imports. In CI the same examples every time.
settings.register_profile("dev", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


class Checkpoints(NamedTuple):
    """Files in the published layout, filled with made weights. The first bears a published file's name."""

    hybriddepth: Path
    crossdepth: Path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoints]:
    """Made once, and removed at the end: seconds and 440 MB."""
    from tests.published_weights import make_weights, published_shapes, write_checkpoint

    shapes = published_shapes("state_dict_keys.json")
    weights = make_weights(shapes | published_shapes("crossdepth_state_dict_keys.json"))
    folder = tmp_path_factory.mktemp("checkpoints")
    made = Checkpoints(folder / "NYUBest5-DFV-Trained.ckpt", folder / "made-crossdepth.ckpt")
    write_checkpoint(made.hybriddepth, {name: weights[name] for name in shapes})
    without_refinement = {n: w for n, w in weights.items() if not n.startswith("ScaleMapLearner.")}
    write_checkpoint(made.crossdepth, without_refinement)
    del weights, without_refinement
    yield made
    for file in made:
        file.unlink()


def shared_path(name: str) -> Path:
    """A file or folder under `shared/` beside the repository; skips the test where it is absent."""
    path = Path(__file__).resolve().parents[2] / "shared" / name
    if not path.exists():
        pytest.skip(f"shared/{name} does not lie beside this checkout")
    return path
