"""Which versions produced a result, read from the installed metadata, so that nothing is imported for it."""

from __future__ import annotations

import importlib.metadata
import platform

# Distribution names; Ubuntu's OpenCV has none of them and is asked itself.
_OPENCV = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
)
_PACKAGES = ("numpy", "torch", "rclpy", "rosbags")


def installed_version(*distributions: str) -> str | None:
    """The version of the first of these that is installed."""
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def opencv_version() -> str | None:
    """OpenCV's version, by its metadata or else by itself."""
    version = installed_version(*_OPENCV)
    if version is None:
        try:
            import cv2
        except ImportError:
            return None
        version = str(cv2.__version__)
    return version


def versions() -> dict[str, str]:
    """Name -> version of this package, Python and what results depend on; without what is not installed."""
    from hybriddepth_ros import __version__

    found = {"hybriddepth_ros": __version__, "python": platform.python_version(), "opencv": opencv_version()}
    found |= {name: installed_version(name) for name in _PACKAGES}
    return {name: version for name, version in found.items() if version is not None}
