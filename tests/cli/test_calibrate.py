"""`hybriddepth calibrate`: what it refuses in one line, and the board it prints."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hybriddepth_ros.calibration.breathing import BreathingResult
from hybriddepth_ros.calibration.session import STEPS as SESSION_STEPS
from hybriddepth_ros.calibration.session import Session
from hybriddepth_ros.cameras.calibration import CameraCalibration, read_calibration
from hybriddepth_ros.cameras.emulated import EmulatedCamera, EmulatedCameraOptions
from hybriddepth_ros.errors import CalibrationError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from tests.cli.conftest import Outcome

RunCli = Callable[..., Outcome]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected --camera NAME or --from-folder DIR"),
        (("--camera", "emulated", "--from-folder", "x"), "one of both"),
        (("--camera", "emulated", "--only", "focustable"), "did you mean focus_table"),
        (("--camera", "emulated", "--board", "9"), "expected squares across and down, such as 9x7"),
        (("--camera", "emulated", "--board", "9x6"), "odd number of rows"),
        (
            ("--camera", "emulated", "-p", "sed:=1"),
            "unknown parameter 'sed'; did you mean seed",
        ),
        (("--camera", "emulated", "--only", "aperture"), "expected intrinsics before aperture"),
        (("--camera", "simulated"), "camera simulated: expected one with an image source"),
        (("--camera", "emulatd"), "unknown camera 'emulatd'"),
        (("--from-folder", "nowhere"), "expected the list of captured images"),
        (("--camera", "replay", "--params", "nowhere.yaml"), "--params nowhere.yaml: No such file"),
        (("--print-board", "board.gif"), ".png or .pdf"),
        (("--print-board", "board.png", "--dpi", "nan"), "dpi: expected 1 to 2400, got nan"),
        (("--print-board", "board.png", "--dpi", "1e6"), "dpi: expected 1 to 2400"),
        (("--camera", "emulated", "--dictionary", "foo"), "expected a set of OpenCV such as DICT_4X4_50"),
        (("--camera", "emulated", "-p", "seed:=2024-99-99"), "expected a YAML value"),
        (("--camera", "v4l2", "--seed", "1"), "--seed: expected none with --camera v4l2"),
        (("--from-folder", "x", "-p", "seed:=1"), "-p: expected none with --from-folder"),
        (("--from-folder", "x", "--params", "y.yaml"), "--params: expected none with --from-folder"),
        (("--from-folder", "x", "--keep-images"), "--keep-images: expected none with --from-folder"),
        (("--from-folder", "x", "--seed", "0"), "--seed: expected none with --from-folder"),
    ],
)
def test_mistakes_are_told_in_one_line(
    run_cli: RunCli, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    outcome = run_cli("calibrate", "--out", tmp_path / "out", *arguments)
    assert outcome.code == 2
    assert said in outcome.err and len(outcome.err.splitlines()) == 1


def test_the_board_is_printed(run_cli: RunCli, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    path = tmp_path / "board.pdf"
    outcome = run_cli("calibrate", "--print-board", path, "--square-mm", 25, "--dpi", 200)
    assert outcome.code == 0 and "250 x 200 mm" in outcome.out
    assert path.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("chosen", [("--seed", 3), ("-p", "seed:=3")])
def test_the_emulated_camera_is_the_one_that_is_swept(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: tuple[object, ...]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hybriddepth_ros.calibration.session.capture_intrinsics", interrupt)
    outcome = run_cli("calibrate", "--camera", "emulated", *chosen, "--out", tmp_path)
    assert outcome.code == 130
    camera = EmulatedCamera(EmulatedCameraOptions(seed=3))
    assert read_calibration(tmp_path / "truth.yaml") == camera.bench.truth.as_calibration()


@pytest.mark.slow
def test_an_interrupted_calibration_keeps_what_is_done(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hybriddepth_ros.calibration.session.capture_step_response", interrupt)
    outcome = run_cli("calibrate", "--camera", "emulated", "--seed", 2, "--out", tmp_path)
    assert outcome.code == 130 and "--only STEP goes on" in outcome.out
    for name in ("calibration.yaml", "truth.yaml", "report.html"):
        assert (tmp_path / name).stat().st_size > 500


@pytest.mark.parametrize(
    "text",
    [
        "/**/focus_sweep: {ros__parameters: {camera: emulated, emulated: {seed: 3}}}",
        "focus_sweep: {ros__parameters: {emulated.seed: 3, emulated.calibration: not_yet.yaml}}",
        "seed: 3",
    ],
)
def test_a_parameter_file_of_the_nodes_serves(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hybriddepth_ros.calibration.session.capture_intrinsics", interrupt)
    path = tmp_path / "params.yaml"
    path.write_text(text)
    outcome = run_cli("calibrate", "--camera", "emulated", "--params", path, "--out", tmp_path)
    assert outcome.code == 130
    camera = EmulatedCamera(EmulatedCameraOptions(seed=3))
    assert read_calibration(tmp_path / "truth.yaml") == camera.bench.truth.as_calibration()


def test_a_parameter_file_without_the_camera_is_refused(run_cli: RunCli, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("focus_sweep: {ros__parameters: {camera: v4l2}}")
    outcome = run_cli("calibrate", "--camera", "emulated", "--params", path, "--out", tmp_path / "out")
    assert outcome.code == 2 and "expected options of the camera (emulated:)" in outcome.err


def test_a_folder_that_cannot_be_written_is_told_first(run_cli: RunCli) -> None:
    outcome = run_cli("calibrate", "--camera", "emulated", "--out", "/proc")
    assert outcome.code != 0 and "--out /proc: expected a writable folder" in outcome.err


def test_the_report_is_written_after_an_error_too(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise CalibrationError("breathing: too little light")

    def found(session: Session) -> None:
        session.calibration = CameraCalibration(CameraIntrinsics(600.0, 600.0, 320.0, 240.0, 640, 480))
        session.results.breathing = BreathingResult(
            session.calibration.camera, 1.0, 0.01, *(np.ones(2) for _ in range(3))
        )

    monkeypatch.setitem(SESSION_STEPS, "intrinsics", found)
    monkeypatch.setitem(SESSION_STEPS, "latency", fail)
    outcome = run_cli("calibrate", "--camera", "emulated", "--out", tmp_path)
    assert outcome.code != 0 and "too little light" in outcome.err
    assert (tmp_path / "report.html").stat().st_size > 500
