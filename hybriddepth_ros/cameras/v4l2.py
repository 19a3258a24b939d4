"""The camera `v4l2`: a UVC or other V4L2 camera with its own focus motor, or with a lens of another make.

linuxpy is imported when the device is opened, not when its parameters are asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hybriddepth_ros.cameras.assembled import AssembledCamera, AssemblyOptions
from hybriddepth_ros.cameras.base import Clock, register_camera
from hybriddepth_ros.cameras.focus_check import check_focus_moves
from hybriddepth_ros.cameras.lens import FocusLens, make_lens
from hybriddepth_ros.cameras.v4l2_device import V4L2Device
from hybriddepth_ros.cameras.v4l2_formats import FORMATS
from hybriddepth_ros.cameras.v4l2_source import StreamSettings, V4L2Motor, V4L2Source
from hybriddepth_ros.cameras.v4l2_stamps import EXPOSURE_START, FRAME_END, READOUT_START, SteadyClock
from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.parameters import parameter

OWN_MOTOR = "motor"


@dataclass(frozen=True)
class V4L2Options:
    """Parameters of the camera `v4l2`; those of a lens driver are its own."""

    device: str = parameter(
        "", "Path of the device, such as /dev/video0 or a link of /dev/v4l/by-id; empty = by serial_number"
    )
    serial_number: str = parameter(
        "", "USB serial number of the camera; empty, as device = the only one that captures"
    )
    width: int = parameter(640, "Width of the images", unit="px", minimum=16, maximum=16384)
    height: int = parameter(480, "Height of the images", unit="px", minimum=16, maximum=16384)
    frame_rate: float = parameter(30.0, "Frames per second", unit="Hz", minimum=0.1, maximum=1000.0)
    pixel_format: str = parameter(
        "auto",
        "Pixel format by its four characters; auto = without compression if it comes at this size and rate",
        choices=("auto", *FORMATS),
    )
    exposure_ms: float = parameter(
        0.0,
        "Exposure time; 0 = locked at what the camera finds within auto_seconds",
        unit="ms",
        minimum=0.0,
        maximum=10000.0,
    )
    gain: int = parameter(
        -1,
        "Gain in units of the camera; -1 = locked at what the camera finds within auto_seconds",
        minimum=-1,
        maximum=1_000_000,
    )
    white_balance: int = parameter(
        0,
        "Colour temperature; 0 = locked at what the camera finds within auto_seconds",
        unit="K",
        minimum=0,
        maximum=20000,
    )
    auto_seconds: float = parameter(
        1.0,
        "Time that the camera has to find exposure, gain and white balance before they are locked",
        unit="s",
        minimum=0.0,
        maximum=30.0,
    )
    readout_ms: float = parameter(
        -1.0,
        "Time from the first row's readout to the last one's, 0 = global shutter; -1 = nine tenths of the"
        " frame period at the camera's highest rate in this size, as of a rolling shutter, or less where"
        " frames come sooner",
        unit="ms",
        minimum=-1.0,
        maximum=1000.0,
    )
    stamp: str = parameter(
        "driver",
        "Where in a frame's time the kernel's stamp lies; driver = as the driver flags it, but for uvcvideo"
        " with stamps of its own the start of the readout",
        choices=("driver", EXPOSURE_START, READOUT_START, FRAME_END),
    )
    settle_ms: float = parameter(
        0.0,
        "Time that the lens takes for a move; 0 = as calibrated, else as the lens says, else 100 ms",
        unit="ms",
        minimum=0.0,
        maximum=10000.0,
    )
    calibration: str = parameter("", "File of `hybriddepth calibrate`; empty = none")
    horizontal_fov_deg: float = parameter(
        65.0, "Horizontal field of view assumed without calibration", unit="deg", minimum=5.0, maximum=150.0
    )
    focus_in_diopters: bool = parameter(
        False, "The lens counts in diopters of the camera's focus: sweep without a calibrated focus table"
    )
    check_focus: bool = parameter(
        False, "When opened, move the lens and see whether the image changes; fails before a plain wall"
    )
    lens: str = parameter(
        OWN_MOTOR,
        "motor = the camera's own, or the name of a lens driver, such as optotune, whose parameters are"
        " optotune_lens.*",
    )

    def __post_init__(self) -> None:
        if self.focus_in_diopters and self.lens == OWN_MOTOR:
            raise ParameterError(
                "focus_in_diopters: expected false with lens: motor, which counts in steps, not in diopters"
            )


def make_parts(
    options: V4L2Options,
    clock: Clock | None = None,
    monotonic_ns: Callable[[], int] = time.monotonic_ns,
    lens: Mapping[str, Any] | object | None = None,
) -> tuple[V4L2Source, FocusLens]:
    """The unopened source and lens, as calibration uses them; both keep the same time.

    lens: config of the lens driver that `options` name, as `make_lens` takes it; None = its defaults.
    """
    device = V4L2Device(options.device, options.serial_number)
    steady = SteadyClock(clock, monotonic_ns)
    settings = StreamSettings(
        options.width,
        options.height,
        options.frame_rate,
        options.pixel_format,
        options.exposure_ms,
        options.gain,
        options.white_balance,
        options.readout_ms,
        options.auto_seconds,
        options.stamp,
    )
    source = V4L2Source(device, settings, steady)
    if options.lens == OWN_MOTOR:
        if lens:
            raise ParameterError("camera v4l2: expected no parameters of a lens with lens: motor")
        return source, V4L2Motor(device, steady, options.settle_ms or None)
    made = make_lens(options.lens, {} if lens is None else lens)
    made.clock = steady
    return source, made


@register_camera("v4l2", V4L2Options)
class V4L2Camera(AssembledCamera):
    """Source and lens of one camera; what it is set to is in `options`. lens: as for `make_parts`."""

    def __init__(
        self,
        options: V4L2Options,
        clock: Clock | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        lens: Mapping[str, Any] | object | None = None,
    ) -> None:
        self.options = options
        super().__init__(
            "v4l2",
            *make_parts(options, clock, monotonic_ns, lens),
            AssemblyOptions(
                options.calibration, options.settle_ms, options.horizontal_fov_deg, options.focus_in_diopters
            ),
        )

    def open(self) -> None:
        super().open()
        if not self.options.check_focus:
            return
        try:
            check_focus_moves(*self.parts)
        except BaseException:
            self.close()
            raise
