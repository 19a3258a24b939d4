from setuptools import find_packages, setup

PACKAGE = "cv_bridge"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/" + PACKAGE]),
        ("share/" + PACKAGE, ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="hybriddepth_ros maintainers",
    maintainer_email="maintainers@hybriddepth.org",
    description="Stand-in for cv_bridge on ROS 2 from PyPI",
    license="Apache-2.0",
)
