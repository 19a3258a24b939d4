"""The subcommands of `hybriddepth`, one file each. Heavy imports (ROS, matplotlib) stay inside them."""
