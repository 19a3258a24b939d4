"""Random outlines and surfaces of things: coverage 0..1 [H, W], anti-aliased, and relief [H, W]."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.simulation.procedural_textures import Floats, TextureBank, log_uniform, pixel_coordinates

Points = npt.NDArray[np.float64]  # [n, 2] px: x, y

_OVERSAMPLING = 4


def random_coverage(rng: np.random.Generator, size: tuple[int, int], bank: TextureBank) -> Floats:
    """Any outline: solid, thin, pierced, ragged, or half of the image."""
    kinds: list[Callable[[], Floats]] = [
        lambda: ellipse(rng, size),
        lambda: rectangle(rng, size),
        lambda: polygon(rng, size),
        lambda: thin_coverage(rng, size),
        lambda: pierced(rng, size),
        lambda: blobs(rng, size, bank),
        lambda: bent_half_plane(rng, size, bank),
    ]
    return kinds[int(rng.choice(len(kinds), p=[0.14, 0.2, 0.12, 0.2, 0.1, 0.1, 0.14]))]()


def thin_coverage(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """Bars, grilles, cables or twigs."""
    return (bars, cables, twigs)[int(rng.integers(0, 3))](rng, size)


def ellipse(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    outline = np.stack([np.cos(angles), log_uniform(rng, 0.3, 1) * np.sin(angles)], axis=1)
    return _filled(size, [_placed(rng, size, outline)])


def rectangle(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """Half of them upright; some are frames around a hole."""
    corners = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]) * (1.0, log_uniform(rng, 0.25, 1))
    outline = _placed(rng, size, corners, upright=rng.random() < 0.5)
    coverage = _filled(size, [outline])
    if rng.random() < 0.2:
        inner = outline.mean(axis=0) + rng.uniform(0.5, 0.9) * (outline - outline.mean(axis=0))
        coverage = coverage * (1 - _filled(size, [inner]))
    return coverage


def polygon(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    corners = int(rng.integers(3, 10))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = rng.uniform(0.3, 1, (corners, 1))
    return _filled(size, [_placed(rng, size, radii * np.stack([np.cos(angles), np.sin(angles)], axis=1))])


def bars(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """One to seven parallel bars across the image, sometimes crossed by as many: posts, fences, grilles."""
    reach = float(max(size))
    turn = rng.uniform(0, np.pi) if rng.random() < 0.4 else rng.normal(0, 0.1) + np.pi / 2
    coverage = np.zeros(size, np.float32)
    for angle in [turn, turn + np.pi / 2] if rng.random() < 0.2 else [turn]:
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]])
        width, gap = log_uniform(rng, 1.2, max(0.08 * reach, 1.5)), log_uniform(rng, 0.06, 0.4) * reach
        middle = rng.uniform(0.1, 0.9, 2) * size[::-1]
        ends = rng.uniform(0.1, 2.5, 2) * reach if rng.random() < 0.5 else np.array([2.5, 2.5]) * reach
        count = int(rng.integers(1, 8)) if rng.random() < 0.5 else 1
        outlines = []
        for index in range(count):
            centre = middle + (index - (count - 1) / 2) * (gap + width) * across
            tail, head = centre - ends[0] * along, centre + ends[1] * along
            side = 0.5 * width * across
            outlines.append(np.stack([tail - side, head - side, head + side, tail + side]))
        coverage = np.maximum(coverage, _filled(size, outlines))
    return coverage


def cables(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """One to five smooth curves of one width each."""
    steps = np.linspace(0, 1, 30)[:, None]
    strokes = []
    for _ in range(int(rng.integers(1, 6))):
        knots = rng.uniform(-0.2, 1.2, (4, 2)) * size[::-1]
        bezier = (
            (1 - steps) ** 3 * knots[0]
            + 3 * steps * (1 - steps) ** 2 * knots[1]
            + 3 * steps**2 * (1 - steps) * knots[2]
            + steps**3 * knots[3]
        )
        strokes.append((bezier, log_uniform(rng, 1.0, max(0.04 * max(size), 1.5))))
    return _stroked(size, strokes)


def twigs(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """A plant: a stem that branches, with or without leaves."""
    reach = float(max(size))
    strokes: list[tuple[Points, float]] = []
    leaves: list[Points] = []
    leafy = rng.random() < 0.6
    leaf_length = log_uniform(rng, 0.03, 0.15) * reach
    root = np.array([rng.uniform(0.1, 0.9) * size[1], size[0] * rng.uniform(0.8, 1.1)])
    growing = [(root, -np.pi / 2 + rng.normal(0, 0.3), log_uniform(rng, 0.012, 0.05) * reach, 0)]
    while growing and len(strokes) < 40:
        start, heading, width, age = growing.pop(0)
        turns = heading + np.cumsum(rng.normal(0, 0.15, 6))
        moves = reach * 0.06 * rng.uniform(0.5, 1.3) * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        path = np.concatenate([start[None], start + np.cumsum(moves, axis=0)])
        strokes.append((path, max(width, 1.0)))
        if age < 4:
            for turn in rng.normal(0, 0.6, int(rng.integers(1, 4))):
                at = path[int(rng.integers(3, 7))]
                growing.append((at, turns[-1] + turn, 0.65 * width, age + 1))
        if leafy and age > 0:
            angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
            for at in path[::2]:
                turn = rng.uniform(0, 2 * np.pi)
                blade = np.stack([1 + np.cos(angles), 0.4 * np.sin(angles)], axis=1) * 0.5 * leaf_length
                rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
                leaves.append(at + blade @ rotation)
    stems = _stroked(size, strokes)
    return np.maximum(stems, _filled(size, leaves)) if leaves else stems


def pierced(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """A large sheet with holes to look through."""
    sheet = rectangle(rng, size) if rng.random() < 0.5 else np.ones(size, np.float32)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    square = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    hole = circle if rng.random() < 0.6 else square
    holes = _filled(size, [_placed(rng, size, hole, largest=0.3) for _ in range(int(rng.integers(1, 9)))])
    return np.asarray(sheet * (1 - holes), np.float32)


def blobs(rng: np.random.Generator, size: tuple[int, int], bank: TextureBank) -> Floats:
    """Where a smooth field exceeds a level."""
    field = bank.smooth(rng, size, rng.uniform(0.6, 4)) - np.float32(rng.normal(0.7, 0.5))
    return edge_coverage(field)


def bent_half_plane(rng: np.random.Generator, size: tuple[int, int], bank: TextureBank) -> Floats:
    """One side of a line, straight or wavy: a large thing of which the image shows one rim."""
    at = pixel_coordinates(size)
    turn = rng.uniform(0, 2 * np.pi)
    distance = np.float32(np.cos(turn)) * (at.x - rng.uniform(0.15, 0.85) * size[1])
    distance = distance + np.float32(np.sin(turn)) * (at.y - rng.uniform(0.15, 0.85) * size[0])
    if rng.random() < 0.4:
        distance = distance + np.float32(0.06 * max(size)) * bank.smooth(rng, size, rng.uniform(0.5, 2))
    return edge_coverage(distance)


def edge_coverage(field: Floats) -> Floats:
    """How much of a pixel lies where the field is positive; the field is taken as linear across a pixel."""
    down, right = np.gradient(field)
    steepness = np.maximum(np.hypot(down, right), np.float32(1e-9))
    return np.clip(field / steepness + np.float32(0.5), 0, 1).astype(np.float32)


def random_relief(rng: np.random.Generator, size: tuple[int, int], bank: TextureBank) -> Floats:
    """1/z about 0, of a range about 1: slanted (a plane's 1/z is linear in the pixel), creased or curved."""

    def plane() -> Floats:
        upright = rng.random() < 0.4
        turn = float(rng.choice([np.pi / 2, -np.pi / 2])) if upright else rng.uniform(0, 2 * np.pi)
        at = pixel_coordinates(size)
        x = (at.x - np.float32(0.5 * size[1])) / max(size)
        y = (at.y - np.float32(0.5 * size[0])) / max(size)
        return np.asarray(x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn)), np.float32)

    kind = rng.random()
    relief = plane() * np.float32(log_uniform(rng, 0.1, 1))
    if kind < 0.25:  # a corner, towards us or away
        other = plane() + np.float32(rng.normal(0, 0.15))
        relief = np.maximum(relief, other) if rng.random() < 0.5 else np.minimum(relief, other)
    elif kind < 0.5:
        relief = relief + np.float32(log_uniform(rng, 0.02, 0.25)) * bank.smooth(
            rng, size, rng.uniform(0.3, 2)
        )
    return relief


def bulge(coverage: Floats) -> Floats:
    """0 at the rim of what is covered, rising like a cushion, to at most 1 [H, W]; thin things stay flat."""
    inside = cv2.distanceTransform((coverage > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    inside = np.minimum(inside, max(coverage.shape))  # without a rim OpenCV has no bound
    inside = cv2.GaussianBlur(inside, (0, 0), 2.0)
    deepest = float(inside.max()) + 1e-3
    height = min(1.0, deepest / (0.15 * max(coverage.shape)))
    return np.asarray(height * (1 - np.clip(1 - inside / deepest, 0, 1) ** 2), np.float32)


def _placed(
    rng: np.random.Generator,
    size: tuple[int, int],
    outline: Points,
    upright: bool = False,
    largest: float = 0.6,
) -> Points:
    """An outline of radius 1, scaled, turned and moved to anywhere in the image or just outside."""
    radius = log_uniform(rng, 0.08 * largest, largest) * max(size)
    turn = 0.0 if upright else rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    placed: Points = radius * outline @ rotation + rng.uniform(-0.05, 1.05, 2) * size[::-1]
    return placed


def _filled(size: tuple[int, int], outlines: list[Points]) -> Floats:
    """Their union. OpenCV's anti-aliasing widens shapes by half a pixel; shrinking a drawing does not."""
    canvas = np.zeros((size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING), np.uint8)
    for outline in outlines:  # one by one: together, overlaps would become holes
        points = np.round((outline * _OVERSAMPLING - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(canvas, [points], 255, cv2.LINE_8, 4)
    return _shrunk(canvas, size)


def _stroked(size: tuple[int, int], strokes: list[tuple[Points, float]]) -> Floats:
    """Lines [n, 2] of a width in pixels each."""
    canvas = np.zeros((size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING), np.uint8)
    for path, width in strokes:
        points = [np.round((path * _OVERSAMPLING - 0.5) * 16).astype(np.int32)]
        thickness = max(1, round(width * _OVERSAMPLING))
        cv2.polylines(canvas, points, False, 255, thickness, cv2.LINE_8, 4)
    return _shrunk(canvas, size)


def _shrunk(canvas: npt.NDArray[np.uint8], size: tuple[int, int]) -> Floats:
    small = cv2.resize(canvas, size[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255)
