"""The camera `emulated`: what it says of its focus is true, and calibration names the same device."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hybriddepth_ros.cameras.base import make_camera
from hybriddepth_ros.cameras.calibration import write_calibration
from hybriddepth_ros.cameras.emulated import EmulatedCamera, EmulatedCameraOptions, make_truth
from hybriddepth_ros.cameras.sweep import FocusSweep, SweepOptions
from hybriddepth_ros.cameras.sweep_engine import SWEEP_MODES
from hybriddepth_ros.emulation.bench import EmulatedBench
from hybriddepth_ros.emulation.truth import EmulatedTruth
from hybriddepth_ros.errors import CameraError, ParameterError
from tests.cameras.conftest import ManualClock

FOCI = (0.6, 1.5, 2.4)
Render = Callable[[EmulatedBench, float], npt.NDArray[np.float32]]


@pytest.mark.parametrize("mode", SWEEP_MODES)
@pytest.mark.parametrize("seed", [0, 1, 2])  # the scale of 0 and 1 is bent upwards, that of 2 downwards
def test_a_sweep_shows_the_focus_that_it_says(clock: ManualClock, mode: str, seed: int) -> None:
    camera = EmulatedCamera(EmulatedCameraOptions(seed=seed), clock)
    with camera:
        frames = FocusSweep(camera, FOCI, SweepOptions(mode=mode)).frames()
        for wanted in 3 * FOCI:
            frame = next(frames).frame
            truth = [
                camera.bench.movement.focus_diopters(time_ns)
                for time_ns in np.linspace(frame.exposure_start_ns, frame.exposure_end_ns, 9).round().tolist()
            ]
            assert truth == pytest.approx([frame.focus_diopters] * 9, abs=2e-3)
            assert frame.focus_diopters == pytest.approx(wanted, abs=0.01)  # a motor of 255 steps


def test_what_a_sweep_shows_is_rendered_ahead(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = EmulatedCamera(EmulatedCameraOptions(seed=1), clock)
    told: list[tuple[int, int]] = []
    with camera:
        camera.prepare(FOCI, lambda done, total: told.append((done, total)))
        assert told[0][0] == 1 and told[-1][0] == told[-1][1] == len(told)
        frames = FocusSweep(camera, FOCI).frames()
        for _ in FOCI:  # the lens comes from where it was left
            next(frames)
        monkeypatch.setattr(EmulatedBench, "_render", only_from_the_cache(EmulatedBench._render))
        for _ in 2 * FOCI:
            next(frames)


def only_from_the_cache(render: Render) -> Render:
    def cached(bench: EmulatedBench, focus_diopters: float) -> npt.NDArray[np.float32]:
        assert (bench.pose, focus_diopters) in bench._rendered, focus_diopters
        return render(bench, focus_diopters)

    return cached


def test_the_board_stands_where_it_was_put() -> None:
    camera = make_camera("emulated", {"distance_m": 0.9, "tilt_x_deg": -5.0, "turn_deg": 3.0})
    assert isinstance(camera, EmulatedCamera)
    pose = camera.bench.pose
    assert (pose.distance_m, pose.tilt_x_deg, pose.tilt_y_deg, pose.turn_deg) == (0.9, -5.0, 20.0, 3.0)


def test_it_is_the_camera_of_its_seed_and_by_default_knows_itself(clock: ManualClock) -> None:
    options = EmulatedCameraOptions(seed=3, frame_rate=20.0, exposure_ms=4.0)
    truth, usual = make_truth(options), EmulatedTruth.from_seed(3)
    assert (truth.frame_rate_hz, truth.exposure_ms) == (20.0, 4.0)
    assert truth.as_calibration() == usual.as_calibration()
    with EmulatedCamera(options, clock) as camera:
        assert camera.frame_rate_hz == 20.0
        table = usual.as_calibration().focus_table
        assert table is not None and camera.focus_range_diopters == table.diopter_range
        camera.command_focus(1.0)
        frame = camera.read()
        assert frame.exposure_end_ns - frame.exposure_start_ns == 4_000_000
        assert frame.camera == usual.as_calibration().at_focus(frame.focus_diopters)


def test_a_calibration_is_believed_more_than_the_truth(clock: ManualClock, tmp_path: Path) -> None:
    other = EmulatedTruth.from_seed(4).as_calibration()
    write_calibration(tmp_path / "calibration.yaml", other)
    options = EmulatedCameraOptions(seed=3, calibration=str(tmp_path / "calibration.yaml"))
    with EmulatedCamera(options, clock) as camera:
        assert other.focus_table is not None
        assert camera.focus_range_diopters == other.focus_table.diopter_range


def test_an_exposure_longer_than_a_frame_is_refused() -> None:
    with pytest.raises(CameraError, match=r"emulated: expected exposure_ms within .* 16\.7 ms, got 20"):
        make_camera("emulated", {"frame_rate": 60.0, "exposure_ms": 20.0})
    with pytest.raises(ParameterError, match="did you mean distance_m"):
        make_camera("emulated", {"distance": 1.0})
