"""Intrinsics from views of the emulated board, and the board's distance by them."""

import cv2
import numpy as np
import pytest

from hybriddepth_ros.calibration.board import BoardSpec, FoundCorners
from hybriddepth_ros.calibration.captures import BoardViews, Sweep
from hybriddepth_ros.calibration.intrinsics import (
    board_diopters,
    board_pose,
    solve_intrinsics,
    view_placements,
)
from hybriddepth_ros.calibration.rig import Placement
from hybriddepth_ros.emulation.truth import EmulatedTruth
from hybriddepth_ros.errors import CalibrationError
from tests.calibration.conftest import MakeRig

SPEC = BoardSpec()


def test_the_intrinsics_of_the_views_focus_are_found(make_rig: MakeRig) -> None:
    rig, operator, truth = make_rig(6)
    rig.know_settle(truth.settle_ms)
    operator.place(Placement("", 0.5), rig.live_sharpness)
    focused = rig.shot(truth.table.actuator(2.0) + 0.5 * truth.play)
    images = [focused.image, np.full_like(focused.image, 128)]
    for wanted in view_placements()[::2]:
        operator.place(wanted, rig.live_sharpness)
        images.append(rig.shot(focused.actuator).image)
    found = solve_intrinsics(BoardViews(focused.actuator, tuple(images), Sweep((focused,))), SPEC)
    expected = truth.as_calibration().at_focus(found.focus_diopters)
    for name in ("fx", "fy", "cx", "cy"):
        assert getattr(found.camera, name) == pytest.approx(getattr(expected, name), rel=5e-3), name
    assert found.focus_diopters == pytest.approx(2.0, rel=0.03)
    assert found.rejected >= 1 and found.rms_px < 0.15 and len(found.view_rms_px) == len(found.corners)
    assert all(0.0 < sigma < 3.0 for sigma in found.sigma)


@pytest.mark.parametrize("distance", [0.35, 0.8])
def test_the_distance_of_a_tilted_board(distance: float) -> None:
    camera = EmulatedTruth.from_seed(0).camera
    rotation, translation = np.array([0.2, -0.1, 0.05]), np.array([0.02, 0.01, distance])
    points = cv2.projectPoints(
        SPEC.corners, rotation, translation, camera.matrix, np.array(camera.distortion)
    )[0][:, 0, :]
    corners = FoundCorners(np.arange(len(points)), points)
    pose = board_pose(corners, SPEC, camera)
    assert pose.translation == pytest.approx(translation, abs=1e-5) and pose.rms_px < 1e-3
    depths = SPEC.corners @ cv2.Rodrigues(rotation)[0].T + translation
    assert board_diopters(corners, SPEC, camera) == pytest.approx((1.0 / depths[:, 2]).mean(), rel=1e-5)


def test_every_pose_says_in_words_what_is_wanted() -> None:
    texts = [placement.text for placement in view_placements()]
    assert len(set(texts)) == len(texts) and all("cm away" in text for text in texts)


def test_too_few_views_are_refused(make_rig: MakeRig) -> None:
    rig, operator, truth = make_rig(6)
    operator.place(Placement("", 0.5), rig.live_sharpness)
    shot = rig.shot(truth.table.actuator(2.0))
    with pytest.raises(CalibrationError, match="at least 8 images, found it in 3 of 3"):
        solve_intrinsics(BoardViews(shot.actuator, (shot.image,) * 3, Sweep((shot,))), SPEC)
