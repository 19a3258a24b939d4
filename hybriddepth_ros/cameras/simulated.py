"""The camera `simulated`: a procedural desk behind a thin lens, timed as a real camera, with the true depth.

A picture takes longer to render than a frame lasts. So the camera's path is a closed loop of poses whose
pictures are made once: by `prepare` those that a sweep will show, by `read` what was not prepared. Where a
picture of the right focus exists a few poses along the path, the camera is there instead; each frame carries
the depth of the pose it shows. The noise of a picture is the same each time the loop comes round.
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
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.optics import ThinLens
from hybriddepth_ros.parameters import parameter
from hybriddepth_ros.simulation import breathing_intrinsics, desk_scene, develop, render, render_depth

_FOCUS_KEY_DIGITS = 4  # focus positions closer than 1e-4 diopters share a picture
_SNAP_FRAMES = (
    2  # how far along its path the camera may be put to save a rendering, if the sweep is no longer than this
)
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
    motion_mm: float = parameter(9.0, "Amplitude of the sway", unit="mm", minimum=0.0, maximum=100.0)
    loop_frames: int = parameter(
        40, "Poses of the closed path, one per frame; rounded to whole sweeps", minimum=1, maximum=10000
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
        self._loop_frames = options.loop_frames
        self._snap_frames = _SNAP_FRAMES
        self._cancelled = threading.Event()
        self._pictures = _PictureCache(options.cache_mb * 10**6 // (options.width * options.height * (3 + 4)))

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

    def pose(self, phase: int) -> npt.NDArray[np.float64]:
        """Camera to world [4, 4] m at a step of the closed path."""
        pose = np.eye(4)
        if self.options.motion == "none":
            return pose
        turn = 2 * np.pi * phase / self._loop_frames
        sway = np.array([np.sin(turn), 0.6 * np.sin(2 * turn + 0.5), 0.4 * np.sin(turn + 1.9)])
        angles = np.radians(_SWAY_DEGREES_PER_MM * self.options.motion_mm * np.roll(sway, 1))
        pose[:3, :3] = cv2.Rodrigues(angles)[0]
        pose[:3, 3] = 1e-3 * self.options.motion_mm * sway
        return pose

    def close(self) -> None:
        """Also ends a `prepare` that another thread is in."""
        self._cancelled.set()
        super().close()

    def prepare(self, focus_diopters: Sequence[float], progress: Progress | None = None) -> None:
        self._cancelled.clear()
        foci = [_focus_key(f) for f in focus_diopters]
        loop_frames = len(foci) * max(1, round(self.options.loop_frames / len(foci)))
        if loop_frames != self._loop_frames:
            self._loop_frames = loop_frames
            self._pictures.clear()
        self._snap_frames = max(_SNAP_FRAMES, len(foci) // 2)
        self._rest(foci[0])
        keys = [(phase, foci[phase % len(foci)]) for phase in range(loop_frames)]
        missing = [key for key in keys if self._pictures.get(key) is None]
        done = len(keys) - len(missing)
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="prerender") as pool:
            jobs = [pool.submit(self._picture, *key) for key in missing]
            try:
                for job in as_completed(jobs):
                    job.result()
                    if self._cancelled.is_set():
                        raise CameraError("camera simulated: closed while it was being prepared")
                    done += 1
                    if progress is not None:
                        progress(done, len(keys))
            finally:
                pool.shutdown(cancel_futures=True)

    def _expose(self, sequence: int, lens: LensMotion) -> Picture:
        phase = sequence % self._loop_frames
        if lens.still:
            return self._picture_nearby(phase, lens.mean_diopters) or self._picture(
                phase, _focus_key(lens.mean_diopters)
            )
        return self._exposed_while_moving(phase, lens)

    def _exposed_while_moving(self, phase: int, lens: LensMotion) -> Picture:
        """A moving lens smears the picture over the foci that it passes; roughly a mixture of the two ends.

        No sweep shows such a frame, so where the ends are at hand it is not worth rendering.
        """
        origin = self._picture_nearby(phase, lens.origin_diopters)
        target = self._picture_nearby(phase, lens.target_diopters)
        if origin is None or target is None:
            return self._picture(phase, _focus_key(lens.mean_diopters))
        share = (lens.mean_diopters - lens.origin_diopters) / (lens.target_diopters - lens.origin_diopters)
        image = np.asarray(cv2.addWeighted(origin.image, 1 - share, target.image, share, 0.0), np.uint8)
        camera = self._intrinsics(lens.mean_diopters)
        depth = render_depth(self._scene, self.pose(phase), camera)
        return Picture(image, lens.mean_diopters, camera, depth)

    def _picture_nearby(self, phase: int, focus_diopters: float) -> Picture | None:
        """The picture of this focus at the closest step of the path that has one, within a few."""
        for distance in range(self._snap_frames + 1):
            for step in (phase + distance, phase - distance):
                picture = self._pictures.get((step % self._loop_frames, _focus_key(focus_diopters)))
                if picture is not None:
                    return picture
        return None

    def _picture(self, phase: int, focus_diopters: float) -> Picture:
        key = (phase, focus_diopters)
        picture = self._pictures.get(key)
        if picture is None:
            picture = self._render(phase, focus_diopters)
            self._pictures.put(key, picture)
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
    """At most `capacity` pictures by (phase, focus); the one least recently used goes first. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = max(1, capacity)
        self._lock = threading.Lock()
        self._pictures: OrderedDict[tuple[int, float], Picture] = OrderedDict()

    def get(self, key: tuple[int, float]) -> Picture | None:
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
            return self._pictures.get(key)

    def put(self, key: tuple[int, float], picture: Picture) -> None:
        with self._lock:
            self._pictures[key] = picture
            while len(self._pictures) > self._capacity:
                self._pictures.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._pictures.clear()
