"""Which foci are swept: as given, else as the camera suggests, else planned. Needs no rclpy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hybriddepth_ros.cameras import FocusCamera
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.optics import plan_sweep
from hybriddepth_ros.ros.schema import FocusSweepParameters

_LEAST_RANGE = 0.01  # 1/m, of a planned sweep; no lens tells so little apart
_ROUNDING = 1e-6  # relative; a limit that was given in metres is no shortened plan


def sweep_positions(
    parameters: FocusSweepParameters, camera: FocusCamera
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """(foci to sweep [1/m], what to warn of), of an open camera; all differ, and the lens reaches them.

    CameraError where it reaches too little of what was asked for.
    """
    wanted, warnings = _wanted(parameters, camera)
    kept: dict[float, float] = {}  # by what the lens makes of it: a motor may have coarse steps
    for focus in wanted:
        kept.setdefault(camera.nearest_focus(focus), focus)
    if len(kept) < 2:
        raise CameraError(
            f"focus_diopters: expected foci that the lens tells apart, got {_told(wanted)} 1/m, which are one"
            " step of its motor"
        )
    if len(kept) < len(wanted):
        left_out = [focus for focus in wanted if focus not in kept.values()]
        text = f"the lens's steps are coarse: {_told(left_out)} 1/m would be swept twice and is left out"
        warnings = (*warnings, text)
    return tuple(kept.values()), warnings


def _told(foci: Sequence[float]) -> str:
    return ", ".join(f"{focus:g}" for focus in foci)


def _wanted(
    parameters: FocusSweepParameters, camera: FocusCamera
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    low, high = parameters.sweep_options.focus_range(camera)
    if parameters.focus_diopters:
        for focus in parameters.focus_diopters:
            if not low <= focus <= high:
                raise CameraError(
                    f"focus_diopters: expected {low:g} to {high:g} 1/m as the lens reaches, got {focus:g}"
                )
        return parameters.focus_diopters, ()
    suggested = camera.default_focus_diopters
    if not suggested:
        return _planned(parameters, camera, low, high)
    reached = tuple(min(max(focus, low), high) for focus in suggested)
    if len(set(reached)) < len(reached):
        raise CameraError(
            f"focus_diopters: expected positions of {low:g} to {high:g} 1/m, as more than one of what the"
            f" camera suggests lies beyond the same end of that ({_told(suggested)})"
        )
    return reached, ()


def _planned(
    parameters: FocusSweepParameters, camera: FocusCamera, low: float, high: float
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Even steps over as much of the distances asked for as the lens reaches."""
    asked_far = 1.0 / parameters.far_distance if parameters.far_distance else 0.0
    asked_near = 1.0 / parameters.near_distance
    far, near = max(asked_far, low), min(asked_near, high)
    if near - far < _LEAST_RANGE:
        raise CameraError(
            f"near_distance, far_distance: expected some of {low:.4g} to {high:.4g} 1/m as the lens reaches,"
            f" got {asked_far:.4g} to {asked_near:.4g} 1/m"
        )
    plan = plan_sweep(1.0 / near, 1.0 / far if far else math.inf, parameters.slice_count, camera.lens)
    warnings = list(plan.warnings)
    if near < asked_near * (1.0 - _ROUNDING):
        warnings.insert(0, _shortened("near_distance", parameters.near_distance, asked_near, near))
    if far > asked_far * (1.0 + _ROUNDING):
        warnings.insert(0, _shortened("far_distance", parameters.far_distance, asked_far, far))
    return tuple(min(max(focus, low), high) for focus in plan.focus_diopters), tuple(warnings)


def _shortened(name: str, metres: float, asked: float, reached: float) -> str:
    given = f"{metres:g} m" if metres else "0, infinity"
    return (
        f"{name} is {given} ({asked:.4g} 1/m), the lens reaches {1.0 / reached:.3g} m"
        f" ({reached:.4g} 1/m): the sweep ends there"
    )
