#!/bin/bash
# Source ROS and the workspace, then become the command: signals reach it, and its exit code is the container's.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /ws/install/setup.bash
exec "$@"
