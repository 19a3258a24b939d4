"""What the stack renderer draws: surfaces that lie in front of one another, as images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hybriddepth_ros.errors import ParameterError


@dataclass(frozen=True)
class LayeredScene:
    """L surfaces from far to near, float32, all on one device.

    color [L, 3, H, W]: linear light, 0 black, 1 what saturates the sensor; highlights may be brighter.
    coverage [L, H, W]: 0..1, how much of the pixel the surface fills; the first layer is 1 everywhere.
    diopters [L, H, W] 1/m: distance of the surface along Z; holds a sensible value, the surface continued,
    also where coverage is 0. A layer may cross another only where one of the two has no coverage.
    """

    color: Tensor
    coverage: Tensor
    diopters: Tensor

    def __post_init__(self) -> None:
        layers, channels, height, width = self.color.shape
        if channels != 3 or not self.coverage.shape == self.diopters.shape == (layers, height, width):
            shapes = ", ".join(str(list(t.shape)) for t in (self.color, self.coverage, self.diopters))
            raise ParameterError(
                f"scene: expected color [L, 3, H, W], coverage and diopters [L, H, W]; got {shapes}"
            )

    @property
    def seen(self) -> Tensor:
        """[H, W] int64: the nearest layer that fills at least half of the pixel."""
        order = torch.arange(len(self.coverage), device=self.coverage.device)[:, None, None]
        return (order * (self.coverage >= 0.5)).amax(dim=0)

    @property
    def depth_diopters(self) -> Tensor:
        """[H, W] 1/m: ground truth, the distance of what is seen."""
        return self.diopters.gather(0, self.seen[None])[0]
