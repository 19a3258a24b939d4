"""The camera `replay`: a recorded focal stack, looped at a frame rate as if a camera were sweeping it now."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import cv2
import numpy as np

from hybriddepth_ros.cameras.base import CameraFrame, Clock, register_camera
from hybriddepth_ros.cameras.virtual import LensMotion, Picture, SensorTiming, VirtualCamera
from hybriddepth_ros.errors import CameraEnded, CameraError
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalSlice, FocalStack
from hybriddepth_ros.optics import ThinLens
from hybriddepth_ros.parameters import parameter


@dataclass(frozen=True)
class ReplayCameraOptions:
    """Parameters of the camera `replay`."""

    stack: str = parameter("", "STACK folder or stack.yaml to replay")
    frame_rate: float = parameter(30.0, "Frames per second", unit="Hz", minimum=0.1, maximum=1000.0)
    loop: bool = parameter(
        True,
        "Start again after the last slice; otherwise the camera ends after one frame per slice, not counting"
        " those in which the lens still moved",
    )
    width: int = parameter(
        0, "Width that images are reduced to, 0 = as stored", unit="px", minimum=0, maximum=16384
    )
    horizontal_fov_deg: float = parameter(
        65.0,
        "Horizontal field of view assumed for a stack without intrinsics",
        unit="deg",
        minimum=5.0,
        maximum=150.0,
    )
    exposure_ms: float = parameter(8.0, "Exposure time", unit="ms", minimum=0.01, maximum=10000.0)
    readout_ms: float = parameter(
        8.0, "Time from the exposure's end to delivery", unit="ms", minimum=0.0, maximum=1000.0
    )
    settle_ms: float = parameter(
        6.0, "Time that the lens takes for a move", unit="ms", minimum=0.0, maximum=10000.0
    )


@register_camera("replay", ReplayCameraOptions)
class ReplayCamera(VirtualCamera):
    """Shows, of a stack's slices, the one nearest to the focus that was commanded."""

    def __init__(self, options: ReplayCameraOptions, clock: Clock | None = None) -> None:
        if not options.stack:
            raise CameraError(
                "camera replay: expected a STACK folder or stack.yaml in the parameter stack, got none"
            )
        self.options = options
        stack = FocalStack.load(options.stack)
        self._slices = tuple(_resized(s, stack.camera, options) for s in stack.slices)
        shrink = stack.slices[0].image.shape[1] / self._slices[0].image.shape[1]
        self._thin_lens = stack.lens and replace(
            stack.lens, pixel_pitch_um=stack.lens.pixel_pitch_um * shrink
        )
        self._foci = np.array([s.focus_diopters for s in self._slices])
        self._shown = 0  # frames, since `open`, of the focus that was commanded last
        self._moves: deque[tuple[int, int]] = deque(maxlen=64)  # (commanded, settled) [ns]
        timing = SensorTiming(options.frame_rate, options.exposure_ms, options.readout_ms, options.settle_ms)
        super().__init__("replay", timing, focus_diopters=float(self._foci[0]), clock=clock)

    @property
    def lens(self) -> ThinLens | None:
        return self._thin_lens

    @property
    def focus_range_diopters(self) -> tuple[float, float]:
        return (float(self._foci.min()), float(self._foci.max()))

    @property
    def default_focus_diopters(self) -> tuple[float, ...]:
        """The stack's own, in its order."""
        return tuple(float(f) for f in self._foci)

    def open(self) -> None:
        self._shown = 0
        self._moves.clear()
        super().open()

    def command_focus(self, focus_diopters: float) -> int:
        commanded_ns = self.clock.now_ns()
        settled_ns = super().command_focus(focus_diopters)
        self._moves.append((commanded_ns, settled_ns))
        return settled_ns

    def read(self, timeout_s: float = 1.0) -> CameraFrame:
        if not self.options.loop and self._shown >= len(self._slices):
            raise CameraEnded(f"camera replay: the end of {self.options.stack} (loop is off)")
        frame = super().read(timeout_s)
        self._shown += self._kept(frame)
        return frame

    def _kept(self, frame: CameraFrame) -> bool:
        """Whether a sweep keeps it: the lens was sent somewhere, and stood still there."""
        before = [settled for commanded, settled in self._moves if commanded < frame.exposure_end_ns]
        return (bool(before) and frame.exposure_start_ns >= before[-1]) or not self._moves

    def _target(self, focus_diopters: float) -> float:
        return self._nearest(focus_diopters).focus_diopters

    def _nearest(self, focus_diopters: float) -> FocalSlice:
        return self._slices[int(np.abs(self._foci - focus_diopters).argmin())]

    def _expose(self, sequence: int, lens: LensMotion) -> Picture:
        shown = self._nearest(lens.mean_diopters)
        assert shown.camera is not None
        return Picture(shown.image, shown.focus_diopters, shown.camera)


def _resized(
    one: FocalSlice, stack_camera: CameraIntrinsics | None, options: ReplayCameraOptions
) -> FocalSlice:
    """A slice at the width asked for, with its intrinsics or a guess of them."""
    height, width = one.image.shape[:2]
    camera = one.camera or stack_camera or _guessed_intrinsics(width, height, options.horizontal_fov_deg)
    if options.width in (0, width):
        return replace(one, camera=camera)
    new_width, new_height = options.width, max(1, round(height * options.width / width))
    sx, sy = new_width / width, new_height / height
    image = np.asarray(cv2.resize(one.image, (new_width, new_height), interpolation=cv2.INTER_AREA), np.uint8)
    # Pixel centres are whole numbers, so the image's corner lies half a pixel outside the first.
    cx, cy = (camera.cx + 0.5) * sx - 0.5, (camera.cy + 0.5) * sy - 0.5
    resized = CameraIntrinsics(
        camera.fx * sx, camera.fy * sy, cx, cy, new_width, new_height, camera.distortion
    )
    return replace(one, image=image, camera=resized)


def _guessed_intrinsics(width: int, height: int, horizontal_fov_deg: float) -> CameraIntrinsics:
    f = 0.5 * width / float(np.tan(np.radians(0.5 * horizontal_fov_deg)))
    return CameraIntrinsics(f, f, 0.5 * (width - 1), 0.5 * (height - 1), width, height)
