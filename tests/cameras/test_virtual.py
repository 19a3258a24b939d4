"""The timing rules of a camera, told by a clock that only moves when it is waited for."""

import threading
import time

import numpy as np
import pytest

from hybriddepth_ros.cameras import FrameTimeout
from hybriddepth_ros.cameras.virtual import LensMotion, Picture, SensorTiming, VirtualCamera, VirtualLens
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from tests.cameras.conftest import START_NS, ManualClock

MS = 1_000_000
INTRINSICS = CameraIntrinsics(10.0, 10.0, 1.5, 1.5, 4, 4)


class NumberedCamera(VirtualCamera):
    """Shows the number of its frame."""

    def __init__(self, clock: ManualClock | None = None, frame_rate_hz: float = 50.0) -> None:
        super().__init__("numbered", SensorTiming(frame_rate_hz, 4.0, 3.0, 5.0, buffers=3), 1.0, clock)

    @property
    def focus_range_diopters(self) -> tuple[float, float]:
        return (0.0, 4.0)

    def _expose(self, sequence: int, lens: LensMotion) -> Picture:
        return Picture(np.full((4, 4), sequence % 256, np.uint8), lens.mean_diopters, INTRINSICS)


def test_frames_start_at_a_fixed_rate_and_come_after_exposure_and_readout(clock: ManualClock) -> None:
    with NumberedCamera(clock) as camera:
        for n in range(5):
            frame = camera.read()
            assert frame.sequence == n == frame.image[0, 0]
            assert frame.exposure_start_ns == START_NS + n * 20 * MS
            assert frame.stamp_ns == frame.exposure_start_ns + 2 * MS
            assert clock.ns == frame.exposure_start_ns + 7 * MS


def test_a_late_reader_gets_what_was_buffered_and_then_a_gap(clock: ManualClock) -> None:
    with NumberedCamera(clock) as camera:
        assert camera.read().sequence == 0
        clock.pass_ms(200)  # frames 1 to 10 arrive, three of them find a buffer
        assert [camera.read().sequence for _ in range(5)] == [1, 2, 3, 11, 12]


def test_a_frame_has_the_focus_that_held_during_its_exposure(clock: ManualClock) -> None:
    with NumberedCamera(clock) as camera:
        camera.read()  # the clock stands at 7 ms, frame 1 will be exposed from 20 to 24 ms
        assert camera.command_focus(3.0) == clock.ns + 5 * MS
        clock.pass_ms(14)  # 21 ms: frame 1 is being exposed
        assert camera.command_focus(2.0) == START_NS + 26 * MS
        moving = camera.read()
        assert 2.0 < moving.focus_diopters < 3.0
        assert camera.read().focus_diopters == 2.0


def test_the_settled_time_is_the_first_at_which_a_frame_shows_the_focus(clock: ManualClock) -> None:
    lens = VirtualLens(1.0, 5 * MS)
    settled = lens.command(START_NS, 2.0)
    assert not lens.motion(settled - 1, settled + 4 * MS).still
    assert lens.motion(settled, settled + 4 * MS) == LensMotion(2.0, 2.0, 2.0)


def test_a_lens_told_to_stay_does_not_have_to_settle() -> None:
    lens = VirtualLens(1.0, 5 * MS)
    assert lens.command(START_NS, 1.0) == START_NS
    assert lens.command(START_NS + MS, 2.0) == START_NS + 6 * MS
    assert lens.command(START_NS + 2 * MS, 2.0) == START_NS + 7 * MS  # still under way


def test_a_lens_moves_evenly_and_its_mean_is_that_of_the_exposure() -> None:
    lens = VirtualLens(1.0, 10 * MS)
    lens.command(START_NS, 2.0)
    motion = lens.motion(START_NS + 2 * MS, START_NS + 6 * MS)
    assert (motion.origin_diopters, motion.target_diopters) == (1.0, 2.0)
    assert motion.mean_diopters == pytest.approx(1.4)


def test_a_frame_that_does_not_come_in_time_is_a_timeout(clock: ManualClock) -> None:
    with NumberedCamera(clock, frame_rate_hz=1.0) as camera:
        camera.read()
        before = clock.ns
        with pytest.raises(FrameTimeout, match=r"no frame within 0\.1 s"):
            camera.read(0.1)
        assert clock.ns - before == pytest.approx(100 * MS, abs=10)
        assert camera.read(2.0).sequence == 1


@pytest.mark.parametrize("focus", [-0.1, 4.5, float("nan")])
def test_a_focus_out_of_range_is_refused_with_the_range(focus: float, clock: ManualClock) -> None:
    with (
        NumberedCamera(clock) as camera,
        pytest.raises(CameraError, match="expected a focus of 0 to 4 diopters"),
    ):
        camera.command_focus(focus)


def test_a_closed_camera_says_so_and_closes_twice() -> None:
    camera = NumberedCamera()
    with pytest.raises(CameraError, match="closed"):
        camera.read()
    camera.open()
    camera.close()
    camera.close()
    with pytest.raises(CameraError, match="closed"):
        camera.read()


def test_closing_ends_a_read_that_waits() -> None:
    camera = NumberedCamera(frame_rate_hz=0.05)
    camera.open()
    camera.read(5.0)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            camera.read(30.0)
        except CameraError as error:
            errors.append(error)

    reader = threading.Thread(target=wait)
    reader.start()
    time.sleep(0.05)
    camera.close()
    reader.join(5.0)
    assert not reader.is_alive()
    assert "closed" in str(errors[0])
