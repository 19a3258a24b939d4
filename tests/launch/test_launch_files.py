"""What can be checked of the launch files, DDS profile and RViz view without `launch` and a screen."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from hybriddepth_ros.evaluation.recording import DEPTH, SCENE, SIGMA, TRUTH
from hybriddepth_ros.ros.interface import INTERFACE

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH_FILES = sorted((REPOSITORY / "launch").glob("*.launch.py"))
OUTPUTS = {
    endpoint.name for endpoint in INTERFACE if (endpoint.node, endpoint.direction) == ("depth", "publishes")
}


def constants(file: Path) -> dict[str, object]:
    """The module's constants that are literals."""
    values = {}
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                values[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue  # made of names, such as DEFAULT_NAMESPACE
    return values


def declared_arguments(file: Path) -> set[str]:
    """The keys of ARGUMENTS, whatever their values are made of."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ARGUMENTS":
            assert isinstance(node.value, ast.Dict)
            return {ast.literal_eval(key) for key in node.value.keys if key is not None}
    raise AssertionError(f"{file.name}: no ARGUMENTS")


@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda file: file.name)
def test_launch_file_compiles_and_has_what_ros2_launch_calls(file: Path) -> None:
    compile(file.read_text(), file.name, "exec")
    functions = [node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
    assert "generate_launch_description" in functions


@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda file: file.name)
def test_every_argument_that_is_read_is_declared(file: Path) -> None:
    read = set(re.findall(r"""(?:value|is_true)\("(\w+)"\)""", file.read_text()))
    for names in re.findall(r"value\(name\) for name in (\(.*?\))", file.read_text()):
        read |= set(ast.literal_eval(names))
    assert read
    assert read <= declared_arguments(file)


def test_depth_launch_has_the_documented_arguments() -> None:
    assert declared_arguments(REPOSITORY / "launch" / "depth.launch.py") == {
        *("camera", "depth", "transport", "input", "params_file", "namespace", "model", "device", "rviz"),
        *("use_sim_time", "log_level", "composed"),
    }


def test_replay_passes_on_arguments_that_depth_launch_has() -> None:
    tree = ast.parse((REPOSITORY / "launch" / "replay.launch.py").read_text())
    passed_on = next(
        ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "passed_on"
    )
    assert set(passed_on) <= declared_arguments(REPOSITORY / "launch" / "depth.launch.py")


def test_replay_leaves_out_every_recorded_output_of_the_depth_node() -> None:
    """Else two publishers, then and now, would mix on one topic."""
    found = constants(REPOSITORY / "launch" / "replay.launch.py")
    left_out = {*found["RECORDED_OUTPUTS"], *found["ALSO_LEFT_OUT"]}  # type: ignore[misc]
    assert left_out >= OUTPUTS


def test_replay_records_what_an_evaluation_of_the_recording_reads() -> None:
    found = constants(REPOSITORY / "launch" / "replay.launch.py")
    assert set(found["SCORED"]) == {DEPTH, SIGMA, SCENE, TRUTH}  # type: ignore[call-overload]


def test_rviz_shows_topics_that_the_depth_node_publishes_and_the_launch_file_remaps() -> None:
    view = yaml.safe_load((REPOSITORY / "rviz" / "depth.rviz").read_text())["Visualization Manager"]
    topics = {display["Topic"]["Value"] for display in view["Displays"] if "Topic" in display}
    shown = {topic.removeprefix("/focus_camera/") for topic in topics}
    assert shown <= OUTPUTS
    assert shown == set(constants(REPOSITORY / "launch" / "depth.launch.py")["RVIZ_TOPICS"])  # type: ignore[call-overload]
    assert view["Global Options"]["Fixed Frame"] == "focus_camera_optical_frame"


def test_dds_profile_has_room_for_several_large_images_in_shared_memory() -> None:
    root = ElementTree.parse(REPOSITORY / "config" / "fastdds.xml").getroot()
    names = {"dds": "http://www.eprosima.com"}
    transports = {
        transport.findtext("dds:type", "", names): transport
        for transport in root.iterfind(".//dds:transport_descriptor", names)
    }
    assert set(transports) == {"SHM", "UDPv4"}
    segment_size = int(transports["SHM"].findtext("dds:segment_size", "0", names))
    assert segment_size >= 4 * 8_000_000
    used = {element.text for element in root.iterfind(".//dds:userTransports/dds:transport_id", names)}
    assert used == {transport.findtext("dds:transport_id", "", names) for transport in transports.values()}
