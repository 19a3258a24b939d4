"""The thin-lens renderer: a scene of textured quads as a camera with a finite aperture sees it.

Things are drawn far to near. Each is drawn sharp with all that it hides already behind it, cut into layers evenly
spaced in diopters, and each layer's colour and coverage are convolved with the disc of its circle of confusion. The
layers of one surface add up (they do not hide each other); things are composited over one another. All in linear light.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.optics import ThinLens, circle_of_confusion
from hybriddepth_ros.simulation.disc_blur import blur_disc, disc_reach
from hybriddepth_ros.simulation.drawing_order import far_to_near
from hybriddepth_ros.simulation.scene import Quad, Scene, Thing

Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 [px], the end excluded

_NEAREST_M = 0.02  # nothing is drawn closer to the lens than this
_LAYER_STEP_PX = 0.75  # circle of confusion between layers: their quantisation is at most half of it


def render(
    scene: Scene,
    camera_pose: Matrix,
    intrinsics: CameraIntrinsics,
    lens: ThinLens | None,
    focus_diopters: float,
) -> tuple[Floats, Floats]:
    """(image [H, W, 3] float32 linear RGB, depth [H, W] float32 m along Z) of the scene, focused at `focus_diopters`.

    camera_pose [4, 4]: camera to world, m. `intrinsics` are those at this focus (:func:`breathing_intrinsics`).
    lens None: a pinhole, everything sharp. Depth is exact at the pixel centres, infinite where nothing is.
    """
    optics = _Optics(intrinsics, lens, focus_diopters)
    things = _in_camera_frame(scene, camera_pose)
    image = np.empty((intrinsics.height, intrinsics.width, 3), np.float32)
    image[:] = scene.backdrop
    faces = [_visible_faces(thing, intrinsics) for thing in things]
    for index in far_to_near(things):
        _composite(image, faces[index], optics)
    return image, _depth(faces, intrinsics)


def render_depth(scene: Scene, camera_pose: Matrix, intrinsics: CameraIntrinsics) -> Floats:
    """The depth [H, W] float32 m along Z that :func:`render` gives, alone."""
    things = _in_camera_frame(scene, camera_pose)
    return _depth([_visible_faces(thing, intrinsics) for thing in things], intrinsics)


def breathing_intrinsics(
    at_infinity: CameraIntrinsics, focus_diopters: float, breathing_percent_per_diopter: float
) -> CameraIntrinsics:
    """The intrinsics at a focus: magnification about the principal point grows linearly with the focus in diopters."""
    scale = 1.0 + 0.01 * breathing_percent_per_diopter * focus_diopters
    return replace(at_infinity, fx=at_infinity.fx * scale, fy=at_infinity.fy * scale)


def develop(
    linear: Floats,
    rng: np.random.Generator | None = None,
    full_well_electrons: float = 12000.0,
    read_noise_electrons: float = 6.0,
) -> npt.NDArray[np.uint8]:
    """8-bit sRGB [H, W, 3] of a linear image; with `rng`, after the photons' shot noise and the sensor's read noise."""
    if rng is not None:
        # The normal limit of the Poisson law: above ten electrons nobody can tell, and it is ten times as fast.
        variance = (
            np.maximum(linear, 0) / full_well_electrons + (read_noise_electrons / full_well_electrons) ** 2
        )
        linear = linear + np.sqrt(variance) * rng.standard_normal(linear.shape, np.float32)
    index = np.clip(linear * (_SRGB.size - 1) + 0.5, 0, _SRGB.size - 1).astype(np.uint16)
    return _SRGB[index]


def _srgb_table(size: int = 16384) -> npt.NDArray[np.uint8]:
    linear = np.linspace(0.0, 1.0, size)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(np.uint8)


_SRGB = _srgb_table()


@dataclass(frozen=True)
class _Optics:
    intrinsics: CameraIntrinsics
    lens: ThinLens | None
    focus_diopters: float

    def coc_px(self, depth_diopters: float) -> float:
        if self.lens is None:
            return 0.0
        return float(abs(circle_of_confusion(np.float64(depth_diopters), self.focus_diopters, self.lens)))

    @property
    def frame(self) -> Box:
        return (0, 0, self.intrinsics.width, self.intrinsics.height)


def _in_camera_frame(scene: Scene, camera_pose: Matrix) -> list[Thing]:
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
class _Face:
    """A quad in the image. Rows of `forms` are linear in the pixel (x, y, 1): u / z, v / z and 1 / z."""

    quad: Quad
    forms: Matrix  # [3, 3]

    @classmethod
    def of(cls, quad: Quad, intrinsics: CameraIntrinsics) -> _Face | None:
        """None for a surface seen edge-on."""
        projection = intrinsics.matrix @ np.stack([quad.edge_u, quad.edge_v, quad.origin], axis=1)
        if np.linalg.cond(projection) > 1e12:
            return None
        return cls(quad, np.linalg.inv(projection))

    @property
    def diopters(self) -> Matrix:
        """[3]: 1 / z at a pixel (x, y, 1)."""
        return self.forms[2]

    @property
    def rim(self) -> list[Matrix]:
        """Four forms [3], each the distance in pixels inside one edge of the quad."""
        u, v, d = self.forms
        return [_per_pixel(form) for form in (u, d - u, v, d - v)]

    @property
    def in_front(self) -> list[Matrix]:
        """Two forms [3], positive where the surface lies in front of the lens."""
        return [self.diopters - [0, 0, 1e-9], [0, 0, 1 / _NEAREST_M] - self.diopters]


def _visible_faces(thing: Thing, intrinsics: CameraIntrinsics) -> list[_Face]:
    """The faces of a thing that are turned towards the camera; an open surface shows either side."""
    centre = thing.centre
    # A closed body's face is seen from outside when its plane parts the camera (the origin) from the body's centre.
    visible = (
        q
        for q in thing.quads
        if not thing.solid or (q.normal @ q.origin) * (q.normal @ (q.origin - centre)) < 0
    )
    return [face for quad in visible if (face := _Face.of(quad, intrinsics)) is not None]


def _per_pixel(form: Matrix) -> Matrix:
    return form / max(float(np.hypot(form[0], form[1])), 1e-12)


def _composite(image: Floats, faces: list[_Face], optics: _Optics) -> None:
    """Draw one thing over `image`, in place."""
    drawn = [part for face in faces if (part := _defocused(face, optics)) is not None]
    if not drawn:
        return
    boxes = np.array([box for box, _ in drawn])
    x0, y0 = boxes[:, :2].min(axis=0)
    x1, y1 = boxes[:, 2:].max(axis=0)
    if len(drawn) == 1:
        layer = drawn[0][1]
    else:
        layer = np.zeros((y1 - y0, x1 - x0, 4), np.float32)
        for box, part in drawn:
            layer[box[1] - y0 : box[3] - y0, box[0] - x0 : box[2] - x0] += part
    # Where discs of neighbouring faces overlap, coverage can sum to more than all.
    coverage = layer[..., 3:]
    layer /= np.maximum(coverage, 1.0)
    below = image[y0:y1, x0:x1]
    below *= 1.0 - layer[..., 3:]
    below += layer[..., :3]


def _defocused(face: _Face, optics: _Optics) -> tuple[Box, Floats] | None:
    """(box, [h, w, 4] colour times coverage, coverage) of one face out of focus, or None where it is not in view."""
    _, near, far = _in_view(face, optics.frame)
    widest = max(
        optics.coc_px(near), optics.coc_px(far)
    )  # px, of what is in view; what spreads into it is much alike
    outline, near, far = _in_view(face, _grown(optics.frame, disc_reach(widest)))
    if len(outline) < 3:
        return None
    focus = float(np.clip(optics.focus_diopters, far, near))
    span_px = optics.coc_px(near) + optics.coc_px(far) - 2 * optics.coc_px(focus)
    count = max(1, int(np.ceil(span_px / _LAYER_STEP_PX)))
    cuts = np.linspace(far, near, count + 1)
    diameters = [optics.coc_px(0.5 * (low + high)) for low, high in zip(cuts[:-1], cuts[1:], strict=True)]

    parts = list(_layers(face, outline, cuts, diameters, optics.frame))
    if not parts:
        return None
    boxes = np.array([box for box, _ in parts])
    (x0, y0), (x1, y1) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    total = np.zeros((y1 - y0, x1 - x0, 4), np.float32)
    for box, part in parts:
        total[box[1] - y0 : box[3] - y0, box[0] - x0 : box[2] - x0] += part
    whole = (int(x0), int(y0), int(x1), int(y1))
    if count > 1:
        total /= _full_coverage(face, whole, cuts, diameters)[..., None]
    return whole, total


def _layers(
    face: _Face, outline: Matrix, cuts: Matrix, diameters: list[float], frame: Box
) -> Iterator[tuple[Box, Floats]]:
    """(box, colour and coverage) of each depth layer of a face, blurred by its own disc."""
    for index, diameter in enumerate(diameters):
        limits = []
        if index > 0:
            limits.append(_per_pixel(face.diopters - [0, 0, cuts[index]]))
        if index < len(diameters) - 1:
            limits.append(_per_pixel([0, 0, cuts[index + 1]] - face.diopters))
        strip = _clip(outline, [_outset(form, 1.0) for form in limits])
        if len(strip) < 3:
            continue
        reach = disc_reach(diameter)
        box = _intersection(_grown(_bounds(strip), reach), frame)
        if box[0] >= box[2] or box[1] >= box[3]:
            continue
        yield (
            box,
            blur_disc(_sharp(face, _grown(box, reach), face.rim + limits, strip.mean(axis=0)), diameter),
        )


def _sharp(face: _Face, box: Box, limits: list[Matrix], sample: Matrix) -> Floats:
    """Colour times coverage, and coverage [h, w, 4] of the part of a face that lies within `limits`.

    Coverage falls from 1 to 0 over the pixel that a limit passes through. `sample` [2]: where the texture's scale is
    taken, px.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    quad, texture, to_texel = face.quad, *_texture_map(face, sample)
    shift = np.array([[1.0, 0, box[0]], [0, 1, box[1]], [0, 0, 1]])
    border = cv2.BORDER_REPLICATE if quad.repeat == (1.0, 1.0) else cv2.BORDER_WRAP
    color = cv2.warpPerspective(
        texture,
        to_texel @ shift,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=border,
    )
    coverage = np.full((height, width), 1.0, np.float32)
    for form in limits:
        if float((_corners(box) @ form[:2] + form[2]).min()) < 1.0:
            coverage *= np.clip(_evaluate(form, box) + np.float32(0.5), 0.0, 1.0)
    result = np.empty((height, width, 4), np.float32)
    np.multiply(color, (np.float32(quad.shade) * coverage)[..., None], out=result[..., :3])
    result[..., 3] = coverage
    return result


def _texture_map(face: _Face, sample: Matrix) -> tuple[Floats, Matrix]:
    """The texture reduced to about one texel per pixel round `sample`, and pixel (x, y, 1) -> its texel."""
    quad, forms = face.quad, face.forms
    u, v, d = forms @ [sample[0], sample[1], 1.0]
    rows, columns = quad.texture.shape[:2]
    u_rate = columns * quad.repeat[0] * float(np.hypot(*(forms[0, :2] * d - u * forms[2, :2]))) / d**2
    v_rate = rows * quad.repeat[1] * float(np.hypot(*(forms[1, :2] * d - v * forms[2, :2]))) / d**2
    halvings = (max(0, round(np.log2(max(rate, 1e-6)))) for rate in (u_rate, v_rate))
    texture = quad.reduced_texture(*halvings)
    scale = (texture.shape[1] * quad.repeat[0], texture.shape[0] * quad.repeat[1])
    to_texel = np.array([[scale[0], 0, -0.5], [0, scale[1], -0.5], [0, 0, 1]]) @ forms
    return texture, to_texel


def _full_coverage(face: _Face, box: Box, cuts: Matrix, diameters: list[float]) -> Floats:
    """[h, w]: what the layers' coverages would sum to if the surface had no rim; near 1, and 1 if all discs were equal.

    Dividing by it keeps a slanted surface closed where discs of different size meet. It depends on 1 / z alone.
    """
    slope = max(float(np.hypot(face.diopters[0], face.diopters[1])), 1e-12)  # diopters per pixel
    radii = np.maximum(0.5 * np.array(diameters), 0.5)
    diopters = _evaluate(face.diopters, box)
    samples = np.linspace(float(diopters.min()), float(diopters.max()), 1024)
    distance = (samples[:, None] - cuts[None, 1:-1]) / slope  # [samples, cuts], px past each inner cut
    total = 1.0 + (_disc_edge(distance, radii[1:]) - _disc_edge(distance, radii[:-1])).sum(axis=1)
    position = (diopters - samples[0]) * np.float32((len(samples) - 1) / max(samples[-1] - samples[0], 1e-12))
    table: Floats = np.maximum(total, 0.5).astype(np.float32)
    return table[np.clip(position + np.float32(0.5), 0, len(samples) - 1).astype(np.int16)]


def _disc_edge(distance: Matrix, radius: Matrix) -> Matrix:
    """A half plane blurred by a disc, at a signed distance inside its edge: 0..1."""
    x = np.clip(distance / radius, -1.0, 1.0)
    return 0.5 + (x * np.sqrt(1 - x**2) + np.arcsin(x)) / np.pi


def _depth(faces_of_things: list[list[_Face]], intrinsics: CameraIntrinsics) -> Floats:
    """[H, W] m along Z of the nearest surface at each pixel's centre."""
    frame = (0, 0, intrinsics.width, intrinsics.height)
    nearest = np.zeros((intrinsics.height, intrinsics.width), np.float32)  # 1/m
    for faces in faces_of_things:
        for face in faces:
            outline, _, _ = _in_view(face, frame)
            if len(outline) < 3:
                continue
            box = _intersection(_bounds(outline), frame)
            diopters = _evaluate(face.diopters, box)
            for form in face.rim:
                if float((_corners(box) @ form[:2] + form[2]).min()) < 0.0:
                    diopters *= _evaluate(form, box) >= 0
            target = nearest[box[1] : box[3], box[0] : box[2]]
            np.maximum(target, diopters, out=target)
    with np.errstate(divide="ignore"):
        return np.float32(1.0) / nearest


def _in_view(face: _Face, box: Box) -> tuple[Matrix, float, float]:
    """(outline [n, 2] px, nearest, farthest 1/m) of the part of a face within the box; empty, 0, 0 if there is none."""
    outline = _clip(_corners(box), [_outset(form, 1.0) for form in face.rim] + face.in_front)
    if len(outline) < 3:
        return outline, 0.0, 0.0
    diopters = outline @ face.diopters[:2] + face.diopters[2]
    return outline, float(diopters.max()), float(diopters.min())


def _evaluate(form: Matrix, box: Box) -> Floats:
    """A form linear in the pixel (x, y, 1), at every pixel of the box [h, w]."""
    along = form[0] * np.arange(box[0], box[2])
    down = form[1] * np.arange(box[1], box[3]) + form[2]
    return np.add(along.astype(np.float32)[None, :], down.astype(np.float32)[:, None])


def _outset(form: Matrix, pixels: float) -> Matrix:
    return form + [0, 0, pixels]


def _clip(polygon: Matrix, forms: list[Matrix]) -> Matrix:
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


def _corners(box: Box) -> Matrix:
    x0, y0, x1, y1 = box
    return np.array([[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]], np.float64)


def _bounds(polygon: Matrix) -> Box:
    low, high = np.floor(polygon.min(axis=0)).astype(int), np.ceil(polygon.max(axis=0)).astype(int)
    return int(low[0]), int(low[1]), int(high[0]) + 1, int(high[1]) + 1


def _grown(box: Box, margin: int) -> Box:
    return box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin


def _intersection(a: Box, b: Box) -> Box:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
