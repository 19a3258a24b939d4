"""The steps in their order: what each keeps, and whether the emulated camera is found out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hybriddepth_ros.calibration.board import BoardSpec
from hybriddepth_ros.calibration.captures import BoardViews, Captures, Shot, Sweep, read_captures
from hybriddepth_ros.calibration.report import calibration_report, compare
from hybriddepth_ros.calibration.session import STEPS, Session
from hybriddepth_ros.cameras.calibration import CameraCalibration, read_calibration, write_calibration
from hybriddepth_ros.commands.calibrate import STEPS as COMMAND_STEPS
from hybriddepth_ros.errors import CalibrationError, ParameterError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from tests.calibration.conftest import MakeRig

KNOWN = CameraCalibration(CameraIntrinsics(600.0, 600.0, 320.0, 240.0, 640, 480), settle_ms=50.0)


def silent(step: str) -> None:
    pass


@pytest.mark.slow
def test_the_emulated_camera_is_found_out_live_and_from_its_images(tmp_path: Path, make_rig: MakeRig) -> None:
    rig, operator, truth = make_rig(11)
    live = Session(tmp_path, BoardSpec(), rig, operator, name="emulated", keep_images=True)
    live.run(tuple(STEPS), silent)
    found = read_calibration(tmp_path / "calibration.yaml")
    assert found == live.calibration
    compared = compare(found, truth.as_calibration())
    assert {c.name for c in compared} >= {
        "fx",
        "settle_ms",
        "breathing [%/D]",
        "focus_table, at its worst [1/m]",
    }
    for c in compared:
        if c.target is not None:
            assert abs(c.error) <= c.target, c
    assert found.blur_px_per_diopter == pytest.approx(truth.blur_px_per_diopter, rel=0.05)
    assert found.focus_table is not None
    far, near = found.focus_table.diopter_range
    assert far < 0.2 and near > 2.6
    report = calibration_report(live, "the test", truth.as_calibration())
    assert len(report.pictures) == 6 and len(report.summary) == 1

    captures = read_captures(tmp_path / "images")
    again = Session(tmp_path / "again", captures.board, captures=captures)
    again.run(tuple(STEPS), silent)
    assert again.calibration is not None and again.calibration.settle_ms is None
    assert again.calibration.camera.fx == pytest.approx(found.camera.fx, rel=1e-4)
    assert again.calibration.blur_px_per_diopter == pytest.approx(found.blur_px_per_diopter, rel=0.02)


@pytest.mark.slow
def test_a_step_alone_leaves_what_the_others_found(tmp_path: Path, make_rig: MakeRig) -> None:
    rig, operator, truth = make_rig(3)
    path = tmp_path / "calibration.yaml"
    write_calibration(path, replace(KNOWN, blur_px_per_diopter=12.5, notes={"measured by": "hand"}))
    Session(tmp_path, BoardSpec(), rig, operator).run(("latency",), silent)
    found = read_calibration(path)
    assert found.settle_ms == pytest.approx(truth.settle_ms, abs=2.0)
    assert found.latency_ms == pytest.approx(truth.latency_ms, abs=2.0)
    assert found.blur_px_per_diopter == 12.5 and found.camera == KNOWN.camera
    assert found.notes["measured by"] == "hand"


def test_steps_that_need_intrinsics_say_so(tmp_path: Path, make_rig: MakeRig) -> None:
    rig, operator, _ = make_rig(1)
    session = Session(tmp_path, BoardSpec(), rig, operator)
    for step in ("latency", "breathing", "focus_table", "aperture"):
        with pytest.raises(ParameterError, match=f"expected intrinsics before {step}"):
            session.run((step,), silent)
    assert not (tmp_path / "calibration.yaml").exists()


def test_a_known_settle_time_is_what_the_rig_waits_for(tmp_path: Path, make_rig: MakeRig) -> None:
    rig, operator, _ = make_rig(1)
    write_calibration(tmp_path / "calibration.yaml", KNOWN)
    Session(tmp_path, BoardSpec(), rig, operator)
    assert rig.settle_ms == 60.0


def test_images_without_what_a_step_needs_are_refused(tmp_path: Path) -> None:
    write_calibration(tmp_path / "calibration.yaml", KNOWN)
    session = Session(tmp_path, BoardSpec(), captures=Captures(BoardSpec()))
    with pytest.raises(ParameterError, match="expected images of the board"):
        session.run(("intrinsics",), silent)
    with pytest.raises(ParameterError, match="expected focus sweeps"):
        session.run(("focus_table",), silent)
    with pytest.raises(ParameterError, match="expected focus_table: run that step first"):
        session.run(("aperture",), silent)


def test_blank_images_are_no_intrinsics(tmp_path: Path) -> None:
    blank = np.full((480, 640), 128, np.uint8)
    views = BoardViews(10.0, (blank,) * 9, Sweep((Shot(blank, 10.0),)))
    session = Session(tmp_path, BoardSpec(), captures=Captures(BoardSpec(), views))
    with pytest.raises(CalibrationError, match="found it in 0 of 9"):
        session.run(("intrinsics",), silent)


def test_images_do_not_tell_times(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="latency: expected a camera"):
        Session(tmp_path, BoardSpec(), captures=Captures(BoardSpec())).run(("latency",), silent)


def test_the_command_names_the_steps_of_a_session() -> None:
    assert tuple(STEPS) == COMMAND_STEPS


def test_either_a_camera_or_images(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="one of both"):
        Session(tmp_path, BoardSpec())


def test_images_of_another_size_than_calibrated_are_refused(tmp_path: Path, make_rig: MakeRig) -> None:
    larger = replace(KNOWN, camera=replace(KNOWN.camera, width=1280, height=960))
    write_calibration(tmp_path / "calibration.yaml", larger)
    rig, operator, _ = make_rig(1)
    sweep = Sweep((Shot(np.zeros((480, 640), np.uint8), 1.0),))
    for session in (
        Session(tmp_path, BoardSpec(), rig, operator),
        Session(tmp_path, BoardSpec(), captures=Captures(BoardSpec(), None, (sweep,))),
    ):
        with pytest.raises(ParameterError, match=r"expected images of 1280x960 px.*got 640x480"):
            session.run(("focus_table",), silent)


def test_a_focus_that_is_no_number_is_refused(tmp_path: Path) -> None:
    write_calibration(
        tmp_path / "calibration.yaml", replace(KNOWN, notes={"intrinsics_focus_diopters": "abc"})
    )
    session = Session(tmp_path, BoardSpec(), captures=Captures(BoardSpec()))
    with pytest.raises(
        ParameterError, match="intrinsics_focus_diopters: expected a finite number, got 'abc'"
    ):
        session.run(("breathing",), silent)


def test_the_images_of_a_failed_step_are_kept(
    tmp_path: Path, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    blank = np.full((480, 640), 128, np.uint8)
    views = BoardViews(10.0, (blank,) * 9, Sweep((Shot(blank, 10.0),)))
    monkeypatch.setattr("hybriddepth_ros.calibration.session.capture_intrinsics", lambda *_: views)
    rig, operator, _ = make_rig(1)
    with pytest.raises(CalibrationError, match=r"found it in 0 of 9.*--from-folder .*images"):
        Session(tmp_path, BoardSpec(), rig, operator).run(("intrinsics",), silent)
    kept = read_captures(tmp_path / "images").views
    assert kept is not None and len(kept.images) == 9
