"""The `-p name:=value` syntax of ROS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from hybriddepth_ros.errors import ParameterError


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """`["max_depth:=5", "register:=false"]` -> `{"max_depth": 5, "register": False}`; values are YAML."""
    values = {}
    for text in texts:
        name, separator, value = text.partition(":=")
        if not separator or not name.strip():
            raise ParameterError(f"-p {text}: expected name:=value")
        try:
            values[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ParameterError(f"-p {text}: expected a YAML value after :=") from None
    return values


def by_node(assignments: dict[str, Any], nodes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`{"depth.model": "classical"}` -> `{"depth": {"model": "classical"}, ...}`, an entry for each node."""
    result: dict[str, dict[str, Any]] = {node: {} for node in nodes}
    for name, value in assignments.items():
        node, _, parameter = name.partition(".")
        if node not in result or not parameter:
            expected = " or ".join(f"{node}.<parameter>" for node in nodes)
            raise ParameterError(f"-p {name}: expected {expected}")
        result[node][parameter] = value
    return result
