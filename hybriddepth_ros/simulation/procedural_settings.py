"""What random scenes are of: rooms, tabletops, surfaces merely stacked. Depth is 1/z in a unit of its own."""

from __future__ import annotations

import cv2
import numpy as np

from hybriddepth_ros.simulation import procedural_shapes as shapes
from hybriddepth_ros.simulation.procedural_solids import (
    Seen,
    Vector,
    View,
    Wall,
    see_box,
    see_cylinder,
    see_ellipsoid,
    see_room,
)
from hybriddepth_ros.simulation.procedural_textures import (
    Floats,
    TextureBank,
    linear_light,
    log_uniform,
    pixel_coordinates,
)

_MAX_LAYERS = 8
_FEWEST_PIXELS = 12  # what shows less of itself is left out


class Pile:
    """Layers laid on one another from far to near; what would lie behind what it covers is cut away."""

    def __init__(self, color: Floats, diopters: Floats) -> None:
        """color [H, W, 3] linear light; diopters [H, W]."""
        self.colors = [np.asarray(color, np.float32)]
        self.coverages = [np.ones_like(diopters)]
        self.diopters = [np.asarray(diopters, np.float32)]
        self.top = self.diopters[0].copy()  # [H, W], the nearest of what has any coverage

    @property
    def is_full(self) -> bool:
        return len(self.colors) >= _MAX_LAYERS

    def add(self, color: Floats, coverage: Floats, diopters: Floats, shadow: float = 0.0) -> None:
        """`shadow` 0..1: how dark it makes what lies close behind it."""
        if self.is_full:
            return
        behind = diopters < self.top
        if (behind & (coverage > 0)).any():
            coverage = np.minimum(coverage, shapes.edge_coverage(diopters - self.top))
        seen = coverage > 0
        if (coverage >= 0.5).sum() < _FEWEST_PIXELS:
            return
        # Past its rim a surface goes on, but not to the horizon.
        low, high = float(diopters[seen].min()), float(diopters[seen].max())
        margin = 0.1 * (high - low)
        diopters = np.clip(diopters, low - margin, high + margin)
        if shadow > 0:
            self._darken(coverage, diopters, shadow)
        diopters = np.where(seen, np.maximum(diopters, self.top), diopters)
        self.top = np.where(seen, diopters, self.top)
        self.colors.append(np.asarray(color, np.float32))
        self.coverages.append(np.asarray(coverage, np.float32))
        self.diopters.append(diopters.astype(np.float32))

    def _darken(self, coverage: Floats, diopters: Floats, shadow: float) -> None:
        # A quarter of the size holds all of it, at a fifth of the time.
        height, width = coverage.shape
        small = cv2.resize(coverage, (-(-width // 4), -(-height // 4)), interpolation=cv2.INTER_AREA)
        spread = 0.03 * max(small.shape)
        moved = np.array([[1, 0, spread], [0, 1, 0.7 * spread]], np.float32)
        shifted = cv2.warpAffine(small, moved, small.shape[::-1])
        blurred = cv2.GaussianBlur(shifted, (0, 0), spread, borderType=cv2.BORDER_REFLECT)
        soft = np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        nearness = float(np.median(diopters[coverage > 0.5]))
        for color, below in zip(self.colors, self.diopters, strict=True):
            closeness = np.clip(1 - (nearness - below) / (0.4 * abs(nearness) + 1e-6), 0, 1)
            color *= (1 - np.float32(shadow) * soft * closeness)[..., None]


def room(rng: np.random.Generator, size: tuple[int, int], bank: TextureBank) -> Pile:
    """Large planes in perspective, most of them nearly blank, with or without furniture and thin things."""
    view = View(
        size,
        max(size) * log_uniform(rng, 0.7, 2.2),
        rng.normal(0.12, 0.25),
        rng.uniform(-0.8, 0.8),
        rng.normal(0, 0.05),
    )
    if rng.random() < 0.3:  # one wall, often steep, perhaps above a floor
        normal = view.to_world @ _unit(rng.normal(0, 0.9), rng.normal(0, 0.6), 1.0)
        planes = [(normal, log_uniform(rng, 0.6, 4))]
        if rng.random() < 0.4:
            planes.append((np.array([0.0, 1, 0]), log_uniform(rng, 0.4, 1.6)))
    else:
        planes = [(np.array([0.0, 1, 0]), log_uniform(rng, 0.4, 1.8))]
        planes.append((np.array([0.0, 0, 1]), log_uniform(rng, 1.2, 7)))
        for side in (-1.0, 1.0):
            if rng.random() < 0.75:
                planes.append((np.array([side, 0, 0]), log_uniform(rng, 0.6, 4)))
        if rng.random() < 0.6:
            planes.append((np.array([0.0, -1, 0]), log_uniform(rng, 0.7, 2)))
        if rng.random() < 0.25:
            turn = rng.uniform(-1.2, 1.2)
            planes.append((np.array([np.sin(turn), 0, np.cos(turn)]), log_uniform(rng, 1.0, 4)))
    pile = _room_pile(rng, view, bank, planes, blank=0.5)
    floors = [distance for normal, distance in planes if normal[1] > 0.99]
    light = _unit(rng.normal(0, 0.6), -1.0, rng.normal(-0.4, 0.4))
    bodies = []
    for _ in range(int(rng.choice([0, 1, 2, 3, 4], p=[0.22, 0.23, 0.25, 0.2, 0.1]))):
        x, y = rng.uniform(0.0, 1.0), rng.uniform(0.3, 1.0)
        behind = 1 / _at(pile.diopters[0], x, y)
        base = view.point(x, y, min(behind, 8.0) * rng.uniform(0.4, 0.95))
        if floors:
            base[1] = floors[0]
        bodies.append(_body(rng, view, base, log_uniform(rng, 0.15, 0.9) * max(base[2], 0.05) ** 0.5, light))
    _add_bodies(rng, pile, bank, bodies, blank=0.35)
    if rng.random() < 0.4:
        _add_in_front(rng, pile, bank, shapes.thin_coverage(rng, size))
    if rng.random() < 0.2:
        _add_in_front(rng, pile, bank, shapes.random_coverage(rng, size, bank))
    return pile


def tabletop(rng: np.random.Generator, size: tuple[int, int], bank: TextureBank) -> Pile:
    """Things on a table, seen from above or along it, before a wall or the rest of a room."""
    view = View(
        size,
        max(size) * log_uniform(rng, 0.9, 2.2),
        rng.uniform(0.15, 1.1),
        rng.normal(0, 0.15),
        rng.normal(0, 0.06),
    )
    table = log_uniform(rng, 0.18, 0.6)
    light = _unit(rng.normal(0, 0.6), -1.0, rng.normal(-0.4, 0.4))
    wall = np.array([np.sin(turn := rng.uniform(-0.6, 0.6)), 0, np.cos(turn)])
    down = np.array([0.0, 1, 0])
    if rng.random() < 0.6:  # the table reaches the wall, or so far that it fills the view
        pile = _room_pile(
            rng, view, bank, [(down, table), (wall, table * log_uniform(rng, 1.5, 6))], blank=0.3
        )
    else:
        far = log_uniform(rng, 1.2, 5)
        planes = [(down, table + rng.uniform(0.5, 0.9)), (wall, far)]
        planes.append((np.array([-1.0, 0, 0]), log_uniform(rng, 0.8, 3)))
        pile = _room_pile(rng, view, bank, planes, blank=0.4)
        half = np.array([rng.uniform(0.3, 1.2), 0.02, rng.uniform(0.2, 0.6)])
        centre = view.point(0.5, 0.5, 1.0)
        reach = table / max(centre[1], 0.2)  # where the view's axis meets the table
        place = np.array([centre[0] * reach + rng.normal(0, 0.2), table + half[1], centre[2] * reach + 0.1])
        axes = _upright_axes(rng.normal(0, 0.3))
        slab = see_box(view, place, axes, half, light, view.focal_px / reach)
        _add_bodies(rng, pile, bank, [slab], blank=0.3)
    bodies = []
    for _ in range(int(rng.integers(2, 8))):
        x, y = rng.uniform(0.0, 1.0), rng.uniform(0.25, 1.0)
        base = view.point(x, y, 1.0)
        base = base * (table / max(base[1], 0.25 * table))
        bodies.append(_body(rng, view, base, log_uniform(rng, 0.12, 0.6) * table, light))
    _add_bodies(rng, pile, bank, bodies, blank=0.15)
    if rng.random() < 0.35:
        thin = rng.random() < 0.6
        coverage = shapes.thin_coverage(rng, size) if thin else shapes.random_coverage(rng, size, bank)
        _add_in_front(rng, pile, bank, coverage)
    return pile


def stacked(rng: np.random.Generator, size: tuple[int, int], bank: TextureBank) -> Pile:
    """Surfaces of any outline and relief, each in front of the last."""
    relief = shapes.random_relief(rng, size, bank) * np.float32(log_uniform(rng, 0.1, 1.2))
    pile = Pile(_surface_color(rng, bank, np.ones(size, np.float32), blank=0.2), relief)
    for _ in range(int(rng.choice([0, 1, 2, 3, 4, 5], p=[0.08, 0.2, 0.26, 0.22, 0.14, 0.1]))):
        coverage = shapes.random_coverage(rng, size, bank)
        seen = coverage > 0
        if not seen.any():
            continue
        relief = shapes.random_relief(rng, size, bank) * np.float32(log_uniform(rng, 0.05, 0.8))
        if rng.random() < 0.3:  # parallel to what it covers
            relief = np.asarray(cv2.blur(pile.top, (size[1] // 3, size[0] // 3)), np.float32)
        elif rng.random() < 0.4:
            relief = relief + np.float32(log_uniform(rng, 0.02, 0.3)) * shapes.bulge(coverage)
        gap = log_uniform(rng, 0.02, 0.8)
        # All of it in front. Only the first may be crossed: to be cut by a later one would open gaps.
        crosses = len(pile.colors) == 1 and rng.random() < 0.3
        quantile = rng.uniform(0.6, 1.0) if crosses else 1.0
        relief = relief + np.float32(gap + np.quantile((pile.top - relief)[seen], quantile))
        shadow = rng.uniform(0, 0.6) if rng.random() < 0.5 else 0.0
        pile.add(_surface_color(rng, bank, coverage, blank=0.15), coverage, relief, shadow)
    return pile


def _room_pile(
    rng: np.random.Generator,
    view: View,
    bank: TextureBank,
    planes: list[tuple[Vector, float]],
    blank: float,
) -> Pile:
    """The walls as the farthest layer, with pictures, doors and windows on them."""
    typical = float(np.median([distance for _, distance in planes]))
    texels_per_m = view.focal_px / typical * log_uniform(rng, 0.5, 1.5)
    diopters, walls = see_room(view, planes, texels_per_m)
    color = np.full((*view.size, 3), rng.uniform(0.1, 0.9), np.float32)
    same = rng.random() < 0.5  # walls of one paint
    paint_seed = int(rng.integers(2**32))
    for (normal, _), wall in zip(planes, walls, strict=True):
        if float(wall.weight.mean()) < 1e-3:
            continue
        box = _box(wall.weight)
        wall = Wall(wall.weight[box], wall.coordinates.cropped(*box))
        is_wall = abs(normal[1]) < 0.7
        brush = np.random.default_rng(paint_seed) if same and is_wall else rng
        painted = bank.paint(brush, wall.coordinates, blank if not is_wall else 0.5 + 0.5 * blank)
        if is_wall:
            painted = _with_panels(rng, bank, wall, painted, texels_per_m)
        light = rng.uniform(0.6, 1.05)
        color[box] += (painted * np.float32(light) - color[box]) * wall.weight[..., None]
    return Pile(linear_light(color * _illumination(rng, bank, view.size)[..., None]), diopters)


def _with_panels(
    rng: np.random.Generator, bank: TextureBank, wall: Wall, painted: Floats, texels_per_m: float
) -> Floats:
    """Rectangles that lie in the wall: pictures, doors, windows, sockets, a skirting board."""
    at = wall.coordinates
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.4, 0.3, 0.2, 0.1]))):
        rows, columns = np.nonzero(wall.weight > 0.5)
        if len(rows) == 0:
            break
        pick = int(rng.integers(len(rows)))
        x, y = float(at.x[rows[pick], columns[pick]]), float(at.y[rows[pick], columns[pick]])
        half_x = 0.5 * texels_per_m * log_uniform(rng, 0.1, 1.5)
        half_y = 0.5 * texels_per_m * log_uniform(rng, 0.1, 1.5)
        if rng.random() < 0.15:
            half_x = 1e5  # a board along the wall
            half_y = 0.5 * texels_per_m * log_uniform(rng, 0.02, 0.12)
        inside = np.minimum(half_x - np.abs(at.x - x), half_y - np.abs(at.y - y)) / at.footprint
        share = np.clip(inside + np.float32(0.5), 0, 1).astype(np.float32)
        picture = bank.paint(rng, at, blank=0.25)
        if rng.random() < 0.15:
            picture = picture * np.float32(0.3) + np.float32(0.8)  # a window by day
        painted = painted + (picture - painted) * share[..., None]
    return painted


def _body(rng: np.random.Generator, view: View, base: Vector, extent: float, light: Vector) -> Seen:
    """Something about `extent` [m] large that stands on, lies on or leans at `base`."""
    texels_per_m = view.focal_px / max(float(np.linalg.norm(base)), 0.05) * log_uniform(rng, 0.6, 1.6)
    up = np.array([0.0, -1.0, 0.0])
    kind = rng.choice(["box", "card", "post", "can", "ball"], p=[0.36, 0.16, 0.14, 0.2, 0.14])
    # The camera stays outside: what is too large for its distance shrinks.
    extent = min(extent, 0.5 * float(np.linalg.norm(base)))
    if kind == "can":
        radius = 0.35 * extent * log_uniform(rng, 0.4, 1)
        tilt = up if rng.random() < 0.8 else _unit(*rng.normal(0, 1, 3))
        return see_cylinder(
            view, base, tilt, radius, extent * log_uniform(rng, 0.5, 1.8), light, texels_per_m
        )
    if kind == "ball":
        half = 0.5 * extent * rng.uniform(0.5, 1, 3)
        centre = base + up * half[1]
        return see_ellipsoid(view, centre, _upright_axes(rng.uniform(0, 6.3)), half, light, texels_per_m)
    axes = _upright_axes(rng.uniform(0, 6.3))
    if kind == "box":
        half = 0.5 * extent * np.array([1.0, log_uniform(rng, 0.15, 1.3), log_uniform(rng, 0.3, 1)])
    elif kind == "card":
        half = 0.5 * extent * np.array([log_uniform(rng, 0.4, 1), log_uniform(rng, 0.6, 1.6), 0.02])
        axes = axes @ cv2.Rodrigues(axes[0] * rng.uniform(-0.4, 0.4))[0].T  # it leans
    else:
        thin = 0.5 * extent * log_uniform(rng, 0.02, 0.1)
        half = np.array([thin, 0.5 * extent * rng.uniform(0.8, 3), thin])
        if rng.random() < 0.35:  # it lies, as a pen does
            axes = np.stack([up, axes[0], axes[2]])
        elif rng.random() < 0.5:
            axes = axes @ cv2.Rodrigues(rng.normal(0, 0.4, 3))[0].T
    half, centre = _before_camera(base, axes, half)
    return see_box(view, centre, axes, half, light, texels_per_m)


def _before_camera(
    base: Vector, axes: np.ndarray[tuple[int, ...], np.dtype[np.float64]], half: Vector
) -> tuple[Vector, Vector]:
    """Half sizes and centre of a box that stands at `base`: a smaller one where the camera would be in it."""
    up = np.array([0.0, -1.0, 0.0])
    while True:
        centre = base + up * float(np.abs(axes[:, 1]) @ half)  # half its height above the base
        if (np.abs(axes @ centre) > 1.05 * half).any():
            return half, centre
        half = 0.7 * half


def _add_bodies(
    rng: np.random.Generator, pile: Pile, bank: TextureBank, bodies: list[Seen], blank: float
) -> None:
    visible = [body for body in bodies if (body.coverage > 0.5).sum() >= _FEWEST_PIXELS]
    shadow = rng.uniform(0.1, 0.7)
    for body in _far_to_near(visible):
        pile.add(_body_color(rng, bank, body, blank), body.coverage, body.diopters, shadow)


def _far_to_near(bodies: list[Seen]) -> list[Seen]:
    """By distance, and each before the first that hides it where the two overlap."""
    ordered: list[Seen] = []
    for body in sorted(bodies, key=lambda body: float(np.median(body.diopters[body.coverage > 0.5]))):
        place = len(ordered)
        for index, other in enumerate(ordered):
            both = (body.coverage > 0) & (other.coverage > 0)
            if both.any() and float(np.median((body.diopters - other.diopters)[both])) < 0:
                place = index
                break
        ordered.insert(place, body)
    return ordered


def _body_color(rng: np.random.Generator, bank: TextureBank, body: Seen, blank: float) -> Floats:
    """Painted where the body is; what its rim shows goes on past it [H, W, 3]."""
    box = _box(body.coverage)
    color = linear_light(bank.paint(rng, body.coordinates.cropped(*box), blank)) * body.shade[box][..., None]
    return _extended(color, box, body.coverage.shape)


def _add_in_front(rng: np.random.Generator, pile: Pile, bank: TextureBank, coverage: Floats) -> None:
    """Something between the camera and all that it covers."""
    seen = coverage > 0
    if not seen.any():
        return
    size = (coverage.shape[0], coverage.shape[1])
    nearest = float(pile.top[seen].max())
    gap = log_uniform(rng, 0.03, 0.8) * max(nearest, 0.3)
    relief = shapes.random_relief(rng, size, bank) * np.float32(0.3 * gap)
    relief = relief + np.float32(nearest + gap - float(relief[seen].min()))
    pile.add(_surface_color(rng, bank, coverage, blank=0.25), coverage, relief)


def _surface_color(rng: np.random.Generator, bank: TextureBank, coverage: Floats, blank: float) -> Floats:
    """Linear light [H, W, 3] of a surface that is not mapped in perspective; as `_body_color`."""
    box = _box(coverage)
    at = pixel_coordinates(coverage[box].shape)
    painted = bank.paint(rng, at, blank)
    if rng.random() < 0.6:
        painted = painted * _illumination(rng, bank, at.size)[..., None]
    return _extended(linear_light(painted), box, coverage.shape)


def _box(coverage: Floats) -> tuple[slice, slice]:
    """The rows and the columns of what has any coverage."""
    rows = np.flatnonzero((coverage > 0).any(axis=1))
    columns = np.flatnonzero((coverage > 0).any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _extended(color: Floats, box: tuple[slice, slice], size: tuple[int, int]) -> Floats:
    """What was painted in a box, its rim going on outside [H, W, 3]."""
    margins = box[0].start, size[0] - box[0].stop, box[1].start, size[1] - box[1].stop
    return np.asarray(cv2.copyMakeBorder(color, *margins, cv2.BORDER_REPLICATE), np.float32)


def _illumination(rng: np.random.Generator, bank: TextureBank, size: tuple[int, int]) -> Floats:
    """Light that changes smoothly across the image, 1 on average [H, W]."""
    strength = np.float32(log_uniform(rng, 0.02, 0.25))
    return np.clip(1 + strength * bank.smooth(rng, size, rng.uniform(0.2, 1)), 0.2, 1.8).astype(np.float32)


def _upright_axes(yaw: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])


def _unit(x: float, y: float, z: float) -> Vector:
    vector = np.array([x, y, z], np.float64)
    return vector / float(np.linalg.norm(vector))


def _at(image: Floats, x: float, y: float) -> float:
    height, width = image.shape
    return float(image[min(int(y * height), height - 1), min(int(x * width), width - 1)])
