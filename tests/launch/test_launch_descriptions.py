"""The launch files as `ros2 launch` reads them; the wheels have no `launch`, so there this is skipped."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("launch_ros")  # `launch` alone may be the folder of this repository

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, EmitEvent, ExecuteProcess, RegisterEventHandler
from launch.events import Shutdown
from launch_ros.actions import LifecycleNode, Node
from launch_ros.events.lifecycle import StateTransition
from lifecycle_msgs.msg import TransitionEvent

LAUNCH = Path(__file__).resolve().parents[2] / "launch"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, LAUNCH / f"{name}.launch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(name: str, **arguments: str) -> list[Any]:
    """What `ros2 launch` would start: the arguments are checked, then `start` is called."""
    module = load(name)
    context = LaunchContext()
    context.launch_configurations.update(arguments)
    for entity in module.generate_launch_description().entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.visit(context)
    entities: list[Any] = module.start(context)
    return entities


def test_depth_launch_starts_both_nodes_and_without_a_camera_only_one() -> None:
    assert sum(isinstance(entity, LifecycleNode) for entity in started("depth")) == 2
    assert sum(isinstance(entity, LifecycleNode) for entity in started("depth", camera="none")) == 1
    assert sum(isinstance(entity, LifecycleNode) for entity in started("depth", depth="false")) == 1


def test_rviz_is_opened_on_demand() -> None:
    plain = [
        e for e in started("depth", rviz="true") if isinstance(e, Node) and not isinstance(e, LifecycleNode)
    ]
    assert len(plain) == 1


def test_a_parameter_file_that_is_not_there_ends_the_launch_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"mistyped\.yaml"):
        started("depth", params_file=str(tmp_path / "mistyped.yaml"))


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        *(("depth", "rviz"), ("depth", "use_sim_time"), ("depth", "log_level")),
        *(("replay", "rviz"), ("replay", "loop"), ("replay", "log_level")),
    ],
)
def test_a_value_that_is_no_choice_is_refused(name: str, argument: str) -> None:
    with pytest.raises(RuntimeError, match="yes"):
        started(name, bag="bag", **{argument: "yes"})


def test_replay_records_on_demand_and_then_plays_later() -> None:
    def played(**arguments: str) -> list[list[str]]:
        handlers = [
            e.event_handler
            for e in started("replay", bag="bag", **arguments)
            if isinstance(e, RegisterEventHandler)
        ]
        entities = [entity for handler in handlers for entity in handler.entities or ()]
        processes = [entity for entity in entities if isinstance(entity, ExecuteProcess)]
        return [["".join(part.text for part in word) for word in process.cmd] for process in processes]

    assert [command[:3] for command in played()] == [["ros2", "bag", "play"]]
    recorder, player = played(record="out/replayed")
    assert recorder[:3] == ["ros2", "bag", "record"] and "/focus_camera/ground_truth/depth" in recorder
    assert "--delay" in player and "--delay" not in played()[0]


def transition(start: str, goal: str) -> StateTransition:
    message = TransitionEvent()
    message.start_state.label, message.goal_state.label = start, goal
    return StateTransition(action=None, msg=message)


@pytest.mark.parametrize(
    ("start", "goal", "ends"),
    [
        ("configuring", "unconfigured", True),
        ("activating", "inactive", True),
        ("errorprocessing", "unconfigured", True),
        ("configuring", "inactive", False),
        ("activating", "active", False),
        ("deactivating", "inactive", False),
        ("cleaningup", "unconfigured", False),
    ],
)
def test_replay_ends_when_the_node_does_not_become_active(start: str, goal: str, ends: bool) -> None:
    handlers = [e.event_handler for e in started("replay", bag="bag") if isinstance(e, RegisterEventHandler)]
    matching = [handler for handler in handlers if handler.matches(transition(start, goal))]
    actions = [action for handler in matching for action in handler.entities or ()]
    shutdowns = [a for a in actions if isinstance(a, EmitEvent) and isinstance(a.event, Shutdown)]
    assert bool(shutdowns) == ends
