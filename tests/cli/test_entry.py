"""The command itself: help, version, a fast start, and exit codes that survive the wheels' re-exec."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hybriddepth_ros import __version__
from tests.cli.conftest import Outcome

RunCli = Callable[..., Outcome]
COMMANDS = ("demo", "run", "depth", "calibrate", "doctor")


def test_without_a_command_the_help_is_shown(run_cli: RunCli) -> None:
    outcome = run_cli()
    assert outcome.code == 0 and all(f" {command} " in outcome.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_for_every_option(run_cli: RunCli, command: str) -> None:
    outcome = run_cli(command, "--help")
    assert outcome.code == 0 and outcome.err == ""
    assert "Usage: hybriddepth " + command in outcome.out


def test_version(run_cli: RunCli) -> None:
    assert run_cli("--version").out.split() == ["hybriddepth_ros", __version__]


def test_nothing_heavy_is_imported_to_parse_a_command_line() -> None:
    code = (
        "import sys, hybriddepth_ros.cli; from hybriddepth_ros.commands.options import check_device; "
        "check_device('auto'), check_device('cpu'); print(sorted(m for m in sys.modules if '.' not in m))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    for name in ("torch", "rclpy", "matplotlib", "rosbags", "jinja2"):
        assert f"'{name}'" not in done.stdout


def test_arguments_and_exit_code_survive_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "hybriddepth_ros",
        "depth",
        str(tmp_path / "a b"),
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and str(tmp_path / "a b") in done.stderr


@pytest.mark.parametrize(
    ("missing", "step"),
    [("typer", "pip install typer"), ("yaml", "pip install PyYAML"), ("rclpy", "make setup")],
)
def test_a_package_that_is_not_installed_is_one_line_with_the_next_step(missing: str, step: str) -> None:
    """As `ros2 run hybriddepth_ros hybriddepth` is on a ROS installation without pip's part."""
    hidden = f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = ['run', '--seconds', '0']; "
    code = hidden + "from hybriddepth_ros.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert missing in done.stderr and step in done.stderr
