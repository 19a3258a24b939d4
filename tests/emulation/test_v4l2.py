"""linuxpy itself, unchanged, takes the emulated device for a device of the kernel."""

import errno
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import linuxpy.io
import linuxpy.video.device as video
import numpy as np
import pytest

from hybriddepth_ros.cameras import Clock
from hybriddepth_ros.cameras.v4l2_formats import decode
from hybriddepth_ros.emulation.v4l2 import Faults, webcam_controls
from hybriddepth_ros.emulation.v4l2_parts import (
    EXPOSURE_ABSOLUTE,
    EXPOSURE_AUTO,
    EXPOSURE_AUTO_PRIORITY,
    FOCUS_ABSOLUTE,
    FOCUS_AUTO,
)
from tests.cameras.conftest import ManualClock
from tests.emulated_v4l2 import BOOT_NS, PATH, Scene, emulated, texture

MS = 1_000_000
CAPTURE, MMAP = video.BufferType.VIDEO_CAPTURE, video.Memory.MMAP


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno == number, caught.value


def test_linuxpy_lists_what_the_camera_offers() -> None:
    with emulated(card="Spring"), video.Device(PATH) as device:
        assert (device.info.driver, device.info.card) == ("uvcvideo", "Spring")
        assert [f.pixel_format.human_str() for f in device.info.formats] == ["YUYV", "MJPG"]
        modes = {
            (t.pixel_format.human_str(), t.width, t.height, float(t.max_fps)) for t in device.info.frame_types
        }
        assert ("MJPG", 160, 120, 60.0) in modes and len(modes) == 6


def test_linuxpy_finds_controls_with_ranges_menus_and_defaults() -> None:
    with emulated(), video.Device(PATH) as device:
        controls = device.controls
        assert len(controls) == 10
        focus = controls[FOCUS_ABSOLUTE]
        assert (focus.minimum, focus.maximum, focus.step, focus.default) == (0, 250, 5, 0)
        assert focus.is_flagged_inactive
        assert dict(controls["auto_exposure"]) == {1: "Manual Mode", 3: "Aperture Priority Mode"}


def test_linuxpy_streams_what_the_sensor_saw() -> None:
    scene = Scene()
    with emulated(scene, clock := ManualClock()) as camera, video.Device(PATH) as device:
        capture = video.VideoCapture(device, size=3)
        capture.set_format(64, 48, "YUYV")
        with capture:
            for n, frame in zip(range(6), capture, strict=False):
                assert frame.frame_nb == n
                image = decode(bytes(frame.data), "YUYV", 64, 48)
                assert np.abs(image.astype(int) - scene.image).max() <= 2
        truth = camera.frames
        assert [frame.sequence for frame in truth[:6]] == list(range(6))
        assert clock.ns >= truth[5].delivered_ns
    assert camera.opens == 0


def test_frames_come_on_the_cameras_clock_exposed_read_out_and_transferred() -> None:
    with emulated(readout_ms=20.0, transfer_ms=2.0) as camera, video.Device(PATH) as device:
        device.controls[EXPOSURE_AUTO].value = 1
        device.controls[EXPOSURE_ABSOLUTE].value = 50
        began = camera.clock.now_ns()
        for n, frame in zip(range(4), device, strict=False):
            truth = camera.frames[n]
            assert truth.exposure_start_ns == began + n * round(1e9 / 30)
            assert truth.exposure_end_ns == truth.exposure_start_ns + 25 * MS
            assert truth.delivered_ns == truth.exposure_end_ns + 2 * MS == camera.clock.now_ns()
            # uvcvideo stamps the first packet, whole microseconds of the monotonic clock
            stamp = 1_000_000 * frame.buff.timestamp.secs + frame.buff.timestamp.usecs
            assert stamp == (truth.exposure_start_ns + 5 * MS - BOOT_NS) // 1000
            assert frame.flags & video.BufferFlag.TSTAMP_SRC_SOE


def test_in_the_dark_an_automatic_camera_takes_longer_frames_unless_it_is_told_not_to() -> None:
    with emulated() as camera, video.Device(PATH) as device:
        for _ in zip(range(3), device, strict=False):
            pass
        slow = camera.frames
        device.controls[EXPOSURE_AUTO_PRIORITY].value = False
        for _ in zip(range(3), device, strict=False):
            pass
        quick = camera.frames[len(slow) :]
    assert slow[1].exposure_start_ns - slow[0].exposure_start_ns == 2 * round(1e9 / 30)
    assert quick[1].exposure_start_ns - quick[0].exposure_start_ns == round(1e9 / 30)


def test_controls_behave_as_a_drivers_do() -> None:
    scene = Scene()
    with emulated(scene), video.Device(PATH) as device:
        with refused(errno.EACCES):  # focus is automatic
            video.set_control(device, FOCUS_ABSOLUTE, 50)
        video.set_control(device, FOCUS_AUTO, 0)
        video.set_control(device, FOCUS_ABSOLUTE, 52)
        assert video.get_control(device, FOCUS_ABSOLUTE) == 50  # the nearest step
        video.set_control(device, FOCUS_ABSOLUTE, 9000)
        assert video.get_control(device, FOCUS_ABSOLUTE) == 250
        with refused(errno.EINVAL):
            video.set_control(device, EXPOSURE_AUTO, 2)
        with refused(errno.ERANGE):
            video.set_control(device, EXPOSURE_AUTO, 4)
        with refused(errno.EINVAL):
            video.get_control(device, 0x00980900)
    assert scene.written == [(FOCUS_AUTO, 0), (FOCUS_ABSOLUTE, 50), (FOCUS_ABSOLUTE, 250)]


def test_buffers_behave_as_a_drivers_do() -> None:
    with emulated(), video.Device(PATH) as one, video.Device(PATH) as other:
        with refused(errno.EINVAL):  # none requested
            one.stream_on(CAPTURE)
        one.create_buffers(CAPTURE, MMAP, 2)
        with refused(errno.EBUSY):  # another file has its buffers
            other.set_format(CAPTURE, 64, 48, "YUYV")
        with refused(errno.EBUSY):  # the format is fixed while there are buffers
            one.set_format(CAPTURE, 64, 48, "YUYV")
        one.enqueue_buffer(CAPTURE, MMAP, 0, 0)
        with refused(errno.EINVAL):  # is queued already
            one.enqueue_buffer(CAPTURE, MMAP, 0, 0)
        with refused(errno.EINVAL):  # there is no such buffer
            one.enqueue_buffer(CAPTURE, MMAP, 0, 2)
        with refused(errno.EINVAL):  # does not stream
            one.dequeue_buffer(CAPTURE, MMAP)
        one.stream_on(CAPTURE)
        with refused(errno.EAGAIN):  # nothing has come yet
            one.dequeue_buffer(CAPTURE, MMAP)
        with refused(errno.ENOTTY):
            one.get_edid()
        one.stream_off(CAPTURE)
        one.free_buffers(CAPTURE, MMAP)
        other.set_format(CAPTURE, 64, 48, "YUYV")


def test_frames_without_a_free_buffer_are_lost_and_leave_a_gap() -> None:
    clock = ManualClock()
    with emulated(clock=clock), video.Device(PATH) as device, video.VideoCapture(device, size=2) as capture:
        clock.pass_ms(1000)
        numbers = [frame.frame_nb for _, frame in zip(range(3), capture, strict=False)]
    assert numbers[:2] == [0, 1] and numbers[2] > 10


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (Faults(drop={1, 2}), [0, 3, 4]),
        (Faults(sequence_zero=True), [0, 0, 0]),
    ],
)
def test_faults_of_the_sequence(faults: Faults, expected: list[int]) -> None:
    with emulated(faults=faults), video.Device(PATH) as device:
        assert [frame.frame_nb for _, frame in zip(range(3), device, strict=False)] == expected


def test_an_unplugged_device_answers_enodev_and_opens_again_once_it_is_back() -> None:
    with emulated() as camera:
        device = video.Device(PATH)
        device.open()
        camera.unplug()
        with refused(errno.ENODEV):
            video.get_control(device, FOCUS_AUTO)
        with pytest.raises(FileNotFoundError):
            video.Device(PATH).open()
        camera.plug_in()
        with refused(errno.ENODEV):  # a file from before stays dead
            video.get_control(device, FOCUS_AUTO)
        device.close()
        with video.Device(PATH) as again:
            assert video.get_control(again, FOCUS_AUTO) == 1


def test_everything_else_goes_where_it_went_and_all_is_put_back(tmp_path: Path) -> None:
    before = (linuxpy.io.IO.open, linuxpy.io.IO.select, video.ioctl, video.iter_video_files)
    file = tmp_path / "file"
    file.write_bytes(b"here")
    with emulated(), emulated(path="/dev/video-emulated1"), linuxpy.io.IO.open(file) as opened:
        assert opened.read() == b"here"
        assert linuxpy.io.IO.select.POLLIN == select.POLLIN
        with refused(errno.ENOTTY):
            video.ioctl(opened, video.IOC.QUERYCAP, video.raw.v4l2_capability())
        assert linuxpy.io.IO.select.select([opened], [], [], 0)[0] == [opened]
        with video.Device("/dev/video-emulated1") as one, video.Device(PATH) as other:
            assert one.info.card == other.info.card
            assert one.fileno() != other.fileno()
        assert {str(path) for path in video.iter_video_files()} >= {PATH, "/dev/video-emulated1"}
    assert before == (linuxpy.io.IO.open, linuxpy.io.IO.select, video.ioctl, video.iter_video_files)


def test_by_the_machines_own_clock_frames_come_by_themselves() -> None:
    boot_ns = time.time_ns() - time.monotonic_ns()
    with emulated(clock=Clock(), boot_ns=boot_ns) as camera, video.Device(PATH) as device:
        frames = [frame for _, frame in zip(range(3), device, strict=False)]
        assert [frame.frame_nb for frame in frames] == [0, 1, 2]
        assert camera.frames[2].delivered_ns <= time.time_ns()


def test_a_picture_of_another_size_is_brought_to_the_format() -> None:
    scene = Scene(image=texture(128, 96))
    controls = webcam_controls(without={EXPOSURE_ABSOLUTE})
    with emulated(scene, controls=controls), video.Device(PATH) as device:
        frame = next(iter(device))
        assert decode(bytes(frame.data), "YUYV", 64, 48).shape == (48, 64, 3)
