"""What a user can get wrong: exit 2, one line that names the thing, no traceback, nothing left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from hybriddepth_ros import estimator
from tests.cli.conftest import Outcome

RunCli = Callable[..., Outcome]


def refused(outcome: Outcome, *names: str) -> None:
    """Exit 2 and one line, in which each of `names` occurs."""
    assert outcome.code == 2, outcome
    assert len(outcome.err.splitlines()) == 1, outcome.err
    line = outcome.err
    assert line.startswith("hybriddepth: ") and "Traceback" not in outcome.err + outcome.out
    for name in names:
        assert name in line, line


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is loaded: that may take half a minute, in which nobody hears of a mistake."""

    def fail(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(estimator, "load_estimator", fail)


def replace(stack: Path, old: str, new: str) -> None:
    (stack / old).rename(stack / new)


def overwrite(stack: Path, content: bytes) -> None:
    (stack / "image_1_0.8.png").write_bytes(content)


def shrink(stack: Path) -> None:
    cv2.imwrite(str(stack / "image_1_0.8.png"), np.zeros((60, 80, 3), np.uint8))


def only_first(stack: Path) -> None:
    for name in ("image_1_0.8.png", "image_2_2.0.png"):
        (stack / name).unlink()


def without_distance(stack: Path) -> None:
    for index, path in enumerate(sorted(stack.iterdir())):
        path.rename(stack / f"photo{'abc'[index]}.png")


def manifest(text: str) -> Callable[[Path], None]:
    def write(stack: Path) -> None:
        (stack / "stack.yaml").write_text(text)

    return write


TWO_SLICES = "slices: [{{image: {}, focus_diopters: {}}}, {{image: image_1_0.8.png, focus_diopters: 2}}]"
BAD_STACKS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing folder": (lambda stack: shutil.rmtree(stack), ("stack", "expected")),
    "empty folder": (lambda stack: (shutil.rmtree(stack), stack.mkdir()), ("stack", "expected")),
    "one slice": (only_first, ("stack", "2 slices")),
    "names without distance": (without_distance, ("photo", "distance")),
    "sizes that differ": (shrink, ("image_1_0.8.png", "320x240", "80x60")),
    "unreadable image": (lambda s: overwrite(s, b"no image"), ("image_1_0.8.png",)),
    "empty image": (lambda s: overwrite(s, b""), ("image_1_0.8.png",)),
    "negative distance": (lambda s: replace(s, "image_1_0.8.png", "image_1_-0.8.png"), ("image_1_-0.8.png",)),
    "NaN distance": (lambda s: replace(s, "image_1_0.8.png", "image_1_nan.png"), ("image_1_nan.png",)),
    "equal distances": (lambda s: replace(s, "image_1_0.8.png", "image_1_0.4.png"), ("image_1_0.4.png",)),
    "manifest that is no YAML": (manifest("slices: ["), ("stack.yaml", "YAML")),
    "manifest that is no mapping": (manifest("- 1"), ("stack.yaml", "slices")),
    "manifest with a missing image": (
        manifest(TWO_SLICES.format("no.png", 1)),
        ("no.png",),
    ),
    "manifest that leaves the folder": (
        manifest(
            "slices: [{image: ../x.png, focus_diopters: 1}, {image: image_1_0.8.png, focus_diopters: 2}]"
        ),
        ("stack.yaml", "../x.png"),
    ),
    "manifest with a NaN focus": (
        manifest(TWO_SLICES.format("image_0_0.4.png", ".nan")),
        ("stack.yaml", "focus_diopters"),
    ),
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(("spoil", "names"), BAD_STACKS.values(), ids=BAD_STACKS)
def test_a_bad_stack_is_refused_in_one_line(
    run_cli: RunCli, stack: Path, tmp_path: Path, spoil: Callable[[Path], object], names: tuple[str, ...]
) -> None:
    spoil(stack)
    refused(run_cli("depth", stack, "--out", tmp_path / "out"), *names)
    assert not (tmp_path / "out").exists()


BAD_OPTIONS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "unknown model": (["--model", "clasical"], ("clasical", "classical")),
    "precision that is none": (
        ["--model", "hybriddepth", "--precision", "int4"],
        ("--precision", "int4", "int8"),
    ),
    "precision that a CPU has not": (
        ["--model", "hybriddepth", "--device", "cpu", "--precision", "float16"],
        ("--precision", "cpu", "float16", "int8"),
    ),
    "precision of a model without": (
        ["--model", "classical", "--precision", "int8"],
        ("--precision", "classical", "int8"),
    ),
    "precision of a model that lacks it": (["--precision", "int8"], ("--precision", "sweepnet", "int8")),
    "engine that is none": (["--engine", "tflite"], ("--engine", "tflite", "openvino")),
    "engine that a CPU has not": (
        ["--device", "cpu", "--engine", "tensorrt"],
        ("--engine", "cpu", "tensorrt", "openvino"),
    ),
    "engine of no network": (["--model", "classical", "--engine", "onnx"], ("--engine", "classical", "onnx")),
    "device that is none": (["--device", "tpu"], ("--device", "tpu", "cuda")),
    "device that is not there": (["--device", "cuda:99"], ("--device", "cuda:99", "not there")),
    "unknown estimator option": (["-p", "max_dept:=3"], ("max_dept", "max_depth")),
    "estimator option out of range": (["-p", "max_depth:=-3"], ("max_depth", "-3")),
    "estimator option of the wrong kind": (["-p", "max_depth:=far"], ("max_depth", "far")),
    "assignment without :=": (["-p", "max_depth=3"], ("max_depth=3", ":=")),
    "assignment that is no YAML": (["-p", "max_depth:=[3"], ("max_depth:=[3", "YAML")),
    "field of view out of range": (["--fov-deg", "200"], ("--fov-deg",)),
    "unknown option": (["--modle", "classical"], ("--modle",)),
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(("options", "names"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_a_bad_option_is_refused_in_one_line(
    run_cli: RunCli, stack: Path, tmp_path: Path, options: list[str], names: tuple[str, ...]
) -> None:
    refused(run_cli("depth", stack, "--out", tmp_path / "out", *options), *names)
    assert not (tmp_path / "out").exists()


def test_a_gpu_without_pytorch_is_refused_in_one_line(
    run_cli: RunCli, stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    command = ("depth", stack, "--out", tmp_path / "out", "--model")
    refused(run_cli(*command, "classical", "--device", "cuda"), "--device", "PyTorch")
    assert run_cli(*command, "classical", "--device", "cpu").code == 0
    said = ("model: sweepnet", "torch", "classical needs none")
    refused(run_cli(*command, "sweepnet", "--device", "cpu"), *said)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("command", ["depth", "demo"])
@pytest.mark.parametrize("where", ["below a file", "a file", "/proc", "a folder in a file's place"])
def test_an_unwritable_out_is_refused_before_the_work(
    run_cli: RunCli, stack: Path, tmp_path: Path, command: str, where: str
) -> None:
    (tmp_path / "file").touch()
    taken = tmp_path / "taken"
    (taken / "depth.png").mkdir(parents=True)
    places = {
        "below a file": tmp_path / "file" / "out",
        "a file": tmp_path / "file",
        "/proc": Path("/proc/hybriddepth_out"),
        "a folder in a file's place": taken,
    }
    arguments = [stack] if command == "depth" else []
    refused(run_cli(command, *arguments, "--out", places[where]), "--out", str(places[where]), "expected")
    assert (tmp_path / "file").read_bytes() == b""


def test_the_demo_does_not_touch_a_bag_that_is_not_its_own(run_cli: RunCli, tmp_path: Path) -> None:
    other = tmp_path / "out" / "bag" / "mine.db3"
    other.parent.mkdir(parents=True)
    other.write_text("precious")
    refused(run_cli("demo", "--out", tmp_path / "out"), "bag/", "mine.db3")
    assert other.read_text() == "precious"


BAD_PARAMETER_FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "no YAML": ("depth: [", ("YAML",)),
    "empty": ("", ("expected",)),
    "unknown node": ("dept: {ros__parameters: {model: classical}}", ("dept", "depth")),
    "unknown parameter": ("depth: {ros__parameters: {modle: classical}}", ("modle", "model")),
    "out of range": ("depth: {ros__parameters: {max_depth: -1.0}}", ("max_depth", "-1")),
    "wrong kind": ("focus_sweep: {ros__parameters: {slice_count: many}}", ("slice_count", "many")),
    "use_sim_time that is no bool": (
        "depth: {ros__parameters: {use_sim_time: 5}}",
        ("depth", "use_sim_time", "5"),
    ),
    "QoS of the wrong kind": (
        "depth: {ros__parameters: {qos_overrides: {/a: {publisher: {depth: many}}}}}",
        ("depth", "qos_overrides./a.publisher.depth", "many"),
    ),
    "without ros__parameters": ("depth: {model: classical}", ("depth", "ros__parameters")),
}


@pytest.mark.ros
@pytest.mark.parametrize(("text", "names"), BAD_PARAMETER_FILES.values(), ids=BAD_PARAMETER_FILES)
def test_a_bad_parameter_file_is_refused_in_one_line(
    run_cli: RunCli, tmp_path: Path, text: str, names: tuple[str, ...]
) -> None:
    pytest.importorskip("rclpy")
    (tmp_path / "params.yaml").write_text(text)
    refused(run_cli("run", "--params-file", tmp_path / "params.yaml"), "params.yaml", *names)


BAD_RUNS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "missing parameter file": (["--params-file", "nowhere.yaml"], ("nowhere.yaml", "expected")),
    "missing stack": (["--stack", "nowhere"], ("nowhere", "expected")),
    "stack for another camera": (
        ["--camera", "simulated", "--stack", "x"],
        ("--stack", "replay", "simulated"),
    ),
    "empty depth range": (
        ["-p", "depth.min_depth:=5", "-p", "depth.max_depth:=1"],
        ("min_depth", "max_depth"),
    ),
    "unknown camera": (["--camera", "simulatd"], ("simulatd", "simulated")),
    "unknown model": (["--model", "clasical"], ("clasical", "classical")),
    "device that is none": (["--device", "tpu"], ("--device", "tpu", "cuda:N")),
    "engine that is none": (["--engine", "tflite"], ("engine", "tflite", "openvino")),
    "precision that is none": (["--precision", "int4"], ("precision", "int4", "int8")),
    "unknown node in -p": (["-p", "dept.model:=classical"], ("dept.model", "depth.<parameter>")),
    "unknown parameter in -p": (["-p", "depth.modle:=classical"], ("modle", "model")),
    "bad namespace": (["--namespace", "my cam"], ("--namespace", "my cam")),
}


@pytest.mark.ros
@pytest.mark.parametrize(("options", "names"), BAD_RUNS.values(), ids=BAD_RUNS)
def test_a_bad_run_is_refused_in_one_line(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, options: list[str], names: tuple[str, ...]
) -> None:
    pytest.importorskip("rclpy")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    refused(run_cli("run", "--seconds", "1", *options), *names)


@pytest.mark.parametrize(
    "arguments", [["depht"], ["depth"], ["demo", "--seconds", "0"], ["doctor", "--jsno"]]
)
def test_a_mistyped_command_line_is_one_line(run_cli: RunCli, arguments: list[str]) -> None:
    refused(run_cli(*arguments))


def test_the_installed_command_exits_with_2_and_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hybriddepth_ros", "depth", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    refused(Outcome(done.returncode, done.stdout, done.stderr), "nowhere")
    assert done.stdout == ""
