"""What sweepnet keeps of a slice, moved into another frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hybriddepth_ros.models.kept_maps import _grid, resampled

WIDTH, HEIGHT = 160, 128


@pytest.mark.parametrize("cell_px", [2, 4, 8])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_maps_are_moved_as_grid_sample_moves_them(cell_px: int, memory_format: torch.memory_format) -> None:
    motion = np.array([[1.01, 0.02, 3.3], [-0.015, 0.995, -2.6], [2e-5, -1e-5, 1.0]])
    height, width = HEIGHT // cell_px, WIDTH // cell_px
    coarse = torch.rand(1, 20, 5, 6, generator=torch.Generator().manual_seed(cell_px))
    image = F.interpolate(coarse, (height, width), mode="bicubic").contiguous(memory_format=memory_format)
    grid = _grid(motion, (height, width), (WIDTH, HEIGHT))
    expected = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    moved = resampled(image, motion, (WIDTH, HEIGHT))
    assert moved.is_contiguous(memory_format=memory_format)
    # OpenCV rounds places to 1/32 of a cell.
    steepest = max(float(image.diff(dim=axis).abs().max()) for axis in (2, 3))
    assert float((moved - expected).abs().max()) < steepest / 16
    assert float((moved - image).abs().mean()) > 4 * float((moved - expected).abs().mean())


def test_a_shift_by_whole_cells_moves_values_unchanged() -> None:
    image = torch.rand(1, 9, 16, 20).contiguous(memory_format=torch.channels_last)
    motion = np.array([[1.0, 0.0, 8.0], [0.0, 1.0, 16.0], [0.0, 0.0, 1.0]])  # 1 cell of 8 px, and 2
    moved = resampled(image, motion, (WIDTH, HEIGHT))
    torch.testing.assert_close(moved[:, :, :-2, :-1], image[:, :, 2:, 1:], rtol=0.0, atol=1e-6)
