"""The losses that HybridDepth and CrossDepth were trained with: total = silog + 0.5 * multiscale gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 4  # of the gradient loss's pyramid
MEAN_SHARE = 0.15  # how much of a wrong overall scale counts
_EPSILON = 1e-7


def silog_loss(pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scale-invariant log error (Eigen et al. 2014) over the masked pixels of pred, target [B, 1, H, W].

    10 sqrt(var(g) + 0.15 mean(g)^2), g = ln pred - ln target, in float32 even under mixed precision. Fewer
    than two pixels give 0, and so does a perfect prediction, with a gradient of 0.
    """
    error = torch.log(pred.float() + _EPSILON) - torch.log(target.float() + _EPSILON)
    if mask is not None:
        error = error[mask.bool()]
    if error.numel() < 2:
        return 0.0 * pred.float().sum()
    spread = error.var() + MEAN_SHARE * error.mean() ** 2
    return 10.0 * torch.sqrt(spread.clamp(min=torch.finfo(torch.float32).tiny))


def multiscale_gradient_loss(pred: Tensor, target: Tensor, flat: float = 0.0) -> Tensor:
    """Mean difference of Sobel derivatives over four levels of a pyramid of pred, target [B, 1, H, W].

    Only derivatives of the target that are not exactly 0 count; holes in the target (0) do make derivatives
    at their rims, as published. flat: what a level counts where the target has no derivative at all; the
    published code gives NaN there.
    """
    pred, target = pred.float(), target.float()
    total = pred.new_zeros(())
    for level in range(LEVELS):
        if level:
            pred, target = half_size(pred), half_size(target)
        wanted = sobel(target)
        there = wanted != 0
        count = there.sum()
        difference = torch.where(there, (sobel(pred) - wanted).abs(), 0.0).sum()
        total = total + torch.where(count > 0, difference / count.clamp(min=1), flat)
    return total


def half_size(image: Tensor) -> Tensor:
    """The next level of the pyramid [B, 1, ceil(H/2), ceil(W/2)]: blurred by [1 2 1] / 4 both ways."""
    kernel = image.new_tensor([1.0, 2.0, 1.0]) / 4.0
    return F.conv2d(image, (kernel[:, None] * kernel)[None, None], stride=2, padding=1)


def sobel(image: Tensor) -> Tensor:
    """Derivatives to the right and downwards [B, 2, H, W] of image [B, 1, H, W], per pixel.

    One convolution, as published: on a flat image other than 0 it leaves rounding residues, which the loss
    then counts as derivatives. Exact zeros would move the published loss by up to 0.2 %.
    """
    across = image.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8.0
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, torch.stack([across, across.T])[:, None])
