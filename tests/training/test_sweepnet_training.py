"""Training sweepnet, small but whole: killed and resumed, its weights, its command."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.models.checkpoint_files import read_safetensors
from hybriddepth_ros.models.sweepnet import SweepNet
from hybriddepth_ros.models.sweepnet_weights import SweepNetWeights, load_sweepnet, save_sweepnet
from hybriddepth_ros.training.sweepnet_settings import SweepNetTraining
from hybriddepth_ros.training.sweepnet_training import (
    SweepNetModule,
    calibration_batches,
    held_out,
    starting_weights,
)

pytest.importorskip("lightning")

TINY = {
    "model": "sweepnet",
    "steps": 6,
    "steps_per_epoch": 2,
    "batch_size": 2,
    "crop_px": 32,
    "calibration_px": 32,
    "render_px": 48,
    "rendered_slices": 4,
    "pool_stacks": 4,
    "workers": 0,
    "validation_batches": 1,
}


def start(config: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hybriddepth_ros", "train", str(config), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.mark.slow
def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(tmp_path: Path, config: Path) -> None:
    whole = start(config, tmp_path / "whole")
    killed = start(config, tmp_path / "killed")
    first = tmp_path / "killed" / "checkpoints" / "epoch00000.ckpt"
    while not list(first.parent.glob("epoch*.ckpt")) and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    output = whole.communicate()[0]
    assert whole.returncode == 0, output
    assert not (tmp_path / "killed" / "sweepnet.safetensors").exists(), "it was killed too late"

    resumed = start(config, tmp_path / "killed")
    output = resumed.communicate()[0]
    assert resumed.returncode == 0, output

    one, metadata = read_safetensors(tmp_path / "whole" / "sweepnet.safetensors")
    other, other_metadata = read_safetensors(tmp_path / "killed" / "sweepnet.safetensors")
    assert metadata == other_metadata
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    drawn = SweepNetModule(SweepNetTraining()).network.state_dict()
    assert any(not torch.equal(tensor, drawn[name]) for name, tensor in one.items()), "it learnt nothing"

    loaded = load_sweepnet(tmp_path / "whole" / "sweepnet.safetensors")
    assert [stage["settings"]["steps"] for stage in loaded.card["stages"]] == [6]
    assert len(loaded.calibration.ln_scale) > 1


@pytest.mark.slow
def test_a_wrong_key_ends_with_2_and_one_line(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("model: sweepnet\nstepz: 3\n")
    process = start(path, tmp_path / "out")
    output = process.communicate()[0]
    assert process.returncode == 2
    assert output.strip().count("\n") == 0 and "did you mean steps" in output
    assert not (tmp_path / "out").exists()


def test_a_training_learns(tmp_path: Path) -> None:
    """Thirty steps on one batch: the error falls by a third at least."""
    settings = SweepNetTraining(
        **{k: v for k, v in TINY.items() if k != "model"} | {"steps": 100, "warmup_share": 0.0}
    )
    module = SweepNetModule(settings)
    batch = next(iter(held_out(settings, 0, 1)))
    optimiser = module.configure_optimizers()["optimizer"]
    module.log_dict = module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.lr_schedulers = lambda: torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)  # type: ignore
    losses = []
    for _ in range(30):
        loss = module.training_step(batch, 0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3 * abs(losses[0])


def test_the_learning_rate_rises_stays_and_falls_to_nothing() -> None:
    settings = SweepNetTraining(steps=1000, steps_per_epoch=100, warmup_share=0.1, decay_share=0.4)
    schedule = SweepNetModule(settings).configure_optimizers()["lr_scheduler"]["scheduler"]
    share = schedule.lr_lambdas[0]
    assert share(0) == pytest.approx(0.01)
    assert share(99) == share(300) == share(599) == 1.0
    assert share(800) == pytest.approx(0.5)
    assert share(1000) == 0.0


def test_held_out_stacks_are_none_of_those_trained_on() -> None:
    settings = SweepNetTraining(**{k: v for k, v in TINY.items() if k != "model"})
    trained = [batch.target for batch in held_out(settings, 0, 4)]
    unseen = next(iter(held_out(settings, 1_000_000, 1))).target
    assert all(not torch.equal(unseen, target) for target in trained)


def test_sigma_is_calibrated_on_large_stacks_that_a_lens_blurred() -> None:
    settings = SweepNetTraining(
        **{k: v for k, v in TINY.items() if k != "model"} | {"calibration_px": 64, "gathered_share": 1.0}
    )
    batches = calibration_batches(settings)
    assert len(batches) >= 100
    batch = next(iter(batches))
    assert batch.stack.shape[0] == 2 and batch.stack.shape[-2:] == (64, 64)
    gathered = next(iter(held_out(replace(settings, render_px=64, crop_px=64), 2_000_000, 1)))
    assert not torch.equal(batch.stack[:, :2], gathered.stack[:, :2])


def test_weights_of_another_shape_are_not_begun_with(tmp_path: Path) -> None:
    path = tmp_path / "narrow.safetensors"
    save_sweepnet(path, SweepNetWeights(SweepNet(edge_channels=8)))
    with pytest.raises(ParameterError, match=r"init_from: .*narrow.safetensors: expected the widths"):
        starting_weights(SweepNetTraining(init_from=str(path)))


@pytest.mark.slow
def test_a_second_stage_begins_with_the_first_and_its_card_tells_both(tmp_path: Path, config: Path) -> None:
    drawn, first = SweepNet(), tmp_path / "first.safetensors"
    save_sweepnet(first, SweepNetWeights(drawn, card={"stages": [{"settings": {"seed": 5}}]}))
    settings = SweepNetTraining(**{k: v for k, v in TINY.items() if k != "model"} | {"init_from": str(first)})
    begun = SweepNetModule(settings, starting_weights(settings))
    assert all(torch.equal(t, begun.network.state_dict()[name]) for name, t in drawn.state_dict().items())

    config.write_text(yaml.safe_dump(TINY | {"init_from": str(first), "steps": 2}))
    output = start(config, tmp_path / "out").communicate()[0]
    first.unlink()  # what goes on does not need what it began with
    config.write_text(yaml.safe_dump(TINY | {"init_from": str(first), "steps": 4}))
    resumed = start(config, tmp_path / "out")
    output += resumed.communicate()[0]
    assert resumed.returncode == 0, output
    before, own = load_sweepnet(tmp_path / "out" / "sweepnet.safetensors").card["stages"]
    assert before == {"settings": {"seed": 5}}
    assert own["settings"]["init_from"].startswith("first@") and own["settings"]["steps"] == 4
