"""Focal stacks of layered scenes: a thin lens, in linear light, near surfaces hiding far ones.

Each layer is blurred once at every rung of a ladder of diameters; a pixel of a slice takes the mean of its
two neighbouring rungs that has the second moment of its own blur. Plain tensor operations, on the scene's
device.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.optics import ThinLens, blur_px_per_diopter
from hybriddepth_ros.simulation.layers import LayeredScene
from hybriddepth_ros.simulation.limits import require_within
from hybriddepth_ros.simulation.point_spread import PointSpread

_STEP_PX = 1 / 8  # rungs are whole multiples of it, so that a table finds those beside a blur
_FIRST_RUNGS_PX = (0.0, 1.625, 2.25, 2.875)
_RUNG_RATIO = 1.25
_LARGEST_REACH = 6  # pixels; wider blur is done on a reduced image


@dataclass(frozen=True)
class StackOptics:
    """The lens of a rendered stack.

    blur_px_per_diopter [px m]: blur diameter per diopter out of focus, of a lens focused at infinity.
    focal_length_m [m]: makes blur grow by 1 / (1 - f D_f) as the lens focuses nearer; 0 leaves it linear.
    breathing_percent_per_diopter [% m]: growth of the image per diopter that the focus comes nearer.
    vignetting [-]: tan^2 of the field angle in the corners, which the cos^4 law darkens to (1 + v)^-2.
    """

    blur_px_per_diopter: float
    focal_length_m: float = 0.0
    point_spread: PointSpread = field(default_factory=PointSpread)
    breathing_percent_per_diopter: float = 0.0
    vignetting: float = 0.0

    def __post_init__(self) -> None:
        require_within("blur_px_per_diopter", self.blur_px_per_diopter, 0.0, 1e4)
        require_within("focal_length_m", self.focal_length_m, 0.0, 1.0)
        require_within("breathing_percent_per_diopter", self.breathing_percent_per_diopter, -20.0, 20.0)
        require_within("vignetting", self.vignetting, 0.0, 4.0)

    @classmethod
    def of_lens(cls, lens: ThinLens, point_spread: PointSpread | None = None) -> StackOptics:
        """With the blur of this lens, exactly, and nothing else."""
        spread = point_spread or PointSpread()
        return cls(float(blur_px_per_diopter(lens)), lens.focal_length_m, spread)

    def blur_px(self, depth_diopters: Tensor, focus_diopters: Tensor) -> Tensor:
        """Blur diameter [px], negative behind the focus; its size is `optics.circle_of_confusion`."""
        scale = self.blur_px_per_diopter / (1.0 - self.focal_length_m * focus_diopters)
        return (depth_diopters - focus_diopters) * scale


@dataclass(frozen=True)
class CameraMotion:
    """Where the camera's motion puts the image, slice by slice.

    shift_px: (right, down) [px]; rotation_deg [deg]: about the centre, from right towards down.
    """

    shift_px: tuple[tuple[float, float], ...]
    rotation_deg: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.shift_px) != len(self.rotation_deg):
            counts = f"{len(self.shift_px)} and {len(self.rotation_deg)}"
            raise ParameterError(f"motion: expected as many shifts as rotations, got {counts}")
        for name, values in (("shift_px", sum(self.shift_px, ())), ("rotation_deg", self.rotation_deg)):
            for value in values:
                require_within(name, value, -1e4, 1e4)

    @classmethod
    def random(cls, count: int, step_px: float, step_deg: float, generator: torch.Generator) -> CameraMotion:
        """A random walk whose steps have these standard deviations."""
        require_within("step_px", step_px, 0.0, 100.0)
        require_within("step_deg", step_deg, 0.0, 10.0)
        steps = torch.randn(count, 3, generator=generator, device=generator.device).cumsum(0).cpu().tolist()
        shifts = tuple((step_px * x, step_px * y) for x, y, _ in steps)
        return cls(shifts, tuple(step_deg * angle for _, _, angle in steps))


@torch.no_grad()
def render_stack(
    scene: LayeredScene,
    focus_diopters: Sequence[float],
    optics: StackOptics,
    motion: CameraMotion | None = None,
    reference: int = 0,
) -> Tensor:
    """Linear light [N, 3, H, W] float32 of the slices focused at `focus_diopters` [N] 1/m.

    Breathing and motion are relative to the slice `reference`: the scene's depth is that of its pixels.
    """
    focus = [float(value) for value in focus_diopters]
    _check(focus, optics, motion, reference)
    _, height, width = scene.coverage.shape
    count, pixels = len(focus), height * width
    focused = scene.color.new_tensor(focus)
    blur = optics.blur_px(scene.diopters.flatten(1)[:, None], focused[:, None])  # [L, N, H W]
    ladder, rungs = _blur_ladder(scene, optics.point_spread, float(blur.min()), float(blur.max()))

    if rungs[0] == 0.0:
        blur = blur.abs()  # a round point spread is the same on both sides of the focus
    image = blur.new_zeros(count, pixels, 4)
    table = _interpolation_table(rungs, pixels * len(blur), blur.device)
    here = torch.arange(pixels, dtype=torch.int32, device=blur.device) * len(blur)
    # Slice by slice everything stays in a CPU's cache, which halves the time; a GPU takes them all at once.
    together = count if blur.is_cuda else 1
    for layer, coc in enumerate(blur):
        for blurs, light in zip(coc.split(together), image.split(together), strict=True):
            _lay_over(light, ladder, blurs, here + layer, table)
    stack = image.view(count, height, width, 4)[..., :3].permute(0, 3, 1, 2).contiguous()

    if motion is not None or optics.breathing_percent_per_diopter:
        stack = _move(stack, focus, optics.breathing_percent_per_diopter, motion, reference)
    if optics.vignetting:
        stack *= _vignetting(height, width, optics.vignetting).to(stack)
    return stack


@dataclass(frozen=True)
class _InterpolationTable:
    """For blur in K steps of _STEP_PX from `first_px`: the ladder's row of the rung below, and how to mix.

    row [K] int32: the first of that rung; the rung above has the share slope [K] * u |u| + offset [K] of
    blur u, as second moments are linear in u^2. stride: rows per rung.
    """

    first_px: float
    row: Tensor
    slope: Tensor
    offset: Tensor
    stride: int


def _interpolation_table(rungs: list[float], stride: int, device: torch.device) -> _InterpolationTable:
    edges = torch.tensor(rungs, dtype=torch.float64)
    cells = round((rungs[-1] - rungs[0]) / _STEP_PX)
    middles = rungs[0] + (torch.arange(cells, dtype=torch.float64) + 0.5) * _STEP_PX
    below = torch.bucketize(middles, edges) - 1
    squares = edges * edges.abs()
    slope = 1.0 / (squares[below + 1] - squares[below])
    return _InterpolationTable(
        first_px=rungs[0],
        row=(below * stride).int().to(device),
        slope=slope.float().to(device),
        offset=(-squares[below] * slope).float().to(device),
        stride=stride,
    )


def _lay_over(light: Tensor, ladder: Tensor, blur: Tensor, pixel: Tensor, table: _InterpolationTable) -> None:
    """Put a layer with blur [N, P] px over light [N, P, 4], in place; `pixel` [P]: its rows of a rung."""
    cell = ((blur - table.first_px) * (1.0 / _STEP_PX)).int().clamp_(0, len(table.row) - 1).flatten()
    squares = (blur * blur.abs()).flatten()
    share = squares.mul_(table.slope.index_select(0, cell)).add_(table.offset.index_select(0, cell))
    rows = (table.row.index_select(0, cell).view(blur.shape) + pixel).flatten()
    blended = ladder.index_select(0, rows)
    blended.lerp_(ladder.index_select(0, rows + table.stride), share.clamp_(0.0, 1.0)[:, None])
    blended = blended.view(light.shape)
    light.mul_(1.0 - blended[..., 3:]).add_(blended)  # colour times coverage, and coverage


def _check(focus: list[float], optics: StackOptics, motion: CameraMotion | None, reference: int) -> None:
    if not focus or not all(math.isfinite(value) for value in focus):
        raise ParameterError(f"focus_diopters: expected at least one finite number, got {focus}")
    if optics.focal_length_m * max(focus) >= 1.0:
        nearest = f"{1.0 / optics.focal_length_m:.4g} 1/m (the focal length)"
        raise ParameterError(f"focus_diopters: expected less than {nearest}, got {max(focus)!r}")
    if not 0 <= reference < len(focus):
        raise ParameterError(f"reference: expected a slice of 0 to {len(focus) - 1}, got {reference!r}")
    if motion is not None and len(motion.shift_px) != len(focus):
        raise ParameterError(f"motion: expected {len(focus)} slices, got {len(motion.shift_px)}")


def _blur_ladder(
    scene: LayeredScene, spread: PointSpread, least_px: float, most_px: float
) -> tuple[Tensor, list[float]]:
    """Every layer at every rung: rows [J H W L, 4] of colour times coverage and coverage, and the rungs [J].

    Rungs are ascending blur diameters [px]; negative ones, behind the focus, only where the side matters.
    """
    farthest = max(-least_px, most_px)
    if not math.isfinite(farthest):
        raise ParameterError("scene: expected finite diopters")
    rungs = _rungs_up_to(farthest)
    if spread.ellipticity:
        behind = _rungs_up_to(max(-least_px, 0.0))[:0:-1]
        rungs = [-diameter for diameter in behind] + _rungs_up_to(max(most_px, 0.0))
    layers, _, height, width = scene.color.shape
    coverage = scene.coverage[:, None]
    # All layers side by side as channels, channels last: blurred in one go, and gathered as rows of four.
    sharp = torch.cat((scene.color * coverage, coverage), dim=1).view(1, layers * 4, height, width)
    reduced = {1: sharp.contiguous(memory_format=torch.channels_last)}
    ladder = sharp.new_empty(len(rungs), height, width, layers * 4)
    for rung, diameter in zip(ladder, rungs, strict=True):
        rung.copy_(_blurred(reduced, diameter, spread)[0].permute(1, 2, 0))
    return ladder.view(-1, 4), rungs


def _rungs_up_to(diameter_px: float) -> list[float]:
    """At least two rungs, the last of them no less than this [px]."""
    rungs = list(_FIRST_RUNGS_PX)
    while rungs[-1] < diameter_px:
        rungs.append(round(rungs[-1] * _RUNG_RATIO / _STEP_PX) * _STEP_PX)
    return rungs[: max(bisect_left(rungs, diameter_px), 1) + 1]


def _blurred(reduced: dict[int, Tensor], diameter_px: float, spread: PointSpread) -> Tensor:
    """`reduced[1]` [1, C, H, W] blurred; `reduced` keeps its copies at 1/2, 1/4... for the next rung."""
    image, size = reduced[1], abs(diameter_px)
    if size == 0.0:
        return image
    factor = 1
    while spread.reach(size / factor) > _LARGEST_REACH:
        factor *= 2
    if factor not in reduced:
        reduced[factor] = _reduced(image, factor)
    # Reducing and enlarging blur too, by (2 f^2 + 1) / 6 px^2 along an axis and alike in all directions; a
    # disc by d^2 / 16.
    left2 = size**2 - (8.0 / 3.0 * (2 * factor**2 + 1) if factor > 1 else 0.0)
    ellipticity = max(-0.9, min(0.9, spread.ellipticity * size**2 / left2))
    kernel = replace(spread, ellipticity=ellipticity).kernel(math.sqrt(left2) / factor, diameter_px > 0.0)
    reach = len(kernel) // 2
    blurred = _convolved(_padded(reduced[factor], reach, reach, reach, reach), kernel)
    if factor == 1:
        return blurred
    enlarged = F.interpolate(blurred, scale_factor=float(factor), mode="bilinear")
    return enlarged[..., : image.shape[2], : image.shape[3]]


def _reduced(image: Tensor, factor: int) -> Tensor:
    """[1, C, ceil(H / factor), ceil(W / factor)]: the transpose of linear enlargement.

    Means over blocks would move a point to the middle of its block; this leaves its centroid where it is.
    """
    at = (torch.arange(2 * factor) + 0.5) / factor - 1.0
    tent = (1.0 - at.abs()) / factor
    half, (height, width) = factor // 2, image.shape[2:]
    padded = _padded(image, half, half + -width % factor, half, half + -height % factor)
    return _convolved(padded, tent[:, None] * tent, stride=factor)


def _padded(image: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Mirrored, or where the image is smaller than its margin replicated."""
    mirrors = max(top, bottom) < image.shape[2] and max(left, right) < image.shape[3]
    padded = F.pad(image, (left, right, top, bottom), mode="reflect" if mirrors else "replicate")
    return padded.contiguous(memory_format=torch.channels_last)


def _convolved(image: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """Every channel of image [1, C, H, W] with the same kernel [k, k], without margins."""
    channels = image.shape[1]
    weights = kernel.to(image).expand(channels, 1, -1, -1).contiguous()
    return F.conv2d(image, weights, stride=stride, groups=channels)


def _move(
    stack: Tensor, focus: list[float], breathing_percent: float, motion: CameraMotion | None, reference: int
) -> Tensor:
    """The slices [N, 3, H, W] magnified by breathing, rotated and shifted relative to the reference slice."""
    height, width = stack.shape[2:]
    motion = motion or CameraMotion(((0.0, 0.0),) * len(focus), (0.0,) * len(focus))
    matrices = []
    for diopters, shift, rotation in zip(focus, motion.shift_px, motion.rotation_deg, strict=True):
        size = 1.0 + 0.01 * breathing_percent * (diopters - focus[reference])
        if size <= 0.0:
            raise ParameterError(f"breathing_percent_per_diopter: {breathing_percent:g} leaves no image")
        angle = math.radians(rotation - motion.rotation_deg[reference])
        right, down = (a - b for a, b in zip(shift, motion.shift_px[reference], strict=True))
        cos, sin = math.cos(angle) / size, math.sin(angle) / size
        # From a pixel of the slice back to the still image, in pixels from the centre.
        rows = ((cos, sin, -cos * right - sin * down), (-sin, cos, sin * right - cos * down))
        half = (0.5 * width, 0.5 * height)  # affine_grid counts in half widths and heights
        matrices.append(
            [
                [x * half[0] / half[axis], y * half[1] / half[axis], offset / half[axis]]
                for axis, (x, y, offset) in enumerate(rows)
            ]
        )
    grid = F.affine_grid(stack.new_tensor(matrices), list(stack.shape), align_corners=False)
    moved = F.grid_sample(stack, grid, "bicubic", "reflection", align_corners=False)
    moved.clamp_(min=0.0)  # a bicubic undershoots beside highlights
    moved[reference] = stack[reference]
    return moved


def _vignetting(height: int, width: int, strength: float) -> Tensor:
    """Gain [H, W] of the cos^4 law, 1 in the centre."""
    y = torch.linspace(1.0 - height, height - 1.0, height)[:, None]
    x = torch.linspace(1.0 - width, width - 1.0, width)
    return (1.0 + strength * (x**2 + y**2) / max((width - 1) ** 2 + (height - 1) ** 2, 1)) ** -2
