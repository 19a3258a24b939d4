"""PyTorch's threads sleep while they wait, unless the user says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hybriddepth_ros.shared_cores import share_cores


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_the_users_policy_comes_first(
    monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    share_cores()
    assert os.environ["OMP_WAIT_POLICY"] == expected


@pytest.mark.parametrize("program", ["hybriddepth_ros.cli", "hybriddepth_ros.ros.depth_node"])
def test_programs_say_so_before_torch_is_there(program: str) -> None:
    code = f"""
import os, sys
from {program} import main
sys.argv = ["x", "--version"] if "cli" in "{program}" else ["x", "--ros-args", "-p", "no"]
try:
    main()
finally:
    print("torch" in sys.modules, os.environ.get("OMP_WAIT_POLICY"), flush=True)
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ran.stdout.splitlines()[-1] == "False PASSIVE", ran.stdout + ran.stderr
