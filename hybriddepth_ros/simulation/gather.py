"""The papers' synthesis of focal stacks from one sharp image and its depth.

A gather: each pixel is a mean of its neighbours, each weighted by the blur of its own. It lets the background
bleed over sharp foreground edges and its window cuts off wide blur; it is kept because published weights were
trained on it. `render` is the physical one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.optics import Array, ThinLens

WINDOW = 7  # pixels, of the authors' loaders
SHARP_SIGMA = 1.0  # a pixel blurred by no more is copied
_HOLE = 1e-8  # added to depth [m], so that a hole is finitely, if enormously, blurred


def published_defocus(
    rgb: Array, depth: Array, focus_distances: Array, lens: ThinLens, window: int = WINDOW
) -> Array:
    """Focal stack [N, 3, H, W] of rgb [3, H, W] with depth [H, W] m, focused at focus_distances [N] m.

    Numpy in, numpy out; tensors in, tensor out. A depth of 0 is a hole, blurred beyond recognition.
    window: odd size of the neighbourhood [px]. Source: HybridDepth, eq. 5.
    """
    image = _tensor(rgb)
    sigma = published_blur(depth, focus_distances, lens)
    stack = gather_blur(image, _tensor(sigma).to(image), window)
    return stack if isinstance(rgb, Tensor) else stack.numpy()


def published_blur(depth: Array, focus_distances: Array, lens: ThinLens) -> Array:
    """Gaussian sigma of the blur [N, H, W] in pixels, taken as half the circle of confusion: float64.

    depth [H, W] m, focus_distances [N] m; same formula as `circle_of_confusion`, halved.
    """
    z = _tensor(depth).double() + _HOLE
    focus = _tensor(focus_distances).double().to(z.device)[:, None, None]
    f = lens.focal_length_m
    if not bool((focus > f).all()):
        raise ParameterError(
            f"focus_distances: expected more than the focal length, {f} m; got {focus.min()} m"
        )
    image_distance = focus * f / (focus - f)
    aperture, pixel = f / lens.f_number, lens.pixel_pitch_um * 1e-6
    sigma = aperture * image_distance * (1.0 / f - 1.0 / image_distance - 1.0 / z).abs() / (2.0 * pixel)
    return sigma if isinstance(depth, Tensor) else sigma.numpy()


def gather_blur(rgb: Tensor, sigma: Tensor, window: int = WINDOW) -> Tensor:
    """Stack [N, 3, H, W] of rgb [3, H, W] blurred by sigma [N, H, W] px: pixels of at most 1 px are copied.

    Each other pixel is the mean over the window of its blurred neighbours inside the image, each weighted by
    exp(-2 r^2 / sigma^2) / sigma^2 with the neighbour's sigma.
    """
    if window < 1 or window % 2 == 0:
        raise ParameterError(f"window: expected an odd number of pixels, got {window}")
    if rgb.ndim != 3 or sigma.ndim != 3 or rgb.shape[1:] != sigma.shape[1:]:
        sizes = f"{list(rgb.shape)} and {list(sigma.shape)}"
        raise ParameterError(f"defocus: expected rgb [3, H, W] and blur [N, H, W] of one size, got {sizes}")
    reach, (height, width) = window // 2, rgb.shape[1:]
    blurred = sigma > SHARP_SIGMA
    inverse = torch.where(blurred, sigma, 1.0) ** -2
    peak = torch.where(blurred, inverse, 0.0)  # sharp neighbours give nothing
    margins = (reach, reach, reach, reach)
    inverse, peak = F.pad(inverse, margins), F.pad(peak, margins)
    image = F.pad(rgb, margins)
    total = torch.zeros_like(sigma)[:, None]  # [N, 1, H, W]
    light = total * rgb  # [N, 3, H, W]
    for row in range(window):
        for column in range(window):
            at = (..., slice(row, row + height), slice(column, column + width))
            distance2 = float((row - reach) ** 2 + (column - reach) ** 2)
            weight = (torch.exp(-2.0 * distance2 * inverse[at]) * peak[at])[:, None]
            total += weight
            light += weight * image[at]
    # Where a pixel is copied, nothing may have been gathered.
    return torch.where(blurred[:, None], light / torch.where(total > 0, total, 1.0), rgb)


def _tensor(array: Any) -> Tensor:
    return array if isinstance(array, Tensor) else torch.as_tensor(array)
