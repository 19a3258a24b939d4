"""Focus and an aligned prior joined pixel by pixel: texture speaks by the focus, blank walls by the prior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.models.base import FocusEstimate
from hybriddepth_ros.models.prior_alignment import AlignedPrior, AlignmentOptions, align_prior

Floats = npt.NDArray[np.float32]


def with_prior(
    focus: FocusEstimate, relative: Floats, options: AlignmentOptions | None = None
) -> FocusEstimate:
    """The focus estimate joined with a relative inverse depth [H, W], any unit, large = near.

    The focus estimate itself where the prior cannot be aligned.
    """
    aligned = align_prior(focus, relative, options)
    return focus if aligned is None else fuse(focus, aligned)


def fuse(focus: FocusEstimate, prior: AlignedPrior) -> FocusEstimate:
    """The linear estimate of least variance from two that share an error.

    The prior was fitted to this very focus estimate. The covariance of a fit with one of its observations is
    the variance of the fit (and at most that of the observation), so a prior that merely follows the focus
    adds nothing to it. Where the two differ by more than their sigmas explain, one of them is wrong: the
    variance grows as that of a choice between them. What no slice saw (an infinite sigma) stays unknown, and
    where there is no prior the focus stays as it is.
    """
    own, fit, misfit = (np.square(s) for s in (focus.sigma_diopters, prior.fit_sigma, prior.misfit_sigma))
    joined = np.isfinite(own) & np.isfinite(prior.diopters) & np.isfinite(focus.diopters)
    own = np.where(joined, own, np.float32(1.0))
    difference = np.where(joined, focus.diopters - prior.diopters, np.float32(0.0))
    shared = np.minimum(fit, own)
    beyond = fit - shared + misfit  # what the prior errs by, and the focus does not
    expected = own - shared + beyond  # variance of the difference
    share = np.where(
        expected > 0.0, beyond / np.maximum(expected, np.finfo(np.float32).tiny), np.float32(1.0)
    )
    variance = shared + share * (own - shared)
    variance += share * (1.0 - share) * np.maximum(difference * difference - expected, 0.0)
    diopters = focus.diopters - (1.0 - share) * difference
    return replace(
        focus,
        diopters=np.where(joined, diopters, focus.diopters).astype(np.float32, copy=False),
        sigma_diopters=np.where(joined, np.sqrt(variance), focus.sigma_diopters).astype(
            np.float32, copy=False
        ),
    )
