"""`hybriddepth calibrate`: what it refuses in one line, and the board it prints."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hybriddepth_ros.cameras.calibration import read_calibration
from hybriddepth_ros.cameras.emulated import EmulatedCamera, EmulatedCameraOptions
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
