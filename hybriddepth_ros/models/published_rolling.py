"""HybridDepth for one new slice at a time.

A slice goes through the trunk of the focal volume once, as it is; its features are moved with it. The prior
sees one slice of the stack, the first in the order of training, and is asked when that slice is a new one.
What slices have in common, volume, alignment and refinement, is computed for every new slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hybriddepth_ros.image_files import ImageRGB
from hybriddepth_ros.models.base import AlignedStack, FocusEstimate, RollingStack, SlicePlace
from hybriddepth_ros.models.focal_volume import FocusDepth, enlarged, padded, regress
from hybriddepth_ros.models.focus_fit import blur_of
from hybriddepth_ros.models.hybriddepth import HybridDepth
from hybriddepth_ros.models.inputs import to_device
from hybriddepth_ros.models.kept_maps import KeptMaps
from hybriddepth_ros.models.published_units import (
    focus_distances,
    normalised,
    numbers_of,
    reduced,
    training_order,
)
from hybriddepth_ros.models.weights_config import WeightsConfig

Floats = npt.NDArray[np.float32]
Result = TypeVar("Result")


class HybridDepthRunner(Protocol):
    """What is needed of a HybridDepthEstimator."""

    device: str
    config: WeightsConfig
    network: Any

    def taken(self, pictures: npt.NDArray[np.uint8]) -> Tensor: ...

    def within_memory(self, work: Callable[[], Result], shape: tuple[int, ...]) -> Result: ...

    def estimate(
        self,
        stack: AlignedStack | RollingStack,
        images: Iterable[ImageRGB],
        depth: Floats,
        spread: Floats,
        blur_px_per_diopter: float,
    ) -> FocusEstimate: ...


class RollingHybridDepth:
    """See RollingModel."""

    reads_aligned = False

    def __init__(self, estimator: HybridDepthRunner) -> None:
        self._estimator = estimator
        self._features: dict[int, KeptMaps] = {}
        self._relative: dict[int, KeptMaps] = {}  # of the slice that the prior saw
        self._blur: tuple[int, float] = (-1, 0.0)  # key of the newest slice when it was looked for; [px m]

    def __call__(self, stack: RollingStack) -> FocusEstimate:
        """FocusEstimate at full resolution."""
        config = self._estimator.config
        order = training_order(stack.focus_diopters, config)
        places = [stack.places[index] for index in order]
        focus = focus_distances(stack.focus_diopters[order], config)
        width = stack.covered.shape[2]
        shape = (len(places), *reduced(places[0].image, config.longest_side).shape[:2])
        depth, spread = self._estimator.within_memory(
            lambda: self._run(places, focus, shape[1:], width / shape[2]), shape
        )
        images = [place.image for place in places]
        return self._estimator.estimate(stack, images, depth, spread, self._blur_of(stack))

    def _run(
        self, places: list[SlicePlace], focus: Floats, size: tuple[int, ...], to_full: float
    ) -> tuple[Floats, Floats]:
        """Depth and spread [h, w] as PublishedEstimator's, of places in the order of training."""
        network: HybridDepth = self._estimator.network
        height, width = size
        first = places[0]
        self._features = {
            place.key: self._features.get(place.key) or self._seen(network, place) for place in places
        }
        self._relative = {first.key: self._relative.get(first.key) or self._asked(network, first)}
        rows, columns = padded(torch.empty(1, height, width)).shape[1:]
        moved = (
            self._features[place.key].moved(place.transform, (columns, rows), to_full) for place in places
        )
        levels = (torch.cat(level) for level in zip(*moved, strict=True))
        cost = enlarged(network.focal_volume.cost_of(*levels), height, width)
        (relative,) = self._relative[first.key].moved(first.transform, (width, height), to_full)
        of_focus = FocusDepth(*regress(cost, to_device(focus, self._estimator.device)[None]))
        out = network.fuse(relative, of_focus)
        return numbers_of(out.depth), numbers_of(out.focus_std)

    def _seen(self, network: HybridDepth, place: SlicePlace) -> KeptMaps:
        images = normalised(self._taken(place), self._estimator.config.stack_normalisation)
        return KeptMaps(network.focal_volume.features(padded(images)), np.eye(3))

    def _asked(self, network: HybridDepth, place: SlicePlace) -> KeptMaps:
        rgb = normalised(self._taken(place), self._estimator.config.rgb_normalisation)
        return KeptMaps((network.relative_depth(rgb),), np.eye(3))

    def _taken(self, place: SlicePlace) -> Tensor:
        return self._estimator.taken(reduced(place.image, self._estimator.config.longest_side)[None])

    def _blur_of(self, stack: RollingStack) -> float:
        """Of a lens that is not known: looked for once a sweep."""
        if stack.blur_px_per_diopter:
            return stack.blur_px_per_diopter
        key, blur = self._blur
        if all(place.key != key for place in stack.places):
            key, blur = stack.places[stack.reference].key, blur_of(stack.aligned)
            self._blur = key, blur
        return blur
