"""The camera `v4l2` as it is made by name: assembled, swept, opened again, with a lens of another make."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from hybriddepth_ros.cameras import Clock, FocusSweep, SweepOptions, camera_names, make_camera
from hybriddepth_ros.cameras import lens as lens_registry
from hybriddepth_ros.cameras import v4l2_controls as cid
from hybriddepth_ros.cameras.calibration import CameraCalibration, FocusTable, write_calibration
from hybriddepth_ros.cameras.lens import FocusLens, LensState, register_lens
from hybriddepth_ros.cameras.v4l2 import V4L2Camera, V4L2Options
from hybriddepth_ros.emulation.v4l2 import Faults, webcam_controls
from hybriddepth_ros.errors import CameraError, ParameterError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.parameters import from_mapping, parameter, parameter_fields
from tests.emulated_v4l2 import PATH, Scene, camera, emulated, options


@pytest.fixture
def calibration(tmp_path: Path) -> str:
    """Position 250 is 5 diopters."""
    path = tmp_path / "camera.yaml"
    intrinsics = CameraIntrinsics(60.0, 60.0, 31.5, 23.5, 64, 48)
    write_calibration(
        path, CameraCalibration(intrinsics, focus_table=FocusTable(((0, 0.0), (250, 5.0))), settle_ms=80.0)
    )
    return str(path)


def test_it_is_known_by_name_and_its_parameters_without_linuxpy() -> None:
    assert "v4l2" in camera_names()
    code = (
        "import sys; sys.modules['linuxpy'] = None\n"
        "from hybriddepth_ros.cameras import camera_config_type, make_camera\n"
        "from hybriddepth_ros.errors import CameraError\n"
        "camera_config_type('v4l2')\n"
        "try: make_camera('v4l2', {}).open()\n"
        "except CameraError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "camera v4l2: expected the package linuxpy: pip install linuxpy\n"


def test_importing_the_cameras_does_not_import_linuxpy() -> None:
    code = "import sys, hybriddepth_ros.cameras.v4l2; sys.exit('linuxpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_parameter_has_a_description_and_wrong_ones_are_refused() -> None:
    assert all(info.description for _, info in parameter_fields(V4L2Options).values())
    with pytest.raises(ParameterError, match="unknown parameter 'exposure'; did you mean exposure_ms"):
        make_camera("v4l2", {"exposure": 3.0})
    with pytest.raises(ParameterError, match="pixel_format: expected one of auto, YUYV, BA81"):
        make_camera("v4l2", {"pixel_format": "H264"})


def test_the_example_in_the_documentation_is_a_config() -> None:
    text = (Path(__file__).parents[2] / "docs" / "v4l2.md").read_text()
    example = yaml.safe_load(re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)[0])
    assert example.pop("camera") == "v4l2"
    options = from_mapping(V4L2Options, example["v4l2"])
    assert (options.serial_number, options.width, options.height) == ("A1B2C3", 1280, 720)


def test_without_a_calibration_it_says_what_to_run() -> None:
    with emulated() as device:
        with pytest.raises(CameraError, match="run `hybriddepth calibrate`"):
            camera(device).open()
        assert device.opens == 0


def test_a_sweep_takes_only_frames_exposed_after_the_motor_stood_still(calibration: str) -> None:
    scene = Scene()
    with emulated(scene) as device, camera(device, calibration=calibration, readout_ms=20.0) as made:
        sweep = FocusSweep(made, (0.5, 2.0, 4.0))
        for _, swept in zip(range(9), sweep.frames(), strict=False):
            frame = swept.frame
            truth = next(true for true in device.frames if true.sequence == frame.sequence)
            moves = [m for m in scene.commands if m[0] == cid.FOCUS_ABSOLUTE and m[2] < truth.exposure_end_ns]
            position, commanded_ns = moves[-1][1:]
            assert position == frame.actuator_position == pytest.approx(50 * frame.focus_diopters)
            assert truth.exposure_start_ns >= commanded_ns + 79_000_000
    assert device.opens == 0


@pytest.mark.parametrize("mode", ["stop_and_go", "free_running"])
@pytest.mark.parametrize(("readout_ms", "transfer_ms"), [(20.0, 2.0), (12.0, 2.0), (0.0, 8.0), (27.0, 5.0)])
@pytest.mark.parametrize("told", [{}, {"readout_ms": 30.0}])
def test_a_sweep_needs_no_readout_time_told_and_bears_one_that_is_too_long(
    calibration: str, readout_ms: float, transfer_ms: float, told: dict[str, float], mode: str
) -> None:
    scene = Scene()
    with emulated(scene, readout_ms=readout_ms, transfer_ms=transfer_ms, driver="uvcvideo") as device:
        made = camera(device, calibration=calibration, **told)
        with made:
            sweep = FocusSweep(made, (0.5, 2.0, 4.0), SweepOptions(mode=mode))
            taken = [swept.frame for _, swept in zip(range(12), sweep.frames(), strict=False)]
        moves = [(value, ns) for control, value, ns in scene.commands if control == cid.FOCUS_ABSOLUTE]
        for frame in taken:
            truth = next(true for true in device.frames if true.sequence == frame.sequence)
            position, commanded_ns = [move for move in moves if move[1] < truth.exposure_end_ns][-1]
            assert position == frame.actuator_position == pytest.approx(50 * frame.focus_diopters)
            assert truth.exposure_start_ns >= commanded_ns + 79_000_000


def test_a_camera_without_an_exposure_control_sweeps_too(calibration: str) -> None:
    """Its exposure is taken for a frame period, after which no frame would have come yet."""
    controls = webcam_controls(without=(cid.EXPOSURE_AUTO, cid.EXPOSURE_ABSOLUTE))
    for stamped_at in ("first_packet", "exposure_start"):
        device = emulated(controls=controls, stamped_at=stamped_at, driver="other")
        with device as opened, camera(opened, calibration=calibration) as made:
            frames = FocusSweep(made, (0.5, 2.0, 4.0)).frames()
            foci = [next(frames).frame.focus_diopters for _ in range(3)]
        assert foci == pytest.approx([0.5, 2.0, 4.0])


def test_steps_of_the_motor_are_told_where_it_stopped(tmp_path: Path) -> None:
    """12 1/m in 50 steps of 5: the foci that are asked for lie between them."""
    path = tmp_path / "camera.yaml"
    intrinsics = CameraIntrinsics(60.0, 60.0, 31.5, 23.5, 64, 48)
    table = FocusTable(((0, 0.0), (250, 12.0)))
    write_calibration(path, CameraCalibration(intrinsics, focus_table=table, settle_ms=80.0))
    controls = webcam_controls()
    for control in controls:
        if control.id == cid.FOCUS_ABSOLUTE:
            control.step = 5
    asked = (0.35, 1.1, 2.5)
    with emulated(controls=controls) as device, camera(device, calibration=str(path)) as made:
        frames = [s.frame for _, s in zip(range(6), FocusSweep(made, asked).frames(), strict=False)]
    for frame, focus in zip(frames, 2 * asked, strict=True):
        assert frame.actuator_position % 5 == 0
        assert frame.focus_diopters == pytest.approx(table.diopters(frame.actuator_position))
        assert 0.01 < abs(frame.focus_diopters - focus) <= 0.12


def test_by_the_machines_own_clock_it_is_made_by_name_and_reads(calibration: str) -> None:
    with emulated(clock=Clock(), boot_ns=None) as device:
        made = make_camera("v4l2", {"device": PATH, "width": 64, "height": 48, "calibration": calibration})
        with made:
            made.command_focus(2.0)
            frames = [made.read(20.0) for _ in range(3)]
        assert [b.sequence - a.sequence for a, b in pairwise(frames)] == [1, 1]
        for frame in frames:
            truth = next(true for true in device.frames if true.sequence == frame.sequence)
            assert abs(frame.exposure_start_ns - truth.exposure_start_ns) < 1_000_000


def test_a_focus_check_at_opening_finds_a_motor_that_does_not_move(calibration: str) -> None:
    with emulated() as device, camera(device, calibration=calibration, check_focus=True) as made:
        made.read()
    with emulated(faults=Faults(focus_ignored=True)) as device:
        with pytest.raises(CameraError, match="image did not change"):
            camera(device, calibration=calibration, check_focus=True).open()
        assert device.opens == 0


def test_after_being_unplugged_the_same_camera_opens_again(calibration: str) -> None:
    with emulated() as device:
        made = camera(device, calibration=calibration)
        made.open()
        made.read()
        device.unplug()
        with pytest.raises(CameraError, match="unplugged"):
            made.read()
        made.close()
        device.plug_in()
        made.open()
        made.command_focus(1.0)
        made.read()
        made.close()
        assert device.opens == 0


@dataclass(frozen=True)
class _ScrewOptions:
    port: str = parameter("", "where")
    mode: str = parameter("slow", "how")
    turns: float = parameter(3.0, "how many", maximum=9.0)
    careful: bool = parameter(False, "whether")


@pytest.fixture
def screw() -> Iterator[None]:
    """A lens of another make that counts in diopters."""

    @register_lens("screw", _ScrewOptions)
    class Screw(FocusLens):
        def __init__(self, options: _ScrewOptions) -> None:
            self.options = options
            self.position = 0.0

        def open(self) -> None: ...

        def close(self) -> None: ...

        def command(self, position: float) -> int:
            self.position = position
            return self.clock.now_ns()

        @property
        def position_range(self) -> tuple[float, float]:
            return (0.0, 3.0)

        def state(self) -> LensState:
            return LensState(self.position)

    yield
    del lens_registry.LENSES.entries["screw"]


def test_a_lens_of_another_make_takes_its_own_options_and_the_cameras_time(screw: None) -> None:
    scene = Scene()
    with emulated(scene) as device:
        own = {"port": "/dev/ttyUSB7", "turns": 5, "careful": True}
        chosen = options(lens="screw", focus_in_diopters=True)
        made = V4L2Camera(chosen, device.clock, device.monotonic_ns, own)
        source, lens = made.parts
        assert lens.options == _ScrewOptions("/dev/ttyUSB7", "slow", 5.0, True)  # type: ignore[attr-defined]
        assert lens.clock is source.clock is made.clock
        with made:
            assert made.focus_range_diopters == (0.0, 3.0)
            made.command_focus(2.0)
            while (frame := made.read()).focus_diopters != 2.0:
                pass
            assert frame.actuator_position == 2.0
    assert (cid.FOCUS_AUTO, 0) in scene.written  # the camera's own motor is not to hunt meanwhile


def test_an_unknown_lens_or_option_of_it_is_refused(screw: None) -> None:
    with pytest.raises(CameraError, match=r"unknown lens 'scrw'.*did you mean screw"):
        V4L2Camera(V4L2Options(lens="scrw"))
    with pytest.raises(ParameterError, match="lens screw: unknown parameter 'turn'; did you mean turns"):
        make_camera("v4l2", {"lens": "screw"}, {"turn": 3})
    with pytest.raises(ParameterError, match=r"turns: expected -inf to 9\.0, got 10"):
        make_camera("v4l2", V4L2Options(lens="screw"), {"turns": 10})


def test_parameters_of_a_lens_are_refused_where_there_is_none() -> None:
    with pytest.raises(ParameterError, match="expected no parameters of a lens with lens: motor"):
        make_camera("v4l2", {}, {"port": "/dev/ttyUSB7"})
    with pytest.raises(CameraError, match="camera replay: expected no parameters of a lens"):
        make_camera("replay", {}, {"port": "/dev/ttyUSB7"})


def test_a_lens_may_be_given_as_its_own_dataclass(screw: None) -> None:
    made = make_camera("v4l2", V4L2Options(lens="screw"), _ScrewOptions(turns=2.0))
    assert isinstance(made, V4L2Camera)
    assert made.parts[1].options.turns == 2.0  # type: ignore[attr-defined]


def test_a_motor_of_steps_is_not_believed_to_count_in_diopters() -> None:
    with pytest.raises(ParameterError, match="focus_in_diopters: expected false with lens: motor"):
        V4L2Options(focus_in_diopters=True)
