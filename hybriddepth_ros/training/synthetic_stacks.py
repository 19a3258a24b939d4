"""Training data without end: procedural scenes through random lenses, the same for the same seed.

Everything is in px of blur, the unit of `SweepNet`. Rendering costs more than a network's step, so that each
rendered stack is looked at several times: other slices, another crop, another exposure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hybriddepth_ros.simulation.exposure import Exposure, develop_stack
from hybriddepth_ros.simulation.point_spread import PointSpread
from hybriddepth_ros.simulation.procedural_scenes import random_scene
from hybriddepth_ros.simulation.procedural_textures import TextureBank, log_uniform
from hybriddepth_ros.simulation.stack_renderer import CameraMotion, StackOptics, render_stack
from hybriddepth_ros.training.sweepnet_settings import LANES

CHUNKS_PER_BANK = 12  # chunks painted with the same textures
_BRIGHTEST = 4.0  # what a rendered stack keeps of highlights; the sensor saturates at 1

Rng = np.random.Generator


@dataclass(frozen=True)
class StackSettings:
    """How stacks are drawn.

    render_px: side of a rendered stack; crop_px: of what the network sees, a multiple of 32;
    rendered_slices: of which a batch takes some or all; chunk_stacks: rendered at a time, and looked at in
    `chunk_batches` batches.
    """

    render_px: int
    crop_px: int
    batch_size: int
    rendered_slices: int
    chunk_stacks: int
    chunk_batches: int


class Batch(NamedTuple):
    """stack [B, N, 3, H, W] uint8; positions [B, N], target [B, H, W] px of blur, float32."""

    stack: Tensor
    positions: Tensor
    target: Tensor


class _Rendered(NamedTuple):
    """linear [R, 3, h, w] float16, positions [R], target [h, w] px of blur."""

    linear: Tensor
    positions: Tensor
    target: Tensor


class SyntheticStacks(Dataset[Batch]):
    """Batch `i` of an endless row, a function of the seed and of i alone.

    Meant to be read in order by a DataLoader without automatic batching and with 0 to LANES workers, whose
    number divides LANES: then every worker finds the chunk that it rendered last time still there.
    """

    def __init__(self, settings: StackSettings, seed: int, length: int) -> None:
        self._settings, self._seed, self._length = settings, seed, length
        self._banks: dict[int, tuple[int, TextureBank]] = {}
        self._chunks: dict[int, tuple[int, list[_Rendered]]] = {}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Batch:
        cv2.setNumThreads(1)
        lane, place = index % LANES, index // LANES
        number, row = divmod(place, self._settings.chunk_batches)
        if self._chunks.get(lane, (-1, []))[0] != number:
            self._chunks[lane] = (number, self._render_chunk(lane, number))
        return self._batch(self._chunks[lane][1], row, np.random.default_rng([self._seed, 2, index]))

    def _render_chunk(self, lane: int, number: int) -> list[_Rendered]:
        era = number // CHUNKS_PER_BANK
        if self._banks.get(lane, (-1, None))[0] != era:
            self._banks[lane] = (era, TextureBank(np.random.default_rng([self._seed, 0, lane, era])))
        rng = np.random.default_rng([self._seed, 1, lane, number])
        bank = self._banks[lane][1]
        return [self._render(rng, bank) for _ in range(self._settings.chunk_stacks)]

    def _render(self, rng: Rng, bank: TextureBank) -> _Rendered:
        settings = self._settings
        positions = random_sweep(rng, settings.rendered_slices)
        size = (settings.render_px, settings.render_px)
        scene = random_scene(rng, size, (float(positions[0]), float(positions[-1])), bank)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        motion = None
        if rng.random() < 0.3:  # what registration leaves
            step = log_uniform(rng, 0.05, 0.6)
            motion = CameraMotion.random(len(positions), step, 0.0, generator)
        reference = int(rng.integers(len(positions)))
        linear = render_stack(scene, positions.tolist(), random_optics(rng), motion, reference)
        return _Rendered(
            linear.clamp_(max=_BRIGHTEST).half(),
            torch.from_numpy(positions),
            scene.depth_diopters,
        )

    def _batch(self, chunk: list[_Rendered], row: int, rng: Rng) -> Batch:
        settings = self._settings
        # Every stack once, in a new order, before any of them again.
        passes = -(-settings.chunk_batches * settings.batch_size // len(chunk))
        shuffler = np.random.default_rng([self._seed, 3, len(chunk)])
        order = np.concatenate([shuffler.permutation(len(chunk)) for _ in range(passes)])
        chosen = order[row * settings.batch_size : (row + 1) * settings.batch_size]
        count = random_slice_count(rng, settings.rendered_slices)
        looks = [look(chunk[i], count, settings.crop_px, rng) for i in chosen]
        return Batch(*(torch.stack(parts) for parts in zip(*looks, strict=True)))


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
    noisy = rng.random() < 0.95
    return Exposure(
        gain=log_uniform(rng, 0.5, 1.4),
        gain_jitter=float(rng.uniform(0.0, 0.02)) if rng.random() < 0.3 else 0.0,
        full_well_electrons=log_uniform(rng, 2500.0, 1e5) if noisy else None,
        read_noise_electrons=log_uniform(rng, 2.0, 12.0) if noisy else None,
        gamma=None if rng.random() < 0.3 else float(rng.uniform(1.8, 2.5)),
        sharpening=float(rng.uniform(0.1, 0.9)) if rng.random() < 0.2 else 0.0,
        jpeg_quality=int(rng.integers(75, 99)) if rng.random() < 0.25 else None,
    )


def look(rendered: _Rendered, count: int, crop_px: int, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
    """One item of a Batch: some of the slices, a crop, turned or mirrored, exposed."""
    total, side = len(rendered.positions), rendered.target.shape[-1]
    kind = rng.random()
    if kind < 0.3:  # part of the sweep: the scene reaches beyond it
        first = int(rng.integers(0, total - count + 1))
        index = np.arange(first, first + count)
    elif kind < 0.75:
        index = np.round(np.linspace(0, total - 1, count)).astype(np.int64)
    else:
        index = np.sort(rng.choice(total, count, replace=False))
    top, left = rng.integers(0, side - crop_px + 1, 2)
    window = (slice(top, top + crop_px), slice(left, left + crop_px))
    linear = rendered.linear[torch.from_numpy(index)][:, :, window[0], window[1]].float()
    target = rendered.target[window]
    for axis in (-1, -2):
        if rng.random() < 0.5:
            linear, target = linear.flip(axis), target.flip(axis)
    if rng.random() < 0.5:
        linear, target = linear.transpose(-1, -2), target.transpose(-1, -2)
    if rng.random() < 0.5:
        linear = linear[:, torch.from_numpy(rng.permutation(3))]
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    stack = develop_stack(linear.contiguous(), random_exposure(rng), generator)
    # The blur per diopter that a user states is not quite right, and one found from the stack less so.
    doubt = float(np.exp(rng.normal(0.0, 0.03 if rng.random() < 0.8 else 0.2)))
    return stack, rendered.positions[torch.from_numpy(index)] * doubt, target.contiguous() * doubt
