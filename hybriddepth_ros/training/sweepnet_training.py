"""How sweepnet is trained: its step, what is measured on the way, and the weights that come of it."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from hybriddepth_ros import __version__
from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.models.base import find_device
from hybriddepth_ros.models.checkpoint_files import sha256_of
from hybriddepth_ros.models.sweepnet import SweepNet
from hybriddepth_ros.models.sweepnet_weights import (
    SweepNetWeights,
    load_sweepnet,
    on_device,
    save_sweepnet,
    trained_network,
)
from hybriddepth_ros.models.weights_config import identity
from hybriddepth_ros.training.calibration import calibrate
from hybriddepth_ros.training.config import is_first_process
from hybriddepth_ros.training.sweepnet_loss import LossWeights, sweepnet_loss
from hybriddepth_ros.training.sweepnet_settings import SweepNetTraining
from hybriddepth_ros.training.synthetic_stacks import Batch, StackSettings, SyntheticBatches
from hybriddepth_ros.training.train import epoch_to_run, fit, newest_checkpoint

# Added to the seed of stacks that are never trained on: to watch a training, and to measure sigma on.
_HELD_OUT, _CALIBRATION = 1_000_000, 2_000_000
_CALIBRATION_STACKS = 140  # of which each is looked at twice


class Start(NamedTuple):
    """The weights that a training begins with, and their identity."""

    weights: SweepNetWeights
    identity: str


class SweepNetModule(LightningModule):
    """The network in training; `state_dict` of a checkpoint holds the averaged weights under `network.`

    start: None in a training that goes on, whose checkpoint holds all that it began with. stages: the earlier
    trainings of these weights and this one, as their card tells them.
    """

    def __init__(self, settings: SweepNetTraining, start: Start | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.save_hyperparameters(asdict(settings))
        torch.manual_seed(settings.seed)
        self.network = SweepNet()
        if start:
            self.network.load_state_dict(start.weights.network.state_dict())
        on_device(self.network, "cpu")
        self.loss_weights = LossWeights()
        own = asdict(settings) | {"init_from": start.identity if start else ""}
        earlier = start.weights.card.get("stages", []) if start else []
        self.stages: list[dict[str, Any]] = [*earlier, {"version": __version__, "settings": own}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["stages"] = self.stages

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        began: list[dict[str, Any]] = checkpoint["stages"]
        # This start's settings, which may be for more steps; but what the weights began with.
        own = asdict(self.settings) | {"init_from": began[-1]["settings"]["init_from"]}
        self.stages = [*began[:-1], began[-1] | {"settings": own}]

    def training_step(self, batch: Batch, index: int) -> Tensor:
        found = self.network(batch.stack.to(self.dtype) / 255.0, batch.positions)
        valid = torch.ones_like(batch.target, dtype=torch.bool)
        total, terms = sweepnet_loss(found, batch.target, valid, batch.positions, self.loss_weights)
        self.log_dict({"loss": total, **terms}, batch_size=len(batch.target))
        self.log("learning_rate", self.lr_schedulers().get_last_lr()[0])  # type: ignore[union-attr]
        return total

    def validation_step(self, batch: Batch, index: int) -> None:
        found = self.network(batch.stack.to(self.dtype) / 255.0, batch.positions)
        spacing = found.spacing[:, None, None]
        error = (found.position - batch.target).abs()
        first, last = batch.positions[:, :1, None], batch.positions[:, -1:, None]
        inside = (batch.target >= first) & (batch.target <= last)
        steps = error / spacing
        self.log_dict(
            {
                "val_error_inside": steps[inside].mean(),
                "val_error_outside": torch.where(inside, 0.0, steps).sum() / (~inside).sum().clamp(min=1),
                "val_error_px": error.mean(),
                "val_likelihood": (error / found.scale + (found.scale / spacing).log()).mean(),
                "val_within_scale": (error < found.scale).float().mean(),
            },
            batch_size=len(batch.target),
            sync_dist=True,
        )

    def configure_optimizers(self) -> Any:
        settings = self.settings
        matrices = [p for p in self.network.parameters() if p.ndim > 1]
        vectors = [p for p in self.network.parameters() if p.ndim <= 1]
        optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": settings.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=(0.9, 0.99),
        )
        total = settings.epochs * settings.steps_per_epoch
        warmup = max(1.0, settings.warmup_share * total)
        decay = max(1.0, settings.decay_share * total)

        def share(step: int) -> float:
            return max(0.0, min(1.0, (step + 1) / warmup, (total - step) / decay))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> SyntheticBatches:
        settings, trainer = self.settings, self.trainer
        return SyntheticBatches(
            _stacks(settings),
            settings.seed,
            settings.steps_per_epoch,
            epoch_to_run(trainer) * settings.steps_per_epoch,
            self.device,
            settings.workers,
            trainer.global_rank,
            trainer.world_size,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        batches = list(held_out(self.settings, _HELD_OUT, self.settings.validation_batches, self.device))
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def train_sweepnet(
    settings: SweepNetTraining,
    folder: Path,
    devices: str = "auto",
    nodes: int = 1,
    precision: str = "auto",
    quiet: bool = False,
) -> Path:
    """Trains, or goes on with it, measures what the network's sigma is worth, and writes the weights."""
    begun = newest_checkpoint(folder)
    module = SweepNetModule(settings, None if begun else starting_weights(settings))
    fit(
        module,
        folder,
        settings.epochs,
        settings.gradient_clip,
        settings.ema_decay,
        precision,
        devices,
        nodes,
        quiet=quiet,
    )
    path = folder / "sweepnet.safetensors"
    if not is_first_process():
        return path
    newest = newest_checkpoint(folder)
    # Not the module's: where a training was whole already, that one holds the weights without the average.
    network = trained_network(newest) if newest else module.network.eval()
    on_device(network, find_device("auto"))
    calibration, beyond = calibrate(network, calibration_batches(settings))
    card = {
        "model": "sweepnet",
        "data": "procedural scenes rendered by hybriddepth_ros.simulation",
        "stages": module.stages,
    }
    save_sweepnet(path, SweepNetWeights(network, calibration, card, beyond))
    return path


def starting_weights(settings: SweepNetTraining) -> Start | None:
    """Those that `init_from` names; None where the network is drawn from the seed."""
    if not settings.init_from:
        return None
    file = Path(settings.init_from).expanduser()
    weights = load_sweepnet(file)
    expected = SweepNet().widths
    if weights.network.widths != expected:
        raise ParameterError(
            f"init_from: {file}: expected the widths {expected}, got {weights.network.widths}"
        )
    return Start(weights, identity(file.stem, sha256_of(file)))


def held_out(
    settings: SweepNetTraining, offset: int, count: int, device: torch.device | str = "cpu"
) -> SyntheticBatches:
    """Batches of stacks that no training with these settings sees."""
    return SyntheticBatches(
        _stacks(settings), settings.seed + offset, count, device=device, workers=settings.workers
    )


def calibration_batches(settings: SweepNetTraining) -> SyntheticBatches:
    """Two stacks each, of which one is new; large, as cameras give them, and blurred as lenses do."""
    side = settings.calibration_px
    large = replace(
        settings,
        crop_px=side,
        render_px=max(side, settings.render_px),
        batch_size=2,
        pool_stacks=min(32, settings.pool_stacks),
        new_stacks=1,
        gathered_share=0.0,
    )
    return held_out(large, _CALIBRATION, _CALIBRATION_STACKS)


def _stacks(settings: SweepNetTraining) -> StackSettings:
    """Those of the settings that concern the stacks, under the same names."""
    return StackSettings(**{field.name: getattr(settings, field.name) for field in fields(StackSettings)})
