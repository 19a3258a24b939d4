"""An optical bench that is not there: a board before an emulated camera, and what that camera sees of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.calibration.board import BoardSpec, draw_board
from hybriddepth_ros.emulation.motor import EmulatedMovement
from hybriddepth_ros.emulation.truth import EmulatedTruth
from hybriddepth_ros.simulation.disc_blur import blur_disc, disc_kernel, disc_reach
from hybriddepth_ros.simulation.sensor import develop
from hybriddepth_ros.simulation.textures import fractal_field

Floats = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 [px], the end excluded

_GRID_PX = 4  # rays are worked out at this spacing: between them they are straight to 0.01 px
_PX_PER_SQUARE = 96  # of the board's drawing
_PAPER, _INK = 0.62, 0.035  # linear reflectance
_WALL_TILE_M, _WALL_TILE_PX = 0.9, 1024
_LEVEL_STEP_PX = 1.0  # blur diameter between the levels that a tilted board is mixed of
_SMALL_DISC_PX = 2.0
_CACHED = 96
_MOST_SAMPLES = 8  # of a moving lens in one exposure


@dataclass(frozen=True)
class BoardPose:
    """Where the board stands: its centre [m] in the camera's optical frame (x right, y down, z forward).

    tilt_x_deg, tilt_y_deg: turned about its own horizontal and vertical axis; turn_deg: within its plane.
    """

    distance_m: float
    x_m: float = 0.0
    y_m: float = 0.0
    tilt_x_deg: float = 0.0
    tilt_y_deg: float = 0.0
    turn_deg: float = 0.0

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """[3, 3]: (u, v, 1) on the board [m], times the depth, -> point in the camera's frame."""
        ax, ay, az = np.radians([self.tilt_x_deg, self.tilt_y_deg, self.turn_deg])
        about_x, about_y, about_z = (
            cv2.Rodrigues(v)[0] for v in np.diag([ax, ay, az]).astype(np.float64)[:, :, None]
        )
        rotation = about_y @ about_x @ about_z
        return np.column_stack([rotation[:, 0], rotation[:, 1], [self.x_m, self.y_m, self.distance_m]])


class EmulatedBench:
    """A board on a textured wall of the same plane, the lens before it, and the sensor.

    `command` and `picture` take times in ns of one clock, whichever it is. focus_step_diopters: how finely
    the movement of the lens within an exposure is told; what is seen at rest is exact.
    """

    def __init__(
        self,
        truth: EmulatedTruth,
        board: BoardSpec | None = None,
        seed: int = 0,
        focus_step_diopters: float = 1 / 128,
    ) -> None:
        self.truth = truth
        self.focus_step_diopters = focus_step_diopters
        self.board = board or BoardSpec()
        self.movement = EmulatedMovement(truth, truth.actuator_range[0])
        self._pose = BoardPose(0.5)
        self._rng = np.random.default_rng([seed, 21])
        drawn = draw_board(self.board, _PX_PER_SQUARE).astype(np.float32) / 255.0
        self._board_texture = np.asarray(_INK + (_PAPER - _INK) * drawn, np.float32)
        field = fractal_field(np.random.default_rng([seed, 22]), _WALL_TILE_PX, 0.9)
        self._wall_texture = np.clip(0.25 * np.exp(0.5 * field), 0.0, 1.0).astype(np.float32)
        self._rendered: OrderedDict[tuple[BoardPose, float], Floats] = OrderedDict()
        self._lock = threading.Lock()  # guards pose, cache and noise

    @property
    def pose(self) -> BoardPose:
        """Where the board stands."""
        return self._pose

    def place(self, pose: BoardPose) -> None:
        """Put the board somewhere else, as a person would."""
        with self._lock:
            self._pose = pose

    def command(self, actuator: float, time_ns: int) -> None:
        """The motor gets a position (actuator units) at a time."""
        self.movement.command(actuator, time_ns)

    def picture(self, exposure_start_ns: int, exposure_end_ns: int) -> npt.NDArray[np.uint8]:
        """[H, W, 3] RGB, all three equal, of one exposure with the movement of the lens in it."""
        with self._lock:
            light = self._exposed(exposure_start_ns, exposure_end_ns)
            grey = develop(light, self._rng, self.truth.full_well_electrons, self.truth.read_noise_electrons)
        return np.asarray(cv2.merge([grey, grey, grey]), np.uint8)

    def render(self, focus_diopters: float) -> None:
        """Do ahead what a picture at this focus, as the board stands now, will take longest for."""
        with self._lock:
            self._render(focus_diopters)

    def _exposed(self, start_ns: int, end_ns: int) -> Floats:
        """Linear light [H, W], averaged over the exposure."""
        first, last = (self.movement.focus_diopters(t) for t in (start_ns, end_ns))
        middles = (np.arange(_MOST_SAMPLES) + 0.5) / _MOST_SAMPLES
        foci = [self.movement.focus_diopters(round(start_ns + m * (end_ns - start_ns))) for m in middles]
        if first == last and all(focus == first for focus in foci):
            return self._render(first)
        step = self.focus_step_diopters
        snapped = [step * round(focus / step) for focus in foci]
        total = np.zeros((self.truth.camera.height, self.truth.camera.width), np.float32)
        for focus in sorted(set(snapped)):
            cv2.scaleAdd(self._render(focus), snapped.count(focus) / len(snapped), total, dst=total)
        return total

    def _render(self, focus_diopters: float) -> Floats:
        """Linear light [H, W] at one focus; what was rendered before is taken from the cache."""
        key = (self._pose, focus_diopters)
        if key not in self._rendered:
            self._rendered[key] = _render(
                self.truth, self._pose, focus_diopters, self.board, self._board_texture, self._wall_texture
            )
            while len(self._rendered) > _CACHED:
                self._rendered.popitem(last=False)
        self._rendered.move_to_end(key)
        return self._rendered[key]


def _render(
    truth: EmulatedTruth,
    pose: BoardPose,
    focus: float,
    board: BoardSpec,
    board_texture: Floats,
    wall_texture: Floats,
) -> Floats:
    camera = truth.camera
    coarse = _coarse_forms(truth, pose, focus, (0, 0, camera.width, camera.height))
    margin = disc_reach(truth.blur_px_per_diopter * float(np.abs(coarse[2] - focus).max())) + 2
    frame = (-margin, -margin, camera.width + margin, camera.height + margin)
    u, v, diopters = _at_every_pixel(_coarse_forms(truth, pose, focus, frame), frame)
    u, v = u / diopters, v / diopters  # m on the board

    scale = camera.fx / pose.distance_m  # px per m
    wall = _reduced(wall_texture, _WALL_TILE_PX / _WALL_TILE_M / scale)
    per_m = wall.shape[0] / _WALL_TILE_M
    image = cv2.remap(wall, u * per_m - 0.5, v * per_m - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    sheet = _reduced(board_texture, _PX_PER_SQUARE / board.square_m / scale)
    width, height = board.size_m
    x = (u / width + 0.5) * sheet.shape[1] - 0.5
    y = (v / height + 0.5) * sheet.shape[0] - 0.5
    drawn = cv2.remap(sheet, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=_PAPER)
    rim = 0.5 * board.square_m  # of white paper
    inside = np.minimum(0.5 * width + rim - np.abs(u), 0.5 * height + rim - np.abs(v))
    cover = np.clip(inside * np.float32(scale) + np.float32(0.5), 0.0, 1.0)
    image += cover * (drawn - image)
    return _defocused(
        np.asarray(image, np.float32), truth.blur_px_per_diopter * np.abs(diopters - focus), margin
    )


def _coarse_forms(truth: EmulatedTruth, pose: BoardPose, focus: float, frame: Box) -> Floats:
    """u / z, v / z and 1 / z [3, h, w] of the board's plane along the rays of a coarse grid; u, v in m.

    The grid's points lie half a spacing beside those that cv2.resize makes pixels of.
    """
    camera = truth.camera
    x0, y0, x1, y1 = frame
    columns, rows = (-(-length // _GRID_PX) + 1 for length in (x1 - x0, y1 - y0))
    growth = 1.0 + 0.01 * truth.breathing_percent_per_diopter * focus
    px, py = (first + np.arange(n) * _GRID_PX - 0.5 for first, n in ((x0, columns), (y0, rows)))
    grid = np.stack(np.meshgrid((px - camera.cx) / growth, (py - camera.cy) / growth), axis=-1)
    grid += [camera.cx, camera.cy]  # the image at infinity, of which this one is a magnification
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 1e-6)
    rays = cv2.undistortPointsIter(
        grid.reshape(-1, 1, 2), camera.matrix, np.array(camera.distortion), np.eye(3), np.eye(3), stop
    ).reshape(-1, 2)
    forms = np.linalg.inv(pose.matrix) @ np.column_stack([rays, np.ones(len(rays))]).T
    return np.asarray(forms.reshape(3, rows, columns), np.float32)


def _at_every_pixel(coarse: Floats, frame: Box) -> Floats:
    """The forms [3, h, w] at the pixels of a frame."""
    size = (coarse.shape[2] * _GRID_PX, coarse.shape[1] * _GRID_PX)
    first, x0, y0, x1, y1 = (_GRID_PX // 2, *frame)
    fine = [cv2.resize(form, size, interpolation=cv2.INTER_LINEAR) for form in coarse]
    return np.stack([form[first : first + y1 - y0, first : first + x1 - x0] for form in fine])


def _reduced(texture: Floats, texels_per_px: float) -> Floats:
    """A texture averaged to about one texel per pixel, as a pixel averages over its area."""
    if texels_per_px <= 1.0:
        return texture
    rows, columns = (max(2, round(side / texels_per_px)) for side in texture.shape)
    return np.asarray(cv2.resize(texture, (columns, rows), interpolation=cv2.INTER_AREA), np.float32)


def _defocused(image: Floats, diameters: Floats, margin: int) -> Floats:
    """The image without its margin, each pixel blurred by the disc of its own diameter [px].

    A plane's blur changes slowly, so a pixel is mixed of the two nearest of a few blurred images.
    """
    rows, columns = image.shape[0] - 2 * margin, image.shape[1] - 2 * margin
    inner = diameters[margin : margin + rows, margin : margin + columns]
    low, high = float(inner.min()), float(inner.max())
    if high - low < 0.25:
        return _blurred(image, 0.5 * (low + high), margin, (0, 0, columns, rows))
    count = int(np.ceil((high - low) / _LEVEL_STEP_PX)) + 1
    levels, step = np.linspace(low, high, count, retstep=True)
    out = np.zeros((rows, columns), np.float32)
    for level in levels:
        weight = np.maximum(1.0 - np.abs(inner - np.float32(level)) / np.float32(step), 0.0)
        x0, y0, width, height = cv2.boundingRect((weight > 0).astype(np.uint8))
        if width and height:
            box = (x0, y0, x0 + width, y0 + height)
            part = weight[y0 : y0 + height, x0 : x0 + width]
            out[y0 : y0 + height, x0 : x0 + width] += part * _blurred(image, float(level), margin, box)
    return out


def _blurred(image: Floats, diameter: float, margin: int, box: Box) -> Floats:
    x0, y0, x1, y1 = box
    reach = max(disc_reach(diameter), 1)
    inset = margin - reach
    window = image[y0 + inset : y1 + margin + reach, x0 + inset : x1 + margin + reach]
    if diameter < _SMALL_DISC_PX:
        # The anti-aliased disc does nothing within a pixel; light spreads with the square of the diameter.
        side = 0.5 * _variance(_SMALL_DISC_PX) * (diameter / _SMALL_DISC_PX) ** 2
        taps = np.array([side, 1.0 - 2.0 * side, side], np.float32)
        return np.asarray(cv2.sepFilter2D(window, -1, taps, taps)[1:-1, 1:-1], np.float32)
    return blur_disc(np.ascontiguousarray(window)[:, :, None], diameter).reshape(y1 - y0, x1 - x0)


def _variance(diameter: float) -> float:
    """Of an anti-aliased disc along one axis, px^2."""
    kernel = disc_kernel(diameter)
    offsets = np.arange(len(kernel)) - len(kernel) // 2
    return float((kernel.sum(axis=0) * offsets**2).sum())
