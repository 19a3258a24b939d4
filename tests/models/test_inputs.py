"""Checks, filling and padding in front of the published networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models.inputs import check_inputs, fill_missing, pad_to_multiple


@pytest.mark.parametrize(
    ("rgb", "stack", "focus", "said"),
    [
        ((1, 4, 8, 8), (1, 3, 3, 8, 8), (1, 3), r"rgb: expected \[B, 3, H, W\], got \[1, 4, 8, 8\]"),
        ((3, 8, 8), (1, 3, 3, 8, 8), (1, 3), r"rgb: expected \[B, 3, H, W\], got \[3, 8, 8\]"),
        ((1, 3, 8, 8), (1, 3, 8, 8), (1, 3), r"stack: expected \[B, N, 3, H, W\], got \[1, 3, 8, 8\]"),
        ((1, 3, 8, 8), (1, 1, 3, 8, 8), (1, 1), "stack: expected 2 or more slices, got 1"),
        ((1, 3, 8, 9), (1, 3, 3, 8, 8), (1, 3), r"rgb: expected \[1, 3, 8, 8\] like the stack's"),
        ((2, 3, 8, 8), (1, 3, 3, 8, 8), (1, 3), r"rgb: expected \[1, 3, 8, 8\] like the stack's"),
        ((1, 3, 8, 8), (1, 3, 3, 8, 8), (1, 4), r"focus_distances: expected \[1, 3\], one per slice"),
        ((1, 3, 8, 8), (1, 3, 3, 8, 8), (3,), r"focus_distances: expected \[1, 3\], one per slice"),
        ((1, 3, 0, 8), (1, 3, 3, 0, 8), (1, 3), "stack: expected at least one pixel"),
    ],
)
def test_a_misfit_is_named_with_what_was_expected(
    rgb: tuple[int, ...], stack: tuple[int, ...], focus: tuple[int, ...], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        check_inputs(torch.zeros(rgb), torch.zeros(stack), torch.zeros(focus))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_focus_distance_must_be_finite(value: float) -> None:
    with pytest.raises(ModelError, match="focus_distances: expected finite numbers"):
        check_inputs(torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 3, 8, 8), torch.tensor([[1.0, value]]))


def test_missing_values_become_the_mean_of_the_others_or_zero() -> None:
    nan = float("nan")
    images = torch.tensor([[1.0, nan, nan], [3.0, 4.0, float("inf")]])
    assert fill_missing(images, dim=0).tolist() == [[1.0, 4.0, 0.0], [3.0, 4.0, 0.0]]


def test_complete_images_are_passed_on_uncopied() -> None:
    images = torch.rand(2, 3, 4)
    assert fill_missing(images, dim=0) is images


@pytest.mark.parametrize(("height", "width"), [(64, 96), (70, 100), (1, 5), (33, 64), (20, 300)])
def test_padding_mirrors_at_the_bottom_and_the_right(height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width)
    padded = pad_to_multiple(images, 32, least=64)
    below, right = padded.shape[-2] - height, padded.shape[-1] - width
    expected = np.pad(images.numpy(), [(0, 0), (0, 0), (0, below), (0, right)], mode="reflect")
    assert padded.shape[-2] % 32 == padded.shape[-1] % 32 == 0
    assert min(padded.shape[-2:]) >= 64
    assert max(below, 0) < 64 and max(right, 0) < 64
    np.testing.assert_array_equal(padded.numpy(), expected)


@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    multiple=st.sampled_from([4, 14, 32]),
    least=st.sampled_from([0, 64]),
)
def test_padding_adds_no_more_than_it_must_and_leaves_the_image_as_it_is(
    height: int, width: int, multiple: int, least: int
) -> None:
    images = torch.arange(2.0 * height * width).reshape(2, height, width)
    padded = pad_to_multiple(images, multiple, least)
    for size, target in zip((height, width), padded.shape[1:], strict=True):
        assert target % multiple == 0 and target >= max(size, least)
        assert target - multiple < max(size, least)
    assert torch.equal(padded[:, :height, :width], images)
    assert float(padded.max()) == float(images.max())  # nothing but what was there
