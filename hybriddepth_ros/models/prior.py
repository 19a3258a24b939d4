"""Which learned prior a focus model is joined with, found by name."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.image_files import ImageRGB
from hybriddepth_ros.models.base import has_own_prior
from hybriddepth_ros.parameters import nearest_name

NO_PRIOR = "none"
PRIORS = (NO_PRIOR, "depth_anything")


class DepthPrior(Protocol):
    """Relative inverse depth [H, W] float32, any unit, large = near, from one sharp image [H, W, 3] RGB.

    weights: their name and content.
    """

    weights: str

    def __call__(self, image: ImageRGB) -> npt.NDArray[np.float32]: ...


def load_prior(name: str, model: str, device: str = "auto", weights: str = "") -> DepthPrior | None:
    """The prior that estimates of `model` are joined with; None for `none`.

    weights: an installed name or a file; "" = the first installed for this prior. ModelError for what
    `check_prior` refuses, and for missing weights.
    """
    check_prior(name, model, weights)
    if name == NO_PRIOR:
        return None
    try:
        from hybriddepth_ros.models.depth_anything import DepthAnything
    except ImportError as error:
        raise ModelError(f"prior: {name} needs a Python package that is not here: {error}") from None
    return DepthAnything(device, weights)


def check_prior(name: str, model: str, weights: str = "") -> None:
    """ModelError for an unknown prior, weights for none, and a model that brings a prior of its own."""
    if name not in PRIORS:
        known = ", ".join(PRIORS)
        raise ModelError(
            f"prior: unknown prior {name!r}, expected one of {known}{nearest_name(name, PRIORS)}"
        )
    if name == NO_PRIOR:
        if weights:
            raise ModelError(f"prior_weights: prior is none and takes no weights, got {weights!r}")
        return
    if has_own_prior(model):
        raise ModelError(f"prior: {model} has a prior of its own, expected {NO_PRIOR}, got {name!r}")
