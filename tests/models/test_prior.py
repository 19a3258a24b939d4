"""Which prior an estimator is given, and what it makes of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from hybriddepth_ros import EstimatorOptions, FocalSlice, FocalStack, load_estimator
from hybriddepth_ros.errors import ModelError, WeightsError
from hybriddepth_ros.models import AlignedStack, FocusEstimate
from hybriddepth_ros.models.depth_anything import PATCH, DepthAnything, network_size
from hybriddepth_ros.models.prior import load_prior
from hybriddepth_ros.models.relative_depth import RelativeDepth


class BrightIsNear(torch.nn.Module):
    """Stands in for the network, which takes seconds; keeps what it was given."""

    def predict(self, rgb: torch.Tensor) -> torch.Tensor:
        self.given = rgb
        return rgb.mean(dim=1, keepdim=True)


def prior_around(network: torch.nn.Module) -> DepthAnything:
    made = object.__new__(DepthAnything)
    made.device, made.weights, made.network = "cpu", "made", network
    return made


def test_no_prior_is_none() -> None:
    assert load_prior("none", "classical") is None
    assert load_estimator("classical").prior_name == "none"
    assert load_estimator("classical").prior_weights == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("depth_anythin", "classical"),
            "prior: unknown prior 'depth_anythin', expected one of none, depth_any",
        ),
        (("none", "classical", "cpu", "x"), "prior_weights: prior is none and takes no weights, got 'x'"),
        (("depth_anything", "hybriddepth"), "prior: hybriddepth has a prior of its own, expected none, got"),
        (("depth_anything", "crossdepth"), "prior: crossdepth has a prior of its own, expected none, got"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_prior(*arguments)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("HYBRIDDEPTH_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"no weights are installed in .*weights fetch depth-anything-"):
        load_estimator("classical", "cpu", prior="depth_anything")
    with pytest.raises(WeightsError, match=r"weights nowhere: neither installed in .* nor a file"):
        load_estimator("classical", "cpu", prior="depth_anything", prior_weights="nowhere")


def test_a_model_with_a_prior_of_its_own_is_refused_before_its_weights_are_looked_for() -> None:
    with pytest.raises(ModelError, match="prior: hybriddepth has a prior of its own"):
        load_estimator("hybriddepth", "cpu", prior="depth_anything")


@pytest.mark.parametrize(("size", "expected"), [((480, 640), (518, 686)), ((900, 300), (1554, 518))])
def test_the_network_sees_the_image_in_its_proportions(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert network_size(*size) == expected
    assert all(side % PATCH == 0 for side in expected)


def test_the_real_network_takes_images_in_their_proportions() -> None:
    with torch.device("meta"):  # shapes alone: its arithmetic takes seconds
        network = RelativeDepth("v2-small").eval()
        assert network.predict(torch.zeros(1, 3, 518, 686)).shape == (1, 1, 518, 686)


def test_the_image_is_normalised_and_the_answer_has_its_size() -> None:
    network = BrightIsNear()
    image = np.full((48, 64, 3), (124, 116, 104), np.uint8)  # ImageNet's mean
    image[:, 32:] = 250
    relative = prior_around(network)(image)
    assert relative.shape == (48, 64) and relative.dtype == np.float32
    assert tuple(network.given.shape) == (1, 3, 518, 686)
    assert abs(float(network.given[..., :300].mean())) < 0.02
    assert relative[:, 40:].min() > relative[:, :24].max() + 1.0


PLANE = np.broadcast_to(np.linspace(0.6, 1.6, 96, dtype=np.float32), (64, 96))


class HalfBlind:
    """A model that sees the plane in the left half only."""

    device = "cpu"

    def __call__(self, stack: AlignedStack) -> FocusEstimate:
        sigma = np.where(np.arange(96) < 48, np.float32(0.02), np.float32(9.0))
        noise = np.random.default_rng(0).standard_normal(PLANE.shape).astype(np.float32)
        sigmas = np.broadcast_to(sigma, PLANE.shape).copy()
        return FocusEstimate(PLANE + np.minimum(sigmas, 1.0) * noise, sigmas, 8.0)


class KnowsTheShape:
    """A prior that knows the plane up to scale and shift."""

    weights = "made"

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        assert image.dtype == np.uint8 and image.shape == (64, 96, 3)
        return 7.0 * PLANE - 100.0


def test_the_estimator_fills_by_the_prior_what_the_focus_leaves_open() -> None:
    images = np.random.default_rng(0).integers(0, 255, (3, 64, 96, 3), np.uint8)
    slices = tuple(FocalSlice(image, focus) for image, focus in zip(images, (0.5, 1.0, 1.5), strict=True))
    estimator = load_estimator("classical", options=EstimatorOptions(register=False))
    estimator._model = HalfBlind()
    alone = estimator(FocalStack(slices, name="made"))
    estimator._prior = KnowsTheShape()
    joined = estimator(FocalStack(slices, name="made"))
    assert estimator.prior_weights == "made"
    assert {"prior", "fusion"} <= set(joined.timings_ms) and "prior" not in alone.timings_ms
    assert np.isnan(alone.depth[:, 48:]).all() and np.isfinite(joined.depth).mean() > 0.95
    assert np.nanmedian(np.abs(joined.depth * PLANE - 1.0)) < 0.05
