"""Images and motor of one device: what is set and in which order, whose stamps, what goes wrong."""

import logging
import re
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hybriddepth_ros.cameras import Clock, FrameTimeout, v4l2_discovery
from hybriddepth_ros.cameras import v4l2_controls as cid
from hybriddepth_ros.cameras.focus_check import check_focus_moves, laplacian_variance
from hybriddepth_ros.emulation.v4l2 import Faults, webcam_controls
from hybriddepth_ros.errors import CameraError, LensError
from tests.cameras.conftest import ManualClock
from tests.emulated_v4l2 import PATH, Scene, emulated, parts, texture

MS = 1_000_000
STAMP_NS = 1500  # the kernel tells whole microseconds


def test_settings_are_made_in_the_order_that_works() -> None:
    scene = Scene()
    with emulated(scene) as camera:
        source, motor = parts(camera, exposure_ms=8.0, gain=12, white_balance=5000)
        motor.open()
        source.open()
        motor.command(100)
        source.close()
        motor.close()
    written = list(dict.fromkeys(scene.written))
    assert written == [
        (cid.FOCUS_AUTO, 0),
        (cid.EXPOSURE_AUTO_PRIORITY, 0),
        (cid.EXPOSURE_AUTO, cid.EXPOSURE_MANUAL),
        (cid.EXPOSURE_ABSOLUTE, 80),
        (cid.AUTOGAIN, 0),
        (cid.GAIN, 12),
        (cid.AUTO_WHITE_BALANCE, 0),
        (cid.WHITE_BALANCE_TEMPERATURE, 5000),
        (cid.FOCUS_ABSOLUTE, 100),
    ]


def test_what_the_camera_found_within_a_second_is_locked() -> None:
    with emulated() as camera:
        before = camera.clock.now_ns()
        source, _ = parts(camera)
        source.open()
        assert camera.clock.now_ns() - before == 1000 * MS
        assert camera.value(cid.EXPOSURE_AUTO) == cid.EXPOSURE_MANUAL
        assert camera.value(cid.EXPOSURE_ABSOLUTE) == 120  # and not the 250 that it had been left at
        assert (camera.value(cid.AUTOGAIN), camera.value(cid.GAIN)) == (0, 30)
        assert camera.value(cid.AUTO_WHITE_BALANCE) == 0
        assert camera.value(cid.WHITE_BALANCE_TEMPERATURE) == 4600
        assert source.timing.exposure_ns == 12 * MS
        source.close()


def test_a_camera_that_was_left_at_manual_finds_its_exposure_anew() -> None:
    with emulated() as camera:
        for _ in range(2):
            source, _ = parts(camera, exposure_ms=20.0)
            source.open()
            assert camera.value(cid.EXPOSURE_ABSOLUTE) == 200
            source.close()
        source, _ = parts(camera)
        source.open()
        assert camera.value(cid.EXPOSURE_ABSOLUTE) == 120
        source.close()


def test_the_image_is_what_the_sensor_saw() -> None:
    scene = Scene()
    with emulated(scene, padding=16) as camera:
        source, _ = parts(camera, pixel_format="YUYV")
        source.open()
        frame = source.read()
        assert (source.size, source.frame_rate_hz) == ((64, 48), 30.0)
        assert np.abs(frame.image.astype(int) - scene.image).max() <= 2
        source.close()


@pytest.mark.parametrize("stamped_at", ["first_packet", "exposure_start", "frame_end"])
@pytest.mark.parametrize("exposure_ms", [2.0, 25.0])
def test_exposures_are_told_as_they_truly_were(stamped_at: str, exposure_ms: float) -> None:
    """uvcvideo flags the first packet's time as the exposure's start: other drivers mean it."""
    driver = "uvcvideo" if stamped_at == "first_packet" else "sensor"
    with emulated(stamped_at=stamped_at, driver=driver, readout_ms=18.0) as camera:
        source, _ = parts(camera, exposure_ms=exposure_ms, readout_ms=18.0)
        source.open()
        for _ in range(10):
            frame = source.read()
            (truth,) = [true for true in camera.frames if true.sequence == frame.sequence]
            assert abs(frame.exposure_start_ns - truth.exposure_start_ns) <= STAMP_NS
            assert abs(frame.exposure_end_ns - truth.exposure_end_ns) <= STAMP_NS
        assert source.stamps_replaced == 0 and source.driver_counts_frames
        source.close()


def test_uvcvideo_is_believed_once_it_uses_the_cameras_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameter = tmp_path / "hwtimestamps"
    parameter.write_text("1\n")
    monkeypatch.setattr(v4l2_discovery, "UVC_HARDWARE_STAMPS", parameter)
    with emulated(stamped_at="exposure_start") as camera:
        source, _ = parts(camera, exposure_ms=10.0)
        source.open()
        frame = source.read()
        (truth,) = [true for true in camera.frames if true.sequence == frame.sequence]
        assert abs(frame.exposure_start_ns - truth.exposure_start_ns) <= STAMP_NS
        source.close()


def test_the_option_says_where_the_stamp_lies() -> None:
    with emulated(stamped_at="frame_end", driver="uvcvideo") as camera:
        told = {}
        for stamp in ("exposure_start", "frame_end"):
            source, _ = parts(camera, exposure_ms=10.0, readout_ms=20.0, stamp=stamp)
            source.open()
            frame = source.read()
            truth = [true for true in camera.frames if true.sequence == frame.sequence][-1]
            told[stamp] = frame.exposure_start_ns - truth.exposure_start_ns
            source.close()
    assert told["frame_end"] == pytest.approx(0, abs=STAMP_NS)
    assert told["exposure_start"] == pytest.approx(30 * MS, abs=STAMP_NS)


def test_readout_is_taken_for_nine_tenths_of_the_shortest_frame_period() -> None:
    with emulated() as camera:
        source, _ = parts(camera, width=160, height=120, frame_rate=30.0)
        source.open()
        assert source.timing.readout_ns == pytest.approx(0.9e9 / 60, abs=1)
        source.close()


@pytest.mark.parametrize("stamped_at", ["first_packet", "exposure_start"])
def test_no_exposure_is_said_to_end_after_its_frame_came(stamped_at: str) -> None:
    driver = "uvcvideo" if stamped_at == "first_packet" else "other"
    with emulated(readout_ms=6.0, transfer_ms=2.0, stamped_at=stamped_at, driver=driver) as camera:
        source, _ = parts(camera, exposure_ms=5.0, gain=0, white_balance=4000)
        source.open()
        for _ in range(6):
            frame = source.read()
            assert frame.exposure_end_ns <= source.clock.now_ns()
        # The readout, and the transfer that nobody can tell from it; not the 30 ms of the estimate.
        assert frame.exposure_end_ns - frame.exposure_start_ns == pytest.approx(13 * MS, abs=STAMP_NS)
        source.close()


@pytest.mark.parametrize("stamps", ["zero", "future", "backwards", "unknown"])
def test_stamps_that_cannot_be_true_are_replaced_by_the_arrival(stamps: str) -> None:
    with emulated(faults=Faults(stamps=stamps)) as camera:
        source, _ = parts(camera, exposure_ms=10.0, readout_ms=20.0)
        source.open()
        starts = []
        for _ in range(40):
            frame = source.read()
            (truth,) = [true for true in camera.frames if true.sequence == frame.sequence]
            starts.append(frame.exposure_start_ns)
            # At most by what the frame took after its readout, for the few that were ready by a period.
            assert -40 * MS < frame.exposure_start_ns - truth.exposure_start_ns < 40 * MS
        assert starts == sorted(starts)
        assert source.stamps_replaced >= 15
        source.close()


@pytest.mark.parametrize("step_s", [-2.0, 3600.0])
def test_a_system_clock_that_is_set_is_followed_and_stamps_never_go_back(step_s: float) -> None:
    class Settable(Clock):
        step_ns = 0

        def now_ns(self) -> int:
            return camera.clock.now_ns() + self.step_ns

        def wait(self, event: threading.Event, seconds: float) -> bool:
            return camera.clock.wait(event, seconds)

    with emulated() as camera:
        system = Settable()
        source, motor = parts(camera, system, exposure_ms=10.0, readout_ms=20.0)
        motor.open()
        source.open()
        stamps = [source.read().stamp_ns for _ in range(5)]
        system.step_ns = round(step_s * 1e9)
        frames = [source.read() for _ in range(200)]
        stamps += [frame.stamp_ns for frame in frames]
        assert all(a < b for a, b in pairwise(stamps))
        (truth,) = [true for true in camera.frames if true.sequence == frames[-1].sequence]
        error_ns = frames[-1].exposure_start_ns - (truth.exposure_start_ns + system.step_ns)
        assert abs(error_ns) <= STAMP_NS
        # The motor keeps the same time, so that command and exposure can be compared all along.
        assert 0 <= motor.command(50) - frames[-1].exposure_end_ns < 33 * MS
        source.close()
        motor.close()


def test_frames_that_the_driver_dropped_leave_a_gap() -> None:
    with emulated(faults=Faults(drop=range(3, 5))) as camera:
        source, _ = parts(camera, exposure_ms=5.0, gain=0, white_balance=4000)
        source.open()
        assert [source.read().sequence for _ in range(5)] == [0, 1, 2, 5, 6]
        source.close()


def test_frames_are_counted_for_a_driver_that_does_not() -> None:
    with emulated(faults=Faults(sequence_zero=True, drop=range(3, 5))) as camera:
        source, _ = parts(camera, exposure_ms=5.0, gain=0, white_balance=4000)
        source.open()
        assert [source.read().sequence for _ in range(5)] == [0, 1, 2, 5, 6]
        assert not source.driver_counts_frames
        source.close()


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        (Faults(truncate=range(2, 4)), r"frame 3 dropped: truncated MJPG \(\d+ bytes\); 2 so far"),
        (Faults(damage=range(2, 4)), r"frame 3 dropped: marked as damaged by the driver .*; 2 so far"),
    ],
)
def test_a_damaged_frame_is_dropped_counted_and_told_on_one_line(
    faults: Faults, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    with emulated(faults=faults) as camera:
        source, _ = parts(camera, pixel_format="MJPG", exposure_ms=5.0, gain=0, white_balance=4000)
        source.open()
        with caplog.at_level(logging.WARNING):
            assert [source.read().sequence for _ in range(4)] == [0, 1, 4, 5]
        assert source.frames_damaged == 2
        assert len(caplog.messages) == 2 and "\n" not in caplog.messages[-1]
        assert re.fullmatch(f"camera v4l2 {PATH}: {told}", caplog.messages[-1])
        source.close()


def test_of_many_damaged_frames_ever_fewer_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with emulated(faults=Faults(damage=range(2, 22))) as camera:
        source, _ = parts(camera, pixel_format="MJPG", exposure_ms=5.0, gain=0, white_balance=4000)
        source.open()
        with caplog.at_level(logging.WARNING):
            assert [source.read(5.0).sequence for _ in range(4)] == [0, 1, 22, 23]
        assert [message.rpartition("; ")[2] for message in caplog.messages] == [
            f"{count} so far" for count in (1, 2, 4, 8, 16)
        ]
        source.close()


def test_no_frame_in_time_is_a_timeout_and_the_stream_goes_on() -> None:
    with emulated(faults=Faults(drop=range(1, 31))) as camera:
        source, _ = parts(camera, exposure_ms=5.0, gain=0, white_balance=4000)
        source.open()
        source.read()
        before = camera.clock.now_ns()
        with pytest.raises(FrameTimeout, match=r"no frame within 0\.25 s"):
            source.read(0.25)
        assert camera.clock.now_ns() - before == pytest.approx(250 * MS, abs=MS)
        assert source.read(2.0).sequence == 31
        source.close()


def test_a_camera_that_is_unplugged_and_plugged_in_again_streams_again() -> None:
    with emulated() as camera:
        source, motor = parts(camera)
        motor.open()
        source.open()
        source.read()
        camera.unplug()
        with pytest.raises(CameraError, match="unplugged"):
            source.read()
        with pytest.raises(LensError, match="unplugged"):
            motor.command(100)
        source.close()
        motor.close()
        with pytest.raises(CameraError, match="found none of this name"):
            source.open()
        camera.plug_in()
        motor.open()
        source.open()
        source.read()
        motor.command(100)
        source.close()
        motor.close()
        assert camera.opens == 0


def test_a_closed_source_says_so_and_closes_twice() -> None:
    with emulated() as camera:
        source, _ = parts(camera)
        with pytest.raises(CameraError, match="closed"):
            source.read()
        source.open()
        with pytest.raises(CameraError, match="already open"):
            source.open()
        source.close()
        source.close()
        with pytest.raises(CameraError, match="closed"):
            source.read()
        assert camera.opens == 0


def test_closing_ends_a_read_that_waits() -> None:
    with emulated(clock=Clock(), faults=Faults(drop=range(1, 10**9))) as camera:
        source, _ = parts(camera, exposure_ms=5.0, gain=0, white_balance=4000)
        source.open()
        source.read(10.0)
        told: list[str] = []

        def wait() -> None:
            try:
                source.read(60.0)
            except CameraError as error:
                told.append(str(error))

        reader = threading.Thread(target=wait)
        reader.start()
        source.close()
        reader.join(30.0)
        assert not reader.is_alive() and "closed" in told[0]


def test_a_motor_that_hangs_does_not_hold_up_closing() -> None:
    """A control transfer of a camera that crashed takes five seconds to fail."""
    scene, hangs, goes_on = Scene(), threading.Event(), threading.Event()

    def hang(control_id: int, value: int, time_ns: int) -> None:
        if (control_id, value) == (cid.FOCUS_ABSOLUTE, 100):
            hangs.set()
            goes_on.wait(60.0)

    with emulated(scene, on_control=hang) as camera:
        source, motor = parts(camera, exposure_ms=5.0)
        motor.open()
        source.open()

        def move() -> None:
            with pytest.raises(LensError, match="closed"):
                motor.command(100)

        mover = threading.Thread(target=move)
        mover.start()
        assert hangs.wait(30.0)
        source.close()
        motor.close()
        assert mover.is_alive()  # closed before the transfer was over
        goes_on.set()
        mover.join(30.0)


def test_an_exposure_longer_than_the_frame_period_is_refused() -> None:
    with emulated() as camera:
        source, _ = parts(camera, exposure_ms=40.0)
        with pytest.raises(CameraError, match=r"exposure_ms within the frame period, 33\.3 ms, got 40"):
            source.open()
        assert camera.opens == 0


def test_a_camera_without_an_exposure_control_streams_with_the_longest_assumed() -> None:
    with emulated(controls=webcam_controls(without={cid.EXPOSURE_ABSOLUTE})) as camera:
        source, _ = parts(camera, exposure_ms=5.0)
        with pytest.raises(
            CameraError, match="expected a control for the exposure time, as exposure_ms is 5"
        ):
            source.open()
        assert camera.opens == 0
        source, _ = parts(camera)
        source.open()
        frame = source.read()
        (truth,) = [true for true in camera.frames if true.sequence == frame.sequence]
        assert frame.exposure_start_ns < truth.exposure_start_ns
        assert frame.exposure_end_ns >= truth.exposure_end_ns
        source.close()


def test_a_gain_or_white_balance_that_cannot_be_set_is_refused_by_name() -> None:
    with emulated(controls=webcam_controls(without={cid.GAIN, cid.WHITE_BALANCE_TEMPERATURE})) as camera:
        source, _ = parts(camera, gain=5)
        with pytest.raises(CameraError, match="expected a control for gain, which is 5, found none"):
            source.open()
        source, _ = parts(camera, white_balance=5000)
        with pytest.raises(CameraError, match="expected a control for white_balance, which is 5000"):
            source.open()
        source, _ = parts(camera)
        source.open()
        source.close()


def test_the_motor_is_commanded_while_the_camera_streams() -> None:
    scene = Scene()
    with emulated(scene) as camera:
        source, motor = parts(camera)
        motor.open()
        source.open()
        assert motor.position_range == (0.0, 250.0)
        seen = []
        for position in (0, 250, 98):
            commanded = motor.command(position)
            while (frame := source.read()).exposure_start_ns < commanded:
                pass
            seen.append(laplacian_variance(frame.image))
        assert motor.state().position == 100.0  # the nearest step
        assert seen[0] > seen[2] > seen[1]
        source.close()
        motor.command(0)  # the motor has the device for itself now
        motor.close()
        with pytest.raises(LensError, match="focus motor closed"):
            motor.command(0)


@pytest.mark.parametrize("position", [-1.0, 251.0, float("nan")])
def test_a_position_out_of_range_is_refused(position: float) -> None:
    with emulated() as camera:
        _, motor = parts(camera)
        motor.open()
        with pytest.raises(LensError, match="expected a focus position of 0 to 250, got"):
            motor.command(position)
        motor.close()


def test_a_camera_without_a_motor_is_told_so() -> None:
    with emulated(controls=webcam_controls(without={cid.FOCUS_ABSOLUTE})) as camera:
        _, motor = parts(camera)
        with pytest.raises(LensError, match="expected a focus motor"):
            motor.open()
        assert camera.opens == 0


def test_a_motor_that_reads_back_another_position_is_told_with_both() -> None:
    faults = Faults()
    with emulated(faults=faults) as camera:
        _, motor = parts(camera)
        motor.open()
        faults.focus_reads_back = 30
        with pytest.raises(LensError, match=r"set Focus, Absolute \(0x009a090a\) to 200, reads back 30"):
            motor.command(200)
        motor.close()


def test_a_motor_that_tells_where_it_is_under_way_is_waited_for() -> None:
    faults = Faults()

    class Arriving(ManualClock):
        def wait(self, event: threading.Event, seconds: float) -> bool:
            faults.focus_reads_back = None
            return super().wait(event, seconds)

    with emulated(clock=Arriving(), faults=faults) as camera:
        _, motor = parts(camera)
        motor.open()
        faults.focus_reads_back = 30
        before = camera.clock.now_ns()
        assert motor.command(200) == pytest.approx(before, abs=1)  # when it was told, not when it arrived
        assert camera.clock.now_ns() > before
        motor.close()


@pytest.mark.parametrize("sharp_at", [0, 125, 250])
def test_a_focus_that_moves_is_seen_to(sharp_at: int) -> None:
    scene = Scene(sharp_at)
    with emulated(scene) as camera:
        source, motor = parts(camera)
        motor.open()
        source.open()
        motor.command(40)
        seen = check_focus_moves(source, motor)
        assert max(seen) == seen[(0, 125, 250).index(sharp_at)] > 2 * min(seen)
        assert motor.state().position == 40.0
        source.close()
        motor.close()


@pytest.mark.parametrize("what", ["ignored", "wall"])
def test_a_focus_that_is_ignored_or_seen_on_a_plain_wall_is_told(what: str) -> None:
    scene = Scene(image=texture() if what == "ignored" else np.full((48, 64, 3), 90, np.uint8))
    with emulated(scene, faults=Faults(focus_ignored=what == "ignored")) as camera:
        source, motor = parts(camera)
        motor.open()
        source.open()
        with pytest.raises(CameraError, match=r"took its commands but the image did not change.* at 250"):
            check_focus_moves(source, motor)
        source.close()
        motor.close()
