from pathlib import Path

import cv2
import numpy as np
import pytest

from hybriddepth_ros.cameras import FocusSweep, make_camera
from hybriddepth_ros.cameras.replay import ReplayCamera, ReplayCameraOptions
from hybriddepth_ros.errors import CameraEnded, CameraError, HybridDepthError
from tests.cameras.conftest import ManualClock

DISTANCES = (0.5, 1.0, 2.0)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Three images, each of one brightness, named by their distances."""
    for index, distance in enumerate(DISTANCES):
        cv2.imwrite(
            str(tmp_path / f"image_{index}_{distance:.2f}.png"),
            np.full((48, 64, 3), 60 * (index + 1), np.uint8),
        )
    return tmp_path


def test_it_suggests_the_stack_s_own_focus(stack: Path) -> None:
    camera = make_camera("replay", {"stack": str(stack)})
    assert camera.default_focus_diopters == (2.0, 1.0, 0.5)
    assert camera.focus_range_diopters == (0.5, 2.0)


def test_a_sweep_shows_each_slice_with_its_focus(stack: Path, clock: ManualClock) -> None:
    with ReplayCamera(ReplayCameraOptions(stack=str(stack)), clock) as camera:
        frames = FocusSweep(camera, camera.default_focus_diopters).frames()
        seen = [
            (f.frame.focus_diopters, f.frame.image[0, 0, 0], f.slice_index)
            for f in (next(frames) for _ in range(9))
        ]
    assert seen == 3 * [(2.0, 60, 0), (1.0, 120, 1), (0.5, 180, 2)]


def test_a_focus_between_two_slices_goes_to_the_nearest(stack: Path, clock: ManualClock) -> None:
    with ReplayCamera(ReplayCameraOptions(stack=str(stack)), clock) as camera:
        settled = camera.command_focus(1.4)
        frame = next(f for f in iter(camera.read, None) if f.exposure_start_ns >= settled)
        assert frame.focus_diopters == 1.0


def test_a_frame_belongs_to_the_focus_commanded_before_its_exposure(stack: Path, clock: ManualClock) -> None:
    with ReplayCamera(ReplayCameraOptions(stack=str(stack)), clock) as camera:
        camera.read()
        clock.pass_ms(20)  # 36 ms: the next exposure began at 33.3
        camera.command_focus(0.5)
        assert camera.read().image[0, 0, 0] == 60
        assert camera.read().image[0, 0, 0] == 180


def test_width_reduces_images_and_intrinsics_together(stack: Path, clock: ManualClock) -> None:
    full = ReplayCamera(ReplayCameraOptions(stack=str(stack)), clock)
    half = ReplayCamera(ReplayCameraOptions(stack=str(stack), width=32), clock)
    with full, half:
        before, after = full.read().camera, half.read().camera
        assert half.read().image.shape == (24, 32, 3)
    assert (after.width, after.height) == (32, 24)
    assert (after.fx, after.cx, after.cy) == (pytest.approx(before.fx / 2), 15.5, 11.5)
    assert before.fx == pytest.approx(32 / np.tan(np.radians(32.5)))  # guessed from 65 degrees across


def test_intrinsics_and_lens_of_a_manifest_are_used(stack: Path, clock: ManualClock) -> None:
    (stack / "stack.yaml").write_text(
        "slices:\n"
        + "".join(
            f"- {{image: image_{i}_{d:.2f}.png, focus_diopters: {1 / d}}}\n" for i, d in enumerate(DISTANCES)
        )
        + "camera: {fx: 70, fy: 71, cx: 31, cy: 23}\n"
        + "lens: {focal_length_mm: 4.0, f_number: 1.8, pixel_pitch_um: 5.0}\n"
    )
    with ReplayCamera(ReplayCameraOptions(stack=str(stack), width=32), clock) as camera:
        frame = camera.read()
        assert (frame.camera.fx, frame.camera.fy) == (35, 35.5)
        assert camera.lens is not None and camera.lens.pixel_pitch_um == pytest.approx(10.0)


def test_frames_that_a_sweep_discards_are_no_part_of_the_pass(stack: Path, clock: ManualClock) -> None:
    """The lens settles slowly, and frames were taken before the sweep began."""
    options = ReplayCameraOptions(stack=str(stack), loop=False, settle_ms=50.0)
    with ReplayCamera(options, clock) as camera:
        clock.pass_ms(100)
        sweep = FocusSweep(camera, (0.5, 1.0, 2.0))
        frames = sweep.frames()
        assert [next(frames).frame.focus_diopters for _ in range(3)] == [0.5, 1.0, 2.0]
        with pytest.raises(CameraEnded, match="the end of"):
            next(frames)
    assert sweep.statistics.frames_discarded > 0


def test_without_looping_it_ends_after_one_pass(stack: Path, clock: ManualClock) -> None:
    with ReplayCamera(ReplayCameraOptions(stack=str(stack), loop=False), clock) as camera:
        frames = FocusSweep(camera, camera.default_focus_diopters).frames()
        assert len([next(frames) for _ in range(3)]) == 3
        with pytest.raises(CameraEnded, match="the end of"):
            next(frames)


def test_a_stack_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HybridDepthError, match="nowhere"):
        make_camera("replay", {"stack": str(tmp_path / "nowhere")})
    with pytest.raises(CameraError, match="STACK folder"):
        make_camera("replay", {})
