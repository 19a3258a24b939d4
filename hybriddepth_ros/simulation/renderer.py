"""The thin-lens renderer: a scene of textured quads as a camera with a finite aperture sees it.

Things are drawn far to near. Each is drawn sharp with all that it hides already behind it, cut into layers
evenly spaced in diopters, and each layer's colour and coverage are convolved with the disc of its circle of
confusion. The layers of one surface add up (they do not hide each other); things are composited over one
another. All in linear light.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.optics import ThinLens, circle_of_confusion
from hybriddepth_ros.simulation.disc_blur import blur_disc, disc_reach
from hybriddepth_ros.simulation.drawing_order import far_to_near
from hybriddepth_ros.simulation.projection import (
    Box,
    Face,
    Floats,
    Matrix,
    bounds,
    boxes_in_sight,
    clip,
    corners,
    evaluate,
    grown,
    in_camera_frame,
    in_view,
    intersection,
    nearest,
    outset,
    per_pixel,
    union,
    visible_faces,
)
from hybriddepth_ros.simulation.scene import Scene

_LAYER_STEP_PX = 0.9  # circle of confusion between layers: their quantisation is at most half of it
_LAYERS_PER_OCTAVE, _MOST_OCTAVES = (
    2,
    6.0,
)  # a layer takes its texture at one resolution: this limits the error


def render(
    scene: Scene,
    camera_pose: Matrix,
    intrinsics: CameraIntrinsics,
    lens: ThinLens | None,
    focus_diopters: float,
) -> tuple[Floats, Floats]:
    """Image [H, W, 3] float32 linear RGB, and depth [H, W] float32 m along Z, of the scene.

    camera_pose [4, 4]: camera to world, m. `intrinsics` are those at this focus
    (:func:`breathing_intrinsics`). lens None: a pinhole, everything sharp. Depth is exact at the pixel
    centres, infinite where nothing is.
    """
    optics = _Optics(intrinsics, lens, focus_diopters)
    things = in_camera_frame(scene, camera_pose)
    image = np.empty((intrinsics.height, intrinsics.width, 3), np.float32)
    image[:] = scene.backdrop
    faces = [visible_faces(thing, intrinsics) for thing in things]
    depth, thing_seen = nearest(faces, intrinsics)
    boxes = boxes_in_sight(thing_seen, len(things))
    margin = _widest_reach(faces, optics)  # so far does light reach past the rim of what hides a thing
    for index in far_to_near(things):
        box = boxes[index]
        if box is not None:
            _composite(image, faces[index], optics, intersection(grown(box, margin), optics.frame))
    return image, depth


def render_depth(scene: Scene, camera_pose: Matrix, intrinsics: CameraIntrinsics) -> Floats:
    """The depth [H, W] float32 m along Z that :func:`render` gives, alone."""
    things = in_camera_frame(scene, camera_pose)
    return nearest([visible_faces(thing, intrinsics) for thing in things], intrinsics)[0]


def breathing_intrinsics(
    at_infinity: CameraIntrinsics, focus_diopters: float, breathing_percent_per_diopter: float
) -> CameraIntrinsics:
    """Intrinsics at a focus [1/m]: magnification about the principal point grows linearly with it."""
    scale = 1.0 + 0.01 * breathing_percent_per_diopter * focus_diopters
    return replace(at_infinity, fx=at_infinity.fx * scale, fy=at_infinity.fy * scale)


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


def _composite(image: Floats, faces: list[Face], optics: _Optics, frame: Box) -> None:
    """Draw one thing over `image`, in place, within `frame`."""
    drawn = [part for face in faces if (part := _defocused(face, optics, frame)) is not None]
    if not drawn:
        return
    x0, y0, x1, y1 = box = union([box for box, _ in drawn])
    layer = _sum(drawn, box)
    coverage = cv2.extractChannel(layer, 3)
    if cv2.minMaxLoc(coverage)[1] > 1.0:  # where discs of neighbouring faces overlap
        layer = _times(layer, np.asarray(1.0 / np.maximum(coverage, 1.0), np.float32))
    *color, coverage = cv2.split(layer)
    image[y0:y1, x0:x1] = cv2.add(_times(image[y0:y1, x0:x1], 1.0 - coverage), cv2.merge(color))


def _defocused(face: Face, optics: _Optics, frame: Box) -> tuple[Box, Floats] | None:
    """Box, and colour times coverage and coverage [h, w, 4], of a face out of focus; None outside `frame`."""
    outline, near, far = in_view(face, grown(frame, _reach(face, optics, frame)))
    if len(outline) < 3:
        return None
    focus = float(np.clip(optics.focus_diopters, far, near))
    span_px = optics.coc_px(near) + optics.coc_px(far) - 2 * optics.coc_px(focus)
    octaves = min(float(np.log2(near / far)), _MOST_OCTAVES)  # of the texture's scale
    count = max(1, int(np.ceil(span_px / _LAYER_STEP_PX)), int(np.ceil(_LAYERS_PER_OCTAVE * octaves)))
    cuts = np.linspace(far, near, count + 1)
    diameters = [optics.coc_px(middle) for middle in 0.5 * (cuts[:-1] + cuts[1:])]

    layers = list(_layers(face, outline, cuts, diameters, frame))
    if not layers:
        return None
    box = union([box for box, _ in layers])
    total = _sum(layers, box)
    if count > 1:
        whole = _whole_coverage(face, box, cuts, diameters)
        # Far from the rim it is simply what came out; the closed form is a percent off where discs are tiny.
        np.copyto(whole, total[..., 3], where=_is_inside(face, box, disc_reach(max(diameters)) + 1))
        total = _times(total, np.asarray(1.0 / np.maximum(whole, 0.5), np.float32))
    return box, total


def _layers(
    face: Face, outline: Matrix, cuts: Matrix, diameters: list[float], frame: Box
) -> Iterator[tuple[Box, Floats]]:
    """(box, colour and coverage) of each depth layer of a face, blurred by its own disc."""
    for index, diameter in enumerate(diameters):
        limits = []
        if index > 0:
            limits.append(per_pixel(face.diopters - [0, 0, cuts[index]]))
        if index < len(diameters) - 1:
            limits.append(per_pixel([0, 0, cuts[index + 1]] - face.diopters))
        strip = clip(outline, [outset(form, 1.0) for form in limits])
        if len(strip) < 3:
            continue
        reach = disc_reach(diameter)
        box = intersection(grown(bounds(strip), reach), frame)
        if box[0] >= box[2] or box[1] >= box[3]:
            continue
        yield (
            box,
            blur_disc(_sharp(face, grown(box, reach), face.rim + limits, strip.mean(axis=0)), diameter),
        )


def _sharp(face: Face, box: Box, limits: list[Matrix], sample: Matrix) -> Floats:
    """Colour times coverage, and coverage [h, w, 4] of the part of a face that lies within `limits`.

    Coverage falls from 1 to 0 over the pixel that a limit passes through. `sample` [2]: where the texture's
    scale is taken, px.
    """
    texture, to_texel = _texture_map(face, sample)
    shift = np.array([[1.0, 0, box[0]], [0, 1, box[1]], [0, 0, 1]])
    color = cv2.warpPerspective(
        texture,
        to_texel @ shift,
        (box[2] - box[0], box[3] - box[1]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE if face.quad.repeat == (1.0, 1.0) else cv2.BORDER_WRAP,
    )
    coverages = [
        np.clip(evaluate(form, box) + np.float32(0.5), 0.0, 1.0)
        for form in limits
        if float((corners(box) @ form[:2] + form[2]).min()) < 0.5
    ]
    sharp = np.asarray(color, np.float32)
    return _times(sharp, functools.reduce(np.multiply, coverages)) if coverages else sharp


def _texture_map(face: Face, sample: Matrix) -> tuple[Floats, Matrix]:
    """The texture reduced to about one texel per pixel round `sample`, and pixel (x, y, 1) -> its texel."""
    quad, forms = face.quad, face.forms
    u, v, d = forms @ [sample[0], sample[1], 1.0]
    rows, columns = quad.texture.shape[:2]
    u_rate = columns * quad.repeat[0] * float(np.hypot(*(forms[0, :2] * d - u * forms[2, :2]))) / d**2
    v_rate = rows * quad.repeat[1] * float(np.hypot(*(forms[1, :2] * d - v * forms[2, :2]))) / d**2
    halvings = (max(0, round(np.log2(max(rate, 1e-6)))) for rate in (u_rate, v_rate))
    texture = quad.paint(*halvings)
    scale = (texture.shape[1] * quad.repeat[0], texture.shape[0] * quad.repeat[1])
    to_texel = np.array([[scale[0], 0, -0.5], [0, scale[1], -0.5], [0, 0, 1]]) @ forms
    return texture, to_texel


def _whole_coverage(face: Face, box: Box, cuts: Matrix, diameters: list[float]) -> Floats:
    """What the layers' coverages would sum to if the surface had no rim [h, w]: 1 if all discs were equal.

    Dividing by it keeps a slanted surface closed where discs of different size meet. It depends on 1 / z
    alone.
    """
    slope = max(float(np.hypot(face.diopters[0], face.diopters[1])), 1e-12)  # diopters per pixel
    radii = np.maximum(0.5 * np.array(diameters), 0.5)
    diopters = evaluate(face.diopters, box)
    samples = np.linspace(float(diopters.min()), float(diopters.max()), 1024)
    distance = (samples[:, None] - cuts[None, 1:-1]) / slope  # [samples, cuts], px past each inner cut
    total = 1.0 + (_disc_edge(distance, radii[1:]) - _disc_edge(distance, radii[:-1])).sum(axis=1)
    position = (diopters - samples[0]) * np.float32((len(samples) - 1) / max(samples[-1] - samples[0], 1e-12))
    index = np.clip(position + np.float32(0.5), 0, len(samples) - 1).astype(np.int16)
    return total.astype(np.float32)[index]


def _is_inside(face: Face, box: Box, margin: int) -> npt.NDArray[np.bool_]:
    """Which pixels [h, w] of the box lie on the face, `margin` pixels or more from its rim."""
    inside = np.ones((box[3] - box[1], box[2] - box[0]), bool)
    for form in face.rim:
        if float((corners(box) @ form[:2] + form[2]).min()) < margin:
            inside &= evaluate(form, box) >= margin
    return inside


def _disc_edge(distance: Matrix, radius: Matrix) -> Matrix:
    """A half plane blurred by a disc, at a signed distance inside its edge: 0..1."""
    x = np.clip(distance / radius, -1.0, 1.0)
    return 0.5 + (x * np.sqrt(1 - x**2) + np.arcsin(x)) / np.pi


def _reach(face: Face, optics: _Optics, frame: Box) -> int:
    """How far the light of the part of a face in `frame` spreads [px]; just outside, it spreads alike."""
    _, near, far = in_view(face, frame)
    return disc_reach(max(optics.coc_px(near), optics.coc_px(far)))


def _widest_reach(faces_of_things: list[list[Face]], optics: _Optics) -> int:
    return (
        max((_reach(face, optics, optics.frame) for faces in faces_of_things for face in faces), default=0)
        + 1
    )


def _sum(parts: list[tuple[Box, Floats]], box: Box) -> Floats:
    """The parts added up over the box [h, w, 4]."""
    if len(parts) == 1:
        return parts[0][1]
    total = np.zeros((box[3] - box[1], box[2] - box[0], 4), np.float32)
    for (x0, y0, x1, y1), part in parts:
        total[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]] += part
    return total


def _times(image: Floats, factor: Floats) -> Floats:
    """[h, w, c] times [h, w]; OpenCV does it in half the time of a broadcast over so short an axis."""
    return np.asarray(cv2.multiply(image, cv2.merge([np.asarray(factor)] * image.shape[2])), np.float32)
