"""The papers' synthesis of focal stacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.optics import ThinLens, circle_of_confusion
from hybriddepth_ros.simulation import published_defocus
from hybriddepth_ros.simulation.gather import gather_blur, published_blur
from tests.published_weights import load_fixture

NYU = ThinLens(focal_length_mm=50.0, f_number=8.0, pixel_pitch_um=12.0)
ARKIT = ThinLens(focal_length_mm=2.9, f_number=0.5, pixel_pitch_um=3.1e3 / 560)
CASES = {"nyu": (NYU, 7), "arkit": (ARKIT, 7), "nyu_k9": (NYU, 9)}


@pytest.mark.parametrize("case", CASES)
def test_published_stack_from_the_stored_blur(case: str) -> None:
    stored = load_fixture("defocus")
    stack = gather_blur(stored["rgb"], stored[f"{case}_sigma"], CASES[case][1])
    torch.testing.assert_close(stack, stored[f"{case}_stack"], rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_published_stack_from_the_lens(case: str) -> None:
    stored = load_fixture("defocus")
    lens, window = CASES[case]
    stack = published_defocus(stored["rgb"], stored["depth"], stored[f"{case}_focus"], lens, window)
    torch.testing.assert_close(stack, stored[f"{case}_stack"], rtol=0.0, atol=2e-5)
    sigma = published_blur(stored["depth"], stored[f"{case}_focus"], lens)
    expected = stored[f"{case}_sigma"].double()
    torch.testing.assert_close(sigma, expected, rtol=1e-3, atol=1e-4)


def test_numpy_goes_in_and_numpy_comes_out_alike() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.random((3, 20, 24), np.float32)
    depth = rng.uniform(0.5, 3.0, (20, 24)).astype(np.float32)
    focus = np.array([0.6, 1.0, 2.5], np.float32)
    stack = published_defocus(rgb, depth, focus, NYU)
    assert isinstance(stack, np.ndarray) and stack.shape == (3, 3, 20, 24) and stack.dtype == np.float32
    tensors = (torch.from_numpy(array) for array in (rgb, depth, focus))
    np.testing.assert_array_equal(stack, published_defocus(*tensors, NYU).numpy())


def test_blur_is_half_the_circle_of_confusion() -> None:
    depth = np.linspace(0.4, 5.0, 30).reshape(5, 6)
    sigma = published_blur(depth, np.array([1.2]), NYU)[0]
    np.testing.assert_allclose(
        sigma, 0.5 * circle_of_confusion(1.0 / depth, 1.0 / 1.2, NYU), rtol=1e-6, atol=1e-6
    )


def test_what_is_in_focus_is_copied_and_the_rest_is_a_mean_of_its_blurred_neighbours() -> None:
    rgb = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))
    sigma = torch.full((1, 12, 12), 0.5)
    assert bool((gather_blur(rgb, sigma) == rgb).all())
    sigma[0, 5, 5] = 3.0  # alone: it has no blurred neighbour but itself
    torch.testing.assert_close(gather_blur(rgb, sigma)[0], rgb)
    sigma[0, 5, 6] = 3.0
    near, far = 1.0, float(np.exp(-2.0 / 9.0))
    expected = (near * rgb[:, 5, 5] + far * rgb[:, 5, 6]) / (near + far)
    torch.testing.assert_close(gather_blur(rgb, sigma)[0, :, 5, 5], expected)


def test_bad_windows_sizes_and_focus_are_refused() -> None:
    rgb, depth = torch.rand(3, 8, 8), torch.ones(8, 8)
    with pytest.raises(ParameterError, match="odd number of pixels, got 6"):
        published_defocus(rgb, depth, torch.tensor([1.0]), NYU, window=6)
    with pytest.raises(ParameterError, match="of one size"):
        published_defocus(rgb, torch.ones(8, 9), torch.tensor([1.0]), NYU)
    with pytest.raises(ParameterError, match=r"more than the focal length, 0\.05 m"):
        published_defocus(rgb, depth, torch.tensor([1.0, 0.04]), NYU)
