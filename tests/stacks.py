"""Small made stacks with known truth: one texture, seen through known motion, breathing and blur."""

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.focal_stack import CameraIntrinsics


def texture(shape: tuple[int, int], seed: int = 0, slope: float = 1.0) -> npt.NDArray[np.float32]:
    """[H, W] float32 0..255 with the power spectrum of natural images (amplitude 1/f^slope)."""
    rng = np.random.default_rng(seed)
    fy, fx = np.meshgrid(np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1]), indexing="ij")
    radial = np.maximum(np.hypot(fx, fy), 1.0 / max(shape))
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) / radial**slope
    image = np.fft.irfft2(spectrum, s=shape)
    return (128.0 + 40.0 * (image - image.mean()) / image.std()).clip(0.0, 255.0).astype(np.float32)


def disc_blur(image: npt.NDArray[np.float32], diameter_px: float) -> npt.NDArray[np.float32]:
    """The image under a uniform disc of this diameter, its edge anti-aliased by 8x supersampling."""
    if diameter_px < 0.5:
        return image
    half, fine = int(np.ceil(diameter_px / 2)), 8
    axis = (np.arange((2 * half + 1) * fine) + 0.5) / fine - half - 0.5
    inside = (axis[:, None] ** 2 + axis[None, :] ** 2 <= (diameter_px / 2) ** 2).astype(np.float32)
    kernel = inside.reshape(2 * half + 1, fine, 2 * half + 1, fine).mean(axis=(1, 3))
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def motion(
    size: tuple[int, int],
    shift_px: tuple[float, float],
    scale: float = 1.0,
    roll: float = 0.0,
    tilt: float = 0.0,
) -> npt.NDArray[np.float64]:
    """Homography [3, 3] of pixels (width, height): scale and roll [rad] about the centre, perspective, then a
    shift.
    """
    width, height = size
    centre = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 1.0]])
    turn = np.array(
        [
            [scale * np.cos(roll), -scale * np.sin(roll), 0],
            [scale * np.sin(roll), scale * np.cos(roll), 0],
            [2 * tilt / width, 0, 1],
        ]
    )
    shift = np.array([[1, 0, shift_px[0]], [0, 1, shift_px[1]], [0, 0, 1.0]])
    return shift @ np.linalg.inv(centre) @ turn @ centre


def seen_through(
    image: npt.NDArray[np.float32], transform: npt.NDArray[np.float64], margin: int
) -> npt.NDArray[np.float32]:
    """The slice in which the reference's pixel p appears at transform(p); `image` is the reference with a
    margin.
    """
    height, width = image.shape[0] - 2 * margin, image.shape[1] - 2 * margin
    to_big = np.array([[1, 0, margin], [0, 1, margin], [0, 0, 1.0]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpPerspective(image, to_big @ np.linalg.inv(transform), (width, height), flags=flags)


def bent(
    image: npt.NDArray[np.float32], transform: npt.NDArray[np.float64], margin: int, camera: CameraIntrinsics
) -> npt.NDArray[np.float32]:
    """As `seen_through`, by a lens that distorts."""
    height, width = image.shape[0] - 2 * margin, image.shape[1] - 2 * margin
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 1, 2)
    straight = cv2.undistortPoints(
        pixels.astype(np.float64), camera.matrix, np.array(camera.distortion), P=camera.matrix
    )
    places = cv2.perspectiveTransform(straight, np.linalg.inv(transform)).reshape(height, width, 2) + margin
    return cv2.remap(image, places.astype(np.float32), None, cv2.INTER_CUBIC)


def as_bytes(image: npt.NDArray[np.float32], noise: float = 0.0, seed: int = 0) -> npt.NDArray[np.uint8]:
    """[H, W] uint8, with Gaussian noise of this standard deviation."""
    noisy = image + np.random.default_rng(seed).normal(0.0, noise, image.shape) if noise else image
    return (noisy + 0.5).clip(0, 255).astype(np.uint8)


def defocused_stack(
    diopters: npt.NDArray[np.float32] | float,
    focus_diopters: npt.NDArray[np.float32],
    blur_px_per_diopter: float,
    shape: tuple[int, int] = (240, 320),
    noise: float = 1.0,
    seed: int = 0,
) -> npt.NDArray[np.uint8]:
    """[S, H, W, 3] uint8 of a textured surface at `diopters` (scalar or [H, W], smooth), each slice blurred
    by its defocus.
    """
    sharp = cv2.GaussianBlur(texture(shape, seed), (0, 0), 0.5)  # what a sensor's pixels do
    images = []
    for index, focus in enumerate(focus_diopters):
        diameter = np.broadcast_to(np.abs(np.asarray(diopters) - focus) * blur_px_per_diopter, shape)
        steps = np.unique(np.round(diameter * 2.0) / 2.0)
        image = np.zeros(shape, np.float32)
        for step in steps:  # a gather of half-pixel steps: right for smooth surfaces
            image = np.where(np.round(diameter * 2.0) / 2.0 == step, disc_blur(sharp, float(step)), image)
        grey = as_bytes(image, noise, seed=100 * seed + index)
        images.append(np.repeat(grey[..., None], 3, axis=2))
    return np.stack(images)
