"""What sweepnet is trained for: the right place, and a width that says how far off it may be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hybriddepth_ros.models.sweepnet import SweepDistribution

_LEVELS = 3  # of the gradient term
_INFINITY = 0.25  # steps of the sweep that are added to a place before ratios of distances are taken
_SCALE_RANGE = (0.01, 50.0)  # steps of the sweep that the likelihood's scale is held between


@dataclass(frozen=True)
class LossWeights:
    """What each term counts."""

    likelihood: float = 0.5
    error: float = 0.5
    relative_error: float = 0.5
    coarse_error: float = 0.3
    gradient: float = 0.3
    slices: float = 0.3


def sweepnet_loss(
    found: SweepDistribution, target: Tensor, valid: Tensor, positions: Tensor, weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum, and each term by name; in steps of the sweep, ratios of distances as logarithms.

    target [B, H, W] px of blur; valid [B, H, W] bool: where there is a target; positions [B, N] of the
    slices, px of blur. A batch without one valid pixel gives 0.
    """
    spacing = found.spacing[:, None, None]
    difference = torch.where(valid, (found.position - target) / spacing, 0.0)
    scale = (found.scale / spacing).clamp(*_SCALE_RANGE)
    coarse_target, coarse_valid = _on_grid(target, valid, found.coarse.shape[-2:])
    terms = {
        "likelihood": _mean(difference.abs() / scale + scale.log(), valid),
        "error": _mean(difference.abs(), valid),
        "relative_error": _mean(_log_ratio(found.position, target, _INFINITY * spacing), valid),
        "coarse_error": _mean(((found.coarse - coarse_target) / spacing).abs(), coarse_valid),
        "gradient": _gradient_error(difference, valid),
        "slices": _mean(_two_slices(found.log_probability, coarse_target, positions), coarse_valid),
    }
    total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return total, terms


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp(min=1)


def _log_ratio(position: Tensor, target: Tensor, offset: Tensor) -> Tensor:
    """|ln| of the ratio of distances, which 1 step is the more of the farther away it is."""
    return (torch.log(position.clamp(min=0.0) + offset) - torch.log(target.clamp(min=0.0) + offset)).abs()


def _on_grid(target: Tensor, valid: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Target and validity [B, h, w] of cells: the mean of what is valid in them, if that is half."""
    cell = target.shape[-1] // size[-1]
    share = F.avg_pool2d(valid.float()[:, None], cell)[:, 0]
    total = F.avg_pool2d(torch.where(valid, target, 0.0)[:, None], cell)[:, 0]
    return total / share.clamp(min=1e-6), share >= 0.5


def _gradient_error(difference: Tensor, valid: Tensor) -> Tensor:
    """Mean difference of neighbouring errors at three resolutions: no banding, sharp edges."""
    total = difference.new_zeros(())
    error, known = difference[:, None], valid.float()[:, None]
    for level in range(_LEVELS):
        if level:
            error, known = F.avg_pool2d(error, 2), (F.avg_pool2d(known, 2) == 1).float()
        for axis in (-1, -2):
            both = known.narrow(axis, 1, known.shape[axis] - 1) * known.narrow(axis, 0, known.shape[axis] - 1)
            total = total + _mean(error.diff(dim=axis).abs(), both.bool())
    return total


def _two_slices(log_probability: Tensor, target: Tensor, positions: Tensor) -> Tensor:
    """Cross-entropy [B, h, w] against the two slices on either side of the target, shared by nearness."""
    slices = positions.shape[1]
    at = positions[:, :, None, None]
    inside = torch.minimum(torch.maximum(target, positions[:, :1, None]), positions[:, -1:, None])[:, None]
    upper = (inside >= at).sum(dim=1, keepdim=True).clamp(1, slices - 1)
    at = at.expand(-1, -1, *inside.shape[-2:])
    below, above = at.gather(1, upper - 1), at.gather(1, upper)
    share = (inside - below) / (above - below)
    entropy = (1.0 - share) * log_probability.gather(1, upper - 1) + share * log_probability.gather(1, upper)
    return -entropy[:, 0]
