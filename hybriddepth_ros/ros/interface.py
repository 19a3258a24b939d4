"""The topics and services of both nodes as data: the docs are written from it, the tests hold to it."""

from __future__ import annotations

from typing import NamedTuple


class Endpoint(NamedTuple):
    """`direction`: publishes, subscribes or serves; `name` is relative to the namespace, `~` the node.

    by_default: it is there unless a parameter says otherwise.
    """

    node: str
    direction: str
    name: str
    type: str
    note: str
    by_default: bool = True


INTERFACE = (
    Endpoint(
        "focus_sweep",
        "publishes",
        "slice",
        "hybriddepth_msgs/msg/FocalSlice",
        "image, camera_info and focus of one slice in one message: what `depth` subscribes to by default;"
        " with `transport: raw`",
    ),
    Endpoint(
        "focus_sweep",
        "publishes",
        "slice/compressed",
        "hybriddepth_msgs/msg/CompressedFocalSlice",
        "the same with the image as a file of its kind, with `transport: jpeg` or `png`",
        by_default=False,
    ),
    Endpoint(
        "focus_sweep",
        "publishes",
        "image_raw",
        "sensor_msgs/msg/Image",
        "every slice, rgb8 or mono8; middle of the exposure as stamp, in system time (no use_sim_time)",
    ),
    Endpoint(
        "focus_sweep",
        "publishes",
        "camera_info",
        "sensor_msgs/msg/CameraInfo",
        "intrinsics at the slice's focus: K follows the breathing",
    ),
    Endpoint(
        "focus_sweep",
        "publishes",
        "focus",
        "hybriddepth_msgs/msg/FocusState",
        "focus in 1/m and the slice's place in its sweep",
    ),
    Endpoint(
        "focus_sweep",
        "publishes",
        "ground_truth/depth",
        "sensor_msgs/msg/Image",
        "32FC1 metres along Z; camera `simulated` only",
    ),
    Endpoint(
        "focus_sweep",
        "publishes",
        "ground_truth/camera_info",
        "sensor_msgs/msg/CameraInfo",
        "camera `simulated` only",
    ),
    Endpoint(
        "focus_sweep",
        "subscribes",
        "focus_demand",
        "std_msgs/msg/Float32MultiArray",
        "with `sweep: adaptive`: where the next sweep is to look",
    ),
    Endpoint(
        "focus_sweep",
        "serves",
        "~/set_focus",
        "hybriddepth_msgs/srv/SetFocus",
        "hold one focus, or sweep again",
    ),
    Endpoint(
        "focus_sweep",
        "serves",
        "~/capture_stack",
        "hybriddepth_msgs/srv/CaptureStack",
        "one sweep as the answer; a second capture while one runs is refused",
    ),
    Endpoint(
        "focus_sweep",
        "publishes",
        "/diagnostics",
        "diagnostic_msgs/msg/DiagnosticArray",
        "rates achieved and possible, frames discarded and lost",
    ),
    Endpoint("depth", "subscribes", "slice", "hybriddepth_msgs/msg/FocalSlice", "with `input: slices`"),
    Endpoint(
        "depth",
        "subscribes",
        "slice/compressed",
        "hybriddepth_msgs/msg/CompressedFocalSlice",
        "with `input: compressed_slices`",
        by_default=False,
    ),
    Endpoint(
        "depth", "subscribes", "image_raw", "sensor_msgs/msg/Image", "with `input: topics`", by_default=False
    ),
    Endpoint(
        "depth", "subscribes", "camera_info", "sensor_msgs/msg/CameraInfo", "with `input: topics`", False
    ),
    Endpoint(
        "depth", "subscribes", "focus", "hybriddepth_msgs/msg/FocusState", "with `input: topics`", False
    ),
    Endpoint(
        "depth",
        "publishes",
        "depth/image_rect",
        "sensor_msgs/msg/Image",
        "32FC1 metres along Z (NaN = no estimate), or 16UC1 millimetres (0 = no estimate)",
    ),
    Endpoint(
        "depth",
        "publishes",
        "depth/uncertainty",
        "sensor_msgs/msg/Image",
        "32FC1, 1 sigma in metres, NaN where depth is NaN",
    ),
    Endpoint(
        "depth",
        "publishes",
        "depth/camera_info",
        "sensor_msgs/msg/CameraInfo",
        "rectified intrinsics of depth and colour",
    ),
    Endpoint(
        "depth",
        "publishes",
        "rgb/image_rect",
        "sensor_msgs/msg/Image",
        "rgb8, all in focus, registered to the depth",
    ),
    Endpoint("depth", "publishes", "rgb/camera_info", "sensor_msgs/msg/CameraInfo", "the same"),
    Endpoint(
        "depth",
        "publishes",
        "depth/points",
        "sensor_msgs/msg/PointCloud2",
        "x y z [m], rgb, sigma [m]; organised or compact",
    ),
    Endpoint(
        "depth",
        "publishes",
        "focus_demand",
        "std_msgs/msg/Float32MultiArray",
        "[2, bins] after each estimate: inverse depths (1/m), and how uncertain the scene is at each",
    ),
    Endpoint("depth", "serves", "~/enable", "std_srvs/srv/SetBool", "stop and go on estimating"),
    Endpoint(
        "depth",
        "serves",
        "~/save",
        "std_srvs/srv/Trigger",
        "write the next estimate (the last one, if none comes within seconds) into `save_directory`: "
        "depth.npy sigma.npy aif.png depth_mm.png points.ply",
    ),
    Endpoint(
        "depth",
        "publishes",
        "/diagnostics",
        "diagnostic_msgs/msg/DiagnosticArray",
        "rates, latency from exposure to publishing, what was dropped and why, model, device, memory",
    ),
)
