"""Finding, opening and setting a V4L2 device, and what is told of it when that fails."""

import subprocess
import sys
from pathlib import Path

import linuxpy.video.device as video
import pytest

from hybriddepth_ros.cameras import v4l2_controls as cid
from hybriddepth_ros.cameras import v4l2_device, v4l2_discovery
from hybriddepth_ros.cameras.v4l2_device import V4L2Device
from hybriddepth_ros.cameras.v4l2_formats import FORMATS
from hybriddepth_ros.emulation.v4l2 import EmulatedMode, Faults, webcam_controls
from hybriddepth_ros.errors import CameraError
from tests.emulated_v4l2 import PATH, emulated


@pytest.fixture(autouse=True)
def no_other_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the machine that runs the tests are not to be found."""
    monkeypatch.setattr(video, "iter_video_files", lambda path="/dev": iter(()))


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree as sysfs has it: the interface's folder lies within that of the USB device."""
    root = tmp_path / "sys"
    monkeypatch.setattr(v4l2_discovery, "SYSFS", root / "class")
    for n, serial in enumerate(("A1", "B2")):
        interface = root / f"usb{n}" / "1-1:1.0"
        node = root / "class" / f"video-emulated{n}"
        interface.mkdir(parents=True)
        (interface.parent / "serial").write_text(f"{serial}\n")
        node.mkdir(parents=True)
        (node / "device").symlink_to(interface)
        (node / "name").write_text("Emulated camera\n")
    return root


def test_the_only_camera_is_found_without_a_name() -> None:
    with emulated():
        device = V4L2Device()
        device.open()
        assert device.path == PATH
        device.close()


def test_a_camera_is_found_by_its_serial_number(sysfs: Path) -> None:
    with emulated(), emulated(path="/dev/video-emulated1"):
        device = V4L2Device(serial_number="B2")
        device.open()
        assert device.path == "/dev/video-emulated1"
        device.close()


def test_one_of_several_has_to_be_named_and_all_are_listed(sysfs: Path) -> None:
    with emulated(), emulated(path="/dev/video-emulated1"):
        with pytest.raises(
            CameraError, match=r"or device, found .*emulated0 \(A1, Emul.*emulated1 \(B2, Emul"
        ):
            V4L2Device().open()
        with pytest.raises(CameraError, match=r"serial_number C3, found .*emulated0 \(A1"):
            V4L2Device(serial_number="C3").open()


def test_no_camera_at_all_is_told_as_such() -> None:
    with emulated() as camera:
        camera.unplug()
        with pytest.raises(CameraError, match="expected one that captures, or device, found none"):
            V4L2Device().open()
    with pytest.raises(CameraError, match="/dev/video-nowhere: expected a video device, found none"):
        V4L2Device("/dev/video-nowhere").open()
    with pytest.raises(CameraError, match="either device or serial_number"):
        V4L2Device(PATH, "A1").open()


def test_devices_that_this_user_may_not_open_are_told_with_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "video0").touch()
    monkeypatch.setattr(v4l2_discovery, "DEV", tmp_path)
    monkeypatch.setattr(v4l2_discovery.os, "access", lambda path, mode: False)
    with pytest.raises(CameraError, match=r"found none but .*/video0, which only the group `video` may open"):
        V4L2Device().open()


def test_a_link_by_id_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "usb-Emulated_camera-video-index0"
    link.symlink_to(PATH)
    with emulated():
        device = V4L2Device(str(link))
        device.open()
        assert device.path == PATH
        device.close()


def test_a_file_that_is_no_video_device_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "video9"
    file.touch()
    with pytest.raises(CameraError, match="video9: could not query: Inappropriate ioctl"):
        V4L2Device(str(file)).open()


def test_a_device_is_open_until_the_last_part_of_it_is_closed() -> None:
    with emulated() as camera:
        device = V4L2Device(PATH)
        device.open()
        device.open()
        device.close()
        assert camera.opens == 1
        device.close()
        device.close()
        assert camera.opens == 0
        with pytest.raises(CameraError, match="closed"):
            device.modes()


def opened(*arguments: str) -> V4L2Device:
    device = V4L2Device(*arguments)
    device.open()
    return device


def test_modes_are_listed_with_their_rates() -> None:
    with emulated():
        device = opened(PATH)
        assert [str(mode) for mode in device.modes()] == [
            "YUYV 64x48 at 30, 15 Hz",
            "MJPG 64x48 at 30, 15 Hz",
            "MJPG 160x120 at 60, 30 Hz",
        ]
        device.close()


@pytest.mark.parametrize(
    ("wanted", "fourcc"), [((64, 48, 30), "YUYV"), ((160, 120, 60), "MJPG"), ((64, 48, 15), "YUYV")]
)
def test_automatic_takes_what_is_not_compressed_if_it_is_fast_enough(
    wanted: tuple[int, int, int], fourcc: str
) -> None:
    with emulated():
        device = opened(PATH)
        got = device.configure("auto", *wanted)
        assert (got.fourcc, got.width, got.height, got.rate_hz) == (fourcc, *wanted)
        device.close()


@pytest.mark.parametrize("fourcc", [fourcc for fourcc in FORMATS if fourcc != "MJPG"])
def test_automatic_takes_compression_only_where_there_is_nothing_else(fourcc: str) -> None:
    with emulated(modes=(EmulatedMode("MJPG", 64, 48, (30,)), EmulatedMode(fourcc, 64, 48, (30,)))):
        device = opened(PATH)
        assert device.configure("auto", 64, 48, 30.0).fourcc == fourcc
        device.close()


def test_automatic_goes_by_the_rate_at_that_size() -> None:
    modes = (EmulatedMode("YUYV", 64, 48, (5,)), EmulatedMode("MJPG", 64, 48, (30,)))
    with emulated(modes=modes):
        device = opened(PATH)
        assert device.configure("auto", 64, 48, 30.0).fourcc == "MJPG"
        assert device.configure("auto", 64, 48, 5.0).fourcc == "YUYV"
        device.close()


def test_a_device_that_takes_any_size_of_a_range_is_set_within_it() -> None:
    modes = (EmulatedMode("GREY", 32, 24, (60, 30), maximum=(640, 480)), EmulatedMode("MJPG", 64, 48, (30,)))
    with emulated(modes=modes):
        device = opened(PATH)
        assert str(device.modes()[0]) == "GREY 32x24 to 640x480 at 60, 30 Hz"
        got = device.configure("auto", 322, 200, 60.0)
        assert (got.fourcc, got.width, got.height, got.rate_hz) == ("GREY", 322, 200, 60.0)
        with pytest.raises(CameraError, match="expected GREY 32x24 to 640x480 at 60, 30 Hz; MJPG"):
            device.configure("GREY", 322, 500, 60.0)
        with pytest.raises(CameraError, match="set GREY 323x200 at 60 Hz, reads back GREY 322x200"):
            device.configure("GREY", 323, 200, 60.0)
        device.close()


def test_a_size_or_format_that_is_not_offered_is_refused_with_the_list() -> None:
    listed = r"expected YUYV 64x48 at 30, 15 Hz; MJPG 64x48 at 30, 15 Hz; MJPG 160x120 at 60, 30 Hz, got "
    with emulated():
        device = opened(PATH)
        with pytest.raises(CameraError, match=listed + "YUYV 160x120 at 30 Hz"):
            device.configure("YUYV", 160, 120, 30.0)
        with pytest.raises(CameraError, match=listed + "GREY 64x48 at 30 Hz"):
            device.configure("GREY", 64, 48, 30.0)
        device.close()


def test_a_rate_or_size_that_reads_back_otherwise_is_told_with_both() -> None:
    faults = Faults()
    with emulated(faults=faults):
        device = opened(PATH)
        with pytest.raises(
            CameraError, match="set YUYV 64x48 at 25 Hz, reads back YUYV 64x48 at 30 Hz; it off"
        ):
            device.configure("YUYV", 64, 48, 25.0)
        faults.size = (32, 24)
        with pytest.raises(CameraError, match="set YUYV 64x48 at 30 Hz, reads back YUYV 32x24 at 30 Hz"):
            device.configure("YUYV", 64, 48, 30.0)
        device.close()


def test_a_driver_that_tells_no_frame_rate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves the frame period at 0/0."""
    monkeypatch.setattr(video, "get_parm", lambda fd, kind: video.raw.v4l2_streamparm(type=kind))
    with emulated():
        device = opened(PATH)
        with pytest.raises(CameraError, match="set YUYV 64x48 at 30 Hz, but it tells no frame rate"):
            device.configure("YUYV", 64, 48, 30.0)
        device.close()


def test_controls_are_known_by_number_whatever_they_are_called() -> None:
    controls = webcam_controls()
    for control in controls:
        control.name = f"Renamed {control.id}"
    with emulated(controls=controls) as camera:
        device = opened(PATH)
        auto, focus = device.control(cid.FOCUS_AUTO), device.control(cid.FOCUS_ABSOLUTE)
        assert auto is not None and focus is not None
        assert (focus.minimum, focus.maximum, focus.step) == (0, 250, 5)
        device.set(auto, 0)
        device.set(focus, 45)
        assert (camera.value(cid.FOCUS_AUTO), camera.value(cid.FOCUS_ABSOLUTE)) == (0, 45)
        device.close()


def test_a_menu_knows_its_items_and_refuses_others() -> None:
    with emulated():
        device = opened(PATH)
        exposure = device.control(cid.EXPOSURE_AUTO)
        assert exposure is not None and exposure.items == (1, 3)
        with pytest.raises(CameraError, match=r"Auto Exposure \(0x009a0901\): expected one of 1, 3, got 2"):
            device.set(exposure, 2)
        device.close()


def test_a_value_that_the_kernel_would_quietly_change_is_refused() -> None:
    with emulated() as camera:
        device = opened(PATH)
        lines, focus = device.control(cid.POWER_LINE_FREQUENCY), device.control(cid.FOCUS_ABSOLUTE)
        assert lines is not None and focus is not None
        device.set(lines, 1)
        for value in (-5, 251, 47):
            with pytest.raises(CameraError, match=f"expected 0 to 250 in steps of 5, got {value}"):
                device.set(focus, value)
        assert camera.value(cid.POWER_LINE_FREQUENCY) == 1
        device.close()


def test_a_value_that_reads_back_otherwise_is_told_with_both() -> None:
    with emulated(faults=Faults(focus_reads_back=20)):
        device = opened(PATH)
        auto, focus = device.control(cid.FOCUS_AUTO), device.control(cid.FOCUS_ABSOLUTE)
        assert auto is not None and focus is not None
        device.set(auto, 0)
        with pytest.raises(CameraError, match=r"set Focus, Absolute \(0x009a090a\) to 50, reads back 20"):
            device.set(focus, 50)
        device.close()


def test_a_control_that_an_automatic_holds_is_told_by_name() -> None:
    with emulated():
        device = opened(PATH)
        focus = device.control(cid.FOCUS_ABSOLUTE)
        assert focus is not None
        with pytest.raises(CameraError, match=r"could not set Focus, Absolute .* to 50: .*automatically"):
            device.set(focus, 50)
        assert device.control(0x00980900) is None  # brightness: it has none
        device.close()


def test_a_busy_device_is_told_with_the_process_that_has_it(tmp_path: Path) -> None:
    path = tmp_path / "video0"
    path.touch()
    code = "import sys; f = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path)]
    with (
        emulated(path=str(path), faults=Faults(busy=True)),
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder,
        path.open(),  # this process is not named: it is the one that asks
    ):
        assert holder.stdout is not None and holder.stdin is not None
        holder.stdout.readline()
        name = Path(f"/proc/{holder.pid}/comm").read_text().strip()
        device = opened(str(path))
        with pytest.raises(
            CameraError, match=rf"could not set YUYV 64x48 .*: in use by {name} \(pid {holder.pid}\)"
        ):
            device.configure("YUYV", 64, 48, 30.0)
        device.close()
        holder.stdin.close()


def test_a_device_that_this_process_streams_from_is_busy_too() -> None:
    with emulated():
        first, second = opened(PATH), opened(PATH)
        first.configure("YUYV", 64, 48, 30.0)
        first.start()
        with pytest.raises(CameraError, match="in use by another process or another part of this one"):
            second.configure("YUYV", 64, 48, 30.0)
        first.stop()
        second.configure("YUYV", 64, 48, 30.0)
        first.close()
        second.close()


def test_buffers_come_in_order_and_none_is_a_timeout() -> None:
    with emulated() as camera:
        device = opened(PATH)
        device.configure("YUYV", 64, 48, 30.0)
        device.start()
        buffers = [device.read(1.0) for _ in range(4)]
        assert [buffer.sequence for buffer in buffers if buffer] == [0, 1, 2, 3]
        before = camera.clock.now_ns()
        assert device.read(0.005) is None
        assert camera.clock.now_ns() - before == 5_000_000
        device.stop()
        with pytest.raises(CameraError, match="closed"):
            device.read(1.0)
        device.start()
        first = device.read(1.0)
        assert first is not None and first.sequence == 0
        device.close()


def test_a_device_unplugged_in_mid_stream_says_so_and_closes() -> None:
    with emulated(faults=Faults(unplug_at=2)) as camera:
        device = opened(PATH)
        device.configure("YUYV", 64, 48, 30.0)
        device.start()
        device.read(1.0)
        device.read(1.0)
        with pytest.raises(CameraError, match=f"camera v4l2 {PATH}: unplugged"):
            device.read(1.0)
        device.close()
        assert camera.opens == 0


@pytest.mark.parametrize("busy", ["_reading", "_setting"])
def test_a_transfer_that_hangs_does_not_hold_up_close(busy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v4l2_device, "_RELEASE_S", 0.05)
    with emulated() as camera:
        device = opened(PATH)
        device.configure("YUYV", 64, 48, 30.0)
        device.start()
        with getattr(device, busy):  # as during a transfer that does not return
            device.close()
            assert camera.opens == 1
            with pytest.raises(CameraError, match="still not released"):
                device.open()
        device.open()
        device.close()
