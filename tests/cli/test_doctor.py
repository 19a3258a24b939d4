"""`hybriddepth doctor`: says what is there, what is missing and what to do; never fails itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hybriddepth_ros.cameras.optotune import USB_IDS
from hybriddepth_ros.cameras.optotune_link import UsbPort
from hybriddepth_ros.commands import doctor_checks, doctor_devices
from hybriddepth_ros.emulation.v4l2 import EmulatedV4L2
from hybriddepth_ros.emulation.v4l2_parts import FOCUS_ABSOLUTE, webcam_controls
from tests.cli.conftest import Outcome
from tests.emulated_v4l2 import Scene

RunCli = Callable[..., Outcome]


def checks(outcome: Outcome) -> dict[str, dict[str, object]]:
    return {check["name"]: check for check in json.loads(outcome.out)["checks"]}


def test_json_has_a_state_for_every_subject(run_cli: RunCli) -> None:
    outcome = run_cli("doctor", "--json")
    assert outcome.code == 0
    found = checks(outcome)
    expected = {"Python", "numpy", "OpenCV", "ROS 2", "cv_bridge", "torch", "cameras", "lenses"}
    assert expected | {"ROS domain", "discovery", "DDS segment", "/dev/shm", "weights", "disk"} <= set(found)
    assert {check["state"] for check in found.values()} <= {"ok", "warn", "missing"}
    assert all(check["next_step"] for check in found.values() if check["state"] == "missing")


def test_engines_are_those_whose_packages_are_here(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setenv("CXX", "sh")  # a compiler, as far as anybody looks
    engines = str(checks(run_cli("doctor", "--json"))["engines"]["found"])
    assert engines.endswith(": torch, compile")


def test_the_table_names_every_check(run_cli: RunCli) -> None:
    names = checks(run_cli("doctor", "--json"))
    table = run_cli("doctor").out
    assert all(name in table for name in names)


def test_a_missing_essential_is_exit_1_and_a_next_step(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(*names: str) -> str | None:
        return None if names == ("PyYAML",) else "6.0"

    monkeypatch.setattr(doctor_checks, "installed_version", version)
    outcome = run_cli("doctor")
    assert outcome.code == 1
    assert "pip install 'PyYAML>=6'" in outcome.out and "nothing works without: PyYAML" in outcome.out


def test_opencv_5_is_a_warning_as_it_breaks_cv_bridge(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_checks, "opencv_version", lambda: "5.0.0")
    check = checks(run_cli("doctor", "--json"))["OpenCV"]
    assert check["state"] == "warn" and "<5" in str(check["next_step"])


def test_a_small_dds_segment_is_a_warning(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profile = tmp_path / "profile.xml"
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", str(profile))
    monkeypatch.delenv("RMW_IMPLEMENTATION", raising=False)
    for size, state in ((524288, "warn"), (64 << 20, "ok")):
        profile.write_text(f'<dds xmlns="http://www.eprosima.com"><segment_size>{size}</segment_size></dds>')
        assert checks(run_cli("doctor", "--json"))["DDS segment"]["state"] == state
    profile.write_text("<dds>")
    assert checks(run_cli("doctor", "--json"))["DDS segment"]["state"] == "missing"


def test_discovery_of_the_whole_subnet_is_a_warning(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE", raising=False)
    assert checks(run_cli("doctor", "--json"))["discovery"]["state"] == "warn"
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_DOMAIN_ID", "many")
    found = checks(run_cli("doctor", "--json"))
    assert (found["discovery"]["state"], found["ROS domain"]["state"]) == ("ok", "missing")


def test_devices_without_permission_name_the_group(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_devices.glob, "glob", lambda p: ["/dev/video7"])
    monkeypatch.setattr(doctor_devices.os, "access", lambda *_: False)
    monkeypatch.setattr(doctor_devices.os, "getgroups", lambda: [])
    check = checks(run_cli("doctor", "--json"))["cameras"]
    assert check["state"] == "warn" and "/dev/video7" in str(check["found"])
    assert "usermod -aG video" in str(check["next_step"])


def test_what_is_not_there_has_a_next_step(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_devices.glob, "glob", lambda p: [])
    monkeypatch.setattr("hybriddepth_ros.cameras.optotune_link.usb_ports", list)
    found = checks(run_cli("doctor", "--json"))
    assert "no /dev/video*" in str(found["cameras"]["found"])
    assert all(found[name]["next_step"] for name in ("cameras", "lenses"))


def test_a_camera_is_told_with_the_range_of_its_focus(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    with EmulatedV4L2(scene.picture, on_control=scene.on_control) as device:
        monkeypatch.setattr(doctor_devices.glob, "glob", lambda p: [device.path])
        monkeypatch.setattr(doctor_devices.os, "access", lambda *_: True)
        (check,) = doctor_devices.check_cameras()
        assert check.state == "ok" and device.path in check.found and "focus 0 to 250" in check.found
        assert not scene.written
    with EmulatedV4L2(scene.picture, controls=webcam_controls(without=(FOCUS_ABSOLUTE,))) as device:
        (check,) = doctor_devices.check_cameras()
        assert check.state == "warn" and "cannot be moved" in check.found and check.next_step


def test_one_camera_that_may_not_be_opened_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    with EmulatedV4L2(scene.picture, on_control=scene.on_control) as device:
        monkeypatch.setattr(doctor_devices.glob, "glob", lambda p: ["/dev/video98", device.path])
        monkeypatch.setattr(doctor_devices.os, "access", lambda path, _: path == device.path)
        refused, found = doctor_devices.check_cameras()
    assert refused.state == "warn" and refused.found.startswith("no permission: /dev/video98")
    assert found.state == "ok" and device.path in found.found


def test_groups_without_a_name_are_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_devices.glob, "glob", lambda p: ["/dev/video7"])
    monkeypatch.setattr(doctor_devices.os, "access", lambda *_: False)
    video = doctor_devices.grp.getgrnam("video").gr_gid
    for groups, step in (([987654], "usermod -aG video"), ([987654, video], "a udev rule is needed")):
        monkeypatch.setattr(doctor_devices.os, "getgroups", lambda groups=groups: groups)
        (check,) = doctor_devices.check_cameras()
        assert step in check.next_step


def test_a_lens_driver_is_known_by_what_usb_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = UsbPort("/dev/ttyACM3", *USB_IDS["lens_driver_4"], "AB12")
    ports = [UsbPort("/dev/ttyS0"), driver]
    monkeypatch.setattr("hybriddepth_ros.cameras.optotune_link.usb_ports", lambda: ports)
    monkeypatch.setattr(doctor_devices.os, "access", lambda *_: True)
    (check,) = doctor_devices.check_lenses()
    assert check.state == "ok" and check.found == "/dev/ttyACM3: lens_driver_4, serial number AB12"
    monkeypatch.setattr(doctor_devices.os, "access", lambda path, _: path != "/dev/ttyACM3")
    monkeypatch.setattr(doctor_devices.os, "getgroups", lambda: [])
    (check,) = doctor_devices.check_lenses()
    assert check.state == "warn" and "usermod -aG dialout" in check.next_step


def test_a_check_that_fails_does_not_end_the_doctor(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[doctor_checks.Check]:
        raise ZeroDivisionError("broken installation")

    monkeypatch.setattr(doctor_checks, "check_gpu", broken)
    outcome = run_cli("doctor")
    assert outcome.code == 0 and "broken installation" in outcome.out


def test_installed_weights_are_named_and_lost_ones_are_a_warning(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HYBRIDDEPTH_WEIGHTS", str(tmp_path))
    check = checks(run_cli("doctor", "--json"))["weights"]
    assert check["state"] == "ok" and str(check["found"]).startswith(f"none in {tmp_path}")
    (tmp_path / "mine.yaml").write_text("{name: mine, model: crossdepth, focus_unit: diopters}")
    (tmp_path / "mine.safetensors").write_bytes(b"")
    check = checks(run_cli("doctor", "--json"))["weights"]
    assert (check["state"], check["found"]) == ("ok", f"mine in {tmp_path}")
    (tmp_path / "mine.safetensors").unlink()
    (tmp_path / "broken.yaml").write_text("{name: broken, model: nonsense}")
    check = checks(run_cli("doctor", "--json"))["weights"]
    assert check["state"] == "warn" and check["next_step"] == "hybriddepth weights verify"
    assert "mine.safetensors is missing" in str(check["found"]) and "nonsense" in str(check["found"])
