"""What a training of HybridDepth's refinement or of CrossDepth's fusion is settled by."""

from __future__ import annotations

from dataclasses import dataclass

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.evaluation.datasets import AUTO, DDFF12_WHOLE, KINDS
from hybriddepth_ros.models.weights_config import FOCUS_UNITS
from hybriddepth_ros.parameters import parameter

DATA_KINDS = tuple(kind for kind in KINDS if kind != DDFF12_WHOLE)  # `slices` says how many of the ten
MULTIPLE = 32  # of crops, as of the networks' input
OPTIMISERS = ("adamw", "adam")
SCHEDULES = ("constant", "cosine")
PRIOR_IMAGES = ("sharp", "first_slice")


@dataclass(frozen=True)
class PublishedTraining:
    """The keys that both models have. Defaults are what the papers' code trains with on DDFF12."""

    model = ""

    seed: int = parameter(1, "of first weights, order and augmentation", minimum=0, maximum=999_999)
    data: str = parameter("", "folder or file of the data set")
    kind: str = parameter(AUTO, "kind of data set; auto = what it looks like", choices=DATA_KINDS)
    protocol: str = parameter(
        "",
        "how stacks are made of colour and depth images, by name or file; empty: as the data set's papers do",
    )
    validation_data: str = parameter(
        "", "data set to validate on; empty: the data set's own split, else the last tenth of the frames"
    )
    validation_frames: int = parameter(
        0, "frames to validate on, evenly chosen; 0 = all", minimum=0, maximum=1_000_000
    )
    init_from: str = parameter(
        "", "weights to begin with, of either model: an installed name or a file; their frozen parts stay"
    )
    prior_from: str = parameter("", "weights of Depth Anything, instead of those in init_from")
    focus_from: str = parameter("", "a checkpoint of DFV alone, instead of that in init_from")
    fresh: bool = parameter(False, "draw the trained part anew, although init_from has it")
    focus_unit: str = parameter(
        "metres", "of focus distances, truth and results: what the network learns", choices=FOCUS_UNITS
    )
    depth_range: tuple[float, ...] = parameter(
        (), "bounds of the results, in focus_unit; empty: as usual for it", minimum=0.0, maximum=1e6
    )
    slices: int = parameter(5, "slices per stack", minimum=2, maximum=64)
    crop_height_px: int = parameter(224, "height of what is trained on", unit="px", minimum=64, maximum=4096)
    crop_width_px: int = parameter(224, "width of what is trained on", unit="px", minimum=64, maximum=4096)
    known_share: float = parameter(
        0.8, "of a crop that has a truth, where the frame has such a crop", minimum=0.0, maximum=1.0
    )
    flip_horizontal: bool = parameter(True, "mirror half of the stacks left to right")
    flip_vertical: bool = parameter(True, "mirror half of the stacks upside down")
    colour_jitter: float = parameter(
        0.0,
        "largest change of brightness, contrast and saturation, one for a stack",
        minimum=0.0,
        maximum=0.9,
    )
    prior_image: str = parameter(
        "sharp",
        "what the prior sees of a synthetic stack; of a real one always the first slice",
        choices=PRIOR_IMAGES,
    )
    shuffle: bool = parameter(True, "take the frames in a new order in each pass")
    batch_size: int = parameter(8, "stacks per step and device", minimum=1, maximum=1024)
    steps: int = parameter(60_000, "optimiser steps, rounded up to epochs", minimum=1, maximum=100_000_000)
    steps_per_epoch: int = parameter(
        0,
        "steps between validations and checkpoints; 0 = a pass through the data",
        minimum=0,
        maximum=1_000_000,
    )
    optimiser: str = parameter("adamw", "which", choices=OPTIMISERS)
    learning_rate: float = parameter(1e-4, "at its highest", minimum=1e-8, maximum=1.0)
    weight_decay: float = parameter(1e-4, "of the optimiser", minimum=0.0, maximum=1.0)
    schedule: str = parameter(
        "constant", "of the learning rate; cosine ends at 0 with the last step", choices=SCHEDULES
    )
    gradient_weight: float = parameter(0.5, "of the gradient loss beside SILog", minimum=0.0, maximum=100.0)
    gradient_clip: float = parameter(
        0.0, "largest norm of the gradient; 0 = not clipped", minimum=0.0, maximum=1e3
    )
    ema_decay: float = parameter(
        0.0, "of the trained weights' moving average; 0 = none", minimum=0.0, maximum=0.99999
    )
    workers: int = parameter(2, "processes that read and make stacks", minimum=0, maximum=64)

    def __post_init__(self) -> None:
        if not self.data:
            raise ParameterError("data: expected the folder or file of a data set, got none")
        for key in ("crop_height_px", "crop_width_px"):
            if getattr(self, key) % MULTIPLE:
                raise ParameterError(f"{key}: expected a multiple of {MULTIPLE}, got {getattr(self, key)}")
        if self.depth_range and not (
            len(self.depth_range) == 2 and self.depth_range[0] < self.depth_range[1]
        ):
            raise ParameterError(f"depth_range: expected two rising numbers, got {list(self.depth_range)}")
        if not self.init_from and not (self.prior_from and self.focus_from):
            raise ParameterError(
                "init_from: expected weights for what is not trained (or prior_from and focus_from), got none"
            )


@dataclass(frozen=True)
class HybridDepthTraining(PublishedTraining):
    """The keys of its config."""

    model = "hybriddepth"

    encoder_from: str = parameter(
        "", "ImageNet weights of tf_efficientnet_lite3 for the refinement's encoder, where that is drawn anew"
    )


@dataclass(frozen=True)
class CrossDepthTraining(PublishedTraining):
    """The keys of its config."""

    model = "crossdepth"
