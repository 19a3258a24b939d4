"""Procedural surface textures: linear reflectance, float32 [h, w, 3] in 0..1; the fractal ones tile."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Texture = npt.NDArray[np.float32]  # [h, w, 3] linear reflectance
Color = tuple[float, float, float]  # RGB, linear reflectance

_WORDS = (
    *("FOCUS", "DEPTH", "SIGMA", "LENS", "METRE", "APERTURE", "SWEEP", "DIOPTER", "0123", "456", "789"),
    *("field", "of", "view", "infinity", "near", "far", "rest", "table", "camera", "ray", "blur", "noise"),
    *("slow", "fast", "light", "image", "stack", "prior", "scale"),
)


def fractal_field(rng: np.random.Generator, size: int, slope: float = 1.0) -> npt.NDArray[np.float32]:
    """Periodic random field [size, size] of mean 0, deviation 1 and amplitude ~ 1 / frequency**slope.

    Slope 1 is the statistic of natural images: detail at every scale, so that focus shows at any distance.
    """
    white = rng.standard_normal((size, size), np.float32)
    squared = np.fft.fftfreq(size)[:, None] ** 2 + np.fft.rfftfreq(size)[None, :] ** 2  # of the frequency
    squared[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(white) * squared ** (-0.5 * slope), s=(size, size))
    return (field / field.std()).astype(np.float32)


def mottled(
    rng: np.random.Generator, size: int, color: Color, contrast: float = 0.35, slope: float = 1.0
) -> Texture:
    """A surface of one hue with 1/f brightness; `contrast`: deviation of the log reflectance."""
    shade = contrast * fractal_field(rng, size, slope)  # [size, size]
    warmth = 0.3 * contrast * fractal_field(rng, size, slope)
    return _clip(
        np.asarray(color, np.float32) * np.exp(np.stack([shade + warmth, shade, shade - warmth], axis=-1))
    )


def wood(rng: np.random.Generator, size: int, color: Color) -> Texture:
    """Boards with grain along the first axis over a fine 1/f grain."""
    coarse = fractal_field(rng, size, 1.6)
    across = np.arange(size, dtype=np.float32)[None, :] / size
    rings = np.sin(2 * np.pi * (14 * across + 0.6 * coarse)).astype(np.float32)
    boards = 5
    tone = rng.normal(0.0, 0.12, boards).astype(np.float32)[(across * boards).astype(int) % boards]
    joint = np.where((across * boards) % 1.0 < 0.012, -1.2, 0.0).astype(np.float32)
    log_shade = 0.12 * rings + 0.24 * fractal_field(rng, size, 0.8) + tone + joint
    return _clip(np.asarray(color, np.float32) * np.exp(log_shade)[..., None])


def printed_page(rng: np.random.Generator, size: int, paper: Color, ink: Color) -> Texture:
    """Lines of words in several sizes on mottled paper."""
    coverage = np.zeros((size, size), np.uint8)
    y = int(0.04 * size)
    while y < size:
        scale = float(rng.choice([0.5, 0.7, 1.0, 1.6])) * size / 400
        y += int(30 * scale)
        x = int(0.04 * size)
        while x < size:
            word = _WORDS[int(rng.integers(len(_WORDS)))]
            thickness = max(1, round(2 * scale))
            cv2.putText(coverage, word, (x, y), cv2.FONT_HERSHEY_DUPLEX, scale, 255, thickness, cv2.LINE_AA)
            x += cv2.getTextSize(word, cv2.FONT_HERSHEY_DUPLEX, scale, thickness)[0][0] + int(14 * scale)
        y += int(8 * scale)
    alpha = coverage[..., None].astype(np.float32) / 255
    return _clip(mottled(rng, size, paper, 0.12, 0.8) * (1 - alpha) + mottled(rng, size, ink, 0.2) * alpha)


def checks(rng: np.random.Generator, size: int, first: Color, second: Color, count: int = 8) -> Texture:
    """A chequered cloth of `count` x `count` fields with a 1/f weave."""
    index = np.arange(size) * count // size
    odd = ((index[:, None] + index[None, :]) % 2)[..., None].astype(np.float32)
    plain = np.asarray(first, np.float32) * (1 - odd) + np.asarray(second, np.float32) * odd
    return _clip(plain * np.exp(0.25 * fractal_field(rng, size, 0.8))[..., None])


def stripes(rng: np.random.Generator, size: int, first: Color, second: Color, count: int = 9) -> Texture:
    """Stripes of uneven width along the first axis, with a 1/f grain."""
    edges = np.sort(rng.uniform(0, 1, 2 * count))
    odd = (np.searchsorted(edges, np.arange(size) / size) % 2)[None, :, None].astype(np.float32)
    plain = np.asarray(first, np.float32) * (1 - odd) + np.asarray(second, np.float32) * odd
    return _clip(plain * np.exp(0.25 * fractal_field(rng, size, 0.9))[..., None])


def plain(color: Color, size: int = 8) -> Texture:
    """One colour without any detail: nothing here for focus to be measured on."""
    return np.full((size, size, 3), color, np.float32)


def _clip(reflectance: npt.NDArray[np.floating]) -> Texture:
    return np.ascontiguousarray(np.clip(reflectance, 0.0, 1.0), dtype=np.float32)
