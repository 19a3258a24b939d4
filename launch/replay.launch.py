"""Play a bag of slices into the depth node.

    ros2 launch hybriddepth_ros replay.launch.py bag:=out/demo/bag rviz:=true
    ros2 launch hybriddepth_ros replay.launch.py bag:=out/demo/bag record:=out/replayed
    hybriddepth evaluate out/replayed --recorded

Time comes from the bag. What the depth node had published while recording is left out, so that its outputs do
not mix with those of then. Playing starts when the node is active, and all ends with the bag, unless rviz is
open; or before, if the node cannot be configured or activated, or ends.
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import Event, EventHandler, LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import StateTransition

RECORDER_SECONDS = 2.0  # head start of the recorder: what is played before it subscribed would be missing
LAST_STACK_SECONDS = 3.0  # for what is still being estimated when the bag ends

# In the namespace; recorded with the slices, and published anew by the depth node.
RECORDED_OUTPUTS = (
    "depth/image_rect",
    "depth/uncertainty",
    "depth/camera_info",
    "depth/points",
    "depth/transition_event",
    "focus_demand",
    "rgb/image_rect",
    "rgb/camera_info",
)
# What `hybriddepth evaluate --recorded` scores.
SCORED = ("depth/image_rect", "depth/uncertainty", "rgb/image_rect", "ground_truth/depth")
ALSO_LEFT_OUT = ("/clock", "/diagnostics", "/parameter_events", "/rosout")

ARGUMENTS = {
    "bag": (None, "bag to play: a folder, or an .mcap file"),
    "rate": ("1.0", "speed of playing; 1 = as recorded"),
    "record": ("", "folder to record the depth and the bag's ground truth into; empty = none"),
    "loop": ("false", "true: start the bag again at its end"),
    "namespace": ("focus_camera", "namespace that the slices were recorded in"),
    "params_file": ("", "parameters of the depth node; empty = the package's config/depth.yaml"),
    "model": ("", "depth model; empty = the parameter file's"),
    "device": ("", "where the model runs: auto, cpu, cuda ...; empty = the parameter file's"),
    "rviz": ("false", "true: also open rviz2 with the package's view of the outputs"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
}
CHOICES = {
    "loop": ["true", "false"],
    "rviz": ["true", "false"],
    "log_level": ["debug", "info", "warn", "error", "fatal"],
}


def has_failed(event: Event) -> bool:
    """A lifecycle node could not be configured or activated."""
    failures = (("configuring", "unconfigured"), ("activating", "inactive"))
    if not isinstance(event, StateTransition):
        return False
    return (event.start_state, event.goal_state) in failures or event.start_state == "errorprocessing"


def end(reason: str) -> EmitEvent:
    return EmitEvent(event=Shutdown(reason=reason))


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    def value(argument: str) -> str:
        return LaunchConfiguration(argument).perform(context)

    def is_true(argument: str) -> bool:
        return value(argument) == "true"

    namespace = f"/{value('namespace').strip('/')}".rstrip("/")
    left_out = [f"{namespace}/{topic}" for topic in RECORDED_OUTPUTS] + list(ALSO_LEFT_OUT)
    player = ExecuteProcess(
        cmd=[
            *("ros2", "bag", "play", value("bag"), "--clock", "--rate", value("rate")),
            *(["--loop"] if is_true("loop") else []),
            *(["--delay", str(RECORDER_SECONDS)] if value("record") else []),
            *("--disable-keyboard-controls", "--exclude-topics", *left_out),
        ],
        output="screen",
    )
    recorder = ExecuteProcess(
        cmd=[
            *("ros2", "bag", "record", "--storage", "mcap", "--output", value("record")),
            *("--use-sim-time", "--topics", *(f"{namespace}/{topic}" for topic in SCORED)),
        ],
        output="screen",
    )

    share = get_package_share_directory("hybriddepth_ros")
    passed_on = ("namespace", "params_file", "model", "device", "rviz", "log_level")
    depth = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(os.path.join(share, "launch", "depth.launch.py")),
        launch_arguments=[
            ("camera", "none"),
            ("use_sim_time", "true"),
            *((argument, value(argument)) for argument in passed_on),
        ],
    )

    # `depth` is the only lifecycle node of this launch; before it is active, slices would be lost.
    play_when_active = RegisterEventHandler(
        OnStateTransition(
            goal_state="active",
            entities=[recorder, player] if value("record") else [player],
            handle_once=True,
        )
    )
    end_on_failure = RegisterEventHandler(
        EventHandler(matcher=has_failed, entities=[end("the depth node did not become active")])
    )
    end_with_node = RegisterEventHandler(
        OnProcessExit(
            target_action=lambda action: isinstance(action, LifecycleNode),
            on_exit=[end("the depth node has ended")],
        )
    )
    entities: list[LaunchDescriptionEntity] = [play_when_active, end_on_failure, end_with_node, depth]
    if not is_true("rviz"):
        last = TimerAction(period=LAST_STACK_SECONDS, actions=[end("the bag has ended")])
        entities.insert(0, RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[last])))
    return entities


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description, choices=CHOICES.get(name))
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
