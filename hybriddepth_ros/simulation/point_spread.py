"""The image of a point out of focus: from a disc to a Gaussian, round or slightly elliptical."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hybriddepth_ros.simulation.limits import require_within

_TAIL = 1e-3  # the profile is cut where it has fallen to this share of its peak
_FIT_STEPS = 20
_FIT = 2e-3  # relative, of the second moment
_SAMPLES = 39  # about as many along the side of a kernel, more per pixel where it is small


@dataclass(frozen=True)
class PointSpread:
    """Radial profile exp(-(r / r0)^p) of blur with diameter d.

    r0 is such that the mean of r^2 is d^2 / 8, as of the uniform disc of diameter d, so along an axis it is
    d^2 / 16 for every p.

    exponent [-]: p, 2 a Gaussian, infinity the disc.
    ellipticity [-]: the axes' second moments are (1 + e) and (1 - e) times that in front of the focus, and
    change places behind it. angle_deg [deg]: direction of the first, from x towards y (downwards).
    """

    exponent: float = math.inf
    ellipticity: float = 0.0
    angle_deg: float = 0.0

    def __post_init__(self) -> None:
        require_within("exponent", self.exponent, 2.0, math.inf)
        require_within("ellipticity", self.ellipticity, -0.9, 0.9)
        require_within("angle_deg", self.angle_deg, -360.0, 360.0)

    @property
    def scale_radius(self) -> float:
        """r0 per pixel of blur diameter."""
        if math.isinf(self.exponent):
            return 0.5
        inverse = 1.0 / self.exponent
        return math.exp(0.5 * (math.lgamma(2.0 * inverse) - math.lgamma(4.0 * inverse))) / math.sqrt(8.0)

    def reach(self, diameter_px: float) -> int:
        """How many pixels beside its own a point's image touches, along an axis."""
        tail = math.log(1.0 / _TAIL) ** (1.0 / self.exponent)
        longest = self.scale_radius * tail * math.sqrt(1.0 + abs(self.ellipticity)) * diameter_px
        return max(1, math.ceil(longest - 0.5))

    @functools.lru_cache(maxsize=4096)  # noqa: B019 - frozen, and as small as the key
    def kernel(self, diameter_px: float, in_front: bool = True) -> Tensor:
        """Weights [k, k] float32, k odd, of blur with this diameter [px]; their sum is 1.

        Their own second moment is d^2 / 16 along an axis. A profile averaged over pixels would have 1/12
        more: the sharp image has been averaged over them already.
        """
        reach = self.reach(diameter_px)
        size = 2 * reach + 1
        samples = math.ceil(_SAMPLES / size)
        at = (torch.arange(size * samples, dtype=torch.float32) + 0.5) / samples - 0.5 * size
        squared_radius = self._squared_radius(at[None, :], at[:, None], in_front)
        pixels = torch.arange(-reach, reach + 1, dtype=torch.float32).square()
        distance2 = pixels[:, None] + pixels[None, :]
        wanted = diameter_px**2 / 16.0

        def drawn(diameter2: float) -> tuple[Tensor, float]:
            """Weights of a profile with this squared diameter, and their second moment beyond the wanted."""
            fine = self._profile(squared_radius, math.sqrt(diameter2), samples)
            weights = fine.reshape(size, samples, size, samples).sum(dim=(1, 3))
            weights /= weights.sum()
            return weights, 0.5 * float((weights * distance2).sum()) - wanted

        # Sheppard's correction, then a bracketed secant (Illinois): small profiles are far from it.
        low, high = 0.01 * diameter_px**2, 1.5 * diameter_px**2
        diameter2 = max(diameter_px**2 - 16.0 / 12.0, 0.5 * diameter_px**2)
        below, above = -wanted, 0.5 * wanted
        for _ in range(_FIT_STEPS):
            weights, excess = drawn(diameter2)
            if abs(excess) < _FIT * wanted:
                break
            if excess > 0.0:
                high, above, below = diameter2, excess, 0.5 * below
            else:
                low, below, above = diameter2, excess, 0.5 * above
            diameter2 = low + (high - low) * below / (below - above)
        return weights

    def _squared_radius(self, x: Tensor, y: Tensor, in_front: bool) -> Tensor:
        """r^2 [px^2] where the profile is round."""
        ellipticity = self.ellipticity if in_front else -self.ellipticity
        angle = math.radians(self.angle_deg)
        along = math.cos(angle) * x + math.sin(angle) * y
        across = math.cos(angle) * y - math.sin(angle) * x
        return along**2 / (1.0 + ellipticity) + across**2 / (1.0 - ellipticity)

    def _profile(self, squared_radius: Tensor, diameter_px: float, samples: int) -> Tensor:
        r0 = self.scale_radius * diameter_px
        if math.isinf(self.exponent):
            return ((r0 - squared_radius.sqrt()) * samples + 0.5).clamp(0.0, 1.0)
        return torch.exp(-((squared_radius / r0**2) ** (0.5 * self.exponent)))
