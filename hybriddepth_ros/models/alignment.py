"""Scale and shift that take relative depth to metric depth, one pair per image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Relative depth that varies by less than float32 resolves is constant: any slope would be made of rounding.
_CONSTANT = 1e-7
_FIT_PIXELS = 16384  # the robust fit looks at a grid of about this many: enough for two unknowns
_ROUNDS = 12
_CAUCHY = 2.385  # in standard deviations: 95 % as efficient as least squares on Gaussian errors
_LEAST_SIGMA = 0.1  # of the median: no pixel counts for more than 100 typical ones


class Alignment(NamedTuple):
    """target is about scale * relative + shift; both [B, 1]."""

    scale: Tensor
    shift: Tensor

    def __call__(self, relative: Tensor) -> Tensor:
        """relative [B, 1, H, W] in the target's unit."""
        return self.scale[:, :, None, None] * relative + self.shift[:, :, None, None]


def least_squares(relative: Tensor, target: Tensor) -> Alignment:
    """The published alignment: least squares over all pixels of relative, target [B, 1, H, W].

    Both are 0 where there is no solution, as published (constant relative depth). Sums are taken in float64
    about the mean: in float32 the published formula loses five digits to cancellation.
    """
    x, y = relative.flatten(1).double(), target.flatten(1).double()  # [B, P]
    scale, shift, solved = _weighted_fit(x, y, torch.ones_like(x))
    return _as(relative, scale * solved, shift * solved)


def robust(relative: Tensor, target: Tensor, sigma: Tensor) -> Alignment:
    """Alignment that outliers do not move: Cauchy-weighted least squares, reweighted; all [B, 1, H, W].

    sigma [unit of target]: only its ratios between pixels count. Pixels that are not finite are left out.
    Where there is no solution, scale is 0 and shift the robust mean of the target.
    """
    x, y, s = (_thinned(image).double() for image in (relative, target, sigma))  # [B, P]
    usable = torch.isfinite(x) & torch.isfinite(y) & torch.isfinite(s) & (s >= 0)
    x, y, s = (torch.where(usable, image, 0.0) for image in (x, y, s))
    s = torch.maximum(s, _LEAST_SIGMA * _median(s, usable)[:, None])
    prior = usable / torch.where(s > 0, s, 1.0) ** 2
    deviation = prior.sqrt()

    scale, shift, _ = _weighted_fit(x, y, prior)
    for index in range(_ROUNDS):
        residual = (y - scale * x - shift).abs() * deviation
        spread = 1.4826 * _median(residual, usable)[:, None] + torch.finfo(x.dtype).tiny
        # Least absolute deviations first: Cauchy's cost has several minima, and these lead to the right one.
        if index < _ROUNDS // 2:
            weight = 1.0 / (residual / spread).clamp(min=1e-3)
        else:
            weight = 1.0 / (1.0 + (residual / (_CAUCHY * spread)) ** 2)
        scale, shift, _ = _weighted_fit(x, y, prior * weight)
    return _as(relative, scale, shift)


def _weighted_fit(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """scale, shift, and whether there is a solution, [B, 1]; of x, y, weight [B, P]. Without: 0, mean y."""
    total = weight.sum(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    mean_x = (weight * x).sum(dim=1, keepdim=True) / total
    mean_y = (weight * y).sum(dim=1, keepdim=True) / total
    centred = weight * (x - mean_x)
    variance = (centred * (x - mean_x)).sum(dim=1, keepdim=True) / total
    covariance = (centred * (y - mean_y)).sum(dim=1, keepdim=True) / total
    solved = variance > (_CONSTANT * mean_x) ** 2
    scale = torch.where(solved, covariance / torch.where(solved, variance, 1.0), 0.0)
    return scale, mean_y - scale * mean_x, solved


def _thinned(image: Tensor) -> Tensor:
    """Every k-th row and column of [B, 1, H, W], as [B, P]."""
    step = max(int((image.shape[-2] * image.shape[-1] / _FIT_PIXELS) ** 0.5), 1)
    return image[..., ::step, ::step].flatten(1)


def _median(values: Tensor, usable: Tensor) -> Tensor:
    """Median [B] over the usable of values [B, P]; 0 where none is."""
    return torch.where(usable, values, torch.nan).nanmedian(dim=1).values.nan_to_num(nan=0.0)


def _as(like: Tensor, scale: Tensor, shift: Tensor) -> Alignment:
    return Alignment(scale.to(like.dtype), shift.to(like.dtype))
