"""What a training of sweepnet is settled by."""

from __future__ import annotations

from dataclasses import dataclass

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.parameters import parameter

MULTIPLE = 32  # of crops, as of SweepNet's input
LANES = 4  # rows of data that are drawn side by side; the number of workers divides it


@dataclass(frozen=True)
class SweepNetTraining:
    """The keys of its config."""

    seed: int = parameter(1, "of the first weights and of all stacks", minimum=0, maximum=999_999)
    init_from: str = parameter("", "weights to begin with (safetensors), empty: drawn from the seed")
    steps: int = parameter(4000, "optimiser steps", minimum=1, maximum=10_000_000)
    steps_per_epoch: int = parameter(
        100, "steps between checkpoints; what a killed training repeats at most", minimum=1, maximum=100_000
    )
    batch_size: int = parameter(8, "stacks per step and device", minimum=1, maximum=1024)
    crop_px: int = parameter(192, "side of what the network sees", unit="px", minimum=32, maximum=1024)
    render_px: int = parameter(224, "side of what is rendered", unit="px", minimum=32, maximum=1024)
    rendered_slices: int = parameter(
        10, "slices rendered per stack, of which a step takes some", minimum=2, maximum=16
    )
    chunk_stacks: int = parameter(12, "stacks rendered at a time by a worker", minimum=1, maximum=4096)
    chunk_batches: int = parameter(6, "batches drawn from them", minimum=1, maximum=4096)
    workers: int = parameter(1, f"processes that render, a divisor of {LANES}", minimum=0, maximum=LANES)
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
    validation_batches: int = parameter(8, "held-out batches per epoch", minimum=1, maximum=10_000)

    def __post_init__(self) -> None:
        if self.crop_px % MULTIPLE or self.crop_px > self.render_px:
            raise ParameterError(
                f"crop_px: expected a multiple of {MULTIPLE} up to render_px ({self.render_px}),"
                f" got {self.crop_px}"
            )
        if self.workers and LANES % self.workers:
            raise ParameterError(f"workers: expected a divisor of {LANES}, or 0, got {self.workers}")
        if self.batch_size > self.chunk_stacks:
            raise ParameterError(
                f"chunk_stacks: expected at least batch_size ({self.batch_size}), got {self.chunk_stacks}"
            )

    @property
    def epochs(self) -> int:
        return -(-self.steps // self.steps_per_epoch)
