"""What the papers' networks want of their inputs and mean by their results, by their weights' config."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hybriddepth_ros.image_files import ImageRGB, smaller, to_grey
from hybriddepth_ros.models.weights_config import WeightsConfig

Floats = npt.NDArray[np.float32]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NO_ESTIMATE_SIGMA = 1e3  # 1/m: larger than any limit on sigma
FEATURELESS_LEVELS = 1.0  # standard deviation of an image that shows nothing, noise averaged away
AT_BOUND = 1e-5  # of the bound: float32 rounding
STEP_SHARE = 12.0**-0.5  # standard deviation of an error that is spread evenly over one step


def training_order(focus_diopters: Floats, config: WeightsConfig) -> npt.NDArray[np.intp]:
    """Indices [S] that bring slices into the order that the weights were trained with.

    By diopters, not by the unit of the weights: in metres, all that is beyond their range is one distance.
    """
    near_first = (config.slice_order == "rising") == (config.focus_unit == "metres")
    order = np.argsort(focus_diopters, kind="stable")
    return order[::-1] if near_first else order


def focus_distances(focus_diopters: Floats, config: WeightsConfig) -> Floats:
    """Focus [S] 1/m in the unit of the weights."""
    diopters = in_range(focus_diopters, config)
    if config.focus_unit == "diopters":
        return diopters
    if config.focus_unit == "disparity":
        return diopters * np.float32(config.disparity_metres)
    return np.float32(1.0) / diopters


def in_range(focus_diopters: Floats, config: WeightsConfig) -> Floats:
    """Focus [S] 1/m as the weights can be told of it.

    In metres, infinity and what is beyond the range of the weights count as the end of that range: the result
    is a mean over focus distances, which one infinite one would make infinite.
    """
    least = 1.0 / config.depth_range[1] if config.focus_unit == "metres" else -np.inf
    return np.asarray(np.maximum(focus_diopters, least), np.float32)


def to_diopters(depth: Floats, spread: Floats, config: WeightsConfig) -> tuple[Floats, Floats]:
    """Inverse depth and its sigma [H, W] 1/m, of depth and spread in the unit of the weights.

    sigma = sigma_scale * spread, through the unit's slope. Where the network was cut off at the bound of its
    range, or gave no number, sigma says that there is no estimate.
    """
    low, high = config.depth_range
    known = np.isfinite(depth) & np.isfinite(spread) & (depth > low * (1.0 + AT_BOUND))
    if config.model == "crossdepth":
        known &= depth < high * (1.0 - AT_BOUND)
        known[[0, -1], :] = known[:, [0, -1]] = False  # its last mean counts zeros beyond the rim
    value = np.where(known, depth, np.float32(1.0))
    if config.focus_unit == "metres":
        diopters, slope = 1.0 / value, 1.0 / value**2  # d(1/z) = dz / z^2
    else:
        per_diopter = config.disparity_metres if config.focus_unit == "disparity" else 1.0
        diopters, slope = value / per_diopter, np.full_like(value, 1.0 / per_diopter)
    with np.errstate(over="ignore"):
        sigma = np.where(known, config.sigma_scale * spread * slope, np.inf)
    sigma = np.minimum(sigma, NO_ESTIMATE_SIGMA)
    return np.where(known, diopters, 0.0).astype(np.float32), sigma.astype(np.float32)


def least_spread(diopters: Floats, focus_diopters: Floats, config: WeightsConfig) -> Floats:
    """What the sweep leaves open about inverse depth [H, W] 1/m, however sure the network is [H, W] 1/m.

    A softmax that picks one slice has no spread at all, but knows only that the neighbours fit worse: the
    error may lie anywhere in one step of the sweep. Where a focus beyond the range of the weights counts as
    its end, that difference is added, and outside the sweep, where no slice looked, the distance from it.
    """
    focus = np.sort(focus_diopters)
    told = in_range(focus, config)
    unsure = STEP_SHARE * np.gradient(focus) + (told - focus)  # [S]
    told, farthest = np.unique(told, return_index=True)  # several may count as one distance
    outside = np.abs(diopters - np.clip(diopters, told[0], told[-1]))
    return np.asarray(np.interp(diopters, told, unsure[farthest]) + outside, np.float32)


def reduced(image: ImageRGB, longest_side: int) -> ImageRGB:
    """The image, no side longer than this [px]; trained networks know blur of a certain size."""
    factor = longest_side / max(image.shape[:2])
    if factor >= 1.0:
        return image
    return smaller(image, factor)


def normalised(images: Tensor, normalisation: str) -> Tensor:
    """images [..., 3, H, W] 0..1, or the same with ImageNet's mean and deviation taken out."""
    if normalisation == "none":
        return images
    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def is_featureless(images: Iterable[ImageRGB]) -> bool:
    """Whether no slice shows anything: then whatever a network answers comes from its training alone."""
    for image in images:
        small = (max(image.shape[1] // 4, 1), max(image.shape[0] // 4, 1))
        averaged = cv2.resize(to_grey(image), small, interpolation=cv2.INTER_AREA)
        if float(averaged.std()) >= FEATURELESS_LEVELS:
            return False
    return True


def numbers_of(tensor: Tensor) -> Floats:
    """[h, w] of a tensor [1, 1, h, w] on any device."""
    result: Floats = tensor[0, 0].float().cpu().numpy()
    return result
