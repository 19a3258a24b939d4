"""`ros2 run hybriddepth_ros composed`: both nodes in one process, slices go from one to the other uncopied.

Both are configured and activated at start-up, the depth node first: it is to see the first sweep.
"""

from __future__ import annotations

import sys

from rclpy.context import Context

from hybriddepth_ros.ros.depth_node import DepthNode
from hybriddepth_ros.ros.focus_sweep_node import FocusSweepNode
from hybriddepth_ros.ros.lifecycle import ManagedNode
from hybriddepth_ros.ros.local_slices import LocalSlices
from hybriddepth_ros.ros.spin import run_nodes


def make_nodes(context: Context) -> list[ManagedNode]:
    slices = LocalSlices()
    return [
        DepthNode(context=context, local_slices=slices),
        FocusSweepNode(context=context, local_slices=slices),
    ]


def main() -> int:
    """Until SIGINT or SIGTERM; the exit code."""
    return run_nodes(make_nodes, autostart=True)


if __name__ == "__main__":
    sys.exit(main())
