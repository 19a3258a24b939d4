"""What the emulated camera sees: the board where optics puts it, blurred as far as it is out of focus."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from hybriddepth_ros.calibration.board import find_corners
from hybriddepth_ros.calibration.sharpness import central_region, region_sharpness
from hybriddepth_ros.emulation.bench import BoardPose, EmulatedBench
from hybriddepth_ros.emulation.truth import EmulatedTruth

TRUTH = replace(EmulatedTruth.from_seed(3), play=0.0, dead_ms=5.0, settle_ms=45.0)
AT_REST = 10**10
MS = 1_000_000


def focused_bench(focus: float, pose: BoardPose, truth: EmulatedTruth = TRUTH) -> EmulatedBench:
    bench = EmulatedBench(truth)
    bench.place(pose)
    bench.command(truth.table.actuator(focus), 10**9)
    return bench


@pytest.mark.parametrize(
    ("pose", "focus"),
    [
        (BoardPose(0.5), 2.0),
        (BoardPose(0.5, 0.03, -0.02, 20.0, -25.0, 10.0), 2.0),
        (BoardPose(0.5), 1.85),
        (BoardPose(0.4), 2.5),
    ],
)
def test_corners_are_where_the_intrinsics_of_that_focus_put_them(pose: BoardPose, focus: float) -> None:
    bench = focused_bench(focus, pose)
    image = bench.picture(AT_REST, AT_REST + 8 * MS)
    found = find_corners(np.ascontiguousarray(image[:, :, 0]), bench.board)
    assert found is not None and len(found) > 30
    flat = found.of_board(bench.board)
    flat[:, 2] = 1.0
    points = flat @ pose.matrix.T
    camera = TRUTH.as_calibration().at_focus(focus)
    expected = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), camera.matrix, np.array(camera.distortion)
    )[0][:, 0, :]
    error = found.points - expected
    assert np.abs(error.mean(axis=0)).max() < 0.03
    assert np.sqrt((error**2).sum(axis=1).mean()) < 0.15


def test_sharpness_falls_alike_on_both_sides_of_the_focus() -> None:
    values = []
    for focus in (1.5, 2.0, 2.5):
        bench = focused_bench(focus, BoardPose(0.5), replace(TRUTH, breathing_percent_per_diopter=0.0))
        image = bench.picture(AT_REST, AT_REST + 8 * MS)[:, :, 0]
        values.append(region_sharpness(image, central_region((640, 480))))
    assert values[1] > 2.0 * values[0]
    assert values[0] == pytest.approx(values[2], rel=0.02)


def test_a_tilted_board_is_sharp_only_where_it_lies_in_focus() -> None:
    bench = focused_bench(2.0, BoardPose(0.5, tilt_y_deg=50.0))
    image = bench.picture(AT_REST, AT_REST + 8 * MS)[:, :, 0].astype(np.float32)
    energy = cv2.Sobel(image, cv2.CV_32F, 0, 1) ** 2
    # The outermost columns hold wall, which is farther and nearer than the middle.
    middle, left, right = (energy[:, x : x + 60].mean() for x in (290, 0, 580))
    assert middle > 2.0 * left and middle > 2.0 * right


def test_a_frame_of_the_moving_lens_lies_between_those_before_and_after() -> None:
    bench = focused_bench(2.0, BoardPose(0.5))
    region = central_region((640, 480))
    start = 10**10
    bench.command(TRUTH.table.actuator(1.2), start)

    def seen(at_ms: float) -> float:
        begin = start + round(at_ms * MS)
        return region_sharpness(bench.picture(begin, begin + 8 * MS)[:, :, 0], region)

    way = abs(TRUTH.table.actuator(2.0) - TRUTH.table.actuator(1.2))
    half_way = TRUTH.dead_ms + 0.5 * way / TRUTH.speed
    assert seen(-10) > 1.2 * seen(half_way - 4.0) > 1.2 * 1.2 * seen(50)


def test_the_noise_differs_from_frame_to_frame_and_is_small() -> None:
    bench = focused_bench(2.0, BoardPose(0.5))
    first, second = (bench.picture(AT_REST, AT_REST + MS).astype(float) for _ in range(2))
    assert 0.5 < np.std(first - second) < 8.0
