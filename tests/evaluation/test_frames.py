import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.errors import DatasetError
from hybriddepth_ros.evaluation.frames import DisparityTruth, EvaluationFrame, MetricTruth
from hybriddepth_ros.focal_stack import FocalSlice, FocalStack


def small_stack(height: int = 4, width: int = 6) -> FocalStack:
    image = np.zeros((height, width, 3), np.uint8)
    return FocalStack((FocalSlice(image, 0.5), FocalSlice(image, 2.0)))


def plane(value: float, dtype: type = np.float32) -> np.ndarray:
    return np.full((4, 6), value, dtype)


@given(depth=st.floats(0.1, 100.0), constant=st.floats(1e-3, 1e3))
def test_disparity_and_depth_are_each_others_inverse(depth: float, constant: float) -> None:
    truth = DisparityTruth(np.array([[constant / depth]], np.float32), constant)
    assert truth.depth_m() == pytest.approx(depth, rel=1e-6)
    assert truth.disparity(truth.depth_m()) == pytest.approx(truth.values, rel=1e-6)


@pytest.mark.parametrize("nothing", [0.0, -1.0, np.nan, np.inf])
def test_what_is_no_distance_becomes_nan_in_either_unit(nothing: float) -> None:
    values = np.array([[nothing, 2.0]], np.float32)
    for truth, expected in ((MetricTruth(values), 2.0), (DisparityTruth(values, 4.0), 2.0)):
        depth = truth.depth_m()
        assert depth.dtype == np.float32 and np.isnan(depth[0, 0]) and depth[0, 1] == expected
    assert np.isnan(DisparityTruth(values, 4.0).disparity(values)[0, 0])


def test_depth_of_a_frame_is_nan_where_it_does_not_count() -> None:
    valid = plane(1, np.bool_)
    valid[0] = False
    frame = EvaluationFrame("a", small_stack(), MetricTruth(plane(1.5)), valid)
    assert frame.unit == "m"
    assert np.isnan(frame.depth_m()[0]).all() and (frame.depth_m()[1:] == 1.5).all()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"truth": MetricTruth(np.ones((4, 5), np.float32))},
            r"a: truth: expected float32 \[4, 6\].*\[4, 5\]",
        ),
        ({"truth": MetricTruth(plane(1, np.float64))}, "a: truth: expected float32"),
        ({"valid": plane(1, np.uint8)}, "a: valid: expected bool"),
        ({"valid": plane(0, np.bool_)}, "a: expected a ground truth that holds somewhere"),
        ({"truth": MetricTruth(plane(np.nan))}, "a: expected a finite truth above 0"),
        ({"confidence": np.ones((2, 2), np.float32)}, "a: confidence: expected float32"),
        ({"reference": 2}, "a: reference: expected a slice of 0 to 1, got 2"),
    ],
)
def test_frame_that_does_not_hold_together_is_refused(changes: dict[str, object], expected: str) -> None:
    parts = {"truth": MetricTruth(plane(1.0)), "valid": plane(1, np.bool_)} | changes
    with pytest.raises(DatasetError, match=expected):
        EvaluationFrame("a", small_stack(), **parts)  # type: ignore[arg-type]
