"""The calibration file: what is written is read, and what is wrong is named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.cameras.calibration import (
    CameraCalibration,
    FocusTable,
    read_calibration,
    write_calibration,
)
from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.focal_stack import CameraIntrinsics

CAMERA = CameraIntrinsics(610.5, 611.25, 319.0, 240.5, 640, 480, (0.1, -0.2, 1e-3, 2e-3, 0.05))
TABLE = FocusTable(((0.0, 0.1), (100.0, 1.5), (250.0, 4.0)))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    calibration = CameraCalibration(
        CAMERA,
        "desk",
        TABLE,
        FocusTable(((0.0, 0.2), (250.0, 4.2))),
        0.8,
        31.5,
        40.25,
        13.5,
        0.01,
        36.5,
        {"measured with": "a chart"},
    )
    write_calibration(tmp_path / "new" / "camera.yaml", calibration)
    assert read_calibration(tmp_path / "new" / "camera.yaml") == calibration


def test_a_camera_info_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "camera.yaml"
    path.write_text(
        "image_width: 640\nimage_height: 480\ncamera_name: c\n"
        "camera_matrix: {rows: 3, cols: 3, data: [600, 0, 320, 0, 601, 240, 0, 0, 1]}\n"
        "distortion_model: plumb_bob\n"
        "distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}\n"
    )
    assert read_calibration(path) == CameraCalibration(
        CameraIntrinsics(600.0, 601.0, 320.0, 240.0, 640, 480), "c"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image_width: [", "expected YAML at line 1"),
        ("image_width: 640", "image_height: expected, got none"),
        ("{image_width: 640, image_height: 480, camera_matrix: {data: [1, 2]}}", "a list of 9 numbers"),
        (
            "{image_width: 9, image_height: 9, camera_matrix: {data: [1,0,0,0,1,0,0,0,1]}, settle_ms: soon}",
            "settle_ms: expected a finite number, got 'soon'",
        ),
        (
            "{image_width: 9, image_height: 9, camera_matrix: {data: [1,0,0,0,1,0,0,0,1]},"
            " focus_table: [[1, 1], [2, 3], [3, 2]]}",
            "focus_table: expected rising actuator positions whose diopters all rise or all fall",
        ),
        *(
            (
                "{image_width: 9, image_height: 9, camera_matrix: {data: [1,0,0,0,1,0,0,0,1]},"
                f" {key}: {value}}}",
                f"{key}: expected at least {lowest}, got {value}",
            )
            for key, value, lowest in (
                ("settle_ms", -0.1, 0),
                ("latency_ms", -3, 0),
                ("blur_px_per_diopter", -2.0, 0),
                ("residual_diopters", -0.01, 0),
                ("temperature_c", -300, -273.15),
            )
        ),
        (
            "{image_width: 9.5, image_height: 9, camera_matrix: {data: [1,0,0,0,1,0,0,0,1]}}",
            "image_width: expected a whole number of at least 1, got 9.5",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ParameterError) as caught:
        read_calibration(path)
    assert str(path) in str(caught.value) and said in str(caught.value) and "\n" not in str(caught.value)


@given(
    st.lists(st.floats(0.01, 10.0), min_size=1, max_size=8),
    st.lists(st.floats(0.01, 2.0), min_size=8, max_size=8),
    st.booleans(),
    st.floats(0.0, 1.0),
)
def test_a_table_is_inverted_by_itself(
    actuator_steps: list[float], diopter_steps: list[float], falls: bool, share: float
) -> None:
    pairs, actuator, diopters = [(0.0, 0.0)], 0.0, 0.0
    for a, d in zip(actuator_steps, diopter_steps, strict=False):
        actuator, diopters = actuator + a, diopters + (-d if falls else d)
        pairs.append((actuator, diopters))
    table = FocusTable(tuple(pairs))
    low, high = table.diopter_range
    wanted = low + share * (high - low)
    assert table.diopters(table.actuator(wanted)) == pytest.approx(wanted, abs=1e-9)
    assert table.diopters(-1.0) == 0.0 and table.diopters(1e9) == pairs[-1][1]


def test_the_image_grows_with_focus() -> None:
    at = CameraCalibration(CAMERA, breathing_percent_per_diopter=0.8).at_focus(2.0)
    assert at.fx == pytest.approx(610.5 * 1.016) and at.cx == CAMERA.cx
