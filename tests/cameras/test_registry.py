import subprocess
import sys

import pytest

from hybriddepth_ros.cameras import camera_config_type, camera_names, make_camera
from hybriddepth_ros.errors import CameraError, ParameterError


def test_cameras_are_found_by_name() -> None:
    assert {"simulated", "replay"} <= set(camera_names())
    assert camera_config_type("simulated").__name__ == "SimulatedCameraOptions"


def test_unknown_camera_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(CameraError, match=r"unknown camera 'simulatd'.*did you mean simulated"):
        make_camera("simulatd", {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frame_rat": 30}, "unknown parameter 'frame_rat'; did you mean frame_rate"),
        ({"frame_rate": -1.0}, "frame_rate: expected 0.1 to"),
        ({"motion": "dance"}, "motion: expected one of none, sway"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make_camera("simulated", options)


def test_an_exposure_longer_than_the_frame_period_is_refused() -> None:
    with pytest.raises(CameraError, match=r"exposure_ms within the frame period, 33\.3 ms, got 40"):
        make_camera("simulated", {"exposure_ms": 40.0})


def test_importing_the_cameras_imports_no_backend() -> None:
    code = "import sys, hybriddepth_ros.cameras; sys.exit('hybriddepth_ros.cameras.simulated' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
