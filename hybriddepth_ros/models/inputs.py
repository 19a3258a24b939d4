"""What networks do to their inputs first: take them to the device, check them, fill what is missing, pad to a
grid.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from hybriddepth_ros.errors import ModelError

MIN_SLICES = 2


def to_device(values: npt.NDArray[Any], device: str) -> Tensor:
    """The array on a device; on a CPU it is the array's own memory.

    To CUDA it goes by way of pinned memory, which PyTorch keeps for the next time: the thread does not wait
    for the transfer, and may change the array at once.
    """
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else tensor


def check_inputs(rgb: Tensor, stack: Tensor, focus_distances: Tensor) -> None:
    """ModelError unless the three fit: rgb [B, 3, H, W], stack [B, N, 3, H, W], focus_distances [B, N]."""
    if rgb.ndim != 4 or rgb.shape[1] != 3:
        raise ModelError(f"rgb: expected [B, 3, H, W], got {_shape(rgb)}")
    check_stack(stack, focus_distances)
    batch, _, _, height, width = stack.shape
    if rgb.shape != (batch, 3, height, width):
        raise ModelError(f"rgb: expected [{batch}, 3, {height}, {width}] like the stack's, got {_shape(rgb)}")


def check_stack(stack: Tensor, focus_distances: Tensor) -> None:
    """ModelError unless stack is [B, N, 3, H, W] with N >= 2 and focus_distances [B, N], all finite."""
    if stack.ndim != 5 or stack.shape[2] != 3:
        raise ModelError(f"stack: expected [B, N, 3, H, W], got {_shape(stack)}")
    batch, slices = stack.shape[:2]
    if 0 in stack.shape:
        raise ModelError(f"stack: expected at least one pixel, got {_shape(stack)}")
    if slices < MIN_SLICES:
        raise ModelError(f"stack: expected {MIN_SLICES} or more slices, got {slices}")
    if focus_distances.shape != (batch, slices):
        expected = f"[{batch}, {slices}], one per slice"
        raise ModelError(f"focus_distances: expected {expected}, got {_shape(focus_distances)}")
    if not bool(torch.isfinite(focus_distances).all()):
        raise ModelError(f"focus_distances: expected finite numbers, got {focus_distances.tolist()}")


def fill_missing(images: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """`images` with every NaN or infinity replaced by the mean of the finite values along `dim`, or by 0.

    One NaN would otherwise spread over everything that a convolution or an attention reaches.
    """
    finite = torch.isfinite(images)
    if bool(finite.all()):
        return images
    known = torch.where(finite, images, 0.0)
    mean = known.sum(dim, keepdim=True) / finite.sum(dim, keepdim=True).clamp(min=1)
    return torch.where(finite, images, mean)


def pad_to_multiple(images: Tensor, multiple: int, least: int = 0) -> Tensor:
    """images [..., H, W] mirrored past the bottom and the right edge until both are multiples, and >= least.

    The authors pad by reflection too; unlike theirs, this one mirrors back and forth where an image is
    smaller than its padding.
    """
    for dim in (-2, -1):
        size = images.shape[dim]
        target = -(-max(size, least) // multiple) * multiple
        if target > size:
            images = images.index_select(dim, _mirrored(size, target, images.device))
    return images


def _mirrored(size: int, target: int, device: torch.device) -> Tensor:
    """Indices [target] that run 0 .. size - 1 .. 0 .. and so on, without repeating the edge."""
    period = max(2 * (size - 1), 1)
    index = torch.arange(target, device=device) % period
    return torch.where(index < size, index, period - index)


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))
