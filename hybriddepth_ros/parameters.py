"""Parameters as dataclass fields: default, description, unit and range stand in one place.

A node's or an estimator's parameters are one frozen dataclass whose fields are made by :func:`parameter`. The
ROS layer declares them, the command line checks files against them, and the documentation prints them; none
repeats a default.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from hybriddepth_ros.errors import ParameterError

T = TypeVar("T")

_KEY = "hybriddepth_parameter"
LARGEST_NUMBER = 2**63  # what a ROS integer parameter holds


@dataclasses.dataclass(frozen=True)
class ParameterInfo:
    """What is said of one parameter beside its name and default.

    `minimum`/`maximum` bound a number (each element of a list). `dynamic` tells whether a running node
    applies a change; a static one is applied at the next `configure`.
    """

    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False


def parameter(
    default: Any,
    description: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Iterable[str] = (),
    dynamic: bool = False,
) -> Any:
    """A dataclass field that is a parameter. Lists are written as tuples: `(0.3, 2.0)`."""
    info = ParameterInfo(description, unit, minimum, maximum, tuple(choices), dynamic)
    return dataclasses.field(default=default, metadata={_KEY: info})


def parameter_fields(cls: type) -> dict[str, tuple[Any, ParameterInfo]]:
    """Name -> (default, info) of a parameter dataclass, in the order of declaration."""
    return {
        field.name: (field.default, field.metadata[_KEY])
        for field in dataclasses.fields(cls)
        if _KEY in field.metadata
    }


def check_value(name: str, default: Any, info: ParameterInfo, value: Any) -> Any:
    """`value` in the type of `default`, or a ParameterError that says what was expected."""
    if isinstance(default, tuple):
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ParameterError(f"{name}: expected a list, got {value!r}")
        element_type = type(default[0]) if default else float
        return tuple(_check_scalar(name, element_type, info, element) for element in value)
    return _check_scalar(name, type(default), info, value)


def _check_scalar(name: str, kind: type, info: ParameterInfo, value: Any) -> Any:
    if kind is bool:
        if not isinstance(value, bool):
            raise ParameterError(f"{name}: expected true or false, got {value!r}")
        return value
    if kind is str:
        if not isinstance(value, str):
            raise ParameterError(f"{name}: expected text, got {value!r}")
        if info.choices and value not in info.choices:
            raise ParameterError(f"{name}: expected one of {', '.join(info.choices)}, got {value!r}")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ParameterError(f"{name}: expected a number, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ParameterError(f"{name}: expected a finite number, got {value!r}")
    if abs(value) >= LARGEST_NUMBER:
        raise ParameterError(f"{name}: expected a number below 2^63, got a larger one")
    if kind is int and value != int(value):
        raise ParameterError(f"{name}: expected a whole number, got {value!r}")
    low, high = info.minimum, info.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"{'-inf' if low is None else low} to {'inf' if high is None else high}"
        raise ParameterError(f"{name}: expected {bounds} {info.unit}".rstrip() + f", got {value!r}")
    return kind(value)


def nearest_name(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the closest known name, or nothing."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str = "parameters") -> T:
    """A checked instance of a parameter dataclass; an unknown name is refused with the nearest known one."""
    fields = parameter_fields(cls)
    checked = {}
    for name, value in values.items():
        if name not in fields:
            raise ParameterError(f"{where}: unknown parameter {name!r}{nearest_name(name, fields)}")
        default, info = fields[name]
        try:
            checked[name] = check_value(name, default, info, value)
        except ParameterError as error:
            raise ParameterError(f"{where}: {error}") from None
    return cls(**checked)
