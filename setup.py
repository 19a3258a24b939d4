"""The build file of the ROS package: for colcon (ament_python) and for pip alike.

All metadata is here and none in pyproject.toml: every ROS distribution's setuptools reads the same thing.
"""

import os
from glob import glob

from setuptools import find_packages, setup

package_name = "hybriddepth_ros"
share = f"share/{package_name}"


def files_under(folder: str) -> list[tuple[str, list[str]]]:
    """data_files entries that install `folder` and all below it under the package's share folder."""
    return [
        (os.path.join(share, root), sorted(os.path.join(root, name) for name in names))
        for root, _, names in os.walk(folder)
        if names and "__pycache__" not in root
    ]


setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(include=[package_name, f"{package_name}.*"]),
    package_data={package_name: ["py.typed", "**/*.safetensors", "**/*.json", "**/*.j2"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (share, ["package.xml"]),
        (f"{share}/launch", sorted(glob("launch/*.launch.py"))),
        *files_under("config"),
        *files_under("rviz"),
        ("bin", ["scripts/hybriddepth"]),  # on PATH after sourcing a colcon install; pip makes its own
    ],
    python_requires=">=3.11",
    install_requires=["setuptools"],
    extras_require={
        "onnx": [
            "onnx",
            "onnxruntime",
        ],  # `hybriddepth weights export`, running what it wrote, `engine: onnx`
        "openvino": ["openvino"],  # `engine: openvino`
        "tensorrt": ["onnxruntime-gpu", "tensorrt"],  # `engine: tensorrt`, and `engine: onnx` on CUDA
        "v4l2": ["linuxpy"],  # the camera `v4l2`
        "optotune": ["pyserial"],  # the lens `optotune`
    },
    zip_safe=False,
    description="Metric depth with a calibrated sigma from one camera whose focus moves, on ROS 2.",
    maintainer="hybriddepth_ros maintainers",
    maintainer_email="maintainers@hybriddepth.org",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "hybriddepth = hybriddepth_ros.__main__:main",
            "focus_sweep = hybriddepth_ros.ros.focus_sweep_node:main",
            "depth = hybriddepth_ros.ros.depth_node:main",
            "composed = hybriddepth_ros.ros.composed:main",
        ],
    },
)
