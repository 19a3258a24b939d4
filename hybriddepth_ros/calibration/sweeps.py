"""What is measured in a focus sweep of a still target: sharpness, the board's corners, and how they grow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.calibration.board import BoardSpec, FoundCorners, find_corners
from hybriddepth_ros.calibration.captures import Sweep
from hybriddepth_ros.calibration.curves import Peak, fit_peak
from hybriddepth_ros.calibration.intrinsics import board_diopters, board_pose
from hybriddepth_ros.calibration.rig import Operator, Placement, Rig
from hybriddepth_ros.calibration.sharpness import (
    board_region,
    central_region,
    growth,
    magnified,
    region_sharpness,
)
from hybriddepth_ros.focal_stack import CameraIntrinsics

Values = npt.NDArray[np.float64]
CameraAt = Callable[[float], CameraIntrinsics]  # intrinsics at a focus [1/m]

_FEWEST_CORNERS = 10
_LARGEST_REPROJECTION_PX = 1.0
_LARGEST_GROWTH_RESIDUAL_PX = 0.5
_LOOKED_AT = 0.15  # of the sharpest: below it no corner is looked for

BOARD_DISTANCES_M = (0.36, 0.42, 0.50, 0.62, 0.80)
TYPED_DISTANCES_M = (1.3, 2.2, 6.0)


@dataclass(frozen=True)
class MeasuredSweep:
    """Per shot: actuator, approach (1 rising, -1 falling), sharpness [N]; corners, None where not found.

    base: sharpness far out of focus; reference: index of the sharpest shot with corners, None without a
    board; typed_diopters: of a distance that was measured by hand.
    """

    actuator: Values
    approach: Values
    sharpness: Values
    corners: tuple[FoundCorners | None, ...]
    base: float
    reference: int | None
    typed_diopters: float | None

    def diopters(self, board: BoardSpec, camera_at: CameraAt) -> float | None:
        """Of the target [1/m]: by the board where there is one, else as typed; None = neither.

        The intrinsics are those at the focus that lies at the target, since that is where it was sharp.
        """
        if self.reference is None:
            return self.typed_diopters
        corners = self.corners[self.reference]
        assert corners is not None
        diopters = 0.0
        for _ in range(8):  # a focus of 1 1/m changes the intrinsics by about a percent: it settles fast
            diopters = board_diopters(corners, board, camera_at(diopters))
        if board_pose(corners, board, camera_at(diopters)).rms_px > _LARGEST_REPROJECTION_PX:
            return self.typed_diopters
        return diopters

    def peak(self, approach: int, x: Values | None = None) -> Peak | None:
        """Of the sharpness of one approach over x [N], which is the actuator unless given."""
        chosen = self.approach == approach
        positions = self.actuator if x is None else x
        return fit_peak(positions[chosen], self.sharpness[chosen], self.base)

    def growths(self) -> tuple[Values, Values, Values]:
        """(actuator, approach, image size over that of the sharpest shot) [M], where corners were seen."""
        if self.reference is None:
            return (np.empty(0), np.empty(0), np.empty(0))
        reference = self.corners[self.reference]
        assert reference is not None
        rows = []
        for actuator, approach, corners in zip(self.actuator, self.approach, self.corners, strict=True):
            pair = _common(corners, reference) if corners is not None else None
            if pair is None:
                continue
            scale, residual = growth(*pair)
            if residual <= _LARGEST_GROWTH_RESIDUAL_PX:
                rows.append((actuator, approach, scale))
        columns = np.array(rows, np.float64).reshape(-1, 3).T
        return (columns[0], columns[1], columns[2])


def _common(
    corners: FoundCorners, reference: FoundCorners
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    _, here, there = np.intersect1d(corners.ids, reference.ids, return_indices=True)
    return (corners.points[here], reference.points[there]) if len(here) >= _FEWEST_CORNERS else None


def capture_sweeps(rig: Rig, operator: Operator, board_only: bool = False) -> tuple[Sweep, ...]:
    """Sweeps of the board at near distances, and of any textured flat target at far, typed-in ones."""
    sweeps = []
    for distance in BOARD_DISTANCES_M if board_only else (*BOARD_DISTANCES_M, *TYPED_DISTANCES_M):
        typed = distance in TYPED_DISTANCES_M
        if typed:
            text = (
                f"Put a textured flat target (a poster, a brick wall) about {distance:g} m away, facing the"
                " camera, and measure its distance from the lens."
            )
        else:
            text = f"Stand the board {distance:g} m away, facing the camera; it must not move."
        measured = operator.place(Placement(text, distance, typed=typed), rig.live_sharpness)
        if typed and measured is None:
            operator.say("no distance given: left out")
            continue
        sweeps.append(rig.sweep(measured))
        operator.say(f"{distance:g} m: {len(sweeps[-1].shots)} images")
    return tuple(sweeps)


def measure_sweep(sweep: Sweep, board: BoardSpec, centre: tuple[float, float]) -> MeasuredSweep:
    """Sharpness in a region that follows the target as the image grows; `centre`: principal point [px]."""
    shots = sweep.shots
    size = (shots[0].image.shape[1], shots[0].image.shape[0])
    middle = central_region(size)
    rough = np.array([region_sharpness(shot.image, middle) for shot in shots])
    looked_at = rough - rough.min() >= _LOOKED_AT * (rough.max() - rough.min())
    corners = tuple(
        find_corners(shot.image, board, _FEWEST_CORNERS) if look else None
        for shot, look in zip(shots, looked_at, strict=True)
    )
    actuator = np.array([shot.actuator for shot in shots])
    seen = [i for i, found in enumerate(corners) if found is not None]
    reference = max(seen, key=lambda i: rough[i]) if seen else None
    typed = 1.0 / sweep.distance_m if sweep.distance_m else None
    measured = MeasuredSweep(
        actuator,
        np.array([float(shot.approach) for shot in shots]),
        rough,
        corners,
        float(rough.min()),
        reference,
        typed,
    )
    if reference is None:
        return measured
    found = corners[reference]
    assert found is not None
    positions, _, scales = measured.growths()
    rate = 0.0  # growth per actuator unit
    if np.ptp(positions) > 0:
        rate = float(np.polyfit(positions, scales, 1)[0])
    region = board_region(found)
    values = np.array(
        [
            region_sharpness(
                shot.image,
                magnified(region, np.array(centre), 1.0 + rate * (shot.actuator - actuator[reference])),
            )
            for shot in shots
        ]
    )
    return MeasuredSweep(actuator, measured.approach, values, corners, float(values.min()), reference, typed)
