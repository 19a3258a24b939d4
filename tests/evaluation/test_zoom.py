"""Magnified stacks: geometry, lens and intrinsics, and the measure on depths that are known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.errors import RegistrationError
from hybriddepth_ros.estimator import load_estimator
from hybriddepth_ros.evaluation.contenders import model_contender
from hybriddepth_ros.evaluation.frames import EvaluationFrame
from hybriddepth_ros.evaluation.scoring import score
from hybriddepth_ros.evaluation.zoom import magnified, magnified_image, zoom_difference
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalSlice, FocalStack
from hybriddepth_ros.optics import ThinLens, blur_px_per_diopter
from tests.evaluation.conftest import make_frame
from tests.stacks import defocused_stack

LENS = ThinLens(16.0, 2.0, 10.7)  # 12 px of blur per diopter


@given(st.floats(1.0, 4.0))
def test_a_slope_is_as_steep_as_the_factor_says_and_its_middle_stays(factor: float) -> None:
    slope = np.tile(np.arange(101.0), (51, 1)).astype(np.float32)
    found = magnified_image(slope, factor)
    assert found[25, 50] == 50.0
    expected = 50.0 + (np.arange(101) - 50.0) / factor
    np.testing.assert_allclose(found[25], expected, atol=0.51)  # of the nearest pixel


def test_lens_and_intrinsics_follow() -> None:
    camera = CameraIntrinsics(500.0, 510.0, 170.0, 119.5, 320, 240)
    image = np.zeros((240, 320, 3), np.uint8)
    stack = FocalStack((FocalSlice(image, 1.0, camera=camera), FocalSlice(image, 2.0)), camera, LENS)
    made = magnified(stack, 2.0)
    assert made.lens is not None and made.camera is not None and made.slices[0].camera == made.camera
    assert blur_px_per_diopter(made.lens) == pytest.approx(2 * blur_px_per_diopter(LENS), rel=1e-6)
    assert (made.camera.fx, made.camera.fy, made.camera.cy) == (1000.0, 1020.0, 119.5)
    assert made.camera.cx == pytest.approx(159.5 + 2 * 10.5)
    assert magnified(FocalStack(stack.slices), 2.0).lens is None


def test_the_same_depth_differs_by_nothing_and_one_that_came_nearer_by_what_it_did() -> None:
    depth = np.tile(np.linspace(1.0, 3.0, 60, dtype=np.float32), (40, 1))
    depth[:5] = np.nan
    same = magnified_image(depth, 1.5)
    assert zoom_difference(depth, same, 1.5) == 0.0
    assert zoom_difference(depth, same / np.float32(1.5), 1.5) == pytest.approx(1 - 1 / 1.5, rel=1e-5)
    assert math.isnan(zoom_difference(depth, np.full_like(depth, np.nan), 1.5))


def test_depth_from_blur_with_a_known_lens_hardly_changes() -> None:
    focus = np.array([0.5, 1.0, 1.5, 2.0, 2.5], np.float32)
    images = defocused_stack(1.4, focus, blur_px_per_diopter(LENS))
    slices = [FocalSlice(np.ascontiguousarray(i), float(f)) for i, f in zip(images, focus, strict=True)]
    stack = FocalStack(tuple(slices), lens=LENS)
    estimator = load_estimator("classical", "cpu")
    difference = zoom_difference(estimator(stack).depth, estimator(magnified(stack, 1.5)).depth, 1.5)
    assert difference < 0.05


class FailsMagnified:
    """Estimates a stack, and refuses the same one magnified."""

    def __init__(self, frame: EvaluationFrame) -> None:
        self._frame = frame

    def __call__(self, stack: FocalStack, reference: int) -> SimpleNamespace:
        if stack is not self._frame.stack:
            raise RegistrationError("frame: expected 2 or more slices to register")
        return SimpleNamespace(depth=self._frame.depth_m(), sigma=self._frame.depth_m())


def test_a_magnified_stack_that_cannot_be_estimated_costs_that_measure_alone() -> None:
    frame = make_frame()
    contender = model_contender("made", FailsMagnified(frame), {}, zoom=1.5)  # type: ignore[arg-type]
    measures = score(*contender.judge(frame)).measures
    assert math.isnan(measures["zoom_abs_rel"]) and measures["abs_rel"] == 0.0
