"""Random layered scenes to train on, settled by their seed: rooms, tabletops, surfaces merely stacked."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import torch

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.simulation.layers import LayeredScene
from hybriddepth_ros.simulation.procedural_settings import Pile, room, stacked, tabletop
from hybriddepth_ros.simulation.procedural_textures import Floats, TextureBank, log_uniform

_SMALLEST = 16  # pixels along a side
_LARGEST_STRETCH = 6.0  # of the sweep's length to 1/m, so that a flat wall does not become a steep one


def random_scene(
    rng: np.random.Generator,
    size: tuple[int, int],
    span: tuple[float, float],
    bank: TextureBank | None = None,
) -> LayeredScene:
    """A scene of `size` (H, W) for a sweep over `span`.

    span: the farthest and the nearest focus in the networks' unit, u = k D: k pixels of blur per diopter
    times D diopters, so that one network serves every lens. The scene's `diopters` are in that unit too; they
    are diopters for k = 1 px/D. Most of a scene lies within the span; at each end four scenes in ten may
    reach up to a quarter of its length beyond. Nothing lies beyond infinity, u < 0: a span that is to be
    overshot on its far side starts above 0. `bank`: what to paint with, one that is always the same if None.
    """
    if not (np.isfinite(span).all() and span[0] < span[1] and span[1] > 0):
        raise ParameterError(f"scene: span must rise from its far end to a near end above 0, got {span}")
    if min(size) < _SMALLEST:
        raise ParameterError(f"scene: size must be at least {_SMALLEST} pixels each way, got {size}")
    bank = _plain_bank() if bank is None else bank
    setting = (room, tabletop, stacked)[int(rng.integers(0, 3))]
    pile = setting(rng, size, bank)
    _light(rng, pile)
    depth = _fit(rng, pile, span)
    color = np.stack([np.moveaxis(color, 2, 0) for color in pile.colors])
    return LayeredScene(
        torch.from_numpy(np.ascontiguousarray(color)),
        torch.from_numpy(np.stack(pile.coverages)),
        torch.from_numpy(depth),
    )


class SceneBank:
    """An endless row of random scenes; the same seed gives the same row.

    Keeps what is costly to draw and replaces one sheet of it every `refresh` scenes.
    """

    def __init__(self, seed: int | list[int], refresh: int = 10) -> None:
        """A list seeds a worker of several: [seed, worker]."""
        self._rng = np.random.default_rng(seed)
        self._bank = TextureBank(self._rng)
        self._refresh, self._drawn = refresh, 0

    def scene(self, size: tuple[int, int], span: tuple[float, float]) -> LayeredScene:
        """The next one; see random_scene."""
        self._drawn += 1
        if self._drawn % self._refresh == 0:
            self._bank.refresh(self._rng)
        return random_scene(self._rng, size, span, self._bank)

    def scenes(self, size: tuple[int, int], span: tuple[float, float]) -> Iterator[LayeredScene]:
        while True:
            yield self.scene(size, span)


@functools.cache
def _plain_bank() -> TextureBank:
    """Never refreshed: with it a scene depends on its own generator alone."""
    return TextureBank(np.random.default_rng(0))


def _light(rng: np.random.Generator, pile: Pile) -> None:
    """Exposure and the colour of the light, for all layers alike; glints on some."""
    gain = rng.uniform(0.35, 1.0) ** 1.5 if rng.random() < 0.6 else 1.0
    tint = np.exp(rng.normal(0, 0.1, 3)).astype(np.float32) * np.float32(gain)
    glossy = rng.random() < 0.25
    for color in pile.colors:
        color *= tint
        if glossy and rng.random() < 0.5:
            _add_glints(rng, color)


def _add_glints(rng: np.random.Generator, color: Floats) -> None:
    """Reflections of lamps: small, and up to several times what saturates the sensor."""
    height, width = color.shape[:2]
    for _ in range(int(rng.integers(1, 14))):
        sigma, peak = log_uniform(rng, 0.5, 0.008 * max(height, width) + 0.6), log_uniform(rng, 0.2, 6)
        row, column, reach = int(rng.integers(height)), int(rng.integers(width)), int(np.ceil(3 * sigma))
        top, left = max(row - reach, 0), max(column - reach, 0)
        patch = color[top : row + reach + 1, left : column + reach + 1]
        y = np.arange(top, top + patch.shape[0])[:, None] - row
        x = np.arange(left, left + patch.shape[1])[None, :] - column
        patch += (peak * np.exp(-0.5 * (x**2 + y**2) / sigma**2)).astype(np.float32)[..., None]


def _fit(rng: np.random.Generator, pile: Pile, span: tuple[float, float]) -> Floats:
    """The layers' depth in the unit of the span [L, H, W].

    Scaled and shifted as one: planes stay planes, for 1/z is linear in the pixel, and nothing changes order.
    """
    length = span[1] - span[0]
    far = span[0] + length * (-rng.uniform(0, 0.25) if rng.random() < 0.4 else rng.uniform(0, 0.6) ** 1.5)
    near = span[1] - length * (-rng.uniform(0, 0.25) if rng.random() < 0.4 else rng.uniform(0, 0.6) ** 1.5)
    far, near = max(far, 0.0), max(near, 0.0)
    if near - far < 0.1 * length:
        far, near = max(far - 0.1 * length, 0.0), near + 0.1 * length
    low, high = (float(v) for v in np.quantile(pile.top, (0.01, 0.99)))
    stretch = min((near - far) / max(high - low, 1e-6), _LARGEST_STRETCH * length)
    slack = (near - far) - stretch * (high - low)
    shift = far + rng.uniform(0, 1) * max(slack, 0.0)
    depth = (np.stack(pile.diopters) - np.float32(low)) * np.float32(stretch) + np.float32(shift)
    limits = max(0.0, span[0] - 0.5 * length), span[1] + 0.5 * length
    return np.clip(depth, *limits).astype(np.float32)
