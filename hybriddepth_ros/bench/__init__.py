"""How fast the package is on this machine: `hybriddepth bench`. What needs ROS is in hybriddepth_ros.ros."""
