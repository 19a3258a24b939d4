"""`python -m hybriddepth_ros` is the `hybriddepth` command, and every script of that name comes here."""

from __future__ import annotations

import sys

from hybriddepth_ros.leaving import leave

# Module -> distribution, of what apt's ROS installations may lack; all other modules come with ROS.
_FROM_PIP = {
    "cv2": "opencv-python-headless",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "rich": "rich",
    "rosbags": "rosbags",
    "torch": "torch",
    "typer": "typer",
    "yaml": "PyYAML",
}


def main() -> int:
    """The command line as a program: its exit code, or its end where a thread is still at work."""
    return leave(_run())


def _run() -> int:
    """Runs the command line; a package that is missing is one line and exit code 2."""
    try:
        from hybriddepth_ros.cli import main as run  # within: a colcon install has no typer but pip's

        return run()
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name == "hybriddepth_ros":
            raise
        step = "source a ROS workspace that has it, or make setup"
        if name in _FROM_PIP:
            step = f"pip install {_FROM_PIP[name]} (all: constraints/requirements-ros-install.txt)"
        print(f"hybriddepth: the Python package {name} is missing: {step}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
