"""The ranges that the renderer's parameters must keep to."""

from __future__ import annotations

from hybriddepth_ros.errors import ParameterError


def require_within(name: str, value: float, low: float, high: float) -> None:
    """ParameterError unless low <= value <= high; NaN is refused."""
    if not low <= value <= high:
        raise ParameterError(f"{name}: expected {low:g} to {high:g}, got {value!r}")
