"""What `hybriddepth calibrate` finds out about a camera and its lens, and its YAML file.

The file follows the convention of camera_info files (image_width, camera_matrix, distortion_coefficients ...)
and adds what a moving focus needs. All but the intrinsics may be missing: steps are done one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hybriddepth_ros.errors import OutputError, ParameterError, StackError
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.yaml_files import read_yaml, write_whole

Pairs = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class FocusTable:
    """Actuator position <-> focus [1/m], linear between the pairs, strictly monotone in both.

    pairs (actuator, diopters) rise in the actuator; diopters all rise or all fall.
    """

    pairs: Pairs

    def __post_init__(self) -> None:
        if len(self.pairs) < 2:
            raise ParameterError(f"focus_table: expected at least 2 pairs, got {len(self.pairs)}")
        table = np.array(self.pairs, np.float64)
        if not np.isfinite(table).all():
            raise ParameterError("focus_table: expected finite numbers")
        actuator, diopters = np.diff(table[:, 0]), np.diff(table[:, 1])
        if not (actuator > 0).all() or not ((diopters > 0).all() or (diopters < 0).all()):
            raise ParameterError(
                "focus_table: expected rising actuator positions whose diopters all rise or all fall"
            )

    @property
    def diopter_range(self) -> tuple[float, float]:
        """(far, near) [1/m]."""
        ends = (self.pairs[0][1], self.pairs[-1][1])
        return (min(ends), max(ends))

    def diopters(self, actuator: float) -> float:
        """Focus [1/m] at an actuator position; beyond the table, that of its end."""
        positions, foci = zip(*self.pairs, strict=True)
        return float(np.interp(actuator, positions, foci))

    def actuator(self, diopters: float) -> float:
        """Actuator position for a focus [1/m]; beyond the table, that of its end."""
        positions, foci = zip(*sorted(self.pairs, key=lambda pair: pair[1]), strict=True)
        return float(np.interp(diopters, foci, positions))


@dataclass(frozen=True)
class CameraCalibration:
    """None or empty = not measured.

    camera: intrinsics focused at infinity (0 1/m), px; breathing_percent_per_diopter: growth of the image
    with focus, as `simulation.breathing_intrinsics` counts it; focus_table: approached with rising diopters,
    focus_table_falling: with falling ones, where that differs; settle_ms: from the command to standing still;
    latency_ms: from a frame's stamp to its delivery; blur_px_per_diopter: diameter; residual_diopters: rms of
    the table's fit; temperature_c: of the lens then.
    """

    camera: CameraIntrinsics
    camera_name: str = "focus_camera"
    focus_table: FocusTable | None = None
    focus_table_falling: FocusTable | None = None
    breathing_percent_per_diopter: float = 0.0
    settle_ms: float | None = None
    latency_ms: float | None = None
    blur_px_per_diopter: float | None = None
    residual_diopters: float | None = None
    temperature_c: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)  # whatever else the file says, kept as it is

    def at_focus(self, focus_diopters: float) -> CameraIntrinsics:
        """Intrinsics [px] at a focus [1/m]."""
        scale = 1.0 + 0.01 * self.breathing_percent_per_diopter * focus_diopters
        return replace(self.camera, fx=self.camera.fx * scale, fy=self.camera.fy * scale)


_NUMBERS = {  # and the lowest that can be
    "settle_ms": 0.0,
    "latency_ms": 0.0,
    "blur_px_per_diopter": 0.0,
    "residual_diopters": 0.0,
    "temperature_c": -273.15,
}
_TABLES = ("focus_table", "focus_table_falling")
_CAMERA_INFO = (
    "image_width",
    "image_height",
    "camera_name",
    "camera_matrix",
    "distortion_model",
    "distortion_coefficients",
    "rectification_matrix",
    "projection_matrix",
)
_DERIVED = ("fx", "fy", "cx", "cy")  # the same as camera_matrix, to read at a glance


def read_calibration(path: str | Path) -> CameraCalibration:
    """Also a plain camera_info file, as camera_calibration writes; ParameterError names file and key."""
    path = Path(path).expanduser()
    values = read_yaml(path, "a calibration")
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: expected keys and values, at least image_width and camera_matrix")
    try:
        return _from_values(values)
    except (ParameterError, StackError) as error:
        raise ParameterError(f"{path}: {error}") from None


def write_calibration(path: str | Path, calibration: CameraCalibration) -> None:
    """Whole or not at all: a file that was there stays until the new one is written."""
    path = Path(path)
    text = yaml.safe_dump(_to_values(calibration), sort_keys=False, default_flow_style=None)
    try:
        write_whole(path, text)
    except OSError as error:
        raise OutputError(f"{path}: could not be written ({error.strerror})") from None


def _from_values(values: dict[str, Any]) -> CameraCalibration:
    width, height = (_number(values, key, required=True) for key in ("image_width", "image_height"))
    matrix = _numbers(_required(values, "camera_matrix"), "camera_matrix", 9)
    model = values.get("distortion_model", "plumb_bob")
    distortion = values.get("distortion_coefficients")
    if distortion is not None and model != "plumb_bob":
        raise ParameterError(f"distortion_model: expected plumb_bob, got {model!r}")
    coefficients = _numbers(distortion, "distortion_coefficients") if distortion is not None else ()
    assert width is not None and height is not None
    for key, side in (("image_width", width), ("image_height", height)):
        if side < 1 or side != int(side):
            raise ParameterError(f"{key}: expected a whole number of at least 1, got {side:g}")
    camera = CameraIntrinsics(
        matrix[0],
        matrix[4],
        matrix[2],
        matrix[5],
        int(width),
        int(height),
        coefficients if any(coefficients) else (),
    )
    known = {*_CAMERA_INFO, *_DERIVED, *_NUMBERS, *_TABLES, "breathing_percent_per_diopter"}
    return CameraCalibration(
        camera,
        str(values.get("camera_name", "focus_camera")),
        focus_table=_table(values, "focus_table"),
        focus_table_falling=_table(values, "focus_table_falling"),
        breathing_percent_per_diopter=_number(values, "breathing_percent_per_diopter") or 0.0,
        **{key: _number(values, key, lowest=lowest) for key, lowest in _NUMBERS.items()},
        notes={key: value for key, value in values.items() if key not in known},
    )


def _to_values(calibration: CameraCalibration) -> dict[str, Any]:
    camera = calibration.camera
    matrix = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    projection = [*matrix[:3], 0.0, *matrix[3:6], 0.0, *matrix[6:], 0.0]
    distortion = [*camera.distortion, *[0.0] * (5 - len(camera.distortion))]
    values: dict[str, Any] = {
        "image_width": camera.width,
        "image_height": camera.height,
        "camera_name": calibration.camera_name,
        "camera_matrix": _rows(3, 3, matrix),
        "distortion_model": "plumb_bob",
        "distortion_coefficients": _rows(1, 5, distortion),
        "rectification_matrix": _rows(3, 3, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]),
        "projection_matrix": _rows(3, 4, projection),
        **{name: float(getattr(camera, name)) for name in _DERIVED},
        "breathing_percent_per_diopter": float(calibration.breathing_percent_per_diopter),
    }
    for name in _TABLES:
        table = getattr(calibration, name)
        if table is not None:
            values[name] = [[float(a), float(d)] for a, d in table.pairs]
    for name in _NUMBERS:
        value = getattr(calibration, name)
        if value is not None:
            values[name] = float(value)
    return values | calibration.notes


def _rows(rows: int, columns: int, data: Sequence[float]) -> dict[str, Any]:
    return {"rows": rows, "cols": columns, "data": [float(value) for value in data]}


def _required(values: dict[str, Any], key: str) -> Any:
    if key not in values:
        raise ParameterError(f"{key}: expected, got none")
    return values[key]


def _number(
    values: dict[str, Any], key: str, required: bool = False, lowest: float | None = None
) -> float | None:
    value = _required(values, key) if required else values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise ParameterError(f"{key}: expected a finite number, got {value!r}")
    if lowest is not None and value < lowest:
        raise ParameterError(f"{key}: expected at least {lowest:g}, got {value!r}")
    return float(value)


def _numbers(value: Any, key: str, count: int | None = None) -> tuple[float, ...]:
    data = value.get("data") if isinstance(value, dict) else value
    if not isinstance(data, list) or (count is not None and len(data) != count):
        raise ParameterError(f"{key}: expected data: a list of {count or 'some'} numbers, got {value!r}")
    return tuple(number for item in data if (number := _number({key: item}, key)) is not None)


def _table(values: dict[str, Any], key: str) -> FocusTable | None:
    if values.get(key) is None:
        return None
    rows = values[key]
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise ParameterError(f"{key}: expected a list of [actuator, diopters], got {rows!r}")
    pairs = [_numbers(row, key, 2) for row in rows]
    try:
        return FocusTable(tuple((pair[0], pair[1]) for pair in pairs))
    except ParameterError as error:
        raise ParameterError(str(error).replace("focus_table", key, 1)) from None
