"""What an emulated V4L2 camera consists of: modes, controls, faults, and how it encodes images."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

INTEGER, BOOLEAN, MENU = 1, 2, 3  # enum v4l2_ctrl_type

AUTO_WHITE_BALANCE, AUTOGAIN, GAIN = 0x0098090C, 0x00980912, 0x00980913
POWER_LINE_FREQUENCY, WHITE_BALANCE_TEMPERATURE = 0x00980918, 0x0098091A
EXPOSURE_AUTO, EXPOSURE_ABSOLUTE, EXPOSURE_AUTO_PRIORITY = 0x009A0901, 0x009A0902, 0x009A0903
FOCUS_ABSOLUTE, FOCUS_AUTO = 0x009A090A, 0x009A090C


@dataclass
class EmulatedControl:
    """A control and what it is set to.

    automatic: (control, its value that is manual), by which this one is inactive while the camera sets it;
    found: what the camera then arrives at.
    """

    id: int
    name: str
    kind: int
    minimum: int
    maximum: int
    step: int
    default: int
    items: dict[int, str] = field(default_factory=dict)
    automatic: tuple[int, int] | None = None
    found: int = 0
    value: int = 0

    def __post_init__(self) -> None:
        self.value = self.default


def webcam_controls(without: Container[int] = ()) -> list[EmulatedControl]:
    """Those of a usual UVC camera with a focus motor, all automatic, as after plugging in."""
    balance, gain = (AUTO_WHITE_BALANCE, 0), (AUTOGAIN, 0)
    exposure, focus = (EXPOSURE_AUTO, 1), (FOCUS_AUTO, 0)
    lines = {0: "Disabled", 1: "50 Hz", 2: "60 Hz"}
    modes = {1: "Manual Mode", 3: "Aperture Priority Mode"}
    controls = [
        EmulatedControl(AUTO_WHITE_BALANCE, "White Balance, Automatic", BOOLEAN, 0, 1, 1, 1),
        EmulatedControl(AUTOGAIN, "Gain, Automatic", BOOLEAN, 0, 1, 1, 1),
        EmulatedControl(GAIN, "Gain", INTEGER, 0, 255, 1, 0, automatic=gain, found=30),
        EmulatedControl(POWER_LINE_FREQUENCY, "Power Line Frequency", MENU, 0, 2, 1, 2, lines),
        EmulatedControl(
            WHITE_BALANCE_TEMPERATURE,
            "White Balance Temperature",
            *(INTEGER, 2000, 6500, 10, 4000),
            automatic=balance,
            found=4600,
        ),
        EmulatedControl(EXPOSURE_AUTO, "Auto Exposure", MENU, 0, 3, 1, 3, modes),
        EmulatedControl(
            EXPOSURE_ABSOLUTE,
            "Exposure Time, Absolute",
            *(INTEGER, 3, 2047, 1, 250),
            automatic=exposure,
            found=120,
        ),
        EmulatedControl(EXPOSURE_AUTO_PRIORITY, "Exposure, Dynamic Framerate", BOOLEAN, 0, 1, 1, 1),
        EmulatedControl(FOCUS_ABSOLUTE, "Focus, Absolute", INTEGER, 0, 250, 5, 0, automatic=focus, found=125),
        EmulatedControl(FOCUS_AUTO, "Focus, Automatic Continuous", BOOLEAN, 0, 1, 1, 1),
    ]
    return [control for control in controls if control.id not in without]


@dataclass(frozen=True)
class EmulatedMode:
    """A pixel format with one size, and the frame rates [Hz] that it comes at.

    maximum: (width, height) where it comes in every even size from the one given up to this one.
    """

    fourcc: str
    width: int
    height: int
    rates_hz: tuple[int, ...]
    maximum: tuple[int, int] | None = None

    def nearest(self, width: int, height: int) -> EmulatedMode:
        """In the size of this mode that is next to the one given."""
        if self.maximum is None:
            return self
        width = min(max(width & ~1, self.width), self.maximum[0])
        height = min(max(height & ~1, self.height), self.maximum[1])
        return EmulatedMode(self.fourcc, width, height, self.rates_hz)


WEBCAM_MODES = (
    EmulatedMode("MJPG", 640, 480, (30, 15)),
    EmulatedMode("MJPG", 1280, 720, (30,)),
    EmulatedMode("YUYV", 640, 480, (30, 15)),
    EmulatedMode("YUYV", 1280, 720, (10,)),
)


@dataclass
class Faults:
    """What the camera or its driver does wrong; may be changed at any time. Frames are counted from 0.

    drop, truncate, damage: frames that are lost, end early, are flagged as damaged; stamps: "", "zero",
    "future", "backwards" or "unknown" (of another clock); focus_ignored: takes and reads back, moves nothing;
    focus_reads_back: what focus reads whatever it was set to; busy: another process streams; size: what any
    size becomes, without an error; unplug_at: the frame with whose delivery the camera is gone.
    """

    drop: Container[int] = ()
    truncate: Container[int] = ()
    damage: Container[int] = ()
    stamps: str = ""
    sequence_zero: bool = False
    focus_ignored: bool = False
    focus_reads_back: int | None = None
    busy: bool = False
    size: tuple[int, int] | None = None
    unplug_at: int | None = None


@dataclass(frozen=True)
class EmittedFrame:
    """A frame that was put into a buffer, as it truly was; times [ns] of the camera's clock."""

    sequence: int
    exposure_start_ns: int
    exposure_end_ns: int
    delivered_ns: int


def bytes_per_line(fourcc: str, width: int, padding: int) -> int:
    return {"MJPG": 0, "YUYV": 2 * width + padding}.get(fourcc, width + padding)


def buffer_size(fourcc: str, width: int, height: int, padding: int) -> int:
    """MJPG: as much as drivers reserve, more than any image takes."""
    return height * bytes_per_line(fourcc, width, padding) or 2 * width * height + 4096


def encode(image: Image, fourcc: str, width: int, height: int, padding: int = 0) -> bytes:
    """image [H, W, 3] RGB, brought to the size of the format; padding: bytes after each row."""
    if image.shape[:2] != (height, width):
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    if fourcc == "MJPG":
        done, data = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95]
        )
        assert done
        return bytes(data)
    rows = _ROWS[fourcc](image)
    return np.pad(rows, ((0, 0), (0, padding))).tobytes()


_BT601 = np.array(  # limited range; rows Y, U, V; columns R, G, B, offset
    [
        [65.481 / 255, 128.553 / 255, 24.966 / 255, 16.0],
        [-37.797 / 255, -74.203 / 255, 112.0 / 255, 128.0],
        [112.0 / 255, -93.786 / 255, -18.214 / 255, 128.0],
    ]
)


def _yuyv(image: Image) -> Image:
    """[H, 2 W]; ITU-R BT.601, each pair of pixels sharing the mean of its colours."""
    yuv = np.asarray(cv2.transform(image.astype(np.float32), _BT601))
    packed = np.empty((*image.shape[:2], 2), np.float32)
    packed[..., 0] = yuv[..., 0]
    packed[:, 0::2, 1] = 0.5 * (yuv[:, 0::2, 1] + yuv[:, 1::2, 1])
    packed[:, 1::2, 1] = 0.5 * (yuv[:, 0::2, 2] + yuv[:, 1::2, 2])
    return np.rint(packed).astype(np.uint8).reshape(len(image), -1)


def _grey(image: Image) -> Image:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _bayer(channels: Sequence[int]) -> Callable[[Image], Image]:
    """channels: of the upper left, upper right, lower left, lower right pixel."""

    def mosaic(image: Image) -> Image:
        raw = np.empty(image.shape[:2], np.uint8)
        for i, channel in enumerate(channels):
            raw[i // 2 :: 2, i % 2 :: 2] = image[i // 2 :: 2, i % 2 :: 2, channel]
        return raw

    return mosaic


_ROWS: dict[str, Callable[[Image], Image]] = {
    "YUYV": _yuyv,
    "GREY": _grey,
    "BA81": _bayer((2, 1, 1, 0)),
    "GBRG": _bayer((1, 2, 0, 1)),
    "GRBG": _bayer((1, 0, 2, 1)),
    "RGGB": _bayer((0, 1, 1, 2)),
}
