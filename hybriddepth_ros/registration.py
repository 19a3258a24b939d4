"""Camera motion and focus breathing between the slices of a stack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Registration:
    """How each slice lies over the reference slice.

    reference: index of the reference slice; transforms [S, 3, 3] float64: pixel of the reference (x, y, 1) -> pixel of
    the slice; residual_before_px, residual_px [S]: typical displacement that is left before and after [px];
    used [S] bool: False = the slice could not be registered and was dropped.
    """

    reference: int
    transforms: npt.NDArray[np.float64]
    residual_before_px: npt.NDArray[np.float64]
    residual_px: npt.NDArray[np.float64]
    used: npt.NDArray[np.bool_]
