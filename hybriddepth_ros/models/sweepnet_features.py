"""What sweepnet is told before it learns anything: where the slices lie, and how sharp each one is where."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GRID = 4  # pixels per step of the focus measure and of the network's own volume
SCALES = 3
WINDOWS = 3
MEASURES = SCALES * WINDOWS
GEOMETRY = 9

_NOISE_FLOOR = (0.004, 0.004, 0.003)  # energy [grey level 0..1] below which structure is noise, per scale
_USUAL_SPACING = 6.0  # px of blur between neighbouring slices that the features are centred on
_USUAL_RANGE = 15.0  # px of blur from the first slice to the last


class FocusMeasures(nn.Module):
    """Log energy of a modified Laplacian (Nayar and Nakagawa 1994), on a grid of 4 pixels.

    Three scales (full, half, quarter resolution), each over the grid's cell, 3x3 and 7x7 cells: nothing is
    learned here.
    """

    def forward(self, stack: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N, 9, H/4, W/4] relative to the mean over the slices, and that mean [B, 1, 9, H/4, W/4].

        stack [B, N, 3, H, W] 0..1, H and W multiples of 4.
        """
        measures = self.logs(stack)
        mean = measures.mean(dim=1, keepdim=True)
        return measures - mean, mean

    def logs(self, stack: Tensor) -> Tensor:
        """[B, N, 9, H/4, W/4], each slice by itself."""
        batch, slices = stack.shape[:2]
        red, green, blue = stack.flatten(0, 1).split(1, dim=1)
        level = (0.3 * red).add_(green, alpha=0.5).add_(blue, alpha=0.2)  # [B N, 1, H, W]
        energies = []
        for scale in range(SCALES):
            if scale:
                level = F.avg_pool2d(level, 2)
            energy = _modified_laplacian(level)
            if scale < SCALES - 1:
                energy = F.avg_pool2d(energy, GRID >> scale)
            wider = _box(energy, 3)
            for windowed in (energy, wider, _box(wider, 5)):
                energies.append(torch.log(windowed + _NOISE_FLOOR[scale]))
        return torch.cat(energies, dim=1).unflatten(0, (batch, slices))


def slice_geometry(positions: Tensor) -> Tensor:
    """[B, N, 9]: spacings to the neighbours, place in the sweep, its range, the number of slices.

    positions [B, N] px of blur, rising: focus in diopters times the blur per diopter.
    """
    slices = positions.shape[1]
    before, after = _neighbour_spacings(positions)
    extent = positions[:, -1:] - positions[:, :1]
    place = 2.0 * (positions - positions[:, :1]) / extent - 1.0
    first = torch.zeros_like(positions)
    first[:, 0] = 1.0
    columns = (
        torch.log(before.clamp(min=0.05) / _USUAL_SPACING),
        torch.log(after.clamp(min=0.05) / _USUAL_SPACING),
        before / _USUAL_SPACING,
        after / _USUAL_SPACING,
        first,
        first.flip(1),
        place,
        torch.log(extent / _USUAL_RANGE).expand_as(positions),
        torch.full_like(positions, slices / 8.0 - 1.0),
    )
    return torch.stack(columns, dim=-1)


def local_spacing(positions: Tensor) -> Tensor:
    """[B, N]: half the distance between a slice's two neighbours; at the ends, the distance to the one."""
    before, after = _neighbour_spacings(positions)
    return 0.5 * (before + after)


def mean_spacing(positions: Tensor) -> Tensor:
    """[B]: the sweep's range over its steps."""
    return (positions[:, -1] - positions[:, 0]) / (positions.shape[1] - 1)


def _neighbour_spacings(positions: Tensor) -> tuple[Tensor, Tensor]:
    steps = positions[:, 1:] - positions[:, :-1]
    return torch.cat([steps[:, :1], steps], dim=1), torch.cat([steps, steps[:, -1:]], dim=1)


def _modified_laplacian(image: Tensor) -> Tensor:
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    twice = 2.0 * image
    across = (twice - padded[..., 1:-1, 2:]).sub_(padded[..., 1:-1, :-2]).abs_()
    down = twice.sub_(padded[..., 2:, 1:-1]).sub_(padded[..., :-2, 1:-1]).abs_()
    return across.add_(down)


def _box(image: Tensor, side: int) -> Tensor:
    """Mean over a square within the image; several times as fast as pooling with a stride of 1."""
    for axis in (-1, -2):
        length = image.shape[axis]
        margins = (side // 2,) * 2 if axis == -1 else (0, 0, *(side // 2,) * 2)
        padded = F.pad(image, margins)
        total = padded.narrow(axis, 0, length).clone()
        for offset in range(1, side):
            total.add_(padded.narrow(axis, offset, length))
        at = torch.arange(length, device=image.device)
        inside = (at + side // 2).clamp(max=length - 1) - (at - side // 2).clamp(min=0) + 1
        image = total.div_(inside if axis == -1 else inside[:, None])
    return image
