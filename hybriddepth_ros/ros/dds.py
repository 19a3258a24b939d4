"""How Fast DDS is to carry images; set before the process makes its first participant."""

from __future__ import annotations

import os
import re
from importlib.metadata import version

from hybriddepth_ros.config_files import find_config
from hybriddepth_ros.errors import ParameterError

# The first is read by Fast DDS 2 (Jazzy), the second by 3 (Kilted), which warns of the first.
_PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_FIRST_RCLPY_WITH_FAST_DDS_3 = 9


LAST_DOMAIN = 232  # a higher one has no ports


def check_environment() -> None:
    """ParameterError for what would end the process as soon as ROS is imported or joins its domain."""
    domain = os.environ.get("ROS_DOMAIN_ID", "").strip() or "0"
    if not domain.isdecimal() or int(domain) > LAST_DOMAIN:
        raise ParameterError(f"ROS_DOMAIN_ID: expected a number from 0 to {LAST_DOMAIN}, got {domain!r}")
    chosen = os.environ.get("RMW_IMPLEMENTATION")
    if not chosen:
        return
    try:
        from ament_index_python import get_packages_with_prefixes
    except ImportError:
        return  # no ROS at all, which importing it says better
    installed = [
        name for name in get_packages_with_prefixes() if re.fullmatch(r"rmw_\w+_(cpp|dynamic)", name)
    ]
    usable = [name for name in installed if not name.endswith("_shared_cpp")]
    if chosen not in usable:
        raise ParameterError(f"RMW_IMPLEMENTATION: expected one of {', '.join(usable)}, got {chosen!r}")


def set_dds_profile() -> None:
    """Room for images in shared memory and publishing that does not wait, unless the user chose."""
    # Synchronous, the default of rmw_fastrtps, has `publish` copy a cloud into shared memory itself: 3 ms
    # of the thread that estimates depth, and 70 ms as soon as a subscriber's process stalls.
    os.environ.setdefault("RMW_FASTRTPS_PUBLICATION_MODE", "ASYNCHRONOUS")
    if any(os.environ.get(variable) for variable in _PROFILE_VARIABLES):
        return
    profile = find_config("fastdds.xml")
    if profile is not None:
        newer = int(version("rclpy").split(".")[0]) >= _FIRST_RCLPY_WITH_FAST_DDS_3
        os.environ[_PROFILE_VARIABLES[newer]] = str(profile)
