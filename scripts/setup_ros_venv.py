#!/usr/bin/env python3
"""Make the virtual environment everything here runs in: ROS 2 from PyPI, our interfaces, this package.

    python3 scripts/setup_ros_venv.py --distro jazzy --venv .venv

No ROS installation, no root rights and nothing to source. What is needed is CPython 3.11 to 3.13 with its
headers, gcc, g++, cmake and make. Six steps, each done once:

    1  virtual environment   python -m venv
    2  Python packages       pip install, every version from constraints/<distro>.txt
    3  CMake prefix          mend_cmake_prefix.py: the wheels name their build machine's Python
    4  hybriddepth_msgs      colcon build into the environment
    5  pip overlay           colcon build of cv_bridge, message_filters, sensor_msgs_py, unless pip had them
    6  hybriddepth_ros       editable install, and its entry in the ament index

A step that succeeded leaves a stamp in <venv>/.setup/ with a hash of all that it and the steps before it were
made from. Where a stamp is missing or differs, its step runs again, and every step can run over the remains
of its own interruption. So a set-up that was cut short goes on where it stopped, and one whose inputs did not
change takes a fraction of a second.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SUPPORTED_PYTHON = ((3, 11), (3, 13))
DISTROS = ("jazzy", "kilted")
INTERFACES = REPOSITORY / "ros2_ws" / "src" / "hybriddepth_msgs"
OVERLAY = ("cv_bridge", "message_filters", "sensor_msgs_py")

# What a sourced ROS installation or another environment like this one leaves behind. The wheels' start-up
# hook sets the last two, and skips itself where it finds its mark: a child would load its parent's libraries.
FOREIGN_ENVIRONMENT = (
    "AMENT_PREFIX_PATH",
    "CMAKE_PREFIX_PATH",
    "COLCON_PREFIX_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "ROS_DISTRO",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "_ROS_WHEELS_BOOTSTRAP_COMPLETE",
)


# The wheels' start-up hook sets the library path but not this, without which no share folder is found.
AMENT_INDEX_HOOK = (
    "import os, sys; known = os.environ.get('AMENT_PREFIX_PATH', ''); "
    "os.environ['AMENT_PREFIX_PATH'] = known if sys.prefix in known.split(os.pathsep) "
    "else os.pathsep.join(filter(None, [sys.prefix, known]))\n"
)


class SetupError(Exception):
    """A set-up that cannot go on; the text is one line for the person who started it."""


@dataclass(frozen=True)
class Paths:
    """Where one environment lives."""

    venv: Path
    distro: str

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def stamps(self) -> Path:
        return self.venv / ".setup"

    @property
    def site_packages(self) -> Path:
        return next(self.venv.glob("lib/python3.*/site-packages"))

    @property
    def constraints(self) -> Path:
        return REPOSITORY / "constraints" / f"{self.distro}.txt"

    @property
    def requirements(self) -> list[Path]:
        names = ("requirements.txt", "requirements-dev.txt", f"requirements-ros-{self.distro}.txt")
        return [REPOSITORY / "constraints" / name for name in names]

    @property
    def name(self) -> str:
        """Tells this environment's build folders from those of another one on the same tree."""
        if self.venv == default_venv(self.distro):
            return self.distro
        return f"{self.distro}-{digest([], str(self.venv))[:8]}"


def default_venv(distro: str) -> Path:
    return REPOSITORY / (".venv" if distro == "jazzy" else f".venv-{distro}")


# ---- stamps


def digest(sources: Iterable[Path], *words: str) -> str:
    """A hash of the files in `sources`, folders with all below them, by name and content, and of `words`."""
    sha = hashlib.sha256()
    for source in sources:
        files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
        for file in files:
            if "__pycache__" in file.parts or file.suffix == ".pyc":
                continue
            sha.update(f"{file.relative_to(source.parent)}\0".encode())
            sha.update(hashlib.sha256(file.read_bytes()).digest())
    for word in words:
        sha.update(f"{word}\0".encode())
    return sha.hexdigest()


def is_done(stamp: Path, key: str) -> bool:
    return stamp.is_file() and stamp.read_text() == key


def mark_done(stamp: Path, key: str) -> None:
    stamp.parent.mkdir(parents=True, exist_ok=True)
    draft = stamp.with_suffix(".writing")
    draft.write_text(key)
    os.replace(draft, stamp)


# ---- running


def clean_environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN_ENVIRONMENT}
    return {**kept, **extra}


def run(
    log: Path, command: list[str | Path], env: dict[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Run `command` with its output in `log`; a failure shows the log's end."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        finished = subprocess.run(
            [str(word) for word in command],
            env=env or clean_environment(),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if finished.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
        name = Path(command[0]).name
        raise SetupError(
            f"{name} ended with code {finished.returncode}; its output is in {log}, and ends:\n{tail}"
        )


def python_answers(paths: Paths, code: str) -> bool:
    """Whether the environment's Python runs `code` without an error."""
    try:
        command = [str(paths.python), "-c", code]
        finished = subprocess.run(command, env=clean_environment(), capture_output=True, cwd="/")
    except OSError:
        return False
    return finished.returncode == 0


# ---- steps


def check_tools() -> None:
    lowest, highest = SUPPORTED_PYTHON
    here = sys.version_info[:2]
    if not lowest <= here <= highest:
        raise SetupError(
            f"{sys.executable} is Python {here[0]}.{here[1]}; the wheels and pins are for 3.11 to 3.13. "
            "Name another: make setup PYTHON=python3.12"
        )
    missing = [tool for tool in ("gcc", "g++", "cmake", "make") if shutil.which(tool) is None]
    if missing:
        raise SetupError(
            f"not found: {', '.join(missing)}; on Debian, Ubuntu: apt install build-essential cmake"
        )
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        raise SetupError(f"{header} not found; on Debian, Ubuntu: apt install python3-dev")
    if importlib.util.find_spec("ensurepip") is None:
        raise SetupError("this Python has no ensurepip; on Debian, Ubuntu: apt install python3-venv")


def make_venv(paths: Paths) -> None:
    """Keep an environment whose Python and pip run, whoever made it; make it anew over the remains of one."""
    version = f"{sys.version_info.major}, {sys.version_info.minor}"
    if python_answers(paths, f"import pip, sys; assert sys.version_info[:2] == ({version})"):
        ignore_in_git(paths)
        return
    # Making it anew empties the folder, so it had better be one; `venv` cut short made no more than these.
    inside = {path.name for path in paths.venv.iterdir()} if paths.venv.exists() else set()
    if "pyvenv.cfg" not in inside and inside - {"bin", "include", "lib", "lib64", paths.stamps.name}:
        raise SetupError(
            f"{paths.venv} exists and is no virtual environment; move it, or name another: VENV=..."
        )
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder) / "venv.log", [sys.executable, "-m", "venv", "--clear", paths.venv])
    ignore_in_git(paths)


def ignore_in_git(paths: Paths) -> None:
    """Whatever the environment is called, git and ruff pass it by; venv of Python 3.13 does this itself."""
    (paths.venv / ".gitignore").write_text("*\n")


def pip_install(paths: Paths) -> list[str | Path]:
    return [paths.python, "-m", "pip", "--disable-pip-version-check", "install"]


def discard_half_installed(site_packages: Path) -> list[str]:
    """Forget distributions that an interrupted pip left behind, so that pip installs them again.

    pip writes INSTALLER and then RECORD when all other files of a distribution are in place. Without the two
    it looks installed to pip while files may be missing. Names that start with ~ are what pip had set aside.
    """
    discarded = []
    for info in sorted(site_packages.glob("*.dist-info")):
        record = info / "RECORD"
        complete = (info / "INSTALLER").is_file() and record.is_file() and "/INSTALLER," in record.read_text()
        if not complete:
            shutil.rmtree(info)
            discarded.append(info.name)
    for leftover in site_packages.glob("~*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    return discarded


def install_packages(paths: Paths) -> None:
    discard_half_installed(paths.site_packages)
    requirements = [word for file in paths.requirements for word in ("-r", str(file))]
    # Not compiled here: of the tens of thousands of files, those that are imported compile themselves then.
    options = ["--quiet", "--no-compile", "--constraint", str(paths.constraints)]
    run(paths.stamps / "packages.log", [*pip_install(paths), *options, *requirements])


def mend_prefix(paths: Paths) -> None:
    script = REPOSITORY / "scripts" / "mend_cmake_prefix.py"
    run(paths.stamps / "mend.log", [sys.executable, script, paths.venv])


def colcon_build(paths: Paths, package_folders: list[Path], log: Path) -> None:
    """Build packages into the environment, from scratch: what an interrupted build left is not reused."""
    workspace = REPOSITORY / "ros2_ws"
    build = workspace / "build" / paths.name
    for folder in package_folders:
        shutil.rmtree(build / folder.name, ignore_errors=True)
    environment = clean_environment(
        AMENT_PREFIX_PATH=str(paths.venv),
        CMAKE_PREFIX_PATH=str(paths.venv),
        LD_LIBRARY_PATH=str(paths.venv / "lib"),
        PATH=f"{paths.venv / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    )
    colcon: list[str | Path] = [
        paths.python, "-m", "colcon", "--log-base", workspace / "log" / paths.name, "build",
        "--paths", *package_folders,
        "--build-base", build,
        "--install-base", paths.venv, "--merge-install",
        "--executor", "sequential",
        "--event-handlers", "console_direct+",
        "--cmake-args",
        "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={paths.python}",
    ]  # fmt: skip
    run(log, colcon, env=environment, cwd=workspace)


def build_interfaces(paths: Paths) -> None:
    colcon_build(paths, [INTERFACES], paths.stamps / "interfaces.log")


def overlay_folders() -> list[Path]:
    folders = [REPOSITORY / "ros2_ws" / "pip_overlay" / name for name in OVERLAY]
    return [folder for folder in folders if (folder / "setup.py").is_file()]


def build_overlay(paths: Paths) -> None:
    """Build the stand-ins for what has no wheel; a package that pip installed is the real one and stays."""
    real = {
        folder.name
        for folder in overlay_folders()
        for info in paths.site_packages.glob(f"*{folder.name}*.dist-info")
        if (info / "INSTALLER").is_file()
    }
    wanted = [folder for folder in overlay_folders() if folder.name not in real]
    if wanted:
        colcon_build(paths, wanted, paths.stamps / "overlay.log")


def link(target: Path, at: Path) -> None:
    """A relative symbolic link, whatever stood there before."""
    at.parent.mkdir(parents=True, exist_ok=True)
    if at.is_symlink() or at.is_file():
        at.unlink()
    elif at.is_dir():
        shutil.rmtree(at)
    at.symlink_to(os.path.relpath(target, at.parent.resolve()))


def install_this_package(paths: Paths) -> None:
    """An editable install, and what pip leaves out of one: the ament index entry and the share folder."""
    discard_half_installed(paths.site_packages)
    options: list[str | Path] = ["--no-build-isolation", "--no-deps", "--editable", REPOSITORY]
    run(paths.stamps / "package.log", [*pip_install(paths), *options])
    name = "hybriddepth_ros"
    (paths.site_packages / f"{name}_ament_index.pth").write_text(AMENT_INDEX_HOOK)
    marker = paths.venv / "share" / "ament_index" / "resource_index" / "packages" / name
    link(REPOSITORY / "resource" / name, marker)
    for entry in ("package.xml", "launch", "config", "rviz"):
        link(REPOSITORY / entry, paths.venv / "share" / name / entry)
    for node in ("hybriddepth", "focus_sweep", "depth"):
        link(paths.venv / "bin" / node, paths.venv / "lib" / name / node)
    check_imports(paths)


def check_imports(paths: Paths) -> None:
    """The interfaces import; this package is found (whether it imports is for the tests to say)."""
    modules = ["rclpy", "hybriddepth_msgs.msg", "hybriddepth_msgs.srv", "ament_index_python"]
    modules += [folder.name for folder in overlay_folders()]
    code = (
        f"import importlib.util, {', '.join(modules)}; "
        "ament_index_python.get_package_share_directory('hybriddepth_ros'); "
        "assert importlib.util.find_spec('hybriddepth_ros'), 'hybriddepth_ros is not found'"
    )
    run(paths.stamps / "check.log", [paths.python, "-c", code], cwd=Path("/"))


@dataclass(frozen=True)
class Step:
    """What a step does, what it is made from, and what must exist there for its stamp to count."""

    name: str
    title: str
    action: Callable[[Paths], None]
    sources: list[Path]
    proof: str


def steps_for(paths: Paths) -> list[Step]:
    mender = REPOSITORY / "scripts" / "mend_cmake_prefix.py"
    pins = [paths.constraints, *paths.requirements]
    packaging = [REPOSITORY / name for name in ("setup.py", "setup.cfg", "package.xml", "pyproject.toml")]
    return [
        Step("venv", "virtual environment", make_venv, [], "bin/python"),
        Step("packages", "Python packages (minutes, if from nothing)", install_packages, pins, "share/rclpy"),
        Step("prefix", "CMake prefix", mend_prefix, [mender], "share/rclpy"),
        Step(
            "interfaces",
            "hybriddepth_msgs (half a minute)",
            build_interfaces,
            [INTERFACES],
            "share/hybriddepth_msgs",
        ),
        Step("overlay", "pip overlay", build_overlay, overlay_folders(), "share/rclpy"),
        Step("package", "hybriddepth_ros", install_this_package, packaging, "bin/hybriddepth"),
    ]


def set_up(paths: Paths, steps: list[Step], say: Callable[[str], None]) -> None:
    """Do the steps whose stamp is missing or stale, in order."""
    # The environment's own place belongs to every key: its scripts and mended files carry absolute paths.
    key = digest([Path(__file__)], str(paths.venv), paths.distro, f"{sys.version_info[:2]}")
    for number, step in enumerate(steps, start=1):
        key = digest(step.sources, key)
        stamp = paths.stamps / f"{step.name}.done"
        if is_done(stamp, key) and (paths.venv / step.proof).exists():
            continue
        say(f"[{number}/{len(steps)}] {step.title} ...")
        started = time.monotonic()
        stamp.unlink(missing_ok=True)
        step.action(paths)
        mark_done(stamp, key)
        say(f"[{number}/{len(steps)}] done in {time.monotonic() - started:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the virtual environment of hybriddepth_ros.")
    parser.add_argument("--distro", choices=DISTROS, default="jazzy", help="which ROS 2 (default: jazzy)")
    parser.add_argument("--venv", type=Path, help="where (default: .venv, or .venv-DISTRO for any but jazzy)")
    arguments = parser.parse_args()
    venv = Path(os.path.abspath(arguments.venv)) if arguments.venv else default_venv(arguments.distro)
    paths = Paths(venv, arguments.distro)

    # Two set-ups of one tree would build in each other's folders; the second waits, and then finds all done.
    lock = os.open(REPOSITORY, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        check_tools()
        set_up(paths, steps_for(paths), lambda line: print(line, flush=True))
    except SetupError as error:
        print(f"set-up stopped: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("set-up interrupted; run it again to go on", file=sys.stderr)
        return 130
    finally:
        os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
