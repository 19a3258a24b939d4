"""HybridDepth and CrossDepth as depth models: aligned stack in, inverse depth and its sigma in diopters out.

What the networks want of their inputs differs with the weights (unit and order of the focus distances,
normalisation): it stands in the weights' config, and is done here and nowhere else.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.image_files import to_grey
from hybriddepth_ros.models.base import AlignedStack, FocusEstimate
from hybriddepth_ros.models.classical import UNCOVERED_SIGMA_FACTOR
from hybriddepth_ros.models.focus_fit import find_optics
from hybriddepth_ros.models.focus_measure import measure_focus
from hybriddepth_ros.models.weights import build_network, load_weights
from hybriddepth_ros.models.weights_config import WeightsConfig

Floats = npt.NDArray[np.float32]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NO_ESTIMATE_SIGMA = 1e3  # 1/m: larger than any limit on sigma
FEATURELESS_LEVELS = 2  # an image whose levels differ by less, noise averaged away, shows nothing
AT_BOUND = 1e-5  # of the bound: float32 rounding


class PublishedEstimator:
    """One of the papers' networks with its weights. See DepthModel.

    weights: an installed name or a file; "" = the first installed for this model.
    """

    model = ""

    def __init__(self, device: str = "auto", weights: str = "") -> None:
        self.device = find_device(device)
        self.config, tensors = load_weights(weights, self.model)
        self.weights = self.config.name
        self.network = build_network(self.config)
        self.network.load_published(tensors)
        self.network.requires_grad_(False)
        try:
            self.network.to(self.device)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            raise ModelError(f"{self.model} on {self.device}: {_one_line(error)}") from None

    def __call__(self, stack: AlignedStack) -> FocusEstimate:
        """FocusEstimate at full resolution; sigma is the network's spread times the weights' sigma_scale."""
        focus = focus_distances(stack.focus_diopters, self.config)
        depth, spread = self._run(stack, focus)
        diopters, sigma = to_diopters(depth, spread, self.config)
        sigma[~stack.covered.all(axis=0)] *= UNCOVERED_SIGMA_FACTOR
        if is_featureless(stack):
            sigma[:] = NO_ESTIMATE_SIGMA
        return FocusEstimate(diopters, sigma, _blur_px_per_diopter(stack))

    @torch.inference_mode()
    def _run(self, stack: AlignedStack, focus: Floats) -> tuple[Floats, Floats]:
        """Depth and the spread of the depth from focus [H, W], in the unit of the focus distances."""
        slices, height, width = stack.images.shape[:3]
        try:
            images = torch.from_numpy(stack.images).to(self.device).permute(0, 3, 1, 2).float() / 255.0
            rgb = images[first_in_order(focus, self.config)][None]  # the published choice; [1, 3, H, W]
            out = self.network(
                normalised(rgb, self.config.rgb_normalisation),
                normalised(images, self.config.stack_normalisation)[None],  # [1, S, 3, H, W]
                torch.from_numpy(focus)[None].to(self.device),
            )
            return _image(out.depth), _image(out.focus_std)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if self.device.startswith("cuda"):
                torch.cuda.empty_cache()
            size = f"{slices} slices of {width}x{height} px"
            raise ModelError(
                f"{self.model} on {self.device}: out of memory for {size}: {_one_line(error)}"
            ) from None


class HybridDepthEstimator(PublishedEstimator):
    """`model: hybriddepth`."""

    model = "hybriddepth"


class CrossDepthEstimator(PublishedEstimator):
    """`model: crossdepth`."""

    model = "crossdepth"


def focus_distances(focus_diopters: Floats, config: WeightsConfig) -> Floats:
    """Focus [S] 1/m in the unit of the weights.

    In metres, infinity and what is beyond the range of the weights count as the end of that range: the result
    is a mean over focus distances, which one infinite one would make infinite.
    """
    diopters = np.asarray(focus_diopters, np.float32)
    if config.focus_unit == "diopters":
        return diopters
    if config.focus_unit == "disparity":
        return diopters * np.float32(config.disparity_metres)
    farthest = config.depth_range[1]
    return (1.0 / np.maximum(diopters, 1.0 / farthest)).astype(np.float32)


def to_diopters(depth: Floats, spread: Floats, config: WeightsConfig) -> tuple[Floats, Floats]:
    """Inverse depth and its sigma [H, W] 1/m, of depth and spread in the unit of the weights.

    sigma = sigma_scale * spread, through the unit's slope. Where the network was cut off at the bound of its
    range, or gave no number, sigma says that there is no estimate.
    """
    low, high = config.depth_range
    known = np.isfinite(depth) & np.isfinite(spread) & (depth > low * (1.0 + AT_BOUND)) & (depth > 0.0)
    if config.model == "crossdepth":
        known &= depth < high * (1.0 - AT_BOUND)
    value = np.where(known, depth, np.float32(1.0))
    if config.focus_unit == "metres":
        diopters, slope = 1.0 / value, 1.0 / value**2  # d(1/z) = dz / z^2
    else:
        per_diopter = config.disparity_metres if config.focus_unit == "disparity" else 1.0
        diopters, slope = value / per_diopter, np.full_like(value, 1.0 / per_diopter)
    sigma = np.where(known, config.sigma_scale * spread * slope, NO_ESTIMATE_SIGMA)
    return np.where(known, diopters, 0.0).astype(np.float32), sigma.astype(np.float32)


def first_in_order(focus: Floats, config: WeightsConfig) -> int:
    """Which slice comes first in the order that the weights were trained with."""
    return int(focus.argmin() if config.slice_order == "rising" else focus.argmax())


def normalised(images: Tensor, normalisation: str) -> Tensor:
    """images [..., 3, H, W] 0..1, or the same with ImageNet's mean and deviation taken out."""
    if normalisation == "none":
        return images
    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def is_featureless(stack: AlignedStack) -> bool:
    """Whether no slice shows anything: then whatever a network answers comes from its training alone."""
    height, width = stack.images.shape[1:3]
    small = (max(width // 4, 1), max(height // 4, 1))
    averaged = (cv2.resize(to_grey(image), small, interpolation=cv2.INTER_AREA) for image in stack.images)
    return all(int(np.ptp(image)) < FEATURELESS_LEVELS for image in averaged)


def find_device(device: str) -> str:
    """`auto` as cuda where there is one, else cpu; ModelError for a device that is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        number = int(device.partition(":")[2] or 0)
        if number >= count:
            raise ModelError(f"device {device}: expected one that is there, found {count} CUDA devices")
    return device


def _blur_px_per_diopter(stack: AlignedStack) -> float:
    """The lens's, or what fits the stack: the networks do not find it, the all-in-focus image needs it."""
    if stack.blur_px_per_diopter:
        return stack.blur_px_per_diopter
    measure = measure_focus([to_grey(image) for image in stack.images])
    return find_optics(measure, stack.focus_diopters, None).blur_px_per_diopter


def _image(tensor: Tensor) -> Floats:
    result: Floats = tensor[0, 0].float().cpu().numpy()
    return result


def _is_out_of_memory(error: Any) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
