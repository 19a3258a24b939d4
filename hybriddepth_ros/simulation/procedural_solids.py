"""Convex bodies and rooms seen by a pinhole: exact 1/z, coverage and texture coordinates at each pixel.

World frame: the camera's position is the origin, x right, y down, z ahead; metres. The 1/z of a plane is
linear in the pixel, so a body of planes is minima and maxima of linear forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.simulation.procedural_shapes import edge_coverage
from hybriddepth_ros.simulation.procedural_textures import Coordinates, Floats

Vector = npt.NDArray[np.float64]  # [3]

_TINY = np.float32(1e-4)
_NONE = np.float32(-1e6)


class View:
    """The rays of a camera turned in the world: rays [3, H, W] of z = 1 along the optical axis."""

    def __init__(
        self, size: tuple[int, int], focal_px: float, pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0
    ) -> None:
        """Angles in radians; a positive pitch looks down, a positive yaw to the right."""
        self.size, self.focal_px = size, focal_px
        turn_x = cv2.Rodrigues(np.array([-pitch, 0.0, 0.0]))[0]
        turn_y = cv2.Rodrigues(np.array([0.0, yaw, 0.0]))[0]
        turn_z = cv2.Rodrigues(np.array([0.0, 0.0, roll]))[0]
        to_world = turn_y @ turn_x @ turn_z
        pixel_to_ray = np.array(
            [
                [1 / focal_px, 0, -0.5 * (size[1] - 1) / focal_px],
                [0, 1 / focal_px, -0.5 * (size[0] - 1) / focal_px],
                [0, 0, 1],
            ]
        )
        self._forms = to_world @ pixel_to_ray  # [3, 3]: pixel (x, y, 1) -> ray
        self.to_world = to_world
        self.rays = np.stack([evaluate(form, size) for form in self._forms])
        self.lengths = np.sqrt((self.rays**2).sum(axis=0))

    def plane(self, normal: Vector, distance: float) -> Vector:
        """[3]: (x, y, 1) of a pixel -> 1/z of the plane normal . X = distance."""
        form: Vector = normal @ self._forms / distance
        return form

    def point(self, x: float, y: float, z: float) -> Vector:
        """The world point at depth z behind the place (x, y) of the image, each 0..1."""
        pixel = np.array([x * (self.size[1] - 1), y * (self.size[0] - 1), 1.0])
        point: Vector = z * self._forms @ pixel
        return point

    def dot(self, direction: Vector) -> Floats:
        """direction . ray [H, W]."""
        return np.asarray(np.tensordot(direction.astype(np.float32), self.rays, axes=1), np.float32)


def evaluate(form: Vector, size: tuple[int, int]) -> Floats:
    """A linear form of (x, y, 1) at every pixel [H, W]."""
    x = np.float32(form[0]) * np.arange(size[1], dtype=np.float32)
    y = np.float32(form[1]) * np.arange(size[0], dtype=np.float32) + np.float32(form[2])
    return x[None, :] + y[:, None]


@dataclass(frozen=True)
class Seen:
    """A body in a view, [H, W] each: how much of the pixel it fills, 1/z, where on a texture, light on it.

    1/z goes on past the rim of the body, and so do the texture coordinates. `shade` is 0..1.
    """

    coverage: Floats
    diopters: Floats
    coordinates: Coordinates
    shade: Floats


@dataclass(frozen=True)
class Wall:
    """One plane of a room: weight [H, W] 0..1, the share of it in the pixel; its texture coordinates."""

    weight: Floats
    coordinates: Coordinates


def see_box(
    view: View,
    centre: Vector,
    axes: npt.NDArray[np.float64],
    half: Vector,
    light: Vector,
    texels_per_m: float,
) -> Seen:
    """A box: `axes` [3, 3], a unit vector in each row; half its size along them; the camera is outside."""
    fronts: list[tuple[int, float, Vector]] = []
    backs: list[Vector] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal = sign * axes[axis]
            distance = float(normal @ centre + half[axis])
            if abs(distance) < 1e-6:
                continue
            if distance < 0:
                fronts.append((axis, sign, view.plane(normal, distance)))
            else:
                backs.append(view.plane(normal, distance))
    # A ray is inside the box from min(fronts) down to max(backs): what it hits lies between all pairs.
    pairs = np.array([front - back for _, _, front in fronts for back in [*backs, np.zeros(3)]])
    coverage = np.ones(view.size, np.float32)
    for pair in pairs:
        steepness = max(float(np.hypot(pair[0], pair[1])), 1e-12)
        coverage = np.minimum(
            coverage, np.clip(evaluate(pair / steepness, view.size) + np.float32(0.5), 0, 1)
        )
    planes = np.stack([evaluate(form, view.size) for _, _, form in fronts])
    face = planes.argmin(axis=0)
    diopters = planes.min(axis=0)
    x = np.zeros(view.size, np.float32)
    y, shade, facing = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    depth = np.float32(1) / np.maximum(diopters, _TINY)
    for index, (axis, sign, _) in enumerate(fronts):
        chosen = face == index
        if not chosen.any():
            continue
        u, v = axes[(axis + 1) % 3], axes[(axis + 2) % 3]
        if axis == 0:
            u, v = v, u
        x = np.where(chosen, view.dot(u) * depth + np.float32(1.7 * axis), x)
        y = np.where(chosen, view.dot(v) * depth, y)
        normal = sign * axes[axis]
        shade = np.where(chosen, _lambert(float(normal @ light)), shade).astype(np.float32)
        facing = np.where(chosen, np.abs(view.dot(normal)), facing)
    return Seen(coverage, diopters, _coordinates(view, x, y, diopters, facing, texels_per_m), shade)


def see_ellipsoid(
    view: View,
    centre: Vector,
    axes: npt.NDArray[np.float64],
    half: Vector,
    light: Vector,
    texels_per_m: float,
) -> Seen:
    """An ellipsoid of half axes `half` along the rows of `axes`; the camera is outside."""
    to_sphere = axes / half[:, None]
    p, q = np.tensordot(to_sphere.astype(np.float32), view.rays, axes=1), to_sphere @ centre
    near, _, rim = _quadric(p, q)
    depth = np.float32(1) / np.maximum(near, _TINY)
    on_sphere = p * depth - q.astype(np.float32)[:, None, None]  # [3, H, W]
    normal = np.tensordot(to_sphere.T.astype(np.float32), on_sphere, axes=1)
    normal = normal / np.maximum(np.sqrt((normal**2).sum(axis=0)), _TINY)
    facing = np.abs((normal * view.rays).sum(axis=0))
    shade = _lambert(np.tensordot(light.astype(np.float32), normal, axes=1))
    radius = float(np.cbrt(np.prod(half)))
    across = np.float32(radius) * np.arctan2(on_sphere[0], -on_sphere[2])
    along = np.float32(radius) * np.arcsin(np.clip(on_sphere[1], -1, 1))
    coordinates = _coordinates(view, across, along, near, facing, texels_per_m)
    return Seen(edge_coverage(rim), near, coordinates, shade)


def see_cylinder(
    view: View, base: Vector, up: Vector, radius: float, height: float, light: Vector, texels_per_m: float
) -> Seen:
    """A round cylinder that stands at `base` along the unit vector `up`; the camera is outside it."""
    side = np.cross(up, [0.0, 0.0, 1.0])
    side = side / np.linalg.norm(side)
    across = np.stack([side, np.cross(up, side)]) / radius  # [2, 3]
    p, q = np.tensordot(across.astype(np.float32), view.rays, axes=1), across @ base
    near, far, rim = _quadric(p, q)
    coverage = edge_coverage(rim)
    lid = np.zeros(view.size, bool)
    for normal, distance in ((up, float(up @ base + height)), (-up, float(-up @ base))):
        form = evaluate(view.plane(normal, distance), view.size)
        if distance < 0:  # an end that we see
            lid |= form < near
            near = np.minimum(near, form)
        else:
            far = np.maximum(far, form)
    coverage = np.minimum(coverage, edge_coverage(near - np.maximum(far, 0)))
    depth = np.float32(1) / np.maximum(near, _TINY)
    on_circle = p * depth - q.astype(np.float32)[:, None, None]  # [2, H, W]
    normals = np.tensordot((across.T * radius).astype(np.float32), on_circle, axes=1)
    shade = np.where(
        lid,
        _lambert(float(up @ light)),
        _lambert(np.tensordot(light.astype(np.float32), normals, axes=1)),
    ).astype(np.float32)
    facing = np.where(lid, np.abs(view.dot(up)), np.abs((normals * view.rays).sum(axis=0)))
    angle = np.float32(radius) * np.arctan2(on_circle[0], on_circle[1])
    x = np.where(lid, np.float32(radius) * on_circle[0], angle)
    y = np.where(lid, np.float32(radius) * on_circle[1], view.dot(up) * depth)
    return Seen(coverage, near, _coordinates(view, x, y, near, facing, texels_per_m), shade)


def see_room(
    view: View, planes: Sequence[tuple[Vector, float]], texels_per_m: float
) -> tuple[Floats, list[Wall]]:
    """The inside of the convex room normal . X <= distance: 1/z [H, W], and each wall that is seen.

    The planes (unit normal outwards, distance > 0) need not close the room: a ray that meets none sees 1/z of
    a thousandth.
    """
    forms = [view.plane(normal, distance) for normal, distance in planes]
    values = np.stack([evaluate(form, view.size) for form in forms])
    diopters = np.maximum(values.max(axis=0), np.float32(1e-3))
    walls = []
    for index, (normal, _) in enumerate(planes):
        weight = np.ones(view.size, np.float32)
        for other, form in enumerate(forms):
            if other != index:
                difference = forms[index] - form
                steepness = max(float(np.hypot(difference[0], difference[1])), 1e-12)
                edge = evaluate(difference / steepness, view.size) + np.float32(0.5)
                weight = np.minimum(weight, np.clip(edge, 0, 1))
        upright = np.array([0.0, 1, 0]) if abs(normal[1]) < 0.7 else np.array([0.0, 0, 1])
        u = np.cross(upright, normal)
        u = u / np.linalg.norm(u)
        v = np.cross(normal, u)
        inverse = np.maximum(values[index], np.float32(0.02))
        coordinates = _coordinates(
            view,
            view.dot(u) / inverse,
            view.dot(v) / inverse,
            inverse,
            np.abs(view.dot(normal)),
            texels_per_m,
        )
        walls.append(Wall(weight, coordinates))
    return diopters, walls


def _quadric(p: Floats, q: Vector) -> tuple[Floats, Floats, Floats]:
    """Nearest and farthest 1/z of |p z - q| = 1, and what is positive inside the rim, all [H, W]."""
    beyond = np.float32(max(float(q @ q) - 1, 1e-6))
    along = np.tensordot(q.astype(np.float32), p, axes=1)
    rim = along**2 - (p**2).sum(axis=0) * beyond
    root = np.sqrt(np.maximum(rim, 0))
    return (along + root) / beyond, (along - root) / beyond, np.where(along > 0, rim, _NONE)


def _lambert(cosine: Floats | float) -> Floats:
    """Light from above and from the sky all round, 0..1."""
    cosine = np.clip(cosine, -1, 1)  # past the rim of a body it is no cosine
    return np.asarray(0.45 + 0.55 * np.maximum(cosine, 0) + 0.15 * np.minimum(cosine, 0), np.float32)


def _coordinates(
    view: View, x: Floats, y: Floats, diopters: Floats, facing: Floats, texels_per_m: float
) -> Coordinates:
    """From metres on the surface; `facing`: |normal . ray|.

    A slanted surface is squeezed along one axis only: the footprint is the mean of the two.
    """
    cosine = np.clip(facing / view.lengths, 0.05, 1)
    scale = np.float32(texels_per_m / view.focal_px)
    footprint = scale / np.maximum(diopters, np.float32(0.02)) / np.sqrt(cosine)
    metres = np.float32(texels_per_m)
    return Coordinates(x * metres, y * metres, footprint.astype(np.float32))
