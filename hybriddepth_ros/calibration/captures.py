"""The pictures that a calibration is worked out from, in memory and as a folder with a `captures.yaml`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from hybriddepth_ros.calibration.board import BoardSpec, Grey
from hybriddepth_ros.errors import OutputError, ParameterError, StackError
from hybriddepth_ros.image_files import read_image
from hybriddepth_ros.yaml_files import read_yaml

MANIFEST = "captures.yaml"
_APPROACHES = {"rising": 1, "falling": -1}


@dataclass(frozen=True)
class Shot:
    """One image [H, W] with the lens at rest; approach: 1 = with rising actuator, -1 = with falling."""

    image: Grey
    actuator: float
    approach: int = 1


@dataclass(frozen=True)
class Sweep:
    """Shots of a board, or of any textured flat target, that stands still while the focus moves.

    distance_m: from the lens along its axis, as measured by hand; None = the board tells it.
    """

    shots: tuple[Shot, ...]
    distance_m: float | None = None


@dataclass(frozen=True)
class BoardViews:
    """Images [H, W] of the board in many poses, all at one actuator position.

    sweep: of the board facing the camera, by which that position is known to be in focus there.
    """

    actuator: float
    images: tuple[Grey, ...]
    sweep: Sweep


@dataclass(frozen=True)
class Captures:
    """All that a folder holds; what a step lacks it cannot be run on."""

    board: BoardSpec
    views: BoardViews | None = None
    sweeps: tuple[Sweep, ...] = field(default=())


def write_captures(folder: Path, captures: Captures) -> None:
    """PNG images and the manifest; what lies in the folder under the same names is replaced."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        board = captures.board
        values: dict[str, Any] = {
            "board": {
                "columns": board.columns,
                "rows": board.rows,
                "square_mm": 1e3 * board.square_m,
                "dictionary": board.dictionary,
            }
        }
        if captures.views:
            views = captures.views
            values["intrinsics"] = {
                "actuator": float(views.actuator),
                "images": [
                    _write(folder, f"view_{i:02d}.png", image) for i, image in enumerate(views.images)
                ],
                "sweep": _sweep_values(folder, "focus", views.sweep),
            }
        values["sweeps"] = [
            _sweep_values(folder, f"sweep_{i:02d}", sweep) for i, sweep in enumerate(captures.sweeps)
        ]
        (folder / MANIFEST).write_text(yaml.safe_dump(values, sort_keys=False, default_flow_style=None))
    except OSError as error:
        raise OutputError(f"{folder}: images could not be written ({error.strerror})") from None


def _sweep_values(folder: Path, name: str, sweep: Sweep) -> dict[str, Any]:
    shots = []
    for i, shot in enumerate(sweep.shots):
        approach = "rising" if shot.approach > 0 else "falling"
        image = _write(folder, f"{name}_{i:02d}.png", shot.image)
        shots.append({"image": image, "actuator": float(shot.actuator), "approach": approach})
    distance = {} if sweep.distance_m is None else {"distance_m": float(sweep.distance_m)}
    return {**distance, "shots": shots}


def _write(folder: Path, name: str, image: Grey) -> str:
    if not cv2.imwrite(str(folder / name), image):
        raise OutputError(f"{folder / name}: the image could not be written")
    return name


def read_captures(folder: Path, board: BoardSpec | None = None) -> Captures:
    """A folder's captures; `board` where the manifest names none. ParameterError names file and key."""
    path = folder / MANIFEST
    values = read_yaml(path, "the list of captured images")
    try:
        if not isinstance(values, dict):
            raise ParameterError("expected keys and values: board, intrinsics, sweeps")
        described = values.get("board")
        spec = _board(described) if described is not None else board or BoardSpec()
        sweeps = tuple(
            _sweep(folder, sweep, f"sweeps[{i}]") for i, sweep in enumerate(_list(values, "sweeps"))
        )
        taken = values.get("intrinsics")
        views = _views(folder, taken) if taken is not None else None
        _check_sizes(views, sweeps)
        return Captures(spec, views, sweeps)
    except (ParameterError, StackError) as error:
        raise ParameterError(f"{path}: {error}") from None


def _check_sizes(views: BoardViews | None, sweeps: Sequence[Sweep]) -> None:
    images = [*views.images, *(shot.image for shot in views.sweep.shots)] if views else []
    images += [shot.image for sweep in sweeps for shot in sweep.shots]
    sizes = list(dict.fromkeys(image.shape[::-1] for image in images))
    if len(sizes) > 1:
        (w0, h0), (w1, h1) = sizes[:2]
        raise ParameterError(f"expected images of one size, got {w0}x{h0} and {w1}x{h1} px")


def _board(values: Any) -> BoardSpec:
    where = "board"
    return BoardSpec(
        _whole(values, "columns", where),
        _whole(values, "rows", where),
        1e-3 * _number(values, "square_mm", where),
        str(values.get("dictionary", BoardSpec.dictionary)),
    )


def _views(folder: Path, values: Any) -> BoardViews:
    where = "intrinsics"
    actuator = _number(values, "actuator", where)
    names = _list(values, "images")
    images = tuple(_image(folder, name, f"{where}.images[{i}]") for i, name in enumerate(names))
    return BoardViews(actuator, images, _sweep(folder, values.get("sweep"), f"{where}.sweep"))


def _sweep(folder: Path, values: Any, where: str) -> Sweep:
    if not isinstance(values, dict):
        raise ParameterError(f"{where}: expected shots, got {values!r}")
    distance = None if values.get("distance_m") is None else _number(values, "distance_m", where)
    if distance is not None and not distance > 0.0:
        raise ParameterError(f"{where}.distance_m: expected more than 0 m, got {distance:g}")
    shots = []
    for i, shot in enumerate(_list(values, "shots")):
        at = f"{where}.shots[{i}]"
        actuator = _number(shot, "actuator", at)
        approach = shot.get("approach", "rising")
        if not isinstance(approach, str) or approach not in _APPROACHES:
            raise ParameterError(f"{at}.approach: expected rising or falling, got {approach!r}")
        image = _image(folder, shot.get("image"), f"{at}.image")
        shots.append(Shot(image, actuator, _APPROACHES[approach]))
    if not shots:
        raise ParameterError(f"{where}.shots: expected one or more, got none")
    return Sweep(tuple(shots), distance)


def _image(folder: Path, name: Any, where: str) -> Grey:
    if not isinstance(name, str):
        raise ParameterError(f"{where}: expected the name of a file, got {name!r}")
    try:
        return np.asarray(cv2.cvtColor(read_image(folder / name), cv2.COLOR_RGB2GRAY), np.uint8)
    except (StackError, ValueError) as error:  # ValueError: a name with a zero byte
        raise ParameterError(f"{where}: {error}") from None


def _list(values: Any, key: str) -> Sequence[Any]:
    found = values.get(key, []) if isinstance(values, dict) else None
    if not isinstance(found, list):
        raise ParameterError(f"{key}: expected a list, got {found!r}")
    return found


def _number(values: Any, key: str, where: str) -> float:
    found = values.get(key) if isinstance(values, dict) else None
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise ParameterError(f"{where}.{key}: expected a number, got {found!r}")
    if not math.isfinite(found):
        raise ParameterError(f"{where}.{key}: expected a finite number, got {found!r}")
    return float(found)


def _whole(values: Any, key: str, where: str) -> int:
    number = _number(values, key, where)
    if number != int(number):
        raise ParameterError(f"{where}.{key}: expected a whole number, got {number:g}")
    return int(number)
