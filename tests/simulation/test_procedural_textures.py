import itertools

import numpy as np
import pytest

from hybriddepth_ros.simulation.procedural_shapes import bulge, edge_coverage, random_coverage
from hybriddepth_ros.simulation.procedural_textures import (
    Floats,
    Sheet,
    TextureBank,
    dead_leaves,
    pixel_coordinates,
    regular_pattern,
)
from hybriddepth_ros.simulation.textures import fractal_field


@pytest.fixture(scope="module")
def bank() -> TextureBank:
    return TextureBank(np.random.default_rng(0))


def spectral_slope(image: Floats) -> float:
    """-d log amplitude / d log frequency, round a circle, from a 64th to a quarter of the sampling rate."""
    size = len(image)
    power = np.abs(np.fft.fft2(image)) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    edges = np.geomspace(1 / 64, 1 / 4, 9)
    rings = [(radius >= a) & (radius < b) for a, b in itertools.pairwise(edges)]
    amplitude = [0.5 * np.log(power[ring].mean()) for ring in rings]
    return -float(np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), amplitude, 1)[0])


@pytest.mark.parametrize("slope", [0.4, 1.0, 1.8])
def test_noise_has_the_slope_asked_for_and_keeps_it_when_painted(slope: float) -> None:
    field = fractal_field(np.random.default_rng(1), 512, slope)
    assert spectral_slope(field) == pytest.approx(slope, abs=0.1)
    assert spectral_slope(Sheet(field).sample(pixel_coordinates((512, 512)))) == pytest.approx(slope, abs=0.1)


def test_dead_leaves_have_the_spectrum_of_natural_images() -> None:
    slopes = [
        spectral_slope(dead_leaves(np.random.default_rng(seed), 256).mean(axis=2)) for seed in range(12)
    ]
    assert 0.8 < float(np.mean(slopes)) < 1.8


def test_sheet_repeats_without_a_seam() -> None:
    sheet = Sheet(fractal_field(np.random.default_rng(2), 64, 2.0))
    at = pixel_coordinates((64, 200))
    np.testing.assert_allclose(sheet.sample(at)[:, :64], sheet.sample(at)[:, 64:128], atol=1e-5)
    far = at.turned(0.0, 1.0, (64.0 * 10, -64.0 * 10))
    np.testing.assert_allclose(sheet.sample(far), sheet.sample(at), atol=1e-2)


def test_sheet_seen_from_afar_fades_to_its_mean() -> None:
    sheet = Sheet(np.random.default_rng(3).standard_normal((256, 256)).astype(np.float32))
    seen = sheet.sample(pixel_coordinates((64, 64)).turned(0.3, 16.0, (0.0, 0.0)))
    assert seen.std() < 0.12  # a point sample of it would have 1


def test_a_pattern_finer_than_the_pixels_is_gray() -> None:
    at = pixel_coordinates((32, 32)).turned(0.0, 64.0, (0.0, 0.0))
    assert all(not regular_pattern(np.random.default_rng(seed), at).any() for seed in range(20))


def test_banks_of_one_seed_paint_alike_until_one_is_refreshed(bank: TextureBank) -> None:
    rng = np.random.default_rng(0)
    at = pixel_coordinates((24, 32))
    mine = TextureBank(np.random.default_rng(0))
    same = [
        np.array_equal(bank.paint(np.random.default_rng(s), at), mine.paint(np.random.default_rng(s), at))
        for s in range(40)
    ]
    assert all(same)
    for _ in range(30):
        mine.refresh(rng)
    same = [
        np.array_equal(bank.paint(np.random.default_rng(s), at), mine.paint(np.random.default_rng(s), at))
        for s in range(40)
    ]
    assert not all(same)


def test_edge_of_a_half_plane_covers_as_much_as_it_should() -> None:
    x, y = np.meshgrid(np.arange(40, dtype=np.float32), np.arange(30, dtype=np.float32))
    assert edge_coverage((x - np.float32(12.3)) * 7).sum(axis=1) == pytest.approx(27.2, abs=1e-3)
    slanted = edge_coverage(0.6 * (x - 19.5) + 0.8 * (y - 14.5))
    assert slanted.mean() == pytest.approx(0.5, abs=0.02)
    assert ((slanted > 0) & (slanted < 1)).any()


def test_outlines_are_coverages_with_soft_rims(bank: TextureBank) -> None:
    rng = np.random.default_rng(5)
    drawn = [random_coverage(rng, (48, 64), bank) for _ in range(80)]
    assert all(c.shape == (48, 64) and c.dtype == np.float32 for c in drawn)
    assert all(c.min() >= 0 and c.max() <= 1 for c in drawn)
    some = [c for c in drawn if 0.05 < c.mean() < 0.95]
    assert len(some) > 30
    assert np.mean([bool(((c > 0) & (c < 1)).any()) for c in some]) > 0.8


def test_cushion_of_what_fills_the_image_and_of_what_is_thin() -> None:
    assert np.isfinite(bulge(np.ones((40, 50), np.float32))).all()
    thin, wide = np.zeros((60, 60), np.float32), np.zeros((60, 60), np.float32)
    thin[28:31], wide[10:50] = 1, 1
    assert 0 < float(bulge(thin).max()) < 0.4 < 0.99 < float(bulge(wide).max()) <= 1
