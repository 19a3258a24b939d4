"""docs/two_machines.md names arguments, parameters, topics and files that there are."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from hybriddepth_ros.clock_check import ClockCheck
from hybriddepth_ros.image_compression import TRANSPORTS
from hybriddepth_ros.parameters import check_value
from hybriddepth_ros.ros.interface import INTERFACE
from hybriddepth_ros.ros.params_file import known_parameters

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/two_machines.md").read_text(encoding="utf-8")
LINES = [line.strip() for line in re.findall(r"^ {4,}(\S.*)$", TEXT, re.MULTILINE)]
LAUNCHES = [line for line in LINES if line.startswith("ros2 launch ")]
NODES = [line for line in LINES if line.startswith(".venv/bin/")]
ZENOH = ("zenoh_router.json5", "zenoh_session.json5")


@pytest.mark.parametrize("line", LAUNCHES)
def test_a_launch_has_arguments_that_there_are(line: str) -> None:
    package, file, *arguments = line.split()[2:]
    assert package == "hybriddepth_ros" and arguments
    text = (ROOT / "launch" / file).read_text(encoding="utf-8")
    for argument in arguments:
        name, _, value = argument.partition(":=")
        assert re.search(rf'^    "{name}": \(', text, re.MULTILINE), name
        for node in ("focus_sweep", "depth"):
            if name in ("transport", "input") and name in known_parameters(node):
                check_value(name, *known_parameters(node)[name], value)


@pytest.mark.parametrize("line", NODES)
def test_a_node_is_started_with_parameters_that_it_has(line: str) -> None:
    words = shlex.split(line)
    node = Path(words[0]).name
    given = [words[at + 1] for at, word in enumerate(words) if word == "-p"]
    assert len(given) >= 2
    for assignment in given:
        name, _, value = assignment.partition(":=")
        check_value(
            name, *known_parameters(node)[name], value == "true" if value in ("true", "false") else value
        )


def test_every_transport_is_in_the_table_with_its_topic() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `(slice\S*)` \|", TEXT, re.MULTILINE))
    assert tuple(rows) == TRANSPORTS
    assert set(rows.values()) <= {endpoint.name for endpoint in INTERFACE}


def test_every_file_that_is_linked_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) >= 3 and all((ROOT / "docs" / link).exists() for link in links)


def test_what_it_says_of_clocks_is_what_the_node_says() -> None:
    check = ClockCheck()
    for index in range(5):
        check.add((index + 1) * 10**9 + 62_000_000, (index + 1) * 10**9)
    assert f"`{check.verdict()}`" in TEXT


@pytest.mark.parametrize("name", ZENOH)
def test_the_files_for_zenoh_are_json_with_comments_and_without_multicast(name: str) -> None:
    text = (ROOT / "config" / name).read_text(encoding="utf-8")
    config = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    assert config["scouting"]["multicast"] == {"enabled": False}
    assert config["mode"] == {"zenoh_router.json5": "router", "zenoh_session.json5": "peer"}[name]
    for side in ("connect", "listen"):
        for endpoint in config[side]["endpoints"]:
            assert re.fullmatch(r"tcp/[\w.]+:\d+", endpoint), endpoint


def test_there_is_something_to_check() -> None:
    assert len(LAUNCHES) == 2 and len(NODES) == 2
