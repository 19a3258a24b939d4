"""Checks, filling and padding in front of the published networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models.inputs import check_inputs, fill_missing, pad_to_multiple, to_device


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


def test_on_a_cpu_an_array_is_not_copied() -> None:
    values = np.zeros((2, 4, 4, 3), np.uint8)
    tensor = to_device(values, "cpu")
    assert tensor.data_ptr() == values.ctypes.data
    values[1, 2, 3, 0] = 7
    assert tensor[1, 2, 3, 0] == 7


def test_to_cuda_an_array_goes_pinned_and_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[object] = []

    class Recorded:
        def pin_memory(self) -> Recorded:
            steps.append("pinned")
            return self

        def to(self, device: str, non_blocking: bool = False) -> Recorded:
            steps.append((device, non_blocking))
            return self

    monkeypatch.setattr(torch, "from_numpy", lambda values: Recorded())
    to_device(np.zeros(3), "cuda:1")
    assert steps == ["pinned", ("cuda:1", True)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_an_array_may_be_changed_as_soon_as_it_is_on_its_way_to_cuda() -> None:
    values = np.zeros((8, 512, 512, 3), np.uint8)
    sent = []
    for number in range(10):
        values[:] = number
        sent.append(to_device(values, "cuda"))
    values[:] = 255
    assert [(int(tensor.min()), int(tensor.max())) for tensor in sent] == [(n, n) for n in range(10)]
