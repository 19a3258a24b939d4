"""Scale and shift that take relative depth to metric depth, one pair per image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Relative depth that varies by less than float32 resolves is constant: any slope would be made of rounding.
_CONSTANT = 1e-7
_FIT_PIXELS = 16384  # the robust fit looks at a grid of about this many: enough for two unknowns
_LINES = 200  # candidates for its start: with half the pixels wrong, 50 of them are right
_JUDGES = 1024  # pixels that choose between them
_ROUNDS = 10
_TUKEY = 4.685  # standard deviations at which a pixel stops counting: 95 % efficient on Gaussian errors
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
    """Alignment that outliers do not move: reweighted least squares (Tukey); all [B, 1, H, W].

    sigma [unit of target]: only its ratios between pixels count. Pixels that are not finite are left out.
    Where there is no solution, scale is 0 and shift the robust mean of the target.
    """
    x, y, s = (_thinned(image).double() for image in (relative, target, sigma))  # [B, P]
    usable = torch.isfinite(x) & torch.isfinite(y) & torch.isfinite(s) & (s >= 0)
    x, y, s = (torch.where(usable, image, 0.0) for image in (x, y, s))
    s = torch.maximum(s, _LEAST_SIGMA * _weighted_median(s, usable.to(s))[:, None])
    prior = usable / torch.where(s > 0, s, 1.0) ** 2
    deviation = prior.sqrt()

    scale, shift = _best_of_lines_through_two(x, y, prior)
    for _ in range(_ROUNDS):
        residual = (y - scale * x - shift).abs() * deviation
        spread = 1.4826 * _weighted_median(residual, prior)[:, None] + torch.finfo(x.dtype).tiny
        weight = (1.0 - (residual / (_TUKEY * spread)) ** 2).clamp(min=0.0) ** 2
        scale, shift, _ = _weighted_fit(x, y, prior * weight)
    return _as(relative, scale, shift)


def _best_of_lines_through_two(x: Tensor, y: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """scale, shift [B, 1] of the line through two pixels whose median residual is least; all in [B, P].

    Reweighting only improves on where it starts; from here, up to half of the weight may lie anywhere. The
    same pixels are drawn every time: equal images give equal fits.
    """
    count = x.shape[1]
    drawn = torch.randint(count, (2, _LINES), generator=torch.Generator().manual_seed(0)).to(x.device)
    (x1, x2), (y1, y2) = x[:, drawn].unbind(1), y[:, drawn].unbind(1)  # [B, L]
    apart = x1 != x2
    slope = torch.where(apart, (y2 - y1) / torch.where(apart, x2 - x1, 1.0), 0.0)
    shift = y1 - slope * x1
    judges = torch.linspace(0, count - 1, min(count, _JUDGES), device=x.device).long()
    residual = y[:, None, judges] - slope[..., None] * x[:, None, judges] - shift[..., None]  # [B, L, J]
    weight = prior[:, None, judges].expand_as(residual)
    cost = _weighted_median(residual.abs() * weight.sqrt(), weight)
    best = cost.argmin(dim=1, keepdim=True)
    return slope.gather(1, best), shift.gather(1, best)


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


def _weighted_median(values: Tensor, weight: Tensor) -> Tensor:
    """The value [...] that half of the weight lies below; of values, weight [..., P]."""
    ordered, order = values.sort(dim=-1)
    below = weight.gather(-1, order).cumsum(dim=-1)
    middle = torch.searchsorted(below, 0.5 * below[..., -1:]).clamp(max=values.shape[-1] - 1)
    return ordered.gather(-1, middle).squeeze(-1)


def _as(like: Tensor, scale: Tensor, shift: Tensor) -> Alignment:
    return Alignment(scale.to(like.dtype), shift.to(like.dtype))
