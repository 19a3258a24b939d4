"""Training the papers' networks, small but whole: learnt, killed and resumed, its weights, its command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from hybriddepth_ros import load_estimator
from hybriddepth_ros.cli import main
from hybriddepth_ros.evaluation.ddff12 import Ddff12
from hybriddepth_ros.models.checkpoint_files import read_safetensors
from hybriddepth_ros.models.crossdepth import CrossAttentionFusion
from hybriddepth_ros.models.focal_volume import FocusDepth
from hybriddepth_ros.models.published_units import IMAGENET_MEAN, IMAGENET_STD
from hybriddepth_ros.models.weights import build_network, load_weights
from hybriddepth_ros.models.weights_config import WeightsConfig
from hybriddepth_ros.training.published_data import StackBatch, open_frames
from hybriddepth_ros.training.published_settings import CrossDepthTraining, HybridDepthTraining
from hybriddepth_ros.training.published_start import start_within_range, starting_network
from tests.conftest import Checkpoints
from tests.rgbd_files import write_depth_mm, write_rgb
from tests.training.conftest import DDFF12_METRES, METRES, tiny_keys, tiny_settings

pytest.importorskip("lightning")
from hybriddepth_ros.training.published_training import (
    PublishedModule,
    train_published,
)

MEAN, STD = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
TRAININGS = {"hybriddepth": HybridDepthTraining, "crossdepth": CrossDepthTraining}


@pytest.mark.parametrize("model", TRAININGS)
def test_a_training_changes_what_it_trains_and_nothing_else(
    model: str, tiny_prior: None, start_weights: Path, rooms: Path, tmp_path: Path
) -> None:
    settings = tiny_settings(TRAININGS[model], rooms, start_weights, ema_decay=0.5)
    path = train_published(settings, tmp_path, precision="32-true", quiet=True)
    assert path == tmp_path / f"{model}.safetensors"
    config, tensors = load_weights(str(path), model)
    assert config.focus_unit == "metres" and config.invert_depth and config.depth_range == (0.02, 10.0)
    before = load_weights(settings.init_from, "hybriddepth")[1]
    frozen = [name for name in tensors if name.startswith(("depth_anything.", "DFF_model."))]
    assert len(frozen) > 400
    for name in frozen:
        if not name.startswith("DFF_model.feature_extraction.encoder.fc."):  # which nothing reads
            assert torch.equal(tensors[name], before[name]), name
    if model == "hybriddepth":
        name = "ScaleMapLearner.scratch.output_conv.output_conv.4.weight"
        assert not torch.equal(tensors[name], before[name])
    rows = (tmp_path / "log" / "version_0" / "metrics.csv").read_text()
    for column in ("val_abs_rel", "val_rmse", "val_delta1", "val_loss"):
        assert column in rows.splitlines()[0]


def start(keys: dict[str, Any], out: Path, *options: str) -> subprocess.Popen[str]:
    """`hybriddepth train` with tiny networks, in a process of its own."""
    config = out.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(keys))
    command = [sys.executable, "-m", "tests.training.tiny_networks", "train", str(config), "--out", str(out)]
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )


def finished(process: subprocess.Popen[str]) -> str:
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("hybriddepth", {"ema_decay": 0.9}),  # whose batch normalisation has state, too
        ("crossdepth", {"schedule": "cosine", "workers": 1, "colour_jitter": 0.2}),
    ],
)
def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(
    model: str, changes: dict[str, Any], start_weights: Path, ddff12: Path, tmp_path: Path
) -> None:
    keys = {"model": model, **tiny_keys(ddff12, start_weights, **changes)}
    finished(start(keys, tmp_path / "whole"))
    killed = start(keys, tmp_path / "killed")
    checkpoints = tmp_path / "killed" / "checkpoints"
    while not list(checkpoints.glob("epoch*.ckpt")) and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / f"{model}.safetensors").exists(), "it was killed too late"
    finished(start(keys, tmp_path / "killed"))

    one, other = (tmp_path / name / f"{model}.safetensors" for name in ("whole", "killed"))
    assert one.read_bytes() == other.read_bytes()
    assert one.with_suffix(".yaml").read_text() == other.with_suffix(".yaml").read_text()
    last, resumed = (
        torch.load(next((tmp_path / name / "checkpoints").glob("epoch*.ckpt")), weights_only=False)
        for name in ("whole", "killed")
    )
    assert last["global_step"] == resumed["global_step"] == 6
    assert last["lr_schedulers"] == resumed["lr_schedulers"]
    for name, tensor in last["state_dict"].items():
        assert torch.equal(tensor, resumed["state_dict"][name]), name


@pytest.mark.slow
def test_two_processes_train_together_and_one_writes(
    start_weights: Path, ddff12: Path, tmp_path: Path
) -> None:
    keys = {"model": "crossdepth", **tiny_keys(ddff12, start_weights, steps=2)}
    finished(start(keys, tmp_path / "pair", "--devices", "2"))
    finished(start(keys, tmp_path / "alone"))
    pair, alone = (read_safetensors(tmp_path / n / "crossdepth.safetensors")[0] for n in ("pair", "alone"))
    name = "depth_fusion.decoder.3.weight"
    assert not torch.equal(pair[name], alone[name]), "both processes trained on the same"
    assert sorted(path.name for path in (tmp_path / "pair").iterdir()) == [
        "checkpoints",
        "crossdepth.safetensors",
        "crossdepth.yaml",
        "log",
        "training.yaml",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("model", TRAININGS)
def test_a_published_checkpoint_can_be_trained_on(
    model: str, checkpoints: Checkpoints, ddff12: Path, tmp_path: Path
) -> None:
    """At full size: every name of the format, and no frozen number another one."""
    keys = tiny_keys(ddff12, tmp_path, init_from=str(checkpoints.hybriddepth), batch_size=1, steps=1)
    settings = TRAININGS[model](**keys | {"steps_per_epoch": 1, "validation_frames": 1})
    path = train_published(settings, tmp_path / "out", precision="32-true", quiet=True)
    tensors = load_weights(str(path), model)[1]
    published = load_weights(str(checkpoints.hybriddepth), None)[1]
    assert len(tensors) == {"hybriddepth": 1140, "crossdepth": 731}[model]
    for name, tensor in tensors.items():
        if name.startswith(("depth_anything.", "DFF_model.")) and ".encoder.fc." not in name:
            assert torch.equal(tensor, published[name]), name


@pytest.mark.parametrize("model", TRAININGS)
def test_trained_weights_estimate_and_are_evaluated_as_they_lie(
    model: str, tiny_prior: None, start_weights: Path, ddff12: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"model": model, **tiny_keys(ddff12, start_weights, steps=2)}))
    assert main(["train", str(config), "--out", str(tmp_path / "out")]) == 0
    weights = str(tmp_path / "out" / f"{model}.safetensors")
    said = load_weights(weights, model)[0]
    assert (said.focus_unit, said.slice_order, said.invert_depth) == ("disparity", "falling", False)
    assert said.disparity_metres == pytest.approx(DDFF12_METRES)

    estimate = load_estimator(model, "cpu", weights=weights)(Ddff12(ddff12).load(0).stack)
    assert (
        estimate.depth.shape == (80, 112) and np.isfinite(estimate.sigma[np.isfinite(estimate.depth)]).all()
    )
    out = tmp_path / "scores"
    assert main(["evaluate", str(ddff12), "--model", f"{model}:{weights}", "--out", str(out)]) == 0
    assert (out / "metrics.json").exists()
    stack = write_stack(tmp_path / "stack", ddff12)
    arguments = [
        "depth",
        str(stack),
        "--model",
        model,
        "--weights",
        weights,
        "--out",
        str(tmp_path / "depth"),
    ]
    assert main(arguments) == 0
    assert np.load(tmp_path / "depth" / "depth.npy").shape == (80, 112)


def write_stack(folder: Path, ddff12: Path) -> Path:
    """A STACK folder of the first validation frame."""
    for number, item in enumerate(Ddff12(ddff12).load(0).stack.slices):
        write_rgb(folder / f"image_{number}_{1.0 / item.focus_diopters:.4f}.png", item.image)
    return folder


class BrightIsNear(torch.nn.Module):
    """Stands in for a frozen part: brightness of the first image, as relative depth or focus depth."""

    def forward(self, images: torch.Tensor, focus: torch.Tensor | None = None) -> Any:
        if focus is None:
            return 1.0 + images.mean(dim=1, keepdim=True)
        depth = 0.35 * (images[:, 0] * STD + MEAN).mean(dim=1, keepdim=True)
        return FocusDepth(depth, torch.full_like(depth, 0.01), torch.empty(0))


@pytest.mark.parametrize(("model", "steps"), [("hybriddepth", 15), ("crossdepth", 60)])
def test_a_training_learns(
    model: str, steps: int, tiny_prior: None, start_weights: Path, ddff12: Path
) -> None:
    """On one batch whose brightness is its disparity; the focus says seven tenths of it."""
    settings = tiny_settings(TRAININGS[model], ddff12, start_weights, fresh=True, learning_rate=1e-3)
    network, config = starting_network(settings)
    network.relative_depth, network.focal_volume = BrightIsNear(), BrightIsNear()
    module = PublishedModule(settings, network, config, *open_frames(settings))
    optimiser = module.configure_optimizers()["optimizer"]
    module.log_dict = module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.lr_schedulers = lambda: torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)  # type: ignore
    target = 0.05 + 0.2 * torch.linspace(0, 1, 64).expand(2, 1, 64, 64).contiguous()
    image = (target / 0.5 * 255.0).round().to(torch.uint8).expand(2, 3, 64, 64)
    batch = StackBatch(image, image[:, None].expand(2, 3, 3, 64, 64), torch.rand(2, 3), target, target > 0)
    losses = []
    for _ in range(steps):
        loss = module.training_step(batch, 0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses) < 0.5 * losses[0], losses


@pytest.mark.parametrize("seed", range(4))
def test_a_fresh_fusion_begins_within_its_range(seed: int) -> None:
    torch.manual_seed(seed)
    for bounds in ((0.02, 0.5), (0.02, 10.0)):
        fusion = CrossAttentionFusion(bounds)
        start_within_range(fusion)
        focus, std = torch.rand(1, 1, 64, 64) * bounds[1], torch.rand(1, 1, 64, 64)
        depth = fusion(focus, 20.0 * torch.rand(1, 1, 64, 64), std)
        assert ((depth > bounds[0]) & (depth < bounds[1])).float().mean() > 0.9


def test_the_learning_rate_stays_or_falls_as_a_cosine(
    tiny_prior: None, start_weights: Path, rooms: Path
) -> None:
    start = WeightsConfig("start", "crossdepth", **METRES)
    network = build_network(start)

    def shares(schedule: str) -> list[float]:
        settings = tiny_settings(CrossDepthTraining, rooms, start_weights, schedule=schedule)
        module = PublishedModule(settings, network, start, *open_frames(settings))
        share = module.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
        return [share(step) for step in (0, 3, 6)]

    assert shares("constant") == [1.0, 1.0, 1.0]
    assert shares("cosine") == pytest.approx([1.0, 0.5, 0.0])


def test_a_frame_that_cannot_be_used_is_told_of_once(
    tiny_prior: None, start_weights: Path, rooms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "rooms"
    shutil.copytree(rooms, folder)
    shutil.copy(rooms.with_suffix(".yaml"), folder.with_suffix(".yaml"))
    (folder / "1.rgb.png").write_bytes(b"not an image")
    (folder / "2.depth_mm.png").unlink()
    write_depth_mm(folder / "2.depth_mm.png", np.zeros((80, 112), np.float32))
    settings = tiny_settings(CrossDepthTraining, folder, start_weights, steps=8)
    train_published(settings, tmp_path / "out", precision="32-true", quiet=True)
    told = sorted(r.getMessage() for r in caplog.records if r.getMessage().startswith("skipped"))
    assert len(told) == 2 and "1.rgb.png" in told[0] and "2.depth_mm.png" in told[1]
    assert all("\n" not in line for line in told)


def test_nothing_to_train_on_is_refused(
    tiny_prior: None, start_weights: Path, rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "rooms"
    shutil.copytree(rooms, folder)
    shutil.copy(rooms.with_suffix(".yaml"), folder.with_suffix(".yaml"))
    for image in folder.glob("*.rgb.png"):
        image.write_bytes(b"")
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"model": "crossdepth", **tiny_keys(folder, start_weights)}))
    assert main(["train", str(config), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip()
    assert "expected at least one frame that can be used, found none" in said and "\n" not in said
