"""What a training of sweepnet is settled by."""

from __future__ import annotations

from dataclasses import dataclass

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.parameters import parameter

MULTIPLE = 32  # of crops, as of SweepNet's input


@dataclass(frozen=True)
class SweepNetTraining:
    """The keys of its config."""

    seed: int = parameter(1, "of the first weights and of all stacks", minimum=0, maximum=999_999)
    init_from: str = parameter("", "weights to begin with (safetensors), empty: drawn from the seed")
    steps: int = parameter(4000, "optimiser steps, rounded up to whole epochs", minimum=1, maximum=10_000_000)
    steps_per_epoch: int = parameter(
        100, "steps between checkpoints; what a killed training repeats at most", minimum=1, maximum=100_000
    )
    batch_size: int = parameter(8, "stacks per step and device", minimum=1, maximum=1024)
    crop_px: int = parameter(192, "side of what the network sees", unit="px", minimum=32, maximum=1024)
    render_px: int = parameter(224, "side of what is rendered", unit="px", minimum=32, maximum=1024)
    rendered_slices: int = parameter(
        10, "slices rendered per stack, of which a step takes some", minimum=2, maximum=16
    )
    gathered_share: float = parameter(
        0.1,
        "of stacks that are blurred as the papers' data sets are, not as light is",
        minimum=0.0,
        maximum=1.0,
    )
    pool_stacks: int = parameter(
        64, "rendered stacks that batches are drawn from, the newest", minimum=1, maximum=100_000
    )
    new_stacks: int = parameter(2, "stacks rendered for every batch", minimum=1, maximum=1024)
    workers: int = parameter(1, "processes that render; 0: the one that trains", minimum=0, maximum=512)
    learning_rate: float = parameter(1.5e-3, "of AdamW at its highest", minimum=1e-8, maximum=1.0)
    weight_decay: float = parameter(1e-2, "of AdamW, on matrices only", minimum=0.0, maximum=1.0)
    warmup_share: float = parameter(
        0.03, "of the steps in which the learning rate rises", minimum=0.0, maximum=0.5
    )
    decay_share: float = parameter(
        0.4,
        "of the steps, at the end, in which it falls to 0; before, it is constant",
        minimum=0.0,
        maximum=1.0,
    )
    ema_decay: float = parameter(0.998, "of the weights' moving average", minimum=0.0, maximum=0.99999)
    gradient_clip: float = parameter(1.0, "largest norm of the gradient", minimum=1e-3, maximum=1e3)
    calibration_px: int = parameter(
        480,
        "side of what sigma is calibrated on, a multiple of 32: the network knows more of a whole image",
        unit="px",
        minimum=32,
        maximum=1024,
    )
    validation_batches: int = parameter(8, "held-out batches per epoch", minimum=1, maximum=10_000)

    def __post_init__(self) -> None:
        if self.crop_px % MULTIPLE or self.crop_px > self.render_px:
            raise ParameterError(
                f"crop_px: expected a multiple of {MULTIPLE} up to render_px ({self.render_px}),"
                f" got {self.crop_px}"
            )
        if self.calibration_px % MULTIPLE:
            raise ParameterError(
                f"calibration_px: expected a multiple of {MULTIPLE}, got {self.calibration_px}"
            )
        if self.batch_size > self.pool_stacks:
            raise ParameterError(
                f"pool_stacks: expected at least batch_size ({self.batch_size}), got {self.pool_stacks}"
            )

    @property
    def epochs(self) -> int:
        return -(-self.steps // self.steps_per_epoch)
