"""The parameters of both nodes: every default, description, unit and range of the graph stands in a
dataclass.

`NODES` says which dataclasses a node declares and under which prefix; the nodes, the check of parameter
files, `config/depth.yaml` and docs/parameters.md all follow it. Nothing here needs rclpy.
"""

from __future__ import annotations

from dataclasses import dataclass

from hybriddepth_ros.cameras import camera_config_type, camera_names
from hybriddepth_ros.cameras.lens import lens_config_type, lens_names, lens_prefix
from hybriddepth_ros.cameras.supervisor import LONGEST_REOPEN_DELAY_S
from hybriddepth_ros.cameras.sweep_engine import ANY_WAY, APPROACHES, STOP_AND_GO, SWEEP_MODES, SweepOptions
from hybriddepth_ros.cameras.sweep_patterns import ADAPTIVE, SAWTOOTH, SWEEPS
from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.estimator import EstimatorOptions
from hybriddepth_ros.image_compression import DEFAULT_JPEG_QUALITY, RAW, TRANSPORTS
from hybriddepth_ros.models import AUTO, ENGINES, NO_PRIOR, PRECISIONS, PRIORS
from hybriddepth_ros.parameters import parameter
from hybriddepth_ros.point_cloud import PointCloudOptions
from hybriddepth_ros.ros.assembler import MAX_SLICES
from hybriddepth_ros.ros.topic_options import TOPIC_CAMERA, TopicCameraOptions
from hybriddepth_ros.slice_windows import RollingOptions


def sweep_camera_names() -> tuple[str, ...]:
    """Every camera that `focus_sweep` knows: those without ROS, and `topic`."""
    return (*camera_names(), TOPIC_CAMERA)


def sweep_camera_type(name: str) -> type:
    """The parameter dataclass of a camera; CameraError for an unknown name."""
    return TopicCameraOptions if name == TOPIC_CAMERA else camera_config_type(name)


@dataclass(frozen=True)
class FocusSweepParameters:
    """What `focus_sweep` sweeps over, and with which camera."""

    camera: str = parameter(
        "simulated",
        f"camera to open, by its driver's name: {', '.join(sweep_camera_names())}; {TOPIC_CAMERA}: the"
        " images of another node, and a lens",
    )
    frame_id: str = parameter(
        "focus_camera_optical_frame", "optical frame of the camera (REP 103), in every header"
    )
    focus_diopters: tuple[float, ...] = parameter(
        (),
        "focus positions to sweep, in this order; empty = what the camera itself suggests, else near_distance"
        " to far_distance in slice_count even steps",
        unit="1/m",
        minimum=-5.0,
        maximum=50.0,
    )
    near_distance: float = parameter(
        0.3, "nearest focus of a planned sweep", unit="m", minimum=0.02, maximum=100.0
    )
    far_distance: float = parameter(
        3.0, "farthest focus of a planned sweep; 0 = infinity", unit="m", minimum=0.0, maximum=1000.0
    )
    slice_count: int = parameter(5, "slices of a planned sweep", minimum=2, maximum=MAX_SLICES)
    sweep: str = parameter(
        SAWTOOTH,
        "sawtooth: every sweep runs the same way; triangle: every second one back, so that the lens never"
        f" flies back; {ADAPTIVE}: foci where `focus_demand` wants them, and now and then the full sweep",
        choices=SWEEPS,
    )
    full_sweep_period: float = parameter(
        3.0,
        "with `sweep: adaptive`, time from one full sweep to the next; without a demand for so long every"
        " sweep is full",
        unit="s",
        minimum=0.1,
        maximum=3600.0,
    )
    adaptive_slice_count: int = parameter(
        0,
        "slices of an adaptive sweep, 2 or more; 0 = as many as the full sweep has",
        minimum=0,
        maximum=MAX_SLICES,
    )
    sweep_mode: str = parameter(
        STOP_AND_GO,
        "stop_and_go: the lens moves on when a frame has arrived; free_running: when its exposure is over by"
        " the camera's rhythm, which is faster and needs exact stamps",
        choices=SWEEP_MODES,
    )
    approach: str = parameter(
        ANY_WAY,
        "any: the lens takes the shortest way to each focus; rising: it comes from below, for a lens with"
        " hysteresis and one table of focus",
        choices=APPROACHES,
    )
    overshoot: float = parameter(
        SweepOptions.overshoot_diopters,
        "how far below a focus the lens goes with `approach: rising` when it comes from above",
        unit="1/m",
        minimum=0.001,
        maximum=10.0,
    )
    transport: str = parameter(
        RAW,
        "how slices leave: raw on `slice`; jpeg or png (lossless) on `slice/compressed` instead, for a depth"
        " node on another machine with `input: compressed_slices`",
        choices=TRANSPORTS,
    )
    jpeg_quality: int = parameter(
        DEFAULT_JPEG_QUALITY,
        "of `transport: jpeg`; docs/two_machines.md says what less of it costs in depth",
        minimum=1,
        maximum=100,
        dynamic=True,
    )
    queue_size: int = parameter(
        10, "messages that a publisher keeps for a subscriber that is behind", minimum=1, maximum=1000
    )
    reopen_delay_max: float = parameter(
        LONGEST_REOPEN_DELAY_S,
        "longest wait between attempts to reopen a camera that failed; the first comes after 0.25 s",
        unit="s",
        minimum=0.25,
        maximum=600.0,
        dynamic=True,
    )
    autostart: bool = parameter(False, "configure and activate at start-up, for use without a launch file")

    @property
    def sweep_options(self) -> SweepOptions:
        return SweepOptions(self.sweep_mode, self.approach, self.overshoot)

    def __post_init__(self) -> None:
        sweep_camera_type(self.camera)
        positions = self.focus_diopters
        if len(positions) == 1 or len(positions) > MAX_SLICES:
            raise ParameterError(
                f"focus_diopters: expected 2 to {MAX_SLICES} positions, or none, got {len(positions)}"
            )
        if len(set(positions)) < len(positions):
            raise ParameterError(f"focus_diopters: expected positions that differ, got {list(positions)}")
        if self.adaptive_slice_count == 1:
            raise ParameterError("adaptive_slice_count: expected 0 or at least 2, got 1")
        if self.far_distance and self.far_distance <= self.near_distance:
            raise ParameterError(
                f"far_distance: expected more than near_distance ({self.near_distance:g} m) or 0 (infinity),"
                f" got {self.far_distance:g}"
            )


SWEEP, SLICE = "sweep", "slice"


@dataclass(frozen=True)
class DepthParameters:
    """What `depth` listens to, which model it runs and how it publishes."""

    model: str = parameter("sweepnet", "depth model, by its name")
    weights: str = parameter(
        "",
        "weights of the model: an installed name, or a file (of sweepnet a file only); empty = the first that"
        " is installed for it, or what is shipped",
    )
    model_fallback: str = parameter(
        "",
        "model to run instead, without a prior and with a warning, if `model` or its prior cannot be loaded"
        " (classical needs no weights); empty = configuring fails, with the reason",
    )
    device: str = parameter(
        "auto", "where the model runs: auto (cuda if there is one), cpu, cuda, cuda:1 ..."
    )
    precision: str = parameter(
        PRECISIONS[0],
        "arithmetic of models with weights: float32, or faster and less exact int8 (cpu),"
        " bfloat16, float16 (cuda)",
        choices=PRECISIONS,
    )
    engine: str = parameter(
        AUTO,
        "what computes models with weights: auto (the fastest as measured, docs/engines.md), torch, compile"
        " (torch.compile; minutes at the first start), onnx (ONNX Runtime), openvino (cpu), tensorrt (cuda);"
        " it is made ready while configuring, and again for slices of another size or number",
        choices=ENGINES,
    )
    prior: str = parameter(
        NO_PRIOR,
        "learned prior that the model's estimate is joined with, for models that have none of their own",
        choices=PRIORS,
    )
    prior_weights: str = parameter(
        "",
        "weights of the prior: an installed name, or a file; empty = the first that is installed for it",
    )
    warm_up: bool = parameter(
        True, "estimate a made-up stack while configuring, so that the first real one comes in time"
    )
    input: str = parameter(
        "slices",
        "slices: `slice`, one message each; compressed_slices: `slice/compressed`, the same from another"
        " machine; topics: `image_raw`, `camera_info` and `focus`, joined by stamp",
        choices=("slices", "compressed_slices", "topics"),
    )
    input_reliability: str = parameter(
        "best_effort",
        "reliability of the subscriptions; best_effort takes what any publisher offers",
        choices=("best_effort", "reliable"),
    )
    input_queue_size: int = parameter(
        16, "slices that wait for this node, about two sweeps; older ones are lost", minimum=1, maximum=1000
    )
    sync_slop: float = parameter(
        0.0,
        "stamps that may differ within one slice with `input: topics`; 0 = they must be equal",
        unit="s",
        minimum=0.0,
        maximum=1.0,
    )
    update: str = parameter(
        SWEEP,
        "sweep: one depth image for every whole sweep; slice: one for every slice, with the newest slice of"
        " each other focus, in the frame of the newest",
        choices=(SWEEP, SLICE),
    )
    min_slices: int = parameter(
        0,
        "use a sweep of which slices are missing if it has at least so many (2 or more); 0 = drop it",
        minimum=0,
        maximum=MAX_SLICES,
        dynamic=True,
    )
    stack_queue_size: int = parameter(
        1,
        "stacks that wait while one is estimated; the newest wins, the others are dropped and counted",
        minimum=1,
        maximum=2,
    )
    output_queue_size: int = parameter(
        5, "messages that a publisher keeps for a subscriber that is behind", minimum=1, maximum=100
    )
    depth_encoding: str = parameter(
        "32FC1",
        "depth/image_rect as 32FC1 (metres, NaN = no estimate) or 16UC1 (millimetres, 0 = no estimate)",
        choices=("32FC1", "16UC1"),
        dynamic=True,
    )
    save_directory: str = parameter("hybriddepth_saved", "folder that ~/save writes into", dynamic=True)
    autostart: bool = parameter(False, "configure and activate at start-up, for use without a launch file")

    def __post_init__(self) -> None:
        if self.min_slices == 1:
            raise ParameterError("min_slices: expected 0 or at least 2, got 1")


Groups = tuple[tuple[str, type], ...]  # (prefix or "", parameter dataclass)


def parameter_groups(node: str) -> Groups:
    """The dataclasses that a node declares, each with the prefix of its parameters' names."""
    if node == "focus_sweep":
        cameras = ((name, sweep_camera_type(name)) for name in sweep_camera_names())
        return (("", FocusSweepParameters), *cameras, *_lens_groups())
    if node == "depth":
        return (
            ("", DepthParameters),
            ("", EstimatorOptions),
            ("", RollingOptions),
            ("points", PointCloudOptions),
        )
    raise ParameterError(f"unknown node {node!r}, expected one of {', '.join(NODES)}")


def _lens_groups() -> Groups:
    return tuple((lens_prefix(name), lens_config_type(name)) for name in lens_names())


NODES = ("focus_sweep", "depth")


def full_name(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
