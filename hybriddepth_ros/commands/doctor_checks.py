"""The checks of `hybriddepth doctor`: each looks and tells, none changes anything, none may fail itself."""

from __future__ import annotations

import contextlib
import glob
import importlib
import os
import platform
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from xml.etree import ElementTree

from hybriddepth_ros.commands.doctor_check import Check
from hybriddepth_ros.commands.doctor_devices import check_cameras, check_lenses
from hybriddepth_ros.commands.versions import installed_version, opencv_version
from hybriddepth_ros.config_files import find_config

MIN_DISK_BYTES = 2 * 10**9  # a demo's bag and the report, twice
IMAGE_BYTES = 8 * 10**6  # the largest image that DESIGN asks for; a shared-memory segment holds several
# Distribution -> (lowest, first unsupported) version, whether everything needs it, and what it is for.
PACKAGES = {
    "numpy": ("1.26", "3", True, "everything"),
    "PyYAML": ("6", None, True, "parameter files, stacks"),
    "typer": ("0.9", None, True, "this command"),
    "rich": ("13", None, True, "this command"),
    "matplotlib": ("3.6", None, True, "pictures"),
    "jinja2": ("3", None, True, "reports"),
    "rosbags": ("0.10", None, False, "demo, evaluate: bags"),
}
NEEDED_FOR_ROS = ("ROS 2", "middleware", "hybriddepth_msgs", "message_filters", "rosbags", "ROS domain")


def run_checks() -> list[Check]:
    """All findings in the order to read them."""
    groups: tuple[Callable[[], Iterable[Check]], ...] = (
        check_python,
        check_packages,
        check_opencv,
        check_ros,
        check_companions,
        check_gpu,
        check_cameras,
        check_lenses,
        check_dds,
        check_weights,
        check_disk,
    )
    found: list[Check] = []
    for group in groups:
        try:
            found += group()
        except Exception as error:  # a broken installation breaks in ways that nobody lists
            name = group.__name__.removeprefix("check_")
            found.append(Check(name, "warn", f"could not be checked: {type(error).__name__}: {error}"))
    return found


def check_python() -> list[Check]:
    return [Check("Python", "ok", platform.python_version(), essential=True)]


def check_packages() -> list[Check]:
    checks = []
    for name, (lowest, beyond, essential, purpose) in PACKAGES.items():
        version = installed_version(name)
        wanted = f"{name}>={lowest}" + (f",<{beyond}" if beyond else "")
        if version is None:
            checks.append(
                Check(name, "missing", f"needed for: {purpose}", f"pip install '{wanted}'", essential)
            )
        elif _numbers(version) < _numbers(lowest) or (beyond and _numbers(version) >= _numbers(beyond)):
            checks.append(Check(name, "warn", version, f"pip install '{wanted}'", essential))
        else:
            checks.append(Check(name, "ok", version, "", essential))
    return checks


def check_opencv() -> list[Check]:
    version = opencv_version()
    install = "pip install 'opencv-python-headless<5'"
    if version is None:
        return [Check("OpenCV", "missing", "not installed", install, essential=True)]
    try:
        import cv2
        import numpy as np

        image = np.zeros((8, 8, 3), np.uint8)
        assert cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).shape == (8, 8)
    except Exception as error:
        return [Check("OpenCV", "missing", f"{version} does not work: {error}", install, essential=True)]
    if _numbers(version) >= (5,):
        return [
            Check("OpenCV", "warn", f"{version}: its type codes break cv_bridge", install, essential=True)
        ]
    return [Check("OpenCV", "ok", version, "", essential=True)]


def check_ros() -> list[Check]:
    setup = "make setup, or source /opt/ros/<distribution>/setup.bash"
    """Asks whether ROS can be imported, and no more: the commands reach it through hybriddepth_ros/ros/."""
    try:
        import rclpy
        from rclpy.type_support import check_for_type_support
        from rclpy.utilities import get_rmw_implementation_identifier
    except ImportError as error:
        return [Check("ROS 2", "missing", f"rclpy: {error}", setup)]
    distribution = os.environ.get("ROS_DISTRO") or _distribution_of(installed_version("rclpy"))
    origin = f"rclpy {installed_version('rclpy') or ''} in {Path(rclpy.__file__).parents[1]}"
    checks = [Check("ROS 2", "ok", f"{distribution}, {origin}")]
    try:
        checks.append(Check("middleware", "ok", get_rmw_implementation_identifier()))
    except Exception as error:
        checks.append(
            Check("middleware", "missing", str(error), "install rmw_fastrtps_cpp; check RMW_IMPLEMENTATION")
        )
    try:
        messages = importlib.import_module("hybriddepth_msgs.msg")
        for kind in (
            messages.FocalSlice,
            messages.CompressedFocalSlice,
        ):  # the second is missing of old builds
            check_for_type_support(kind)
        checks.append(Check("hybriddepth_msgs", "ok", "built"))
    except Exception as error:
        step = "make setup, or colcon build in ros2_ws and source its install/setup.bash"
        checks.append(Check("hybriddepth_msgs", "missing", str(error), step))
    return checks


def check_companions() -> list[Check]:
    checks = []
    for name in ("cv_bridge", "message_filters", "sensor_msgs_py"):
        try:
            module = importlib.import_module(name)
        except Exception as error:
            step = f"make setup, or apt install ros-<distribution>-{name.replace('_', '-')}"
            checks.append(Check(name, "missing", str(error), step))
        else:
            overlay = getattr(module, "PIP_OVERLAY", False)
            checks.append(
                Check(name, "ok", "this package's stand-in (PyPI has none)" if overlay else "upstream")
            )
    return checks


def check_gpu() -> list[Check]:
    version = installed_version("torch")
    nvidia = bool(glob.glob("/dev/nvidia[0-9]*"))
    if version is None:
        return [Check("torch", "warn", "not installed; only the model classical works", "pip install torch")]
    import torch

    checks = [Check("torch", "ok", version)]
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        checks.append(Check("GPU", "ok", f"{torch.cuda.get_device_name()}, {memory}"))
    elif nvidia:
        step = "install torch's CUDA build; nvidia-smi must work"
        checks.append(Check("GPU", "warn", "an NVIDIA GPU that torch cannot use", step))
    else:
        step = "only for speed: an NVIDIA GPU and torch's CUDA build"
        checks.append(Check("GPU", "ok", "none: models run on the CPU", step))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [*checks, Check("engines", "ok", f"on {device}: {', '.join(_engines(device))}")]


def _engines(device: str) -> Iterable[str]:
    from hybriddepth_ros.errors import ModelError
    from hybriddepth_ros.models.engine_choice import engines_on
    from hybriddepth_ros.models.engines import require_engine

    for engine in engines_on(device):
        with contextlib.suppress(ModelError):
            require_engine(engine, device)
            yield engine


def check_dds() -> list[Check]:
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if domain.isdigit() and int(domain) <= 232:
        checks = [Check("ROS domain", "ok", domain + ("" if "ROS_DOMAIN_ID" in os.environ else " (not set)"))]
    else:
        checks = [Check("ROS domain", "missing", repr(domain), "ROS_DOMAIN_ID: a number from 0 to 101")]
    if reach.upper() in ("", "SUBNET"):
        step = "ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST keeps it to this machine"
        checks.append(
            Check("discovery", "warn", "whole subnet: others on the network see and disturb it", step)
        )
    else:
        checks.append(Check("discovery", "ok", reach))
    return [*checks, _segment_check(), _shared_memory_check()]


def check_weights() -> list[Check]:
    """What is installed, by name; hashing it all is `hybriddepth weights verify`."""
    from hybriddepth_ros.models.weights import installed_names
    from hybriddepth_ros.models.weights_config import weights_folder

    installed = installed_names()
    if installed:
        found = f"{', '.join(installed)} in {weights_folder()}"
        if broken := [reason for reason in map(_missing_of_weights, installed) if reason]:
            return [Check("weights", "warn", f"{found}; {'; '.join(broken)}", "hybriddepth weights verify")]
        return [Check("weights", "ok", found)]
    step = "only for the models hybriddepth and crossdepth: hybriddepth weights list"
    return [
        Check(
            "weights", "ok", f"none in {weights_folder()}; sweepnet's are shipped, classical needs none", step
        )
    ]


def check_disk() -> list[Check]:
    free = shutil.disk_usage(Path.cwd()).free
    enough = free >= MIN_DISK_BYTES
    step = "" if enough else f"at least {MIN_DISK_BYTES / 1e9:.0f} GB for bags, or another --out"
    return [Check("disk", "ok" if enough else "warn", f"{free / 1e9:.1f} GB free in {Path.cwd()}", step)]


def _missing_of_weights(name: str) -> str:
    """Why weights cannot be loaded, as far as a look at their config tells; "" if they can."""
    from hybriddepth_ros.errors import WeightsError
    from hybriddepth_ros.models.weights_config import read_config, weights_folder

    config = weights_folder() / f"{name}.yaml"
    try:
        read_config(config)
    except WeightsError as error:
        return str(error)
    tensors = config.with_suffix(".safetensors")
    return "" if tensors.is_file() else f"{tensors.name} is missing"


def _segment_check() -> Check:
    """Fast DDS sends by UDP what its shared-memory segment cannot hold (512 KB by default)."""
    name = "DDS segment"
    rmw = os.environ.get("RMW_IMPLEMENTATION", "")
    if rmw and "fastrtps" not in rmw:
        return Check(name, "ok", f"{rmw} has none of Fast DDS's")
    variables = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    chosen = next((os.environ[v] for v in variables if os.environ.get(v)), None)
    profile = Path(chosen) if chosen else find_config("fastdds.xml")
    if profile is None:
        step = "reinstall: config/fastdds.xml of this package was not found"
        return Check(name, "warn", "512 KB, Fast DDS's default: images go through UDP", step)
    try:
        sizes = [
            int(e.text or 0) for e in ElementTree.parse(profile).iter() if e.tag.endswith("segment_size")
        ]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        return Check(
            name, "missing", f"{profile}: {error}", "mend the profile, or unset " + " and ".join(variables)
        )
    size = max(sizes, default=512 * 1024)
    whose = "chosen by the environment" if chosen else "this package's profile, for run and demo"
    if size < 2 * IMAGE_BYTES:
        step = f"<segment_size> of at least {2 * IMAGE_BYTES} in {profile}"
        return Check(name, "warn", f"{size / 2**20:.1f} MiB, {whose}: large images go through UDP", step)
    return Check(name, "ok", f"{size / 2**20:.0f} MiB, {whose}")


def _shared_memory_check() -> Check:
    try:
        usage = shutil.disk_usage("/dev/shm")
    except OSError:
        return Check(
            "/dev/shm", "warn", "none: DDS goes through UDP", "mount a tmpfs there (docker: --shm-size)"
        )
    if usage.free < 256 * 2**20:
        found = f"{usage.free / 2**20:.0f} MiB free"
        return Check("/dev/shm", "warn", found, "256 MiB or more (docker run --shm-size=1g, or --ipc=host)")
    return Check("/dev/shm", "ok", f"{usage.free / 2**20:.0f} MiB free")


def _distribution_of(version: str | None) -> str:
    known = {3: "humble", 7: "jazzy", 9: "kilted"}
    return known.get(_numbers(version)[0], "unknown distribution") if version else "unknown distribution"


def _numbers(version: str) -> tuple[int, ...]:
    """`2.13.0+cpu` -> (2, 13, 0)."""
    numbers = []
    for part in version.split("+")[0].split("."):
        digits = "".join(c for c in part if c.isdigit())
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers) or (0,)
