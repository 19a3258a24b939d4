"""ROS parameter files, checked before a node sees them: rclpy passes over what it does not know."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hybriddepth_ros.errors import HybridDepthError, ParameterError
from hybriddepth_ros.parameters import ParameterInfo, check_value, nearest_name, parameter_fields
from hybriddepth_ros.ros.schema import NODES, full_name, parameter_groups

# What rclpy itself declares on every node, and what it makes of a wrong value is a traceback.
ROS_OWN = {
    "use_sim_time": ParameterInfo("take the time from /clock"),
    "start_type_description_service": ParameterInfo("serve ~/get_type_description"),
}
_QOS_PREFIX = "qos_overrides."
_QOS_POLICIES: dict[str, tuple[Any, ParameterInfo]] = {
    "history": ("", ParameterInfo("", choices=("keep_last", "keep_all", "system_default"))),
    "depth": (1, ParameterInfo("", minimum=0, maximum=2**31 - 1)),
    "reliability": ("", ParameterInfo("", choices=("reliable", "best_effort", "system_default"))),
}


def check_params_file(path: str | Path, namespace: str | None = None) -> dict[str, dict[str, Any]]:
    """Node -> parameter -> value of a file that both nodes would accept; ParameterError names file, node and
    parameter.

    Sections may be named as rcl takes them (`/**`, `/**/depth`, `/focus_camera/depth`, nested), or by the
    node's bare name; parameters nested or dotted. Without `namespace` any namespace will do.
    """
    content = _read(Path(path))
    known = {node: known_parameters(node) for node in NODES}
    accepted: dict[str, dict[str, Any]] = {node: {} for node in NODES}
    for section, parameters in _sections(content, str(path)):
        nodes = [node for node in NODES if _matches(section, node, namespace)]
        if not nodes:
            full = (
                [f"/{namespace.strip('/')}/{node}".replace("//", "/") for node in NODES]
                if namespace
                else NODES
            )
            raise ParameterError(
                f"{path}: {section}: unknown node, expected {' or '.join(full)}{nearest_name(section, full)}"
            )
        for name, value in _flatten(parameters, f"{path}: {section}"):
            _check(f"{path}: {section}", name, value, {node: known[node] for node in nodes}, accepted)
    for node, values in accepted.items():
        check_together(node, values, str(path))
    return accepted


def check_together(node: str, values: Mapping[str, Any], where: str) -> None:
    """Refuse values that are each in range but contradict one another, as the dataclasses' own rules say."""
    for prefix, cls in parameter_groups(node):
        given = {
            name: values[full_name(prefix, name)]
            for name in parameter_fields(cls)
            if full_name(prefix, name) in values
        }
        try:
            cls(**given)
        except HybridDepthError as error:
            raise ParameterError(f"{where}: {node}: {full_name(prefix, str(error))}") from None


def _check(
    where: str,
    name: str,
    value: Any,
    nodes: Mapping[str, Mapping[str, tuple[Any, ParameterInfo]]],
    accepted: dict[str, dict[str, Any]],
) -> None:
    if name in ROS_OWN or name.startswith(_QOS_PREFIX):
        try:
            checked = _check_ros_own(name, value)
        except ParameterError as error:
            raise ParameterError(f"{where}: {error}") from None
        for node in nodes:
            accepted[node][name] = checked
        return
    takers = [node for node, known in nodes.items() if name in known]
    if not takers:
        every = [candidate for known in nodes.values() for candidate in known]
        raise ParameterError(f"{where}: unknown parameter {name!r}{nearest_name(name, every)}")
    for node in takers:
        default, info = nodes[node][name]
        try:
            accepted[node][name] = check_value(name, default, info, value)
        except ParameterError as error:
            raise ParameterError(f"{where}: {error}") from None


def _check_ros_own(name: str, value: Any) -> Any:
    if name in ROS_OWN:
        return check_value(name, False, ROS_OWN[name], value)
    topic, _, entity_and_policy = name.removeprefix(_QOS_PREFIX).partition(".")
    entity, _, policy = entity_and_policy.rpartition(".")
    if not topic.startswith("/") or entity not in ("publisher", "subscription"):
        raise ParameterError(
            f"{name}: expected qos_overrides.</full/topic/name>.<publisher or subscription>.<policy>"
        )
    if policy not in _QOS_POLICIES:
        raise ParameterError(
            f"{name}: unknown policy {policy!r}, expected one of {', '.join(_QOS_POLICIES)}"
            f"{nearest_name(policy, _QOS_POLICIES)}"
        )
    return check_value(name, *_QOS_POLICIES[policy], value)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(f"{path}: expected a parameter file: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f" (line {mark.line + 1})" if mark else ""
        raise ParameterError(f"{path}: expected YAML{at}") from None
    if not isinstance(content, Mapping) or not content:
        raise ParameterError(
            f"{path}: expected sections `<node>: ros__parameters: ...`, got {type(content).__name__}"
        )
    return content


def _sections(
    content: Mapping[str, Any], path: str, parent: str = ""
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(node name or pattern, its ros__parameters); namespaces may be nested keys."""
    for key, value in content.items():
        if not isinstance(key, str):
            raise ParameterError(f"{path}: {key!r}: expected the name of a node")
        section = f"{parent}/{key.strip('/')}" if parent else key
        if not isinstance(value, Mapping):
            raise ParameterError(f"{path}: {section}: expected `ros__parameters:` below it")
        if "ros__parameters" in value:
            parameters = value["ros__parameters"]
            if parameters is None:
                parameters = {}
            if not isinstance(parameters, Mapping):
                raise ParameterError(
                    f"{path}: {section}: expected parameters `name: value` in ros__parameters"
                )
            yield section, parameters
            value = {name: below for name, below in value.items() if name != "ros__parameters"}
        elif not value:
            raise ParameterError(f"{path}: {section}: expected `ros__parameters:` below it")
        yield from _sections(value, path, section)


def _matches(section: str, node: str, namespace: str | None) -> bool:
    """Whether a section is for a node of this name: `*` is one token of the full name, `**` any number of
    them.
    """
    tokens = [token for token in section.split("/") if token]
    if len(tokens) == 1 or namespace is None:
        return bool(tokens) and (tokens[-1] == "**" or fnmatch.fnmatchcase(node, tokens[-1]))
    pattern = "".join("(/[^/]+)*" if token == "**" else "/" + fnmatch.translate(token) for token in tokens)
    pattern = re.sub(r"\\[zZ]", "", pattern)  # fnmatch ends each token's pattern as if it were the whole
    return re.fullmatch(pattern, f"/{namespace.strip('/')}/{node}".replace("//", "/")) is not None


def _flatten(parameters: Mapping[str, Any], where: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in parameters.items():
        name = full_name(prefix, str(key))
        if isinstance(value, Mapping):
            yield from _flatten(value, where, name)
        elif value is None:
            raise ParameterError(f"{where}: {name}: expected a value, got nothing")
        else:
            yield name, value


def known_parameters(node: str) -> dict[str, tuple[Any, ParameterInfo]]:
    """Full name -> (default, info) of every parameter that a node declares."""
    return {
        full_name(prefix, name): entry
        for prefix, cls in parameter_groups(node)
        for name, entry in parameter_fields(cls).items()
    }
