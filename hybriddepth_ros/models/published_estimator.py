"""HybridDepth and CrossDepth as depth models: aligned stack in, inverse depth and its sigma in diopters out.

What the networks want of their inputs differs with the weights (unit and order of the focus distances, size,
normalisation): it stands in the weights' config, and is done here and nowhere else.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hybriddepth_ros.errors import ModelError, WeightsError, one_line
from hybriddepth_ros.image_files import ImageRGB, smaller, to_grey
from hybriddepth_ros.models.base import (
    AlignedStack,
    FocusEstimate,
    check_choice,
    find_device,
    is_out_of_memory,
)
from hybriddepth_ros.models.classical import UNCOVERED_SIGMA_FACTOR
from hybriddepth_ros.models.engine_choice import AUTO
from hybriddepth_ros.models.engines import require_engine
from hybriddepth_ros.models.focus_fit import blur_of
from hybriddepth_ros.models.focus_measure import resize
from hybriddepth_ros.models.inference import for_inference, release_memory
from hybriddepth_ros.models.inputs import to_device
from hybriddepth_ros.models.weights import build_network, load_weights
from hybriddepth_ros.models.weights_config import WeightsConfig

Floats = npt.NDArray[np.float32]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NO_ESTIMATE_SIGMA = 1e3  # 1/m: larger than any limit on sigma
FEATURELESS_LEVELS = 1.0  # standard deviation of an image that shows nothing, noise averaged away
AT_BOUND = 1e-5  # of the bound: float32 rounding
STEP_SHARE = 12.0**-0.5  # standard deviation of an error that is spread evenly over one step


class PublishedEstimator:
    """One of the papers' networks with its weights. See DepthModel.

    weights: an installed name or a file; "" = the first installed for this model. precision, engine: see
    `for_inference`.
    """

    model = ""

    def __init__(
        self, device: str = "auto", weights: str = "", precision: str = "float32", engine: str = AUTO
    ) -> None:
        self.device = find_device(device)
        check_choice(self.model, self.device, weights, precision, engine)
        require_engine(engine, self.device)  # before the weights, which take seconds
        self.config, tensors = load_weights(weights, self.model)
        self.weights = self.config.identity
        network = build_network(self.config)
        try:
            network.load_published(tensors)
        except WeightsError as error:
            raise WeightsError(f"{self.config.name}: {error}") from None
        try:
            self.network = for_inference(network, self.device, precision, engine)
        except RuntimeError as error:
            raise ModelError(f"{self.model} on {self.device}: {one_line(error)}") from None

    def __call__(self, stack: AlignedStack) -> FocusEstimate:
        """FocusEstimate at full resolution; sigma is the weights' sigma_scale times the network's spread, or
        what the sweep leaves open where that is more.
        """
        order = training_order(stack.focus_diopters, self.config)
        images = np.stack([reduced(stack.images[index], self.config.longest_side) for index in order])
        depth, spread = self._run(images, focus_distances(stack.focus_diopters[order], self.config))
        diopters, sigma = to_diopters(depth, spread, self.config)
        least = self.config.sigma_scale * least_spread(diopters, stack.focus_diopters, self.config)
        size = stack.images.shape[1:3]
        diopters, sigma = resize(diopters, size), resize(np.maximum(sigma, least), size)
        sigma[~stack.covered.all(axis=0)] *= UNCOVERED_SIGMA_FACTOR
        if is_featureless(stack):
            sigma[:] = NO_ESTIMATE_SIGMA
        return FocusEstimate(diopters, sigma, blur_of(stack))

    @torch.inference_mode()
    def _run(self, pictures: npt.NDArray[np.uint8], focus: Floats) -> tuple[Floats, Floats]:
        """Depth and the spread of the depth from focus [h, w], in the unit of the focus distances [S]; of
        pictures [S, h, w, 3] in the order of training.
        """
        slices, height, width = pictures.shape[:3]
        try:
            images = to_device(pictures, self.device).permute(0, 3, 1, 2).float() / 255.0
            rgb = images[:1]  # the published choice
            out = self.network(
                normalised(rgb, self.config.rgb_normalisation),
                normalised(images, self.config.stack_normalisation)[None],  # [1, S, 3, h, w]
                to_device(focus, self.device)[None],
            )
            return _image(out.depth), _image(out.focus_std)
        except (
            RuntimeError,
            MemoryError,
        ) as error:  # torch.OutOfMemoryError is one, but not the only one that says so
            said = one_line(error)
            if not is_out_of_memory(error):
                raise
        # Out here, where the exception is gone and with it the frames whose tensors it kept alive.
        release_memory(self.network)
        size = f"{slices} slices of {width}x{height} px"
        raise ModelError(f"{self.model} on {self.device}: out of memory for {size}: {said}")


class HybridDepthEstimator(PublishedEstimator):
    """`model: hybriddepth`."""

    model = "hybriddepth"


class CrossDepthEstimator(PublishedEstimator):
    """`model: crossdepth`."""

    model = "crossdepth"


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


def is_featureless(stack: AlignedStack) -> bool:
    """Whether no slice shows anything: then whatever a network answers comes from its training alone."""
    height, width = stack.images.shape[1:3]
    small = (max(width // 4, 1), max(height // 4, 1))
    averaged = (cv2.resize(to_grey(image), small, interpolation=cv2.INTER_AREA) for image in stack.images)
    return all(float(image.std()) < FEATURELESS_LEVELS for image in averaged)


def _image(tensor: Tensor) -> Floats:
    result: Floats = tensor[0, 0].float().cpu().numpy()
    return result
