"""Depth Anything by itself, as a prior: one sharp image in, relative inverse depth out."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from hybriddepth_ros.errors import ModelError, WeightsError, one_line
from hybriddepth_ros.image_files import ImageRGB
from hybriddepth_ros.models.base import find_device, is_out_of_memory
from hybriddepth_ros.models.focus_measure import resize
from hybriddepth_ros.models.inputs import to_device
from hybriddepth_ros.models.published_units import normalised
from hybriddepth_ros.models.relative_depth import INPUT_SIZE
from hybriddepth_ros.models.weights import build_network, load_weights

PATCH = 14  # px: sides of what the network takes are multiples of it


class DepthAnything:
    """`prior: depth_anything`. See DepthPrior.

    Unlike the papers' pipelines, which neither normalise the image nor keep its proportions and were trained
    that way, this runs the network as its authors do.
    """

    def __init__(self, device: str = "auto", weights: str = "") -> None:
        self.device = find_device(device)
        config, tensors = load_weights(weights, "depth_anything")
        self.weights = config.identity
        network = build_network(config)
        try:
            network.load_published(tensors)
        except WeightsError as error:
            raise WeightsError(f"{config.name}: {error}") from None
        try:
            self.network = network.requires_grad_(False).to(self.device)
        except RuntimeError as error:
            raise ModelError(f"depth_anything on {self.device}: {one_line(error)}") from None

    @torch.inference_mode()
    def __call__(self, image: ImageRGB) -> npt.NDArray[np.float32]:
        height, width = image.shape[:2]
        rows, columns = network_size(height, width)
        interpolation = cv2.INTER_AREA if rows < height else cv2.INTER_CUBIC
        fitted = cv2.resize(image, (columns, rows), interpolation=interpolation)
        rgb = to_device(fitted, self.device).permute(2, 0, 1)[None].float() / 255.0
        try:
            relative = self.network.predict(normalised(rgb, "imagenet"))[0, 0].float().cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = f"depth_anything on {self.device}: out of memory for {columns}x{rows} px"
            raise ModelError(said) from None
        return np.asarray(resize(relative, (height, width)), np.float32)


def network_size(height: int, width: int) -> tuple[int, int]:
    """Height and width [px] that an image is brought to: the shorter side is that of the training."""
    factor = INPUT_SIZE / min(height, width)
    rows, columns = (max(round(side * factor / PATCH), 1) * PATCH for side in (height, width))
    return rows, columns
