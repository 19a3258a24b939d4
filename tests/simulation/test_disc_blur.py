import numpy as np
import pytest

from hybriddepth_ros.simulation.disc_blur import blur_disc, disc_kernel, disc_reach

DIAMETERS = [0.4, 1.0, 2.3, 5.0, 8.9, 12.6, 19.99, 31.4]


@pytest.mark.parametrize("diameter", DIAMETERS)
def test_kernel_has_the_disc_s_sum_and_second_moment(diameter: float) -> None:
    kernel = disc_kernel(diameter)
    offsets = np.arange(len(kernel)) - len(kernel) // 2
    assert kernel.sum() == pytest.approx(1.0, abs=1e-5)
    # Along an axis a disc has the variance d^2 / 16; counting whole pixels adds that of one pixel, 1/12.
    if diameter > 1:
        variance = (kernel.sum(axis=0) * offsets**2).sum()
        assert variance == pytest.approx(diameter**2 / 16 + 1 / 12, rel=0.01, abs=0.06)


def test_kernel_grows_smoothly_with_a_fraction_of_a_pixel() -> None:
    peaks = [float(disc_kernel(d).max()) for d in np.arange(3.0, 9.0, 0.1)]
    assert (np.diff(peaks) < 0).all()


@pytest.mark.parametrize("diameter", DIAMETERS)
def test_blur_of_a_point_is_the_kernel(diameter: float) -> None:
    reach = disc_reach(diameter)
    image = np.zeros((4 * reach + 3, 4 * reach + 5, 4), np.float32)
    image[2 * reach + 1, 2 * reach + 2] = (1, 2, 3, 4)
    blurred = blur_disc(image, diameter)
    assert blurred.shape == (2 * reach + 3, 2 * reach + 5, 4)
    spread = blurred[1 : 2 * reach + 2, 2 : 2 * reach + 3]
    rounded = disc_kernel(round(diameter * 64) / 64)
    exact = (
        np.pad(rounded, reach - len(rounded) // 2) if len(rounded) <= 2 * reach + 1 else rounded[1:-1, 1:-1]
    )
    for channel in range(4):
        assert np.allclose(spread[..., channel], (channel + 1) * exact, atol=1e-6)
    assert blurred.sum() == pytest.approx(10.0, rel=1e-5)


def test_blur_equals_plain_convolution() -> None:
    rng = np.random.default_rng(3)
    diameter = 14.3
    reach = disc_reach(diameter)
    image = rng.random((60, 70, 4), np.float32)
    kernel = disc_kernel(round(diameter * 64) / 64)
    row, column = 11, 23
    window = image[row : row + 2 * reach + 1, column : column + 2 * reach + 1]
    expected = (window * kernel[..., None]).sum(axis=(0, 1))
    assert blur_disc(image, diameter)[row, column] == pytest.approx(expected, abs=1e-5)
