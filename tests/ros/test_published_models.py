"""The papers' networks in the depth node: loading, falling back, estimating, running out of memory."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from hybriddepth_msgs.msg import FocalSlice, FocusState
from hybriddepth_ros.estimator import load_estimator
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.ros import depth_node
from hybriddepth_ros.ros.depth_node import DepthNode
from hybriddepth_ros.ros.messages import make_header, slice_message
from tests.conftest import Checkpoints
from tests.published_estimators import METRES, StandIn, estimator_of, pipeline_of
from tests.ros.helpers import FRAME, Peer, Running, stamps, values_of, wait_for

WIDTH, HEIGHT = 160, 120
CAMERA = CameraIntrinsics(200.0, 200.0, 79.5, 59.5, WIDTH, HEIGHT)
FOCUS = (0.5, 1.0, 1.5, 2.0, 2.5)  # 1/m
OPTIONS = (
    Parameter("register", value=False),
    Parameter("device", value="cpu"),
    Parameter("max_relative_sigma", value=10.0),  # made weights are sure of nothing
    Parameter("max_sigma_diopters", value=10.0),
)


@pytest.fixture(autouse=True)
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights that nothing was ever installed into."""
    monkeypatch.setenv("HYBRIDDEPTH_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def made_sweep(sweep_id: int) -> list[FocalSlice]:
    """A textured wall at 1 m in five slices of 160x120 px."""
    random = np.random.default_rng(sweep_id)
    wall = cv2.resize(random.integers(0, 255, (60, 80, 3), np.uint8), (WIDTH, HEIGHT))
    made = []
    for index, focus in enumerate(FOCUS):
        state = FocusState(header=make_header(10**9 * (1 + sweep_id) + index, FRAME))
        state.sweep_id, state.slice_index, state.slice_count, state.settled = (
            sweep_id,
            index,
            len(FOCUS),
            True,
        )
        state.focus_diopters, state.blur_px_per_diopter = focus, 8.0
        blurred = cv2.GaussianBlur(wall, (0, 0), max(abs(focus - 1.0) * 2.0, 0.05))
        made.append(slice_message(blurred, CAMERA, state))
    return made


class Sender:
    """Slices to a running depth node, and the depth and the sigma that come back."""

    def __init__(self, node: Any, peer: Peer) -> None:
        self.node = node
        self._publisher = peer.publisher(FocalSlice, "slice")
        self.depth, self.sigma = (peer.listen(Image, f"depth/{n}") for n in ("image_rect", "uncertainty"))
        assert wait_for(self._publisher.get_subscription_count)
        assert wait_for(
            lambda: all(node._outputs.wanted(f"depth/{n}") for n in ("image_rect", "uncertainty"))
        )

    def send(self, sweep_id: int) -> None:
        """One sweep, slice by slice: best effort may lose what comes in a burst."""
        for message in made_sweep(sweep_id):
            self.deliver(message)

    def deliver(self, message: FocalSlice) -> None:
        """One slice; returns when the node has it."""
        before = self.node.counters["slices received"]
        self._publisher.publish(message)
        assert wait_for(lambda: self.node.counters["slices received"] > before)

    def images(self, count: int = 1) -> tuple[Any, Any]:
        """The newest depth and sigma [H, W], once `count` of each came, of the reference's stamp."""
        came = lambda: min(len(self.depth), len(self.sigma)) >= count  # noqa: E731
        assert wait_for(came, 120.0), self.node.counters.snapshot()
        assert stamps(self.depth) == stamps(self.sigma)
        return tuple(
            np.frombuffer(messages[-1].data, np.float32).reshape(HEIGHT, WIDTH)
            for messages in (self.depth, self.sigma)
        )


def parameters(**values: Any) -> list[Parameter]:
    values.setdefault("warm_up", False)
    return [*OPTIONS, *(Parameter(name, value=value) for name, value in values.items())]


def assert_estimated(depth: Any, sigma: Any, least_share: float) -> None:
    np.testing.assert_array_equal(np.isnan(depth), np.isnan(sigma))
    known = np.isfinite(depth)
    assert known.mean() > least_share
    assert (depth[known] >= 0.05).all() and (depth[known] <= 20.0).all() and (sigma[known] > 0.0).all()


@pytest.mark.slow
def test_hybriddepth_estimates_once_its_weights_are_there(
    context: Context, peer: Peer, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    file = tmp_path / "NYUBest5-DFV-Trained.ckpt"
    overrides = parameters(model="hybriddepth", weights=str(file))
    with Running(DepthNode, context, parameter_overrides=overrides) as node:
        newest = peer.diagnostics("depth")
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert str(file) in node.failure and "neither installed" in node.failure
        assert wait_for(lambda: newest() and newest().level == b"\x02" and str(file) in newest().message)

        os.link(checkpoints.hybriddepth, file)  # the same node, the same parameters
        node.start()
        sender = Sender(node, peer)
        sender.send(0)
        depth, sigma = sender.images()
        assert_estimated(depth, sigma, 0.3)
        reference = made_sweep(0)[2].header
        assert sender.depth[0].header == reference and sender.sigma[0].header == reference
        assert node.counters["exceptions"] == node.counters["stacks refused"] == 0
        values = wait_for(lambda: values_of(newest()) if "weights" in values_of(newest()) else None)
        assert values["model"] == "hybriddepth" and values["weights"].startswith(f"{file.name}@")


@pytest.mark.slow
def test_crossdepth_estimates(context: Context, peer: Peer, checkpoints: Checkpoints) -> None:
    overrides = parameters(model="crossdepth", weights=str(checkpoints.crossdepth))
    with Running(DepthNode, context, parameter_overrides=overrides) as node:
        node.start()
        sender = Sender(node, peer)
        sender.send(0)
        assert_estimated(*sender.images(), 0.3)
        assert node.counters["exceptions"] == node.counters["stacks refused"] == 0


@pytest.mark.parametrize("model", ["hybriddepth", "crossdepth"])
def test_without_weights_configuring_fails_and_another_model_can_be_had(
    context: Context, peer: Peer, weights_folder: Path, model: str
) -> None:
    with Running(DepthNode, context, parameter_overrides=parameters(model=model)) as node:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert f"model {model}: no weights are installed in {weights_folder}" in node.failure
        (result,) = node.set_parameters([Parameter("model", value="classical")])
        assert result.successful, result.reason
        node.start()
        sender = Sender(node, peer)
        sender.send(0)
        assert_estimated(*sender.images(), 0.5)


def test_an_engine_is_a_parameter_that_reaches_the_model_or_fails_with_its_command(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines: list[str] = []
    real = load_estimator

    def load(*arguments: Any) -> Any:
        engines.append(arguments[-1])
        return real(*arguments)

    monkeypatch.setattr(depth_node, "load_estimator", load)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    overrides = parameters(model="sweepnet", device="cpu", engine="onnx", update="slice")
    with Running(DepthNode, context, parameter_overrides=overrides) as node:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert node.failure == "engine: onnx needs the Python package onnxruntime: pip install onnxruntime"
        (result,) = node.set_parameters([Parameter("engine", value="tflite")])
        assert not result.successful and "engine: expected one of auto" in result.reason
        (result,) = node.set_parameters([Parameter("engine", value="torch")])
        assert result.successful, result.reason
        node.start()
        assert node.is_active and node.counters["warm-up failed"] == 0
    assert engines == ["onnx", "torch"]


def test_without_weights_the_fallback_runs_if_there_is_one_and_the_node_says_so(
    context: Context, peer: Peer, capfd: pytest.CaptureFixture[str]
) -> None:
    overrides = parameters(
        model="hybriddepth", weights="nowhere.ckpt", precision="int8", model_fallback="classical"
    )
    with Running(DepthNode, context, parameter_overrides=overrides) as node:
        newest = peer.diagnostics("depth")
        node.start()
        sender = Sender(node, peer)
        sender.send(0)
        depth, sigma = sender.images()
        assert_estimated(depth, sigma, 0.5)
        assert np.nanmedian(depth) == pytest.approx(1.0, rel=0.1)
        told = wait_for(lambda: values_of(newest()) if "model replaced" in values_of(newest()) else None)
        assert (told["model"], told["model replaced"]) == ("classical", "1")
        assert newest().level == b"\x01"
        for said in ("classical runs instead of hybriddepth", "nowhere.ckpt: neither installed in"):
            assert said in newest().message
    log = capfd.readouterr()
    line = next(line for line in (log.err + log.out).splitlines() if "model replaced" in line)
    assert "WARN" in line and "classical runs instead of hybriddepth" in line and "nowhere.ckpt" in line


def test_a_fallback_that_cannot_run_either_fails_with_its_own_reason(context: Context) -> None:
    overrides = parameters(model="hybriddepth", model_fallback="crossdepth")
    with Running(DepthNode, context, parameter_overrides=overrides) as node:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "model crossdepth: no weights are installed" in node.failure


@pytest.fixture
def exhausted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real estimator and model, but for the network, which runs out of memory as long as it is told to.

    A stand-in, because no test can fill a machine's memory: on Linux the kernel ends whoever fills the CPU's,
    and a GPU is not there to be filled. What it raises is what PyTorch raises on one.
    """

    class Network(StandIn):
        full = True

        def forward(self, *inputs: Any) -> Any:
            if self.full:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee notes.")
            return super().forward(*inputs)

    network = Network(depth=1.0, std=0.2)
    estimator = pipeline_of(estimator_of(METRES, network))

    def load(model: str, device: str, options: Any, *_: Any) -> Any:
        estimator.options = options
        return estimator

    monkeypatch.setattr(depth_node, "load_estimator", load)
    return network


def test_a_sweep_of_one_slice_is_counted_and_the_next_whole_one_is_estimated(
    context: Context, peer: Peer, exhausted: Any
) -> None:
    exhausted.full = False
    with Running(DepthNode, context, parameter_overrides=parameters()) as node:
        node.start()
        sender = Sender(node, peer)
        alone = made_sweep(0)[2]
        alone.focus.slice_index, alone.focus.slice_count = 0, 1
        sender.deliver(alone)
        assert wait_for(lambda: node.counters["sweeps of one slice: focus held"] == 1)
        sender.send(1)
        assert np.allclose(sender.images()[0], 1.0)
        assert stamps(sender.depth) == stamps([made_sweep(1)[2]])
        assert node.counters["exceptions"] == node.counters["stacks refused"] == 0


def test_out_of_memory_is_told_with_the_sizes_and_the_next_stack_is_estimated(
    context: Context, peer: Peer, exhausted: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    with Running(DepthNode, context, parameter_overrides=parameters()) as node:
        node.start()
        sender = Sender(node, peer)
        for sweep in (0, 1):
            sender.send(sweep)
            assert wait_for(lambda: node.counters["stacks refused"] == sweep + 1)  # noqa: B023
        exhausted.full = False
        sender.send(2)
        depth, sigma = sender.images()
        assert np.allclose(depth, 1.0) and np.allclose(sigma, 0.2)
        assert node.counters["exceptions"] == 0 and node.is_active
    log = capfd.readouterr()
    lines = [line for line in (log.err + log.out).splitlines() if "out of memory" in line]
    assert len(lines) == 1  # throttled
    assert "hybriddepth on cpu: out of memory for 5 slices of 160x120 px: CUDA out of memory" in lines[0]
