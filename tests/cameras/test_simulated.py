import threading

import numpy as np
import pytest

from hybriddepth_ros.cameras import CameraFrame, FocusSweep
from hybriddepth_ros.cameras.simulated import SimulatedCamera, SimulatedCameraOptions
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.optics import blur_px_per_diopter
from hybriddepth_ros.simulation import breathing_intrinsics, desk_scene, develop, render, render_depth
from tests.cameras.conftest import FOCI, ManualClock, small_camera


def frames_at(camera: SimulatedCamera, focus: float, count: int) -> list[CameraFrame]:
    """Frames that show a focus, in order."""
    settled = camera.command_focus(focus)
    frames = []
    while len(frames) < count:
        frame = camera.read()
        if frame.exposure_start_ns >= settled:
            frames.append(frame)
    return frames


def expected_image(camera: SimulatedCamera, frame: CameraFrame) -> np.ndarray:
    """What a camera that does not move must show at the frame's focus."""
    linear, _ = render(
        desk_scene(camera.options.seed), np.eye(4), frame.camera, camera.lens, frame.focus_diopters
    )
    return develop(linear)


def test_the_default_camera_blurs_by_a_dozen_pixels_per_diopter_and_sees_its_desk_in_focus() -> None:
    camera = SimulatedCamera(SimulatedCameraOptions())
    assert 10 < blur_px_per_diopter(camera.lens, 1.4) < 14
    low, high = camera.focus_range_diopters
    assert low <= min(camera.default_focus_diopters) < max(camera.default_focus_diopters) <= high
    steps = np.diff(camera.default_focus_diopters)
    assert len(steps) == 4 and np.allclose(steps, steps[0])
    _, depth = render(desk_scene(0), np.eye(4), camera._at_infinity, None, 0.0)
    inverse = np.percentile(1 / depth, [2, 98])
    assert inverse[0] > min(camera.default_focus_diopters) - 0.1
    assert inverse[1] < max(camera.default_focus_diopters) + 0.1


def test_a_frame_shows_its_focus_with_the_intrinsics_of_that_focus(clock: ManualClock) -> None:
    with small_camera(clock) as camera:
        for focus in FOCI:
            (frame,) = frames_at(camera, focus, 1)
            assert frame.focus_diopters == focus
            assert frame.camera == breathing_intrinsics(camera._at_infinity, focus, 0.8)
            assert np.array_equal(frame.image, expected_image(camera, frame))


def test_ground_truth_is_the_depth_of_the_frame_s_own_pose_and_breathing(clock: ManualClock) -> None:
    with small_camera(clock, motion="sway", motion_mm=40.0) as camera:
        camera.prepare(FOCI)
        for focus in FOCI:
            (frame,) = frames_at(camera, focus, 1)
            assert frame.ground_truth_depth is not None
            assert frame.ground_truth_depth.dtype == np.float32
            steps = range(camera._loop_frames)
            depths = [render_depth(desk_scene(0), camera.pose(step), frame.camera) for step in steps]
            # Exactly one step of the path has this depth: the one that the image must have been taken from.
            same = [step for step in steps if np.array_equal(depths[step], frame.ground_truth_depth)]
            assert len(same) == 1
            linear, _ = render(desk_scene(0), camera.pose(same[0]), frame.camera, camera.lens, focus)
            assert np.array_equal(frame.image, develop(linear))


def test_the_sway_is_smooth_closed_and_of_the_amplitude_asked_for() -> None:
    camera = small_camera(motion="sway", motion_mm=10.0, loop_frames=40)
    positions = np.array([camera.pose(step)[:3, 3] for step in range(81)])
    assert np.allclose(positions[0], positions[40]) and np.allclose(positions[1], positions[41])
    assert 0.009 < np.abs(positions[:, 0]).max() < 0.0101
    assert np.linalg.norm(np.diff(positions, axis=0), axis=1).max() < 0.003


def test_without_motion_the_camera_stands_still(clock: ManualClock) -> None:
    with small_camera(clock) as camera:
        first, second = frames_at(camera, 1.2, 2)
        assert np.array_equal(first.image, second.image)
        assert np.array_equal(first.ground_truth_depth, second.ground_truth_depth)


def test_breathing_can_be_switched_off(clock: ManualClock) -> None:
    with small_camera(clock, breathing_percent_per_diopter=0.0) as camera:
        assert len({frames_at(camera, focus, 1)[0].camera.fx for focus in FOCI}) == 1


def test_noise_differs_between_frames_but_not_between_runs() -> None:
    runs = []
    for _ in range(2):
        with small_camera(ManualClock(), noise=True) as camera:
            camera.prepare(FOCI[:1])
            runs.append(frames_at(camera, FOCI[0], 3))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(*runs, strict=True))
    assert not np.array_equal(runs[0][0].image, runs[0][1].image)


def test_after_preparing_a_sweep_nothing_is_rendered(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = small_camera(clock, motion="sway", loop_frames=10)
    calls: list[tuple[int, int]] = []
    camera.prepare(FOCI, lambda done, total: calls.append((done, total)))
    assert calls == [(n, 9) for n in range(1, 10)]  # ten poses, rounded to three whole sweeps
    with camera:
        monkeypatch.setattr(camera, "_render", lambda *_: pytest.fail("rendered while streaming"))
        frames = FocusSweep(camera, FOCI).frames()
        assert [next(frames).frame.focus_diopters for _ in range(40)] == [FOCI[n % 3] for n in range(40)]
        clock.pass_ms(70)  # a hiccup: the sweep is no longer in step with the path
        assert [next(frames).frame.focus_diopters for _ in range(20)] == [
            FOCI[(n + 40) % 3] for n in range(20)
        ]
        camera.prepare(FOCI)


def test_a_picture_that_stands_in_is_from_the_nearest_step_of_the_path(clock: ManualClock) -> None:
    with small_camera(clock, motion="sway", motion_mm=40.0, loop_frames=24) as camera:
        camera.prepare(FOCI)  # every third step of the path has a picture of a focus
        for focus in 2 * FOCI:
            for frame in frames_at(camera, focus, 4):
                depths = [render_depth(desk_scene(0), camera.pose(step), frame.camera) for step in range(24)]
                (shown,) = (n for n, d in enumerate(depths) if np.array_equal(d, frame.ground_truth_depth))
                assert min((shown - frame.sequence) % 24, (frame.sequence - shown) % 24) <= 1


def test_frames_cannot_be_written_into(clock: ManualClock) -> None:
    """They are shown again: whoever drew into one would draw into all that follow."""
    with small_camera(clock) as camera:
        frame = camera.read()
        assert frame.ground_truth_depth is not None
        for array in (frame.image, frame.ground_truth_depth):
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 0


def test_a_lens_on_the_move_smears_between_its_ends(clock: ManualClock) -> None:
    with small_camera(clock) as camera:
        camera.prepare(FOCI)
        frames_at(camera, FOCI[0], 1)
        clock.pass_ms(33.3 - 16 - 1)  # one millisecond before the next exposure
        settled = camera.command_focus(FOCI[1])
        moving = camera.read()
        assert moving.exposure_start_ns < settled
        assert FOCI[0] < moving.focus_diopters < FOCI[1]
        ends = [camera._picture(0, focus).image.astype(int) for focus in FOCI[:2]]
        assert (moving.image >= np.minimum(*ends) - 1).all() and (moving.image <= np.maximum(*ends) + 1).all()


def test_memory_for_pictures_is_bounded(clock: ManualClock) -> None:
    with small_camera(clock, cache_mb=1, motion="sway", loop_frames=60) as camera:
        for focus in np.linspace(0.0, 2.5, 50):
            frames_at(camera, float(focus), 1)
        assert len(camera._pictures._pictures) <= 10**6 // (80 * 60 * 7)


def test_closing_ends_a_preparation() -> None:
    camera = small_camera(motion="sway", loop_frames=3000)
    started = threading.Event()
    errors: list[Exception] = []

    def prepare() -> None:
        try:
            camera.prepare(FOCI, lambda done, total: started.set())
        except CameraError as error:
            errors.append(error)

    worker = threading.Thread(target=prepare)
    worker.start()
    assert started.wait(20.0)
    camera.close()
    worker.join(20.0)
    assert not worker.is_alive()
    assert "closed" in str(errors[0])
