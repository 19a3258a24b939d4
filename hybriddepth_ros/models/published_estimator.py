"""HybridDepth and CrossDepth as depth models: aligned stack in, inverse depth and its sigma in diopters out.

What the networks want of their inputs differs with the weights (unit and order of the focus distances, size,
normalisation): it stands in the weights' config, and is done here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hybriddepth_ros.errors import ModelError, WeightsError, one_line
from hybriddepth_ros.image_files import ImageRGB
from hybriddepth_ros.models.base import (
    AlignedStack,
    FocusEstimate,
    RollingModel,
    RollingStack,
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
from hybriddepth_ros.models.published_rolling import RollingHybridDepth
from hybriddepth_ros.models.published_units import (
    NO_ESTIMATE_SIGMA,
    focus_distances,
    is_featureless,
    least_spread,
    normalised,
    numbers_of,
    reduced,
    to_diopters,
    training_order,
)
from hybriddepth_ros.models.weights import build_network, load_weights

Floats = npt.NDArray[np.float32]
Result = TypeVar("Result")


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
        focus = focus_distances(stack.focus_diopters[order], self.config)
        depth, spread = self.within_memory(lambda: self._run(images, focus), images.shape[:3])
        return self.estimate(stack, stack.images, depth, spread, blur_of(stack))

    def _run(self, pictures: npt.NDArray[np.uint8], focus: Floats) -> tuple[Floats, Floats]:
        """Depth and the spread of the depth from focus [h, w], in the unit of the focus distances [S]; of
        pictures [S, h, w, 3] in the order of training.
        """
        images = self.taken(pictures)
        out = self.network(
            normalised(images[:1], self.config.rgb_normalisation),  # the published choice
            normalised(images, self.config.stack_normalisation)[None],  # [1, S, 3, h, w]
            to_device(focus, self.device)[None],
        )
        return numbers_of(out.depth), numbers_of(out.focus_std)

    def taken(self, pictures: npt.NDArray[np.uint8]) -> Tensor:
        """Pictures [S, h, w, 3] on the device [S, 3, h, w], 0..1."""
        return to_device(pictures, self.device).permute(0, 3, 1, 2).float() / 255.0

    def within_memory(self, work: Callable[[], Result], shape: tuple[int, ...]) -> Result:
        """What the network works out of S slices of h x w; ModelError where memory ends."""
        try:
            with torch.inference_mode():
                return work()
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is not all that says so
            said = one_line(error)
            if not is_out_of_memory(error):
                raise
        # Out here, where the exception is gone and with it the frames whose tensors it kept alive.
        release_memory(self.network)
        slices, height, width = shape
        size = f"{slices} slices of {width}x{height} px"
        raise ModelError(f"{self.model} on {self.device}: out of memory for {size}: {said}")

    def estimate(
        self,
        stack: AlignedStack | RollingStack,
        images: Iterable[ImageRGB],
        depth: Floats,
        spread: Floats,
        blur_px_per_diopter: float,
    ) -> FocusEstimate:
        """In diopters, at full resolution, with a sigma; images: the slices, moved or not."""
        diopters, sigma = to_diopters(depth, spread, self.config)
        least = self.config.sigma_scale * least_spread(diopters, stack.focus_diopters, self.config)
        size = stack.covered.shape[1:]
        diopters, sigma = resize(diopters, size), resize(np.maximum(sigma, least), size)
        sigma[~stack.covered.all(axis=0)] *= UNCOVERED_SIGMA_FACTOR
        if is_featureless(images):
            sigma[:] = NO_ESTIMATE_SIGMA
        return FocusEstimate(diopters, sigma, blur_px_per_diopter)


class HybridDepthEstimator(PublishedEstimator):
    """`model: hybriddepth`."""

    model = "hybriddepth"

    def rolling(self) -> RollingModel:
        """The same, one new slice at a time."""
        return RollingHybridDepth(self)


class CrossDepthEstimator(PublishedEstimator):
    """`model: crossdepth`."""

    model = "crossdepth"
