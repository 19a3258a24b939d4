"""Parameter dataclasses as ROS parameters: declared once, checked on every change, read as frozen values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from hybriddepth_ros.errors import HybridDepthError, ParameterError
from hybriddepth_ros.parameters import ParameterInfo, check_value, nearest_name, parameter_fields
from hybriddepth_ros.ros.params_file import check_params_file
from hybriddepth_ros.ros.schema import Groups, full_name

__all__ = ["NodeParameters", "check_params_file", "descriptor"]

T = TypeVar("T")

STATIC_REFUSAL = "applied at the next configure: deactivate and cleanup first"
_INT64_MAX = 2**63 - 1


class NodeParameters:
    """The parameters of one node; `parameters[DepthParameters]` is a frozen, consistent snapshot.

    Changes are checked by type, range, choice and the dataclass's own rules, and applied all at once; a
    static one is refused while `is_configured()`. `on_change` is called after a change was applied.
    """

    def __init__(
        self, node: Node, groups: Groups, is_configured: Callable[[], bool], on_change: Callable[[], None]
    ) -> None:
        self._node = node
        self._is_configured = is_configured
        self._on_change = on_change
        self._fields: dict[str, tuple[type, str, Any, ParameterInfo]] = {
            full_name(prefix, name): (cls, name, default, info)
            for prefix, cls in groups
            for name, (default, info) in parameter_fields(cls).items()
        }
        given = {name: self._given(name, *entry[2:]) for name, entry in self._fields.items()}
        self._values = self._build({cls: cls() for _, cls in groups}, given)
        self._declare(given)
        node.add_pre_set_parameters_callback(self._in_declared_types)
        node.add_on_set_parameters_callback(self.check)
        node.add_post_set_parameters_callback(self._apply)

    def __getitem__(self, cls: type[T]) -> T:
        value: T = self._values[cls]
        return value

    def check(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        """Whether these values may be set together; the reason if not."""
        try:
            for parameter in parameters:
                if parameter.name not in self._fields:
                    if self._node.has_parameter(parameter.name) or parameter.name.startswith(
                        "qos_overrides."
                    ):
                        continue  # rclpy's own
                    raise ParameterError(
                        f"unknown parameter {parameter.name!r}{nearest_name(parameter.name, self._fields)}"
                    )
                if not self._fields[parameter.name][3].dynamic and self._is_configured():
                    raise ParameterError(f"{parameter.name}: {STATIC_REFUSAL}")
            self._build(self._values, self._ours(parameters))
        except HybridDepthError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def unknown(self, names: Sequence[str]) -> list[str]:
        """One line for each given parameter that nothing declares; rclpy passes over them in silence."""
        return [
            f"unknown parameter {name!r} is ignored{nearest_name(name, self._fields)}"
            for name in names
            if name not in self._fields
            and not self._node.has_parameter(name)
            and not name.startswith("qos_overrides.")
        ]

    def _given(self, name: str, default: Any, info: ParameterInfo) -> Any:
        override = _overrides(self._node).get(name)
        return default if override is None else check_value(name, default, info, _plain(override.value))

    def _declare(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            _, _, default, info = self._fields[name]
            kind = _ros_type(default)
            try:
                # the kind alone cannot carry a default and a value alone cannot carry the kind of an empty
                # list
                self._node.declare_parameter(
                    name,
                    kind if value == () else _ros_value(value),
                    descriptor(default, info),
                    ignore_override=True,
                )
            except (InvalidParameterTypeException, InvalidParameterValueException) as error:
                raise ParameterError(f"{name}: {error}") from None
            if value == ():
                self._node.set_parameters([Parameter(name, kind, [])])

    def _in_declared_types(self, parameters: list[Parameter]) -> list[Parameter]:
        """`ros2 param set /depth max_depth 20` means 20.0."""
        typed = []
        for parameter in parameters:
            if parameter.name in self._fields:
                kind = _ros_type(self._fields[parameter.name][2])
                if kind is Parameter.Type.DOUBLE and parameter.type_ is Parameter.Type.INTEGER:
                    parameter = Parameter(parameter.name, kind, float(parameter.value))
                elif kind is Parameter.Type.DOUBLE_ARRAY and _is_whole_numbers(parameter):
                    parameter = Parameter(parameter.name, kind, [float(value) for value in parameter.value])
            typed.append(parameter)
        return typed

    def _apply(self, parameters: Sequence[Parameter]) -> None:
        ours = self._ours(parameters)
        if ours:
            self._values = self._build(self._values, ours)
            self._on_change()

    def _ours(self, parameters: Sequence[Parameter]) -> dict[str, Any]:
        return {p.name: _plain(p.value) for p in parameters if p.name in self._fields}

    def _build(self, current: dict[type, Any], values: dict[str, Any]) -> dict[type, Any]:
        changes: dict[type, dict[str, Any]] = {}
        for name, value in values.items():
            cls, field, default, info = self._fields[name]
            changes.setdefault(cls, {})[field] = check_value(name, default, info, value)
        return {cls: dataclasses.replace(old, **changes.get(cls, {})) for cls, old in current.items()}


def descriptor(default: Any, info: ParameterInfo) -> ParameterDescriptor:
    """What `ros2 param describe` says of a parameter."""
    unit = f" [{info.unit}]" if info.unit else ""
    constraints = ["dynamic: a change applies at once" if info.dynamic else f"static: {STATIC_REFUSAL}"]
    if info.choices:
        constraints.insert(0, f"one of {', '.join(info.choices)}")
    result = ParameterDescriptor(
        description=info.description + unit, additional_constraints="; ".join(constraints)
    )
    kind = type(default)
    bounded = info.minimum is not None or info.maximum is not None
    if bounded and kind is float:
        low = -math.inf if info.minimum is None else float(info.minimum)
        high = math.inf if info.maximum is None else float(info.maximum)
        result.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
    elif bounded and kind is int:
        low_int = -_INT64_MAX if info.minimum is None else int(info.minimum)
        high_int = _INT64_MAX if info.maximum is None else int(info.maximum)
        result.integer_range = [
            IntegerRange(from_value=low_int, to_value=high_int, step=0 if not bounded else 1)
        ]
    return result


_SCALARS = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
}
_ARRAYS = {
    bool: Parameter.Type.BOOL_ARRAY,
    int: Parameter.Type.INTEGER_ARRAY,
    float: Parameter.Type.DOUBLE_ARRAY,
    str: Parameter.Type.STRING_ARRAY,
}


def _ros_type(default: Any) -> Parameter.Type:
    if isinstance(default, tuple):
        return _ARRAYS[type(default[0]) if default else float]
    return _SCALARS[type(default)]


def _ros_value(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _is_whole_numbers(parameter: Parameter) -> bool:
    """A list of integers; an empty list arrives as one of bytes or of booleans."""
    empty = parameter.type_.name.endswith("_ARRAY") and len(parameter.value) == 0
    return empty or parameter.type_ is Parameter.Type.INTEGER_ARRAY


def _plain(value: Any) -> Any:
    """rclpy hands lists of numbers over as array.array."""
    return value if isinstance(value, (bool, int, float, str)) or value is None else tuple(value)


def _overrides(node: Node) -> dict[str, Parameter]:
    # rclpy has no public way to ask what a file or the command line gave before a parameter is declared, and
    # declaring `5` for a parameter of type double fails there, where `5.0` was meant
    return getattr(node, "_parameter_overrides", {})
