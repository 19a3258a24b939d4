"""Parameters of the camera `topic`: the images of another node, and a lens of ours. Needs no rclpy."""

from __future__ import annotations

from dataclasses import dataclass

from hybriddepth_ros.cameras.lens import lens_names
from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.parameters import nearest_name, parameter

TOPIC_CAMERA = "topic"
STAMP_PLACES = ("start", "middle", "end")


@dataclass(frozen=True)
class TopicCameraOptions:
    """Parameters of the camera `topic`."""

    image: str = parameter("camera/image_raw", "topic of the images, stamped in system time")
    camera_info: str = parameter(
        "camera/camera_info", "topic of their intrinsics; empty = none, or what `calibration` says"
    )
    lens: str = parameter("", f"lens that moves the focus, by its driver's name: {', '.join(lens_names())}")
    calibration: str = parameter("", "file of `hybriddepth calibrate`; stronger than camera_info")
    focus_in_diopters: bool = parameter(False, "the lens itself counts in 1/m, so that it needs no table")
    settle_ms: float = parameter(
        0.0,
        "from a command to the lens standing still; 0 = as calibrated, or by the lens's data sheet",
        unit="ms",
        minimum=0.0,
        maximum=10000.0,
    )
    exposure_ms: float = parameter(
        33.0,
        "from the first row's start to the last row's end: exposure time plus readout; too long only costs"
        " frames",
        unit="ms",
        minimum=0.01,
        maximum=10000.0,
    )
    stamp_at: str = parameter(
        "start", "what of the exposure the stamps of that driver mean", choices=STAMP_PLACES
    )
    frame_rate: float = parameter(30.0, "what that driver is set to", unit="Hz", minimum=0.1, maximum=1000.0)
    horizontal_fov_deg: float = parameter(
        65.0,
        "horizontal field of view assumed without calibration and camera_info",
        unit="deg",
        minimum=5.0,
        maximum=150.0,
    )
    timeout: float = parameter(
        5.0, "how long the first image is waited for", unit="s", minimum=0.1, maximum=600.0
    )

    def __post_init__(self) -> None:
        if self.lens and self.lens not in lens_names():
            known = lens_names()
            raise ParameterError(
                f"lens: expected one of {', '.join(known)}, got {self.lens!r}{nearest_name(self.lens, known)}"
            )
