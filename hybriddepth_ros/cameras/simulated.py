"""The camera `simulated`: a procedural desk behind a thin lens, with the timing of a real camera and the true depth.

Rendering takes longer than a frame, so the camera path is a closed loop of `loop_frames` poses whose pictures are made
once per focus position: by `prepare` ahead of streaming, by `read` when a focus was not prepared. The noise of a
picture is thus the same each time the loop comes round.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.cameras.base import Clock, Progress, register_camera
from hybriddepth_ros.cameras.virtual import LensMotion, Picture, SensorTiming, VirtualCamera
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.optics import ThinLens
from hybriddepth_ros.parameters import parameter
from hybriddepth_ros.simulation import breathing_intrinsics, desk_scene, develop, render, render_depth

_FOCUS_KEY_DIGITS = 4  # focus positions closer than 1e-4 diopters share a picture
_SWAY_DEGREES_PER_MM = 0.035  # hand-held cameras turn as they shift


@dataclass(frozen=True)
class SimulatedCameraOptions:
    """Parameters of the camera `simulated`."""

    width: int = parameter(640, "Image width", unit="px", minimum=32, maximum=4096)
    height: int = parameter(480, "Image height", unit="px", minimum=32, maximum=4096)
    frame_rate: float = parameter(30.0, "Frames per second", unit="Hz", minimum=0.1, maximum=1000.0)
    seed: int = parameter(0, "Seed of scene and noise", minimum=0, maximum=2**31 - 1)
    horizontal_fov_deg: float = parameter(
        52.35, "Horizontal field of view, focused at infinity", unit="deg", minimum=5.0, maximum=120.0
    )
    focal_length_mm: float = parameter(25.0, "Focal length", unit="mm", minimum=1.0, maximum=500.0)
    f_number: float = parameter(
        1.4,
        "Focal length over aperture; with the focal length it sets the blur per diopter",
        minimum=0.5,
        maximum=64.0,
    )
    near_m: float = parameter(
        0.33, "Nearest distance that the lens focuses at", unit="m", minimum=0.05, maximum=10.0
    )
    breathing_percent_per_diopter: float = parameter(
        0.8,
        "Growth of the image with focus (focus breathing), 0 = none",
        unit="%/D",
        minimum=-5.0,
        maximum=5.0,
    )
    motion: str = parameter(
        "sway", "Camera path: still, or a closed hand-held sway", choices=("none", "sway")
    )
    motion_mm: float = parameter(6.0, "Amplitude of the sway", unit="mm", minimum=0.0, maximum=100.0)
    loop_frames: int = parameter(
        24,
        "Poses of the closed camera path; each costs one picture per focus position",
        minimum=1,
        maximum=1000,
    )
    noise: bool = parameter(True, "Shot and read noise")
    exposure_ms: float = parameter(8.0, "Exposure time", unit="ms", minimum=0.01, maximum=10000.0)
    readout_ms: float = parameter(
        8.0, "Time from the exposure's end to delivery", unit="ms", minimum=0.0, maximum=1000.0
    )
    settle_ms: float = parameter(
        6.0, "Time that the lens takes for a move", unit="ms", minimum=0.0, maximum=10000.0
    )
    cache_mb: int = parameter(
        320,
        "Memory for rendered pictures; what does not fit is rendered again",
        unit="MB",
        minimum=1,
        maximum=65536,
    )


@register_camera("simulated", SimulatedCameraOptions)
class SimulatedCamera(VirtualCamera):
    """A thin-lens camera swaying before a desk."""

    def __init__(self, options: SimulatedCameraOptions, clock: Clock | None = None) -> None:
        timing = SensorTiming(options.frame_rate, options.exposure_ms, options.readout_ms, options.settle_ms)
        super().__init__("simulated", timing, focus_diopters=1.0, clock=clock)
        self.options = options
        fx = 0.5 * options.width / np.tan(np.radians(0.5 * options.horizontal_fov_deg))
        center = (0.5 * (options.width - 1), 0.5 * (options.height - 1))
        self._at_infinity = CameraIntrinsics(float(fx), float(fx), *center, options.width, options.height)
        self._thin_lens = ThinLens(
            options.focal_length_mm, options.f_number, options.focal_length_mm * 1e3 / float(fx)
        )
        self._scene = desk_scene(options.seed)
        self._pictures = _PictureCache(options.cache_mb * 10**6)

    @property
    def lens(self) -> ThinLens:
        return self._thin_lens

    @property
    def focus_range_diopters(self) -> tuple[float, float]:
        return (0.0, 1.0 / self.options.near_m)

    @property
    def default_focus_diopters(self) -> tuple[float, ...]:
        """Five positions, even in diopters, over the depths of the desk."""
        return tuple(float(d) for d in np.round(np.linspace(0.4, 2.4, 5), 3))

    def pose(self, sequence: int) -> npt.NDArray[np.float64]:
        """Camera to world [4, 4] m of a frame; closed after `loop_frames`."""
        pose = np.eye(4)
        if self.options.motion == "none":
            return pose
        turn = 2 * np.pi * (sequence % self.options.loop_frames) / self.options.loop_frames
        sway = np.array([np.sin(turn), 0.6 * np.sin(2 * turn + 0.5), 0.4 * np.sin(turn + 1.9)])
        angles = np.radians(_SWAY_DEGREES_PER_MM * self.options.motion_mm * np.roll(sway, 1))
        pose[:3, :3] = cv2.Rodrigues(angles)[0]
        pose[:3, 3] = 1e-3 * self.options.motion_mm * sway
        return pose

    def prepare(self, focus_diopters: Sequence[float], progress: Progress | None = None) -> None:
        keys = [(phase, _focus_key(f)) for phase in range(self.options.loop_frames) for f in focus_diopters]
        fitting = keys[: self._pictures.capacity(self._picture_bytes)]
        missing = [key for key in fitting if self._pictures.get(key) is None]
        if not missing:
            return
        self._pictures.keep_only(set(fitting))
        done = len(fitting) - len(missing)
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="prerender") as pool:
            jobs = [pool.submit(self._picture, *key) for key in missing]
            try:
                for job in as_completed(jobs):
                    job.result()
                    done += 1
                    if progress is not None:
                        progress(done, len(fitting))
            finally:
                pool.shutdown(cancel_futures=True)

    @property
    def _picture_bytes(self) -> int:
        return self.options.width * self.options.height * (3 + 4)  # RGB and the depth

    def _expose(self, sequence: int, lens: LensMotion) -> Picture:
        phase = sequence % self.options.loop_frames
        if lens.still:
            return self._picture(phase, _focus_key(lens.mean_diopters))
        return self._exposed_while_moving(phase, lens)

    def _exposed_while_moving(self, phase: int, lens: LensMotion) -> Picture:
        """A moving lens smears the picture over the foci that it passes: the mixture of the ends, if they are at hand."""
        ends = [self._pictures.get((phase, _focus_key(f))) for f in (lens.first_diopters, lens.last_diopters)]
        camera = self._intrinsics(lens.mean_diopters)
        if ends[0] is None or ends[1] is None or lens.first_diopters == lens.last_diopters:
            return self._picture(phase, _focus_key(lens.mean_diopters))
        share = (lens.mean_diopters - lens.first_diopters) / (lens.last_diopters - lens.first_diopters)
        image = cv2.addWeighted(ends[0].image, 1 - share, ends[1].image, share, 0.0)
        depth = render_depth(self._scene, self.pose(phase), camera)
        return Picture(image, lens.mean_diopters, camera, depth)

    def _picture(self, phase: int, focus_diopters: float) -> Picture:
        key = (phase, focus_diopters)
        picture = self._pictures.get(key)
        if picture is None:
            picture = self._render(phase, focus_diopters)
            self._pictures.put(key, picture, self._picture_bytes)
        return picture

    def _render(self, phase: int, focus_diopters: float) -> Picture:
        camera = self._intrinsics(focus_diopters)
        linear, depth = render(self._scene, self.pose(phase), camera, self._thin_lens, focus_diopters)
        seed = (self.options.seed, phase, round(1e4 * focus_diopters))
        image = develop(linear, np.random.default_rng(seed) if self.options.noise else None)
        return Picture(image, focus_diopters, camera, depth)

    def _intrinsics(self, focus_diopters: float) -> CameraIntrinsics:
        return breathing_intrinsics(
            self._at_infinity, focus_diopters, self.options.breathing_percent_per_diopter
        )


def _focus_key(focus_diopters: float) -> float:
    return round(focus_diopters, _FOCUS_KEY_DIGITS)


class _PictureCache:
    """Pictures by (phase, focus), up to a number of bytes; the one least recently used goes first. Thread-safe."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._pictures: OrderedDict[tuple[int, float], Picture] = OrderedDict()

    def capacity(self, picture_bytes: int) -> int:
        return max(1, self._limit_bytes // picture_bytes)

    def get(self, key: tuple[int, float]) -> Picture | None:
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
            return self._pictures.get(key)

    def put(self, key: tuple[int, float], picture: Picture, picture_bytes: int) -> None:
        with self._lock:
            self._pictures[key] = picture
            while len(self._pictures) > self.capacity(picture_bytes):
                self._pictures.popitem(last=False)

    def keep_only(self, keys: set[tuple[int, float]]) -> None:
        with self._lock:
            for key in self._pictures.keys() - keys:
                del self._pictures[key]
