"""What a network made of a slice, kept, and moved into the frame of another."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from hybriddepth_ros.warping import at_resolution, largest_step_px

Maps = tuple[Tensor, ...]  # [1, c, h, w] each
Float64 = npt.NDArray[np.float64]

UNMOVED_PX = 0.25  # what moved by less is not moved in memory


@dataclass(frozen=True)
class KeptMaps:
    """maps: of a slice, in the frame where they were made; transform [3, 3]: pixel of it -> pixel of the
    slice.
    """

    maps: Maps
    transform: Float64

    def moved(self, transform: Float64, size: tuple[int, int], to_full: float) -> Maps:
        """The maps as they lie in another frame; transform [3, 3]: pixel of that frame -> of the slice.

        size: (W, H) of what the network saw, whose pixels are to_full pixels of the image wide.
        """
        motion = np.linalg.inv(self.transform) @ transform  # pixel of the new frame -> of the one they are in
        scale = np.diag([to_full, to_full, 1.0])
        motion = np.linalg.inv(scale) @ motion @ scale
        if largest_step_px(motion, size[0] + 1, size[1] + 1) < UNMOVED_PX:
            return self.maps
        return tuple(resampled(each, motion, size) for each in self.maps)


def resampled(image: Tensor, motion: npt.NDArray[np.float64], size: tuple[int, int]) -> Tensor:
    """image [1, c, h, w] in another frame; motion [3, 3]: pixel of that frame -> pixel of the old one, of an
    image of size (W, H) that the map's cells cover.

    On a CPU by OpenCV, which takes all channels of a pixel at once: three times as fast as grid_sample.
    """
    height, width = image.shape[2:]
    if image.device.type != "cpu":
        grid = _grid(motion, (height, width), size).to(image.device, image.dtype)
        there = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
        return there.contiguous(memory_format=_layout(image))
    of_cells = at_resolution(motion, size, (height, width))
    cells = image[0].permute(1, 2, 0).contiguous().numpy()  # [h, w, c]
    flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
    moved = cv2.warpPerspective(cells, of_cells, (width, height), flags=flags, borderMode=border)
    there = torch.from_numpy(moved.reshape(height, width, -1)).permute(2, 0, 1)[None]
    return there.contiguous(memory_format=_layout(image))


def _layout(image: Tensor) -> torch.memory_format:
    last = image.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _grid(motion: npt.NDArray[np.float64], shape: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """[1, h, w, 2]: where each cell of the new frame lies in the old one, -1..1 from edge to edge."""
    height, width = shape
    step_x, step_y = size[0] / width, size[1] / height
    x = (np.arange(width) + 0.5) * step_x - 0.5
    y = (np.arange(height) + 0.5) * step_y - 0.5
    row_x = motion[:, 0, None] * x  # [3, w]
    row_y = motion[:, 1, None] * y + motion[:, 2, None]  # [3, h]
    there = row_y[:, :, None] + row_x[:, None, :]  # [3, h, w]
    places = there[:2] / there[2]
    normal = np.stack([(2.0 * places[0] + 1.0) / size[0] - 1.0, (2.0 * places[1] + 1.0) / size[1] - 1.0], -1)
    return torch.from_numpy(normal[None].astype(np.float32))
