"""Training data without end: procedural scenes through random lenses, the same for the same seed.

Everything is in px of blur, the unit of `SweepNet`. Rendering costs more than looking, so that each rendered
stack is looked at several times: other slices, another crop, another exposure. Processes render; what they
rendered last lies on the device that trains, and there it is looked at.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hybriddepth_ros.simulation.exposure import Exposure, develop_stacks, gaussian_blur
from hybriddepth_ros.simulation.gather import gather_blur
from hybriddepth_ros.simulation.layers import LayeredScene
from hybriddepth_ros.simulation.point_spread import PointSpread
from hybriddepth_ros.simulation.procedural_scenes import random_scene
from hybriddepth_ros.simulation.procedural_textures import TextureBank, log_uniform
from hybriddepth_ros.simulation.stack_renderer import CameraMotion, StackOptics, render_stack
from hybriddepth_ros.training.workers import one_thread

STACKS_PER_BANK = 600  # stacks painted with the same textures
_BRIGHTEST = 4.0  # what a rendered stack keeps of highlights; the sensor saturates at 1
_GAMMA = 2.2
_ENDLESS = 2**62

Rng = np.random.Generator


@dataclass(frozen=True)
class StackSettings:
    """How stacks are drawn.

    render_px: side of a rendered stack; crop_px: of what the network sees, a multiple of 32;
    rendered_slices: of which a batch takes some or all; gathered_share: of stacks that are blurred as the
    papers' data sets are (`gather_blur`), not as light is; pool_stacks: the newest, from which a batch takes
    its own; new_stacks: rendered for every batch.
    """

    render_px: int
    crop_px: int
    batch_size: int
    rendered_slices: int
    gathered_share: float
    pool_stacks: int
    new_stacks: int


class Batch(NamedTuple):
    """stack [B, N, 3, H, W] uint8; positions [B, N], target [B, H, W] px of blur, float32."""

    stack: Tensor
    positions: Tensor
    target: Tensor


@dataclass(frozen=True)
class NoisyPhotograph:
    """What a photograph adds to what it shows: noise of this deviation, of 1, blurred by `grain_px` first."""

    deviation: float
    grain_px: float
    seed: int

    def added_to(self, image: Tensor) -> Tensor:
        """Of an image [3, H, W] from 0 to 1."""
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(self.seed))
        if self.grain_px > 0:
            noise = gaussian_blur(noise, self.grain_px, math.ceil(3.0 * self.grain_px))
        return (image + noise * (self.deviation / noise.std())).clamp_(0.0, 1.0)


class RenderedStack(NamedTuple):
    """linear [R, 3, h, w] float16, positions [R], target [h, w] px of blur."""

    linear: Tensor
    positions: Tensor
    target: Tensor


class RenderedStacks(Dataset[RenderedStack]):
    """Stack `i` of an endless row, a function of the seed and of i alone.

    Textures are shared by neighbours: whoever reads in order rarely has to paint them.
    """

    def __init__(self, settings: StackSettings, seed: int) -> None:
        self._settings, self._seed = settings, seed
        self._bank: tuple[int, TextureBank] | None = None

    def __getitem__(self, index: int) -> RenderedStack:
        cv2.setNumThreads(1)
        number = index // STACKS_PER_BANK
        if self._bank is None or self._bank[0] != number:
            self._bank = (number, TextureBank(np.random.default_rng([self._seed, 0, number])))
        return self._render(np.random.default_rng([self._seed, 1, index]), self._bank[1])

    def _render(self, rng: Rng, bank: TextureBank) -> RenderedStack:
        settings = self._settings
        positions = random_sweep(rng, settings.rendered_slices)
        size = (settings.render_px, settings.render_px)
        scene = random_scene(rng, size, (float(positions[0]), float(positions[-1])), bank)
        if rng.random() < settings.gathered_share:
            linear = gathered_stack(scene, torch.from_numpy(positions), random_noise(rng))
            return RenderedStack(linear.half(), torch.from_numpy(positions), scene.depth_diopters)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        motion = None
        if rng.random() < 0.3:  # what registration leaves
            step = log_uniform(rng, 0.05, 0.6)
            motion = CameraMotion.random(len(positions), step, 0.0, generator)
        reference = int(rng.integers(len(positions)))
        linear = render_stack(scene, positions.tolist(), random_optics(rng), motion, reference)
        return RenderedStack(
            linear.clamp_(max=_BRIGHTEST).half(),
            torch.from_numpy(positions),
            scene.depth_diopters,
        )


class SyntheticBatches:
    """Batches of an endless row on a device, `length` at a time, from batch `start` on.

    Batch `i` is a function of the seed, i, and of which of `world` processes asks. It takes its stacks
    from the pool, to which `new_stacks` are added before each batch and which holds the newest `pool_stacks`;
    it is a quarter full, and a batch at least, before the first.
    """

    def __init__(
        self,
        settings: StackSettings,
        seed: int,
        length: int,
        start: int = 0,
        device: torch.device | str = "cpu",
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._settings, self._seed, self._length = settings, seed, length
        self._device, self._rank = torch.device(device), rank
        self._next = start
        head_start = max(settings.batch_size, settings.pool_stacks // 4)
        last = head_start + start * settings.new_stacks
        first = max(0, last - settings.pool_stacks)
        self._pool: deque[RenderedStack] = deque(maxlen=settings.pool_stacks)
        self._to_fill = last - first
        rendered = DataLoader(
            RenderedStacks(settings, seed),
            batch_size=None,
            sampler=range(first * world + rank, _ENDLESS, world),
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            worker_init_fn=one_thread,
        )
        self._rendered: Iterator[RenderedStack] = iter(rendered)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        """The next `length` of them."""
        for _ in range(self._length):
            for rendered in islice(self._rendered, self._to_fill + self._settings.new_stacks):
                # A copy: what a worker sends holds shared memory and an open file as long as it is kept.
                self._pool.append(RenderedStack(*(part.to(self._device, copy=True) for part in rendered)))
            self._to_fill = 0
            rng = np.random.default_rng([self._seed, 2, self._next, self._rank])
            self._next += 1
            chosen = rng.choice(len(self._pool), self._settings.batch_size, replace=False)
            yield look([self._pool[index] for index in chosen], self._settings, rng)


def gathered_stack(scene: LayeredScene, positions: Tensor, noise: NoisyPhotograph) -> Tensor:
    """Linear light [R, 3, H, W] of the papers' synthesis, which blurs what a display is sent.

    The photograph that it starts from has noise of its own, which is blurred with the rest of it.
    """
    sharp = scene.color[0].clone()
    for color, coverage in zip(scene.color[1:], scene.coverage[1:], strict=True):
        sharp = torch.lerp(sharp, color, coverage)
    sigma = 0.5 * (scene.depth_diopters - positions[:, None, None]).abs()
    shown = sharp.clamp_(0.0, 1.0) ** (1.0 / _GAMMA)
    return gather_blur(noise.added_to(shown), sigma).clamp_(0.0, 1.0) ** _GAMMA


def random_noise(rng: Rng) -> NoisyPhotograph:
    """Of a photograph that the papers' synthesis is made of: from next to none to a dark room's."""
    grain = float(rng.uniform(0.3, 1.2)) if rng.random() < 0.7 else 0.0
    return NoisyPhotograph(log_uniform(rng, 5e-4, 0.03), grain, int(rng.integers(2**62)))


def random_sweep(rng: Rng, count: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Rising positions [count] px of blur: evenly or irregularly spaced, from infinity or from nearer."""
    length = log_uniform(rng, 5.0, 55.0)
    steps = np.maximum(1.0 + rng.uniform(0.0, 1.0) * rng.uniform(-0.9, 1.5, count - 1), 0.15)
    if rng.random() < 0.35:  # denser at one end, as sweeps even in metres are
        steps *= np.exp(np.linspace(0.0, rng.uniform(-1.5, 1.5), count - 1))
    start = 0.0 if rng.random() < 0.2 else length * log_uniform(rng, 0.03, 1.0)
    places = np.concatenate([[0.0], np.cumsum(steps)])
    return (start + places / places[-1] * length).astype(np.float32)


def random_slice_count(rng: Rng, rendered: int) -> int:
    """How many of the rendered slices a batch takes: mostly five, at least two."""
    counts = [n for n in (2, 3, 4, 5, 6, 7, 8, 10, 12, 16) if n <= rendered]
    weights = {2: 0.03, 3: 0.08, 4: 0.12, 5: 0.4, 6: 0.1, 7: 0.05, 8: 0.07, 10: 0.15, 12: 0.1, 16: 0.1}
    shares = np.array([weights[n] for n in counts])
    return int(rng.choice(counts, p=shares / shares.sum()))


def random_optics(rng: Rng) -> StackOptics:
    """A lens of 1 px of blur per unit: from a disc to a Gaussian, seldom astigmatic."""
    exponent = math.inf if rng.random() < 0.55 else 2.0 + float(rng.exponential(2.0))
    ellipticity = float(rng.uniform(0.03, 0.25)) if rng.random() < 0.12 else 0.0
    return StackOptics(
        blur_px_per_diopter=1.0,
        point_spread=PointSpread(exponent, ellipticity, float(rng.uniform(0.0, 180.0))),
        vignetting=float(rng.uniform(0.0, 0.25)) if rng.random() < 0.2 else 0.0,
    )


def random_exposure(rng: Rng) -> Exposure:
    """A camera from clean to bad, and what its processing does."""
    noisy = rng.random() < 0.85
    return Exposure(
        gain=log_uniform(rng, 0.5, 1.4),
        gain_jitter=float(rng.uniform(0.0, 0.02)) if rng.random() < 0.3 else 0.0,
        full_well_electrons=log_uniform(rng, 2500.0, 1e5) if noisy else None,
        read_noise_electrons=log_uniform(rng, 2.0, 12.0) if noisy else None,
        gamma=None if rng.random() < 0.3 else float(rng.uniform(1.8, 2.5)),
        sharpening=float(rng.uniform(0.1, 0.9)) if rng.random() < 0.2 else 0.0,
        jpeg_quality=int(rng.integers(75, 99)) if rng.random() < 0.25 else None,
    )


def random_softness(rng: Rng) -> float:
    """Standard deviation [px] of the blur that all slices share, 0 for none.

    It is what a lens, a sensor's mosaic and a change of size leave even in focus.
    """
    return log_uniform(rng, 0.3, 2.0) if rng.random() < 0.5 else 0.0


def random_slices(rng: Rng, rendered: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Rising indices [count]: part of the sweep, beyond which the scene then reaches, all of it, or any."""
    kind = rng.random()
    if kind < 0.3:
        return int(rng.integers(0, rendered - count + 1)) + np.arange(count)
    if kind < 0.75:
        return np.round(np.linspace(0, rendered - 1, count)).astype(np.int64)
    return np.sort(rng.choice(rendered, count, replace=False))


def look(stacks: list[RenderedStack], settings: StackSettings, rng: Rng) -> Batch:
    """Of each stack some of the slices, a crop, turned or mirrored, exposed; the stacks' device is kept."""
    device, crop = stacks[0].linear.device, settings.crop_px
    count = random_slice_count(rng, settings.rendered_slices)
    indices = [random_slices(rng, len(rendered.positions), count) for rendered in stacks]
    corners = rng.integers(0, stacks[0].target.shape[-1] - crop + 1, (len(stacks), 2))
    windows = [(slice(top, top + crop), slice(left, left + crop)) for top, left in corners.tolist()]
    slices = [
        rendered.linear[at][:, *window]
        for rendered, index, window in zip(stacks, indices, windows, strict=True)
        for at in index.tolist()
    ]
    linear = torch.stack(slices).float().unflatten(0, (len(stacks), count))
    _soften(linear, [random_softness(rng) for _ in stacks])
    target = torch.stack([rendered.target[window] for rendered, window in zip(stacks, windows, strict=True)])
    for axis in (-1, -2):
        mirrored = _some(rng, len(stacks), device)
        linear[mirrored], target[mirrored] = linear[mirrored].flip(axis), target[mirrored].flip(axis)
    turned = _some(rng, len(stacks), device)
    linear[turned], target[turned] = linear[turned].transpose(-1, -2), target[turned].transpose(-1, -2)
    channels = [rng.permutation(3) if rng.random() < 0.5 else np.arange(3) for _ in stacks]
    order = torch.from_numpy(np.stack(channels)).to(device)[:, None, :, None, None]
    linear = linear.take_along_dim(order, dim=2)
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    exposed = develop_stacks(linear, [random_exposure(rng) for _ in stacks], generator)
    # The blur per diopter that a user states is not quite right, and one found from the stack less so.
    doubts = np.exp([rng.normal(0.0, 0.03 if rng.random() < 0.8 else 0.2) for _ in stacks])
    doubt = torch.from_numpy(doubts).float().to(device)
    positions = torch.stack([rendered.positions for rendered in stacks])
    positions = positions.gather(1, torch.from_numpy(np.stack(indices)).to(device))
    return Batch(exposed, positions * doubt[:, None], target * doubt[:, None, None])


def _soften(linear: Tensor, sigmas_px: list[float]) -> None:
    """Blur stacks [B, N, 3, H, W], in place, each by its own Gaussian, none where that is 0."""
    reach = math.ceil(3.0 * max(sigmas_px))
    for stack, sigma in zip(linear, sigmas_px, strict=True):
        if sigma:
            stack.copy_(gaussian_blur(stack, sigma, reach))


def _some(rng: Rng, count: int, device: torch.device) -> Tensor:
    """Each of `count` indices, or not."""
    return torch.from_numpy(np.flatnonzero(rng.random(count) < 0.5)).to(device)
