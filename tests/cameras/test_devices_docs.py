"""docs/devices.md names the cameras, lenses, options and files that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from hybriddepth_ros.cameras.lens import lens_names
from hybriddepth_ros.cameras.v4l2 import OWN_MOTOR
from hybriddepth_ros.cli import app
from hybriddepth_ros.commands.options import by_node, parse_assignments
from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.parameters import check_value
from hybriddepth_ros.ros.params_file import NODES, known_parameters
from hybriddepth_ros.ros.schema import sweep_camera_names

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/devices.md").read_text(encoding="utf-8")
COMMENT = re.compile(r"\s# .*$")
CODES = re.findall(r"`([^`\n]+)`", TEXT)
LINES = [COMMENT.sub("", line).strip() for line in re.findall(r"^ {4,}(\S.*)$", TEXT, re.MULTILINE)]
COMMANDS = [line for line in LINES + CODES if line.startswith("hybriddepth ")]
LAUNCHES = [line for line in LINES + CODES if line.startswith("ros2 launch ")]
SETTINGS = [code for code in CODES if re.match(r"[a-z][\w.]*: ", code)]


def rows(heading: str) -> set[str]:
    """First column of the table whose first heading is this."""
    table = TEXT.split(f"| `{heading}` |")[1].split("\n\n")[0]
    return set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))


def test_every_camera_and_every_lens_is_in_its_table_and_no_other() -> None:
    assert rows("camera") == set(sweep_camera_names())
    assert rows("lens") == {OWN_MOTOR, *lens_names()}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_line_has_options_that_there_are(line: str) -> None:
    """Parsed as the command itself does; it is not run."""
    name, *arguments = shlex.split(line)[1:]
    command = typer.main.get_command(app)
    context = command.make_context("hybriddepth", [name, *arguments], resilient_parsing=True)
    found = command.get_command(context, name)  # type: ignore[attr-defined]
    assert found is not None, name
    parsed = found.make_context(name, list(arguments))
    if parsed.params.get("camera"):
        assert parsed.params["camera"] in sweep_camera_names()
    for node, values in by_node(parse_assignments(parsed.params.get("parameter") or ()), NODES).items():
        for parameter, value in values.items():
            check_value(parameter, *known_parameters(node)[parameter], value)


@pytest.mark.parametrize("line", LAUNCHES)
def test_a_launch_has_arguments_that_there_are(line: str) -> None:
    package, file, *arguments = line.split()[2:]
    assert package == "hybriddepth_ros"
    text = (ROOT / "launch" / file).read_text(encoding="utf-8")
    assert arguments
    for argument in arguments:
        name, _, value = argument.partition(":=")
        assert re.search(rf'^    "{name}": \(', text, re.MULTILINE), name
        if name == "camera":
            assert value in sweep_camera_names()


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_is_one_that_the_sweep_takes(setting: str) -> None:
    known = known_parameters("focus_sweep")
    for name, value in yaml.safe_load(setting).items():
        full = name if name in known else f"v4l2.{name}"
        check_value(full, *known[full], value)


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) >= 8 and len(LAUNCHES) >= 4 and len(SETTINGS) >= 3
    with pytest.raises(ParameterError):
        check_value("v4l2.pixel_format", *known_parameters("focus_sweep")["v4l2.pixel_format"], "JPEG")


def test_every_file_that_is_linked_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) >= 4
    for link in links:
        assert (ROOT / "docs" / link).exists(), link
