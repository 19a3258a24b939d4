"""Start the focus sweep and the depth node, configure them and activate them.

    ros2 launch hybriddepth_ros depth.launch.py
    ros2 launch hybriddepth_ros depth.launch.py camera:=replay params_file:=my.yaml rviz:=true

An argument left empty keeps what the parameter file says. `camera:=topic` sweeps a lens before the camera of
another node (topic.image, topic.lens ... in the parameter file). `camera:=none` leaves the sweep out: slices
come from elsewhere (a bag, another driver). `depth:=false` leaves the depth node out: it runs on another
machine, docs/two_machines.md.
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

PACKAGE = "hybriddepth_ros"
DEFAULT_NAMESPACE = "focus_camera"  # what rviz/depth.rviz is written for
RVIZ_TOPICS = ("rgb/image_rect", "depth/image_rect", "depth/uncertainty", "depth/points")

ARGUMENTS = {
    "camera": ("", "driver to open, as `camera` in the parameter file; none = start no focus_sweep"),
    "depth": ("true", "false: start no depth node, as it runs on another machine"),
    "transport": ("", "how slices leave: raw, jpeg or png; empty = the parameter file's"),
    "input": ("", "what depth takes: slices, compressed_slices or topics; empty = the parameter file's"),
    "composed": ("false", "true: both nodes in one process, slices go from one to the other uncopied"),
    "params_file": ("", "parameters of both nodes; empty = the package's config/depth.yaml"),
    "namespace": (DEFAULT_NAMESPACE, "namespace of both nodes and all their topics"),
    "model": ("", "depth model; empty = the parameter file's"),
    "device": ("", "where the model runs: auto, cpu, cuda ...; empty = the parameter file's"),
    "rviz": ("false", "true: also open rviz2 with the package's view of the outputs"),
    "use_sim_time": ("false", "true: take the time from /clock"),
    "log_level": ("info", "debug, info, warn, error or fatal, for both nodes"),
}
CHOICES = {
    "composed": ["true", "false"],
    "depth": ["true", "false"],
    "rviz": ["true", "false"],
    "use_sim_time": ["true", "false"],
    "log_level": ["debug", "info", "warn", "error", "fatal"],
}


def share(*path: str) -> str:
    return os.path.join(get_package_share_directory(PACKAGE), *path)


def dds_profile() -> list[LaunchDescriptionEntity]:
    """Room for images in shared memory, unless the user chose a profile; config/fastdds.xml says why."""
    variables = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    if any(os.environ.get(variable) for variable in variables):
        return []
    # Jazzy's Fast DDS reads the first only; later ones read the second, and warn about the first.
    needed = variables[:1] if os.environ.get("ROS_DISTRO") == "jazzy" else variables[1:]
    return [SetEnvironmentVariable(variable, share("config", "fastdds.xml")) for variable in needed]


def managed_node(
    name: str, overrides: dict[str, str], context: LaunchContext
) -> list[LaunchDescriptionEntity]:
    """A lifecycle node, configured as soon as it runs and activated once it is configured."""

    def value(argument: str) -> str:
        return LaunchConfiguration(argument).perform(context)

    # Names such as "1" or "true" stay strings; an override that is empty is none.
    given = {key: ParameterValue(text, value_type=str) for key, text in overrides.items() if text}
    node = LifecycleNode(
        package=PACKAGE,
        executable=name,
        name=name,
        namespace=value("namespace"),
        parameters=[
            value("params_file") or share("config", "depth.yaml"),
            {"use_sim_time": value("use_sim_time") == "true", **given},
        ],
        ros_arguments=["--log-level", value("log_level")],
        output="both",
        emulate_tty=True,
    )

    def request(transition_id: int) -> EmitEvent:
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition_id)
        )

    return [
        RegisterEventHandler(
            OnProcessStart(target_action=node, on_start=[request(Transition.TRANSITION_CONFIGURE)])
        ),
        # From `configuring` only: a node that somebody deactivates also becomes inactive, and is to stay so.
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="inactive",
                entities=[request(Transition.TRANSITION_ACTIVATE)],
            )
        ),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="unconfigured",
                entities=[LogInfo(msg=f"{name} could not be configured; its own log line above says why")],
            )
        ),
        node,
    ]


def composed(overrides: dict[str, dict[str, str]], context: LaunchContext) -> Node:
    """Both nodes in one process, which configures and activates them itself."""

    def value(argument: str) -> str:
        return LaunchConfiguration(argument).perform(context)

    given = [
        argument
        for node, parameters in overrides.items()
        for key, text in parameters.items()
        if text
        for argument in ("-p", f"{node}:{key}:={text}")  # of this node alone
    ]
    return Node(
        package=PACKAGE,
        executable="composed",
        namespace=value("namespace"),
        parameters=[
            value("params_file") or share("config", "depth.yaml"),
            {"use_sim_time": value("use_sim_time") == "true"},
        ],
        ros_arguments=["--log-level", value("log_level"), *given],
        output="both",
        emulate_tty=True,
    )


def rviz(namespace: str, use_sim_time: bool) -> Node:
    old, new = f"/{DEFAULT_NAMESPACE}", f"/{namespace.strip('/')}".rstrip("/")
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", share("rviz", "depth.rviz")],
        parameters=[{"use_sim_time": use_sim_time}],
        remappings=[(f"{old}/{topic}", f"{new}/{topic}") for topic in RVIZ_TOPICS if old != new],
    )


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    def value(argument: str) -> str:
        return LaunchConfiguration(argument).perform(context)

    # rcl would only log it, and the nodes would run on their defaults.
    if value("params_file") and not os.path.isfile(value("params_file")):
        raise FileNotFoundError(f"params_file: expected a file, found none at {value('params_file')}")
    entities = dds_profile()
    overrides = {
        "focus_sweep": {name: value(name) for name in ("camera", "transport")},
        "depth": {name: value(name) for name in ("model", "device", "input")},
    }
    if value("composed") == "true":
        if value("camera") == "none" or value("depth") == "false":
            raise ValueError("composed: expected both nodes here, got camera:=none or depth:=false")
        entities.append(composed(overrides, context))
    else:
        if value("camera") != "none":
            entities += managed_node("focus_sweep", overrides["focus_sweep"], context)
        if value("depth") == "true":
            entities += managed_node("depth", overrides["depth"], context)
    if value("rviz") == "true":
        entities.append(rviz(value("namespace"), value("use_sim_time") == "true"))
    return entities


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description, choices=CHOICES.get(name))
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
