"""A parameter file is taken in every form that ROS takes, or refused in one line with file, node and name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.ros.params_file import check_params_file

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted((ROOT / "config/cameras").glob("*.yaml"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "/**:\n  ros__parameters:\n    max_depth: 5",
        "/**/depth:\n  ros__parameters:\n    max_depth: 5.0",
        "depth:\n  ros__parameters: {max_depth: 5.0}",
        "/focus_camera/depth:\n  ros__parameters:\n    max_depth: 5.0",
        "focus_camera:\n  depth:\n    ros__parameters:\n      max_depth: 5.0",
        "/focus_camera:\n  depth:\n    ros__parameters:\n      max_depth: 5.0",
        "/*/depth:\n  ros__parameters:\n    max_depth: 5.0",
    ],
)
@pytest.mark.parametrize("namespace", [None, "focus_camera"])
def test_every_form_of_a_section_reaches_the_node(tmp_path: Path, text: str, namespace: str | None) -> None:
    values = check_params_file(write(tmp_path, text), namespace)
    assert values["depth"] == {"max_depth": 5.0} and values["focus_sweep"] == {}


def test_nested_and_dotted_names_are_the_same(tmp_path: Path) -> None:
    nested = "focus_sweep:\n  ros__parameters:\n    simulated:\n      width: 64\n      height: 48"
    dotted = "focus_sweep:\n  ros__parameters:\n    simulated.width: 64\n    simulated.height: 48"
    expected = {"simulated.width": 64, "simulated.height": 48}
    assert check_params_file(write(tmp_path, nested))["focus_sweep"] == expected
    assert check_params_file(write(tmp_path, dotted))["focus_sweep"] == expected


def test_what_rclpy_declares_itself_is_left_to_it(tmp_path: Path) -> None:
    text = "/**:\n  ros__parameters:\n    use_sim_time: true\n    qos_overrides./a.publisher.depth: 3"
    assert check_params_file(write(tmp_path, text))["depth"]["use_sim_time"] is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", r"expected YAML \(line 1\)"),
        ("", "expected sections"),
        ("- 1\n- 2", "expected sections"),
        ("dpth:\n  ros__parameters: {model: classical}", "dpth: unknown node, expected .*did you mean depth"),
        ("depth: 5", "depth: expected `ros__parameters:`"),
        ("depth:\n  ros__parameters: 5", "depth: expected parameters"),
        (
            "depth:\n  ros__parameters: {max_dpth: 5.0}",
            "depth: unknown parameter 'max_dpth'; did you mean max_depth",
        ),
        ("/**:\n  ros__parameters: {nonsense: 5.0}", r"/\*\*: unknown parameter 'nonsense'"),
        ("depth:\n  ros__parameters: {max_depth: far}", "depth: max_depth: expected a number, got 'far'"),
        (
            "depth:\n  ros__parameters: {max_depth: -1.0}",
            "depth: max_depth: expected 0.1 to 1000.0 m, got -1.0",
        ),
        (
            "depth:\n  ros__parameters: {input: bag}",
            "depth: input: expected one of slices, compressed_slices, topics, got 'bag'",
        ),
        ("depth:\n  ros__parameters: {max_depth: }", "max_depth: expected a value, got nothing"),
        (
            "focus_sweep:\n  ros__parameters: {camera: simulatd}",
            "unknown camera 'simulatd'.*did you mean simulated",
        ),
        ("focus_sweep:\n  ros__parameters: {focus_diopters: [1.0, x]}", "focus_diopters: expected a number"),
        (
            "focus_sweep:\n  ros__parameters: {far_distance: 0.2}",
            "far_distance: expected more than near_distance",
        ),
        (
            "depth:\n  ros__parameters: {points: {min_range: 3.0, max_range: 1.0}}",
            "points.max_range: expected ",
        ),
        (
            "depth:\n  ros__parameters: {use_sim_time: 5}",
            "depth: use_sim_time: expected true or false, got 5",
        ),
        ("/**:\n  ros__parameters: {use_sim_time: 'yes'}", r"/\*\*: use_sim_time: expected true or false"),
        (
            "depth:\n  ros__parameters: {qos_overrides: {/a/slice: {subscription: {depth: many}}}}",
            "depth: qos_overrides./a/slice.subscription.depth: expected a number, got 'many'",
        ),
        (
            "depth:\n  ros__parameters: {qos_overrides./a.publisher.reliability: best}",
            "reliability: expected one of reliable, best_effort, system_default, got 'best'",
        ),
        (
            "depth:\n  ros__parameters: {qos_overrides./a.publisher.reliabilty: reliable}",
            "unknown policy 'reliabilty'.*did you mean reliability",
        ),
        ("depth:\n  ros__parameters: {qos_overrides.slice.depth: 3}", "expected qos_overrides.</full/topic"),
        (
            "focus_sweep:\n  ros__parameters: {focus_diopters: [1.0, 2.0, 1.0]}",
            "focus_diopters: expected positions that differ",
        ),
        (
            f"focus_sweep:\n  ros__parameters: {{focus_diopters: {[0.1 * n for n in range(17)]}}}",
            "focus_diopters: expected 2 to 16 positions, or none, got 17",
        ),
        ("depth:\n  ros__parameters: {min_slices: 1}", "min_slices: expected 0 or at least 2, got 1"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ParameterError, match=expected) as caught:
        check_params_file(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"absent.yaml: expected a parameter file: No such file"):
        check_params_file(tmp_path / "absent.yaml")


def test_a_section_for_another_namespace_is_refused_where_the_namespace_is_known(tmp_path: Path) -> None:
    path = write(tmp_path, "/left_camera/depth:\n  ros__parameters: {max_depth: 5.0}")
    with pytest.raises(
        ParameterError, match=r"/left_camera/depth: unknown node, expected .*/focus_camera/depth"
    ):
        check_params_file(path, "focus_camera")
    assert check_params_file(path)["depth"] == {"max_depth": 5.0}


def test_the_shipped_file_and_the_tables_are_in_step_with_the_code() -> None:
    script = ROOT / "scripts" / "generate_docs.py"
    result = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_shipped_file_says_the_defaults_and_nothing_else() -> None:
    from hybriddepth_ros.ros.params_file import known_parameters

    for node, values in check_params_file(ROOT / "config" / "depth.yaml").items():
        for name, (default, _) in known_parameters(node).items():
            assert values.get(name, ()) == default, name


def test_there_are_presets() -> None:
    assert {"uvc", "uvc_optotune"} <= {preset.stem for preset in PRESETS}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_taken_also_with_what_it_leaves_to_the_user(tmp_path: Path, preset: Path) -> None:
    values = check_params_file(preset)["focus_sweep"]
    text = preset.read_text(encoding="utf-8")
    uncommented, left = re.subn(r"^( +)# (\w+: )", r"\1\2", text, flags=re.MULTILINE)
    assert left > 0  # at least the calibration
    whole = check_params_file(write(tmp_path, uncommented))["focus_sweep"]
    assert len(whole) == len(values) + left and values.items() <= whole.items()
    assert whole[f"{whole['camera']}.calibration"]
