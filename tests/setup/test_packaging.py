"""What colcon, rosdep, pip and `make setup` read: manifests, entry points, pins; and the scripts they run."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest

import hybriddepth_ros

REPOSITORY = Path(__file__).resolve().parents[2]
DISTROS = ("jazzy", "kilted")
MANIFESTS = ("package.xml", "ros2_ws/src/hybriddepth_msgs/package.xml")


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def colcon(*arguments: str, cwd: Path) -> str:
    if importlib.util.find_spec("colcon_core") is None:
        pytest.skip("colcon is not installed for this Python")
    finished = subprocess.run(
        [sys.executable, "-m", "colcon", "--log-base", os.devnull, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


# ---- manifests


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_manifest_is_valid_and_has_the_version_of_the_package(manifest: str) -> None:
    catkin_package = pytest.importorskip("catkin_pkg.package")
    package = catkin_package.parse_package(str(REPOSITORY / manifest))  # raises on an invalid e-mail or key

    assert package.package_format == 3
    assert package.version == hybriddepth_ros.__version__
    assert package.licenses == ["Apache-2.0"]


def test_colcon_takes_both_packages_for_what_they_are() -> None:
    """Plain `(python)` would build too, but ros2 launch would not find it; and no environment is searched."""
    listed = sorted(line.split() for line in colcon("list", cwd=REPOSITORY / "ros2_ws").splitlines())
    assert listed == [
        ["hybriddepth_msgs", "src/hybriddepth_msgs", "(ros.ament_cmake)"],
        ["hybriddepth_ros", "src/hybriddepth_ros", "(ros.ament_python)"],
    ]


def test_setup_py_reports_the_version_of_the_package() -> None:
    command = [sys.executable, "setup.py", "--quiet", "--version"]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert finished.stdout.split()[-1] == hybriddepth_ros.__version__, finished.stderr


def console_scripts() -> dict[str, str]:
    """The entry points that setup.py declares: name -> module:function."""
    text = (REPOSITORY / "setup.py").read_text()
    return dict(re.findall(r'"(\w+) = ([\w.]+:\w+)"', text))


def test_entry_points_are_the_command_and_both_nodes() -> None:
    assert set(console_scripts()) == {"hybriddepth", "focus_sweep", "depth", "composed"}


@pytest.mark.parametrize(("name", "target"), sorted(console_scripts().items()))
def test_entry_point_names_a_function_that_exists(name: str, target: str) -> None:
    module, function = target.split(":")
    source = REPOSITORY / (module.replace(".", "/") + ".py")
    assert source.is_file(), f"{name}: no file {source}"
    defined = {node.name for node in ast.parse(source.read_text()).body if isinstance(node, ast.FunctionDef)}
    assert function in defined


def files_below(folder: Path) -> set[str]:
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {file.as_posix() for file in files if "__pycache__" not in file.parts}


def test_colcon_install_has_what_ros2_run_and_launch_look_for(tmp_path: Path) -> None:
    install = tmp_path / "install"
    build = ["--build-base", str(tmp_path / "build"), "--install-base", str(install), "--merge-install"]
    colcon("build", "--packages-select", "hybriddepth_ros", *build, cwd=REPOSITORY / "ros2_ws")

    for script in ("hybriddepth", "focus_sweep", "depth"):
        assert os.access(install / "lib" / "hybriddepth_ros" / script, os.X_OK)
        # an active virtual environment's Python, which has torch, runs the nodes
        first_line = (install / "lib" / "hybriddepth_ros" / script).read_text().splitlines()[0]
        assert first_line == "#!/usr/bin/env python3"
    assert os.access(install / "bin" / "hybriddepth", os.X_OK)
    assert (install / "share/ament_index/resource_index/packages/hybriddepth_ros").is_file()
    share = install / "share" / "hybriddepth_ros"
    assert next(install.rglob("hybriddepth_ros/py.typed")).is_file()
    for folder in ("launch", "config", "rviz"):
        assert files_below(share / folder) == files_below(REPOSITORY / folder)


# ---- pins


def pins(distro: str) -> dict[str, str]:
    lines = (REPOSITORY / "constraints" / f"{distro}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("distro", DISTROS)
def test_torch_and_opencv_are_pinned_to_what_works(distro: str) -> None:
    assert pins(distro)["torch"] == "2.13.0"
    assert int(pins(distro)["opencv-python-headless"].split(".")[0]) < 5


@pytest.mark.parametrize("distro", DISTROS)
def test_every_requirement_has_a_pin(distro: str) -> None:
    wanted = set()
    for name in ("requirements.txt", "requirements-dev.txt", f"requirements-ros-{distro}.txt"):
        for line in (REPOSITORY / "constraints" / name).read_text().splitlines():
            requirement = re.match(r"[A-Za-z0-9._-]+", line)
            if requirement:
                wanted.add(re.sub(r"[-_.]+", "-", requirement[0]).lower())
    assert wanted - set(pins(distro)) == set()


def imported_modules(root: Path) -> set[str]:
    """The outermost packages that the Python files below `root` import, anywhere in them."""
    names: set[str] = set()
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names


def test_nothing_is_required_that_nothing_imports() -> None:
    modules = {"opencv-python-headless": "cv2", "PyYAML": "yaml", "pyserial": "serial"}
    lines = (REPOSITORY / "constraints" / "requirements.txt").read_text().splitlines()
    required = {line.split()[0] for line in lines if line and not line.startswith("#")} - {"setuptools"}
    assert {modules.get(name, name) for name in required} <= imported_modules(REPOSITORY / "hybriddepth_ros")


# ---- mending the wheels' CMake files

EXPORT = """set_target_properties(std_msgs::std_msgs PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES "{image}/cp311-cp311/include/python3.11;{image}/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include"
)
"""  # noqa: E501


def test_mending_replaces_the_build_image_and_finds_nothing_the_second_time(tmp_path: Path) -> None:
    mender = load_script("mend_cmake_prefix")
    cmake = tmp_path / "share" / "std_msgs" / "cmake"
    cmake.mkdir(parents=True)
    (cmake / "export.cmake").write_text(EXPORT.format(image="/build/python"))
    (cmake / "other.cmake").write_text('set(there "/usr/include/python3.11")\n')

    assert mender.mend(tmp_path, "/here/include", "/here/numpy") == [cmake / "export.cmake"]
    assert '"/here/include;/here/numpy"' in (cmake / "export.cmake").read_text()
    assert (cmake / "other.cmake").read_text() == 'set(there "/usr/include/python3.11")\n'

    assert mender.mend(tmp_path, "/here/include", "/here/numpy") == []
    assert sorted(path.name for path in cmake.iterdir()) == ["export.cmake", "other.cmake"]


def test_this_environment_is_mended() -> None:
    folders = [Path(sys.prefix) / "share" / name / "cmake" for name in ("std_msgs", "sensor_msgs")]
    if not all(folder.is_dir() for folder in folders):
        pytest.skip("ROS does not come from wheels here")
    for file in (file for folder in folders for file in folder.glob("*.cmake")):
        assert "cp3" not in file.read_text(), file


# ---- set-up that is interrupted


@pytest.fixture
def setup_script() -> ModuleType:
    return load_script("setup_ros_venv")


def counted_steps(setup: ModuleType, source: Path, done: list[str], fails: set[str]) -> list[object]:
    def action(name: str) -> object:
        def act(paths: object) -> None:
            if name in fails:
                raise setup.SetupError(f"{name} was cut short")
            done.append(name)

        return act

    return [
        setup.Step(name, name, action(name), [source] if name == "build" else [], ".")
        for name in ("venv", "packages", "build", "install")
    ]


def test_interrupted_setup_goes_on_at_the_step_that_was_cut_short(
    setup_script: ModuleType, tmp_path: Path
) -> None:
    source = tmp_path / "source.msg"
    source.write_text("float32 depth")
    paths = setup_script.Paths(tmp_path / "venv", "jazzy")
    done: list[str] = []

    def run(*fails: str) -> list[str]:
        done.clear()
        steps = counted_steps(setup_script, source, done, set(fails))
        setup_script.set_up(paths, steps, lambda line: None)
        return list(done)

    with pytest.raises(setup_script.SetupError, match="build was cut short"):
        run("build")
    assert done == ["venv", "packages"]
    assert run() == ["build", "install"]
    assert run() == []

    (paths.stamps / "packages.done").unlink()
    assert run() == ["packages"]
    source.write_text(
        "float64 depth"
    )  # what comes after a changed step is made anew, what comes before is not
    assert run() == ["build", "install"]


def test_distribution_that_pip_did_not_finish_is_forgotten(setup_script: ModuleType, tmp_path: Path) -> None:
    for name, files in {
        "whole-1.0": ["METADATA", "INSTALLER", "RECORD"],
        "cut_early-1.0": ["METADATA"],
        "cut_late-1.0": ["METADATA", "RECORD"],  # the wheel's own RECORD, which names no INSTALLER
    }.items():
        info = tmp_path / f"{name}.dist-info"
        info.mkdir()
        for file in files:
            (info / file).write_text("")
        if "INSTALLER" in files:
            (info / "RECORD").write_text(f"{name}.dist-info/INSTALLER,sha256=x,4\n")
    (tmp_path / "~orch").mkdir()

    discarded = setup_script.discard_half_installed(tmp_path)

    assert discarded == ["cut_early-1.0.dist-info", "cut_late-1.0.dist-info"]
    assert [path.name for path in tmp_path.iterdir()] == ["whole-1.0.dist-info"]


@pytest.mark.slow
def test_half_made_environment_is_made_anew(setup_script: ModuleType, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "lib").mkdir()
    paths = setup_script.Paths(venv, "jazzy")

    setup_script.make_venv(paths)

    assert setup_script.python_answers(paths, "import pip")


def test_folder_that_is_no_environment_is_left_alone(setup_script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(setup_script.SetupError, match="no virtual environment"):
        setup_script.make_venv(setup_script.Paths(tmp_path, "jazzy"))
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


# ---- the environment as it came out


def test_packages_are_found_and_exit_codes_pass_with_nothing_sourced() -> None:
    """The wheels start every Python process a second time, in place, to set the library path."""
    if importlib.util.find_spec("ros_wheels_bootstrapper") is None:
        pytest.skip("ROS does not come from wheels here")
    bare = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    code = (
        "import sys, rclpy, hybriddepth_msgs.msg, cv_bridge, message_filters, sensor_msgs_py.point_cloud2\n"
        "from ament_index_python.packages import get_package_share_directory\n"
        "print(get_package_share_directory('hybriddepth_ros'))\n"
        "sys.exit(7)"
    )
    finished = subprocess.run([sys.executable, "-c", code], env=bare, cwd="/", capture_output=True, text=True)
    assert finished.returncode == 7, finished.stderr
    share = Path(finished.stdout.strip())
    assert ElementTree.parse(share / "package.xml").getroot().findtext("name") == "hybriddepth_ros"
    assert (share / "launch" / "depth.launch.py").is_file()
