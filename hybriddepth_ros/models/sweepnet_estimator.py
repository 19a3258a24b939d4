"""`model: sweepnet` as a depth model: aligned stack in, inverse depth and its calibrated sigma out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hybriddepth_ros.errors import ModelError, one_line
from hybriddepth_ros.image_files import smaller
from hybriddepth_ros.models.base import (
    AlignedStack,
    FocusEstimate,
    check_choice,
    find_device,
    is_out_of_memory,
)
from hybriddepth_ros.models.checkpoint_files import sha256_of
from hybriddepth_ros.models.classical import UNCOVERED_SIGMA_FACTOR
from hybriddepth_ros.models.engine_choice import AUTO, TORCH, chosen_engine
from hybriddepth_ros.models.engines import Compiled
from hybriddepth_ros.models.focus_fit import blur_of
from hybriddepth_ros.models.focus_measure import resize
from hybriddepth_ros.models.freed_memory import keep_freed_memory
from hybriddepth_ros.models.inference import HALF
from hybriddepth_ros.models.inputs import pad_to_multiple, to_device
from hybriddepth_ros.models.kept_maps import Maps
from hybriddepth_ros.models.sweepnet import MULTIPLE, SweepDistribution
from hybriddepth_ros.models.sweepnet_inference import PreparedSweep, WholeSweep, ready
from hybriddepth_ros.models.sweepnet_rolling import OneNew, RollingSweepNet, by_engine, with_one_new
from hybriddepth_ros.models.sweepnet_weights import SHIPPED, load_sweepnet
from hybriddepth_ros.models.weights_config import identity

Floats = npt.NDArray[np.float32]

MOST_SLICES = 16  # more are thinned out
WIDEST_SWEEP_PX = 60.0  # of blur from the first slice to the last; a wider sweep is seen on a smaller image
SMALLEST_SIDE = 96  # px of an image that is made smaller for that


class SweepNetEstimator:
    """The shipped network, or the one in a file. See DepthModel; engine: one of ENGINES."""

    def __init__(
        self, device: str = "auto", weights: str = "", precision: str = "float32", engine: str = AUTO
    ) -> None:
        self.device = find_device(device)
        check_choice("sweepnet", self.device, weights, precision, engine)
        if self.device == "cpu":
            keep_freed_memory()
        self._half = HALF.get(precision)
        file = Path(weights or SHIPPED)
        loaded = load_sweepnet(file)
        self.weights = identity(file.stem, sha256_of(file))
        self._loaded = loaded
        self.network = ready(loaded.network, self.device)
        self._whole = self._one_new = None
        if (engine := chosen_engine(engine, "sweepnet", self.device, precision)) != TORCH:
            self._whole = Compiled(WholeSweep(self.network), engine, self.device, "sweepnet")
            self._one_new = Compiled(OneNew(self.network), engine, self.device, "sweepnet's update")

    def __call__(self, stack: AlignedStack) -> FocusEstimate:
        """FocusEstimate at full resolution: the median of a Laplace distribution, and the half-width of its
        central 68.3 % as measured on held-out stacks.
        """
        sweep = self.prepared(stack)
        with self.running(sweep) as (images, positions):
            if self._whole is None:
                found = self.network(images, positions)
            else:
                found = SweepDistribution(*self._whole(images, positions))
            result = self.read(found, sweep)
        return self.estimate(stack, sweep, *result)

    def rolling(self) -> RollingSweepNet:
        """The same, one new slice at a time."""
        return RollingSweepNet(self)

    def with_one_new(
        self,
        image: torch.Tensor,
        mean: torch.Tensor,
        positions: torch.Tensor,
        others: Sequence[Maps],
        new: int,
    ) -> tuple[SweepDistribution, Maps]:
        """See `sweepnet_rolling.with_one_new`."""
        if self._one_new is None:
            return with_one_new(self.network, image, mean, positions, others, new)
        return by_engine(self._one_new, image, mean, positions, others, new)

    def prepared(self, stack: AlignedStack, blur: float | None = None) -> PreparedSweep:
        """What the network is to see; blur [px m]: of the lens, None = as the stack says or shows."""
        blur = blur or blur_of(stack)
        chosen = thinned(len(stack.images))
        focus = stack.focus_diopters[chosen].astype(np.float64)
        factor = working_scale(stack.images.shape[1:3], float(focus[-1] - focus[0]) * blur)
        images = stack.images[chosen]
        if factor < 1.0:
            images = np.stack([smaller(image, factor) for image in images])
        return PreparedSweep(images, (focus * (blur * factor)).astype(np.float32), float(blur), factor)

    @contextmanager
    def running(self, sweep: PreparedSweep) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Images [1, N, 3, H, W] 0..1 and positions [1, N] on the device; ModelError if its memory ends."""
        try:
            with (
                torch.inference_mode(),
                torch.autocast("cuda", self._half or torch.float16, enabled=self._half is not None),
            ):
                stack = to_device(sweep.images, self.device).permute(0, 3, 1, 2).float().div_(255.0)
                places = to_device(sweep.positions, self.device)[None]
                yield pad_to_multiple(stack, MULTIPLE)[None], places
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = one_line(error)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        height, width = sweep.images.shape[1:3]
        size = f"{len(sweep.images)} slices of {width}x{height} px"
        raise ModelError(f"sweepnet on {self.device}: out of memory for {size}: {said}")

    def read(self, found: SweepDistribution, sweep: PreparedSweep) -> tuple[Floats, Floats, np.float32]:
        """Position and scale [h, w] px of blur, and the sweep's mean step."""
        height, width = sweep.images.shape[1:3]
        position, scale = (x[0, :height, :width].cpu().numpy() for x in (found.position, found.scale))
        return position, scale, np.float32(found.spacing[0].item())

    def estimate(
        self, stack: AlignedStack, sweep: PreparedSweep, position: Floats, scale: Floats, spacing: np.float32
    ) -> FocusEstimate:
        """In diopters, at full resolution, with a sigma."""
        beyond = (position < sweep.positions[0]) | (position > sweep.positions[-1])
        sigma = self._loaded.sigma(scale / spacing, beyond) * spacing
        size = (stack.images.shape[1], stack.images.shape[2])
        per_px = np.float32(1.0 / (sweep.blur * sweep.factor))
        diopters, sigma = resize(position * per_px, size), resize(sigma * per_px, size)
        sigma[~stack.covered.all(axis=0)] *= UNCOVERED_SIGMA_FACTOR
        return FocusEstimate(diopters, sigma, sweep.blur)


def thinned(count: int) -> npt.NDArray[np.intp]:
    """Indices of at most MOST_SLICES of `count` slices, evenly, the ends among them."""
    return np.round(np.linspace(0, count - 1, min(count, MOST_SLICES))).astype(np.intp)


def working_scale(size: tuple[int, int], sweep_px: float) -> float:
    """How much smaller the image [H, W] is made so that the sweep's blur is what the network has seen."""
    least = min(1.0, SMALLEST_SIDE / min(size))
    return float(np.clip(WIDEST_SWEEP_PX / max(sweep_px, 1e-6), least, 1.0))
