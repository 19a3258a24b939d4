"""The focus table, from sharpness curves whose truth is known."""

from collections.abc import Sequence

import numpy as np
import pytest

from hybriddepth_ros.calibration.board import BoardSpec
from hybriddepth_ros.calibration.focus_table import FocusTableResult, solve_focus_table
from hybriddepth_ros.calibration.sweeps import MeasuredSweep, Values
from hybriddepth_ros.errors import CalibrationError
from hybriddepth_ros.focal_stack import CameraIntrinsics

CAMERA = CameraIntrinsics(600.0, 600.0, 320.0, 240.0, 640, 480)
TARGETS = (0.2, 0.45, 0.8, 1.2, 1.6, 2.0, 2.4, 2.75)
PLAY = 3.0


def truth(actuator: Values, sign: float = 1.0) -> Values:
    x = np.asarray(actuator) / 255.0
    rising = 3.0 * np.expm1(0.8 * x) / np.expm1(0.8)
    return rising if sign > 0 else 3.0 - rising


def measured(target: float, said: float, sign: float = 1.0) -> MeasuredSweep:
    """A sweep of a target at `target` 1/m that was said to stand at `said`."""
    positions = np.arange(0.0, 256.0, 6.0)
    actuator = np.concatenate([positions, positions[::-1]])
    approach = np.repeat([1.0, -1.0], len(positions))
    defocus = truth(actuator - 0.5 * PLAY * approach, sign) - target
    sharp = np.exp(-0.5 * (defocus / 0.25) ** 2)
    return MeasuredSweep(actuator, approach, sharp, (None,) * len(actuator), 0.0, None, said)


def solve(sweeps: Sequence[MeasuredSweep]) -> FocusTableResult:
    return solve_focus_table(sweeps, BoardSpec(), lambda focus: CAMERA, (0.0, 255.0))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_table_is_recovered_for_both_approaches(sign: float) -> None:
    """Also where the diopters fall with the actuator."""
    result = solve([measured(d, d, sign) for d in TARGETS])
    assert result.play == pytest.approx(PLAY, abs=0.1) and result.has_play
    for rising in (True, False):
        table = result.table(rising_diopters=rising)
        positions = np.linspace(table.pairs[0][0], table.pairs[-1][0], 50)
        shift = 0.5 * PLAY * (1.0 if rising == (sign > 0) else -1.0)
        errors = [table.diopters(float(a)) - float(truth(a - shift, sign)) for a in positions]
        assert np.abs(errors).max() < 0.01
    assert result.rms_diopters < 0.003


def test_a_table_does_not_reach_far_beyond_what_was_measured() -> None:
    result = solve([measured(d, d) for d in TARGETS[2:6]])
    far, near = result.table(rising_diopters=True).diopter_range
    assert 0.4 < far < 0.6 and 2.2 < near < 2.4


def test_distances_that_contradict_the_sharpness_are_refused() -> None:
    said = [d + (0.5 if i % 2 else -0.2) for i, d in enumerate(TARGETS)]
    with pytest.raises(CalibrationError, match=r"agree within 0\.1 1/m rms"):
        solve([measured(d, s) for d, s in zip(TARGETS, said, strict=True)])


def test_sweeps_without_a_peak_do_not_count() -> None:
    """A target nearer than the lens can focus leaves a curve that only rises."""
    with pytest.raises(CalibrationError, match="got 3 of 5"):
        solve([measured(d, d) for d in (0.5, 1.0, 2.0, 3.6, 4.0)])
