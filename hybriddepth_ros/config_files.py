"""Where the files of `config/` lie, from a checkout or installed."""

from __future__ import annotations

import sys
from pathlib import Path


def find_config(name: str) -> Path | None:
    """A file or folder of `config/`: beside the sources, else in the installed package's share folder."""
    candidates = [
        Path(__file__).resolve().parents[1] / "config" / name,
        Path(sys.prefix) / "share" / "hybriddepth_ros" / "config" / name,  # installed by pip
    ]
    try:
        from ament_index_python.packages import get_package_share_directory

        candidates.append(Path(get_package_share_directory("hybriddepth_ros")) / "config" / name)
    except (ImportError, LookupError, OSError):
        pass  # not installed as a ROS package, or no ROS environment set
    return next((path for path in candidates if path.exists()), None)
