"""When the sweep is full and when it is adaptive, on a clock of its own. Needs no graph."""

import numpy as np
import pytest

from hybriddepth_ros.adaptive_sweep import FocusDemand
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.ros.adaptive_foci import AdaptiveFoci
from tests.cameras.conftest import small_camera
from tests.ros.test_sweep_positions import camera as camera_without_lens

FULL = (0.0, 1.0, 2.0, 3.0)
DEMAND = FocusDemand(np.array([1.4, 1.5, 1.6]), np.array([1.0, 2.0, 1.0]))


class Now:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def test_the_sweep_is_full_until_a_demand_comes_and_once_per_period() -> None:
    now = Now()
    foci = AdaptiveFoci(small_camera(focal_length_mm=100.0, f_number=0.7), (0.0, 3.0), 3, 3.0, now)
    assert foci(FULL) == foci(FULL) == FULL
    kinds = []
    for _ in range(70):  # 7 s, a demand each 0.1 s
        now.s += 0.1
        foci.take(DEMAND)
        swept = foci(FULL)
        kinds.append(swept == FULL)
        assert swept == FULL or (len(swept) == 3 and 1.0 < min(swept) < 1.5 < max(swept) < 2.0)
    assert sum(kinds) == 2 and 29 <= kinds.index(True) <= 30
    assert (foci.full_sweeps, foci.adaptive_sweeps) == (4, 68)


def test_a_demand_that_grows_old_is_dropped() -> None:
    now = Now()
    foci = AdaptiveFoci(small_camera(focal_length_mm=100.0, f_number=0.7), (0.0, 3.0), 3, 1.0, now)
    foci(FULL)
    foci.take(DEMAND)
    now.s += 0.9
    assert foci(FULL) != FULL
    for _ in range(20):
        now.s += 0.2
        assert foci(FULL) == FULL
    foci.take(DEMAND)
    assert foci(FULL) != FULL or foci(FULL) != FULL  # the full sweep may just be due


def test_foci_that_a_coarse_motor_does_not_tell_apart_are_not_planned() -> None:
    camera = small_camera(focal_length_mm=100.0, f_number=0.7)
    camera.nearest_focus = lambda focus: round(focus * 2.0) / 2.0  # type: ignore[method-assign]
    now = Now()
    foci = AdaptiveFoci(camera, (0.0, 3.0), 5, 3.0, now)
    foci(FULL)
    foci.take(DEMAND)
    steps = [camera.nearest_focus(focus) for focus in foci(FULL)]
    assert len(set(steps)) == len(steps) == 5


def test_more_slices_than_the_motor_has_steps_are_as_many_as_it_has() -> None:
    camera = small_camera(focal_length_mm=100.0, f_number=0.7)
    camera.nearest_focus = lambda focus: float(round(focus))  # type: ignore[method-assign]
    foci = AdaptiveFoci(camera, (0.0, 3.0), 16, 3.0, Now())
    foci(FULL)
    foci.take(DEMAND)
    assert len(foci(FULL)) == 4


def test_a_camera_without_a_known_lens_is_refused() -> None:
    with pytest.raises(CameraError, match="sweep: adaptive plans by the lens's blur"):
        AdaptiveFoci(camera_without_lens(0.0, 3.0), (0.0, 3.0), 5, 3.0)
