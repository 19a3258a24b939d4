"""Random surface colours for training, in gamma space, painted on any surface through its coordinates.

What is costly to make (fractal fields, dead leaves, print) is drawn once on sheets that tile; a texture
samples sheets, mixes them and adds what can be computed in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.simulation.textures import fractal_field

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_NOISES, _SMOOTHS, _LEAVES, _PRINTS = 14, 6, 10, 8
_SHEET = 512  # texels along a side


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


@dataclass(frozen=True)
class Coordinates:
    """Where on a texture each pixel lies: x, y [H, W] texels; footprint [H, W]: texels that a pixel spans."""

    x: Floats
    y: Floats
    footprint: Floats

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.x.shape
        return height, width

    def cropped(self, rows: slice, columns: slice) -> Coordinates:
        return Coordinates(self.x[rows, columns], self.y[rows, columns], self.footprint[rows, columns])

    def turned(self, angle: float, scale: float, offset: tuple[float, float]) -> Coordinates:
        """Rotated by `angle` [rad], `scale` times as many texels to a pixel, moved by `offset` [texels]."""
        cos, sin = np.float32(scale * np.cos(angle)), np.float32(scale * np.sin(angle))
        x = cos * self.x - sin * self.y + np.float32(offset[0])
        y = sin * self.x + cos * self.y + np.float32(offset[1])
        return Coordinates(x, y, self.footprint * np.float32(scale))

    def anywhere(self, rng: np.random.Generator, low: float, high: float) -> Coordinates:
        """Turned by any angle, scaled by low..high, moved anywhere on a sheet."""
        return self.turned(
            rng.uniform(0, 2 * np.pi), log_uniform(rng, low, high), tuple(rng.uniform(0, _SHEET, 2))
        )


def pixel_coordinates(size: tuple[int, int]) -> Coordinates:
    """One texel to a pixel, for a surface that is not mapped in perspective; size = (H, W)."""
    x, y = np.meshgrid(np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32))
    return Coordinates(x, y, np.ones(size, np.float32))


class Sheet:
    """An image [h, w] or [h, w, 3] that tiles, with its halvings, so that no view of it aliases."""

    def __init__(self, image: Floats, halvings: int = 5) -> None:
        self._levels = [image]
        for _ in range(halvings):
            h, w = self._levels[-1].shape[:2]
            self._levels.append(
                np.asarray(
                    cv2.resize(self._levels[-1], (w // 2, h // 2), interpolation=cv2.INTER_AREA), np.float32
                )
            )

    @property
    def image(self) -> Floats:
        return self._levels[0]

    @property
    def mean(self) -> Floats:
        """[] or [3]."""
        return np.asarray(self._levels[-1].mean(axis=(0, 1)), np.float32)

    def sample(self, at: Coordinates) -> Floats:
        """[H, W] or [H, W, 3]; linear between texels and between halvings."""
        level = np.clip(np.log2(np.maximum(at.footprint, 1.0)), 0, len(self._levels) - 1)
        first, last = int(level.min()), int(np.ceil(level.max() - 0.15))
        if last <= first:
            return self._sample_level(first, at)
        total = np.float32(0.0)
        for index in range(first, last + 1):
            weight = np.clip(1 - np.abs(np.clip(level, first, last) - index), 0, 1).astype(np.float32)
            part = self._sample_level(index, at)
            total = total + (part * weight[..., None] if part.ndim == 3 else part * weight)
        return np.asarray(total, np.float32)

    def _sample_level(self, index: int, at: Coordinates) -> Floats:
        image = self._levels[index]
        step = np.float32(2.0**-index)
        x = _modulo((at.x + np.float32(0.5)) * step - np.float32(0.5), image.shape[1])
        y = _modulo((at.y + np.float32(0.5)) * step - np.float32(0.5), image.shape[0])
        return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32)


def _modulo(x: Floats, period: int) -> Floats:
    """np.mod takes five times as long; and remap, left to wrap by itself, overflows 16 bits far away."""
    return x - np.float32(period) * np.floor(x * np.float32(1 / period))


def dead_leaves(rng: np.random.Generator, size: int) -> Floats:
    """Opaque shapes, of sizes after a power law, fallen on one another [size, size, 3]; tiles.

    The occlusions and the spectra of natural images come with it.
    """
    image = np.full((size, size, 3), rng.integers(0, 256, 3), np.uint8)
    palette = rng.uniform(0, 255, (int(rng.integers(3, 14)), 3))
    if rng.random() < 0.5:  # most of the world is of few hues
        palette = 0.8 * palette.mean(axis=1, keepdims=True) + 0.2 * palette
    smallest, largest = log_uniform(rng, 1.5, 8), log_uniform(rng, 0.06 * size, 0.3 * size)
    count, power, kind = int(rng.integers(250, 1600)), rng.uniform(1.2, 2.6), int(rng.integers(0, 4))
    ends = smallest ** (1 - power), largest ** (1 - power)
    radii = (ends[0] + (ends[1] - ends[0]) * rng.random(count)) ** (1 / (1 - power))
    if rng.random() < 0.5:
        radii = np.sort(radii)[::-1]
    for radius in radii:
        color = np.clip(palette[rng.integers(len(palette))] + rng.normal(0, 12, 3), 0, 255).tolist()
        outline = _leaf(rng, kind if kind < 3 else int(rng.integers(0, 3))) * radius
        centre = rng.uniform(0, size, 2)
        for shift_x in _wraps(centre[0], radius, size):
            for shift_y in _wraps(centre[1], radius, size):
                points = np.round((outline + centre + (shift_x, shift_y)) * 16).astype(np.int32)
                cv2.fillPoly(image, [points], color, cv2.LINE_AA, 4)
    return np.asarray(image, np.float32) / np.float32(255)


def _leaf(rng: np.random.Generator, kind: int) -> npt.NDArray[np.floating]:
    """Outline [n, 2] within a circle of radius about 1."""
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    if kind == 0:
        angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        return np.stack([np.cos(angles), rng.uniform(0.3, 1) * np.sin(angles)], axis=1) @ rotation
    if kind == 1:
        flatness = rng.uniform(0.1, 1)
        return np.array([[-1, -flatness], [1, -flatness], [1, flatness], [-1, flatness]]) @ rotation
    corners = int(rng.integers(3, 8))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    return rng.uniform(0.4, 1, (corners, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _wraps(position: float, radius: float, size: int) -> list[int]:
    """By how much a shape is moved so that what leaves the sheet on one side comes back on the other."""
    reach = 1.5 * radius
    return [0, *([size] if position < reach else []), *([-size] if position > size - reach else [])]


def printed(rng: np.random.Generator, size: int) -> Floats:
    """Lines of characters, or scribbled lines, -1..1 on a ground of 0 [size, size]."""
    image = np.full((size, size), 128, np.uint8)
    if rng.random() < 0.6:
        base, y = log_uniform(rng, 0.3, 1.6), 0
        while y < size:
            scale = base * float(rng.choice([1.0, 1.0, 1.0, 1.8]))
            y += int(32 * scale) + 4
            codes = rng.integers(33, 126, int(size / (12 * scale)))
            line = "".join(" " if rng.random() < 0.17 else chr(code) for code in codes)
            ink = int(rng.choice([0, 0, 0, 255]))
            start = (int(rng.integers(0, 40)), y)
            thickness = max(1, round(scale * rng.uniform(0.8, 2.5)))
            cv2.putText(image, line, start, int(rng.integers(0, 8)), scale, ink, thickness, cv2.LINE_AA)
    else:
        for _ in range(int(rng.integers(10, 80))):
            points = rng.uniform(-20, size + 20, 2) + np.cumsum(rng.normal(0, 60, (5, 2)), axis=0)
            gray, width = int(rng.integers(0, 256)), int(rng.integers(1, 6))
            polyline = [np.round(points * 16).astype(np.int32)]
            cv2.polylines(image, polyline, False, gray, width, cv2.LINE_AA, 4)
    return image.astype(np.float32) / 127.5 - 1


class TextureBank:
    """Sheets to paint with. A refresh replaces one of them, so that training never runs out of pictures."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._makers: dict[str, Callable[[np.random.Generator], Floats]] = {
            "noise": lambda r: fractal_field(r, _SHEET, r.uniform(0.4, 1.8)),
            "smooth": lambda r: fractal_field(r, _SHEET // 2, r.uniform(2.0, 3.2)),
            "leaves": lambda r: dead_leaves(r, _SHEET),
            "print": lambda r: printed(r, _SHEET),
        }
        counts = {"noise": _NOISES, "smooth": _SMOOTHS, "leaves": _LEAVES, "print": _PRINTS}
        self._sheets = {
            kind: [Sheet(make(rng)) for _ in range(counts[kind])] for kind, make in self._makers.items()
        }

    def refresh(self, rng: np.random.Generator) -> None:
        """Makes one sheet anew."""
        kind = str(rng.choice(["noise", "smooth", "leaves", "leaves", "print"]))
        sheets = self._sheets[kind]
        sheets[int(rng.integers(len(sheets)))] = Sheet(self._makers[kind](rng))

    def pick(self, rng: np.random.Generator, kind: str) -> Sheet:
        """A random sheet of "noise", "smooth", "leaves" or "print"."""
        sheets = self._sheets[kind]
        return sheets[int(rng.integers(len(sheets)))]

    def smooth(self, rng: np.random.Generator, size: tuple[int, int], features: float = 1.0) -> Floats:
        """A smooth field [H, W] of mean 0 and deviation 1, with about `features` bumps across the image."""
        # Seen through a coarse grid: it holds nothing finer, and the full grid costs ten times as much.
        grid = pixel_coordinates((-(-size[0] // 4), -(-size[1] // 4)))
        scale = 4 * features * 0.25 * _SHEET / max(size)
        sheet = self.pick(rng, "smooth")
        at = grid.turned(rng.uniform(0, 6.3), scale, tuple(rng.uniform(0, _SHEET // 2, 2)))
        field = cv2.resize(sheet.sample(at), size[::-1], interpolation=cv2.INTER_CUBIC)
        return np.asarray((field - field.mean()) / (field.std() + 1e-4), np.float32)

    def paint(self, rng: np.random.Generator, at: Coordinates, blank: float = 0.15) -> Floats:
        """A texture [H, W, 3] in gamma space, about 0..1; `blank`: how likely it has hardly any detail."""
        texture = self._ground(rng, at, blank, nested=False)
        if rng.random() < 0.4:  # the grain of a material
            amplitude = log_uniform(rng, 0.003, 0.03)
            grain = self.pick(rng, "noise").sample(at.anywhere(rng, 0.7, 1.5))
            texture = texture + np.float32(amplitude) * grain[..., None]
        return texture

    def _ground(self, rng: np.random.Generator, at: Coordinates, blank: float, nested: bool) -> Floats:
        base, hue = _base_color(rng), (1 + rng.normal(0, 0.25, 3)).astype(np.float32)
        amplitude = np.float32(log_uniform(rng, 0.015, 0.35))
        if rng.random() < blank:
            amplitude = np.float32(log_uniform(rng, 0.001, 0.015))
            noise = self.pick(rng, "noise").sample(at.anywhere(rng, 0.5, 1.5))
            return base + amplitude * noise[..., None]
        kinds = ["noise", "leaves", "regular", "tiles", "print", "mixture"]
        kind = rng.choice(kinds[:5] if nested else kinds, p=[0.3, 0.3, 0.15, 0.15, 0.1] if nested else
                          [0.25, 0.25, 0.1, 0.12, 0.08, 0.2])  # fmt: skip
        if kind == "noise":
            stretch = log_uniform(rng, 1, 6) if rng.random() < 0.3 else 1.0  # grain of wood, brushed metal
            along = at.anywhere(rng, 0.4, 1.5)
            along = Coordinates(along.x / np.float32(stretch), along.y, along.footprint)
            return base + 0.6 * amplitude * hue * self.pick(rng, "noise").sample(along)[..., None]
        if kind == "leaves":
            sheet = self.pick(rng, "leaves")
            contrast = np.float32(min(1.0, log_uniform(rng, 0.05, 2.0)))
            return (
                base
                + (sheet.sample(at.anywhere(rng, 0.4, 2.5)) - sheet.mean) * contrast
                + (sheet.mean - base) * (0.7 * contrast)
            )
        if kind == "regular":
            return base + amplitude * hue * regular_pattern(rng, at)[..., None]
        if kind == "tiles":
            tone, joint = tiles(rng, at)
            spread = (rng.normal(0, 1, 3) * 0.4 + 1).astype(np.float32) * log_uniform(rng, 0.005, 0.2)
            dark = np.float32(rng.normal(-0.1, 0.15))
            return base + tone[..., None] * spread.astype(np.float32) + joint[..., None] * dark
        if kind == "print":
            ink = self.pick(rng, "print").sample(at.anywhere(rng, 0.5, 2.0))
            return base + 1.5 * amplitude * hue * ink[..., None]
        first, second = (self._ground(rng, at, blank, nested=True) for _ in range(2))
        share = self.smooth(rng, at.size, rng.uniform(0.7, 3)) * log_uniform(rng, 1, 60) + rng.normal(0, 0.5)
        return first + (second - first) * np.clip(share, 0, 1).astype(np.float32)[..., None]


def regular_pattern(rng: np.random.Generator, at: Coordinates) -> Floats:
    """Stripes, checks or dots [H, W], -1..1; fades where the pixels cannot resolve it."""
    period = log_uniform(rng, 4, 60)
    turned = at.turned(rng.choice([0.0, rng.uniform(0, np.pi)]), 1.0, tuple(rng.uniform(0, period, 2)))
    x = np.sin(np.float32(2 * np.pi / period) * turned.x)
    y = np.sin(np.float32(2 * np.pi / period / log_uniform(rng, 0.5, 2)) * turned.y)
    resolution = np.float32(period) / np.maximum(at.footprint, 1e-3)  # pixels in a period
    sharpness = np.minimum(log_uniform(rng, 1, 30), resolution / np.pi)
    kind = int(rng.integers(0, 4))
    wave = (x, x * y, x * y - 0.3, x - np.float32(rng.uniform(0.3, 0.9)))[kind]
    fade = np.clip(resolution - 2, 0, 2) / 2
    return np.asarray(np.clip(wave * np.maximum(sharpness, 1), -1, 1) * fade, np.float32)


def tiles(rng: np.random.Generator, at: Coordinates) -> tuple[Floats, Floats]:
    """Tiles, bricks, boards or books: each one's tone [H, W] (deviation 1) and where the joints are, 0..1."""
    width = log_uniform(rng, 8, 90)
    height = width * log_uniform(rng, 0.25, 4)
    turned = at.turned(0.0, 1.0, tuple(rng.uniform(0, 100, 2)))
    if rng.random() < 0.25:
        turned = at.turned(rng.uniform(0, np.pi), 1.0, (0.0, 0.0))
    row = np.floor(turned.y / np.float32(height))
    x = turned.x + row * np.float32(width * rng.choice([0.0, 0.0, 0.5, 0.37]))
    column = np.floor(x / np.float32(width))
    table = rng.normal(0, 1, (32, 32)).astype(np.float32)
    tone = table[row.astype(np.int32) % 32, column.astype(np.int32) % 32]
    half = np.float32(0.5 * log_uniform(rng, 0.02, 0.15) * min(width, height))
    pixel = np.maximum(at.footprint, np.float32(1e-3))
    to_joint = np.minimum(
        _to_nearest(x - column * np.float32(width), width),
        _to_nearest(turned.y - row * np.float32(height), height),
    )
    joint = np.clip((half - to_joint) / pixel + 0.5, 0, 1) * np.minimum(1, 2 * half / pixel)
    fade = np.clip(np.float32(min(width, height)) / pixel - 2, 0, 2) / 2
    return np.asarray(tone * fade, np.float32), np.asarray(joint * fade, np.float32)


def _to_nearest(position: Floats, period: float) -> Floats:
    return np.minimum(position, np.float32(period) - position)


def _base_color(rng: np.random.Generator) -> Floats:
    """[3] gamma space; most things are nearly gray, some are vivid."""
    if rng.random() < 0.3:
        return rng.uniform(0.05, 0.95, 3).astype(np.float32)
    return (rng.uniform(0.05, 0.95) + rng.normal(0, 0.05, 3)).astype(np.float32)


def linear_light(gamma: Floats) -> Floats:
    """Gamma space to linear light, power 2.2; a little above white stays above it."""
    return np.asarray(cv2.pow(np.clip(gamma, 0, 1.15), 2.2), np.float32)
