"""What is measured on: slices of a textured slope, seen by a camera in a hand whose focus goes to and fro."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalSlice
from hybriddepth_ros.optics import ThinLens
from hybriddepth_ros.simulation.disc_blur import blur_disc, disc_reach

NEAREST, FARTHEST = 2.3, 0.5  # of the slope [1/m]
FOCUS_RANGE = (0.4, 2.4)  # [1/m]
PERIOD_NS = 33_333_333
LOOP = 30  # slices until a hand's motion repeats, about
BLUR_PX_AT_640 = 10.0  # per diopter
SWAY_PX_AT_640 = 5.0
BREATHING = 0.004  # of the image's scale, per diopter
NOISE = 1.0  # grey levels
_STEP_PX = 0.25  # discs whose diameters differ by less are one


def camera_of(width: int, height: int) -> CameraIntrinsics:
    """A lens of 56 degrees across."""
    focal = 600.0 * width / 640.0
    return CameraIntrinsics(focal, focal, 0.5 * (width - 1), 0.5 * (height - 1), width, height)


def blur_of(width: int) -> float:
    """Blur of this camera [px per diopter]."""
    return BLUR_PX_AT_640 * width / 640.0


def lens_of(width: int) -> ThinLens:
    """A thin lens that blurs as much."""
    pixels_per_mm = 600.0 * width / 640.0 / 4.0
    aperture_mm = 1e3 * blur_of(width) / (4.0 * pixels_per_mm)
    return ThinLens(4.0, 4.0 / aperture_mm, 1e3 / pixels_per_mm)


def made_slices(width: int, height: int, count: int, still: bool = False) -> list[FocalSlice]:
    """Whole sweeps of `count` slices [height, width], about LOOP slices in all; `still`: without motion.

    Repeated for ever, the motion has no jump.
    """
    foci = np.linspace(*FOCUS_RANGE, count)
    sharp = _texture(width, height)
    seen = [_defocused(sharp, float(focus), blur_of(width)) for focus in foci]
    total = count * -(-LOOP // count)
    camera = camera_of(width, height)
    generator = np.random.default_rng(1)
    slices = []
    for n in range(total):
        picture = seen[n % count]
        if not still:
            picture = _moved(picture, 2.0 * np.pi * n / total, foci[n % count] - foci.mean())
        noise = generator.normal(0.0, NOISE, picture.shape).astype(np.float32)
        image = np.clip(picture + noise + 0.5, 0.0, 255.0).astype(np.uint8)
        slices.append(FocalSlice(image, float(foci[n % count]), n * PERIOD_NS, camera))
    return slices


def endless(slices: list[FocalSlice]) -> Iterator[FocalSlice]:
    """The slices again and again, with stamps that go on."""
    for n in itertools.count(1):
        yield replace(slices[(n - 1) % len(slices)], stamp_ns=n * PERIOD_NS)


def _texture(width: int, height: int) -> npt.NDArray[np.float32]:
    """[H, W, 3] 0..255 with the spectrum of natural images (amplitude 1 / frequency)."""
    generator = np.random.default_rng(0)
    fy, fx = np.meshgrid(np.fft.fftfreq(height), np.fft.rfftfreq(width), indexing="ij")
    weights = 1.0 / np.maximum(np.hypot(fx, fy), 1.0 / max(width, height))
    channels = []
    for _ in range(3):
        drawn = np.fft.irfft2(
            np.fft.rfft2(generator.standard_normal((height, width))) * weights, s=(height, width)
        )
        channels.append(128.0 + 40.0 * (drawn - drawn.mean()) / drawn.std())
    image = cv2.GaussianBlur(np.stack(channels, axis=2), (0, 0), 0.5)  # what a sensor's pixels do
    return np.asarray(image, np.float32)


def _defocused(sharp: npt.NDArray[np.float32], focus: float, blur: float) -> npt.NDArray[np.float32]:
    """The slope's picture; its distance is one for each row, so each band of rows has one disc."""
    height = sharp.shape[0]
    slope = np.linspace(FARTHEST, NEAREST, height)
    steps = np.round(np.abs(slope - focus) * blur / _STEP_PX).astype(int)
    most = disc_reach(float(steps.max()) * _STEP_PX)
    padded = cv2.copyMakeBorder(sharp, most, most, most, most, cv2.BORDER_REFLECT_101)
    result = np.empty_like(sharp)
    edges = [0, *(np.flatnonzero(np.diff(steps)) + 1), height]
    for begin, end in itertools.pairwise(edges):
        diameter = float(steps[begin]) * _STEP_PX
        reach = disc_reach(diameter)
        off = most - reach
        band = padded[begin + off : end + most + reach, off : padded.shape[1] - off]
        result[begin:end] = blur_disc(np.ascontiguousarray(band), diameter)
    return result


def _moved(picture: npt.NDArray[np.float32], phase: float, diopters: float) -> npt.NDArray[np.float32]:
    height, width = picture.shape[:2]
    sway = SWAY_PX_AT_640 * width / 640.0
    scale = 1.0 + BREATHING * diopters
    x = sway * np.sin(phase) + (1.0 - scale) * 0.5 * width
    y = sway * np.cos(phase) + (1.0 - scale) * 0.5 * height
    motion = np.array([[scale, 0.0, x], [0.0, scale, y]])
    moved = cv2.warpAffine(
        picture, motion, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(moved, np.float32)
