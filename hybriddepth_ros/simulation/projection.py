"""Where the faces of a scene lie in the image: linear forms, convex outlines, boxes, and who is in front.

A plane's u / z, v / z and 1 / z are linear in the pixel, so everything about a face in the image is a form
[3] on (x, y, 1); pixel centres are whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.simulation.scene import Quad, Scene, Thing

Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 [px], the end excluded

_NEAREST_M = 0.02  # nothing is drawn closer to the lens than this


def in_camera_frame(scene: Scene, camera_pose: Matrix) -> list[Thing]:
    """The things as the camera at this pose has them."""
    rotation = camera_pose[:3, :3].T
    translation = -rotation @ camera_pose[:3, 3]

    def moved(quad: Quad) -> Quad:
        return replace(
            quad,
            origin=rotation @ quad.origin + translation,
            edge_u=rotation @ quad.edge_u,
            edge_v=rotation @ quad.edge_v,
        )

    return [replace(thing, quads=tuple(moved(quad) for quad in thing.quads)) for thing in scene.things]


@dataclass(frozen=True)
class Face:
    """A quad in the image. Rows of `forms` are linear in the pixel (x, y, 1): u / z, v / z and 1 / z."""

    quad: Quad
    forms: Matrix  # [3, 3]

    @classmethod
    def of(cls, quad: Quad, intrinsics: CameraIntrinsics) -> Face | None:
        """None for a surface seen edge-on."""
        projection = intrinsics.matrix @ np.stack([quad.edge_u, quad.edge_v, quad.origin], axis=1)
        if np.linalg.cond(projection) > 1e12:
            return None
        return cls(quad, np.asarray(np.linalg.inv(projection), np.float64))

    @property
    def diopters(self) -> Matrix:
        """[3]: 1 / z at a pixel (x, y, 1)."""
        return self.forms[2]

    @property
    def rim(self) -> list[Matrix]:
        """Four forms [3], each the distance in pixels inside one edge of the quad."""
        u, v, d = self.forms
        return [per_pixel(form) for form in (u, d - u, v, d - v)]

    @property
    def in_front(self) -> list[Matrix]:
        """Two forms [3], positive where the surface lies in front of the lens."""
        return [self.diopters - [0, 0, 1e-9], [0, 0, 1 / _NEAREST_M] - self.diopters]


def visible_faces(thing: Thing, intrinsics: CameraIntrinsics) -> list[Face]:
    """The faces of a thing that are turned towards the camera; an open surface shows either side."""
    centre = thing.centre
    # A closed body's face is seen from outside when its plane parts the camera (the origin) from the body's
    # centre.
    visible = (
        q
        for q in thing.quads
        if not thing.solid or (q.normal @ q.origin) * (q.normal @ (q.origin - centre)) < 0
    )
    return [face for quad in visible if (face := Face.of(quad, intrinsics)) is not None]


def per_pixel(form: Matrix) -> Matrix:
    return form / max(float(np.hypot(form[0], form[1])), 1e-12)


def nearest(
    faces_of_things: list[list[Face]], intrinsics: CameraIntrinsics
) -> tuple[Floats, npt.NDArray[np.int16]]:
    """Depth [H, W] m along Z at the pixels' centres, and the index [H, W] of the thing there, -1 = none."""
    frame = (0, 0, intrinsics.width, intrinsics.height)
    nearest = np.zeros((intrinsics.height, intrinsics.width), np.float32)  # 1/m
    thing = np.full(nearest.shape, -1, np.int16)
    for index, faces in enumerate(faces_of_things):
        for face in faces:
            outline, _, _ = in_view(face, frame)
            if len(outline) < 3:
                continue
            box = intersection(bounds(outline), frame)
            diopters = evaluate(face.diopters, box)
            for form in face.rim:
                if float((corners(box) @ form[:2] + form[2]).min()) < 0.0:
                    diopters *= evaluate(form, box) >= 0
            inside = (slice(box[1], box[3]), slice(box[0], box[2]))
            closer = diopters > nearest[inside]
            np.copyto(nearest[inside], diopters, where=closer)
            np.copyto(thing[inside], np.int16(index), where=closer)
    with np.errstate(divide="ignore"):
        return np.float32(1.0) / nearest, thing


def boxes_in_sight(nearest_thing: npt.NDArray[np.int16], count: int) -> list[Box | None]:
    """For each thing the box of the pixels where nothing hides it."""
    boxes: list[Box | None] = []
    for index in range(count):
        mask = nearest_thing == index
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        seen = len(columns) > 0
        boxes.append(
            (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if seen else None
        )
    return boxes


def in_view(face: Face, box: Box) -> tuple[Matrix, float, float]:
    """Outline [n, 2] px, nearest and farthest 1/m of what the box has of a face; empty, 0, 0 if nothing."""
    outline = clip(corners(box), [outset(form, 1.0) for form in face.rim] + face.in_front)
    if len(outline) < 3:
        return outline, 0.0, 0.0
    diopters = outline @ face.diopters[:2] + face.diopters[2]
    return outline, float(diopters.max()), float(diopters.min())


def evaluate(form: Matrix, box: Box) -> Floats:
    """A form linear in the pixel (x, y, 1), at every pixel of the box [h, w]."""
    along = form[0] * np.arange(box[0], box[2])
    down = form[1] * np.arange(box[1], box[3]) + form[2]
    return np.add(along.astype(np.float32)[None, :], down.astype(np.float32)[:, None])


def outset(form: Matrix, pixels: float) -> Matrix:
    return form + [0, 0, pixels]


def clip(polygon: Matrix, forms: list[Matrix]) -> Matrix:
    """A convex polygon [n, 2] px cut down to where every form is >= 0 (Sutherland and Hodgman, 1974)."""
    points = [(float(x), float(y)) for x, y in polygon]
    for a, b, c in forms:
        values = [a * x + b * y + c for x, y in points]
        kept = []
        for i, (point, value) in enumerate(zip(points, values, strict=True)):
            before, value_before = points[i - 1], values[i - 1]
            if (value >= 0) != (value_before >= 0):
                t = value_before / (value_before - value)
                kept.append((before[0] + t * (point[0] - before[0]), before[1] + t * (point[1] - before[1])))
            if value >= 0:
                kept.append(point)
        points = kept
        if not points:
            break
    return np.array(points).reshape(-1, 2)


def corners(box: Box) -> Matrix:
    x0, y0, x1, y1 = box
    return np.array([[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]], np.float64)


def bounds(polygon: Matrix) -> Box:
    low, high = np.floor(polygon.min(axis=0)).astype(int), np.ceil(polygon.max(axis=0)).astype(int)
    return int(low[0]), int(low[1]), int(high[0]) + 1, int(high[1]) + 1


def grown(box: Box, margin: int) -> Box:
    return box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin


def intersection(a: Box, b: Box) -> Box:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def union(boxes: list[Box]) -> Box:
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)
