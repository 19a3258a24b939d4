"""The parts of a live camera: both open or neither."""

import pytest

from hybriddepth_ros.calibration.parts import open_parts
from hybriddepth_ros.emulation.v4l2 import EmulatedV4L2
from hybriddepth_ros.errors import CameraError, LensError, ParameterError
from tests.emulated_v4l2 import FOCUS_ABSOLUTE, MODES, Scene


def test_a_v4l2_camera_comes_apart_into_images_and_motor() -> None:
    scene = Scene()
    with EmulatedV4L2(scene.picture, on_control=scene.on_control, modes=MODES) as device:
        options = {"device": device.path, "width": 64, "height": 48, "auto_seconds": 0.0}
        source, lens = open_parts("v4l2", options)
        try:
            assert source.read(5.0).image.shape == (48, 64, 3)
            lens.command(100.0)
            assert (FOCUS_ABSOLUTE, 100) in scene.written
        finally:
            lens.close()
            source.close()


def test_a_lens_that_is_missing_leaves_the_camera_free() -> None:
    with EmulatedV4L2(Scene().picture, modes=MODES) as device:
        options = {"device": device.path, "width": 64, "height": 48, "auto_seconds": 0.0}
        with pytest.raises(LensError, match="nowhere"):
            open_parts("v4l2", options | {"lens": "optotune", "optotune_lens.port": "/dev/nowhere"})
        source, lens = open_parts("v4l2", options)
        lens.close()
        source.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"lens": "optotune", "optotune_lens.prot": "x"},
            "lens optotune: unknown parameter 'prot'; did you mean",
        ),
        ({"optotune_lens.port": "x"}, "camera v4l2: unknown parameter 'optotune_lens.port'"),
        ({"lens": "motor", "motor_lens.port": "x"}, "expected no parameters of a lens with lens: motor"),
    ],
)
def test_a_parameter_that_the_lens_does_not_have_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        open_parts("v4l2", options)


@pytest.mark.parametrize(
    ("camera", "said"), [("simulated", "a focus motor of its own"), ("v4l", "did you mean v4l2")]
)
def test_a_camera_without_parts_is_refused(camera: str, said: str) -> None:
    with pytest.raises(CameraError, match=said):
        open_parts(camera, {})
