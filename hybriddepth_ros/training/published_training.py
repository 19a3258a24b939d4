"""How HybridDepth's refinement and CrossDepth's fusion are trained: the papers' losses on their data."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from hybriddepth_ros.errors import DatasetError, WeightsError, one_line
from hybriddepth_ros.evaluation.metrics import depth_metrics
from hybriddepth_ros.models.checkpoint_files import read_checkpoint, sha256_of, write_safetensors
from hybriddepth_ros.models.published import published_tensors
from hybriddepth_ros.models.published_units import normalised
from hybriddepth_ros.models.weights_config import WeightsConfig, write_config
from hybriddepth_ros.training.config import CHECKPOINTS, is_first_process
from hybriddepth_ros.training.epochs import EpochSampler
from hybriddepth_ros.training.losses import multiscale_gradient_loss, silog_loss
from hybriddepth_ros.training.published_data import (
    Frames,
    StackBatch,
    TrainingStacks,
    ValidationStacks,
    batches_per_pass,
    check_usable,
    open_frames,
)
from hybriddepth_ros.training.published_settings import PublishedTraining
from hybriddepth_ros.training.published_start import Network, starting_network, trained_part
from hybriddepth_ros.training.train import epoch_to_run, fit
from hybriddepth_ros.training.workers import one_thread

BEST = "best"  # the checkpoint with the least loss in validation, whose weights are kept
METRICS = ("abs_rel", "rmse", "log_rmse", "delta1")

_log = logging.getLogger(__name__)


class PublishedModule(LightningModule):
    """The part that learns, as `trained`; checkpoints hold it alone.

    What is frozen is no submodule, so that neither checkpoints nor averages nor other devices carry it along.
    """

    def __init__(
        self,
        settings: PublishedTraining,
        network: Network,
        config: WeightsConfig,
        training: Frames,
        validation: Frames,
    ) -> None:
        super().__init__()
        self.settings, self.config = settings, config
        self.save_hyperparameters(asdict(settings))
        self._whole = (network,)  # in a tuple it is no submodule
        self.trained = trained_part(network).train()  # a network that was built for estimates is not
        self._training, self._validation = training, validation
        self._told: set[str] = set()

    @property
    def steps_per_epoch(self) -> int:
        settings = self.settings
        return settings.steps_per_epoch or batches_per_pass(len(self._training), settings.batch_size)

    @property
    def epochs(self) -> int:
        return -(-self.settings.steps // self.steps_per_epoch)

    def check_data(self) -> None:
        """DatasetError if there is nothing to train on, or nothing to validate on."""
        settings = self.settings
        check_usable(TrainingStacks(self._training, settings, self.config, 1), 1, settings.data)
        held_out = ValidationStacks(self._validation, settings, self.config)
        check_usable(held_out, len(held_out), settings.validation_data or settings.data)

    def on_fit_start(self) -> None:
        self._whole[0].to(self.device)

    def training_step(self, batch: StackBatch, index: int) -> Tensor:
        self._tell(batch.skipped)
        if not len(batch.target):
            raise DatasetError(
                f"{self.settings.data}: expected at least one frame that can be used, found none"
            )
        total, terms = self._loss(self._depth(batch), batch)
        self.log_dict({"loss": total, **terms}, batch_size=len(batch.target))
        self.log("learning_rate", self.lr_schedulers().get_last_lr()[0])  # type: ignore[union-attr]
        return total

    def validation_step(self, batch: StackBatch, index: int) -> None:
        self._tell(batch.skipped)
        if not len(batch.target):
            return
        depth = self._depth(batch)
        total, _ = self._loss(depth, batch)
        found = depth_metrics(depth.cpu(), batch.target.cpu(), batch.valid.cpu())
        kept = {f"val_{name}": found[name] for name in METRICS}
        self.log_dict({"val_loss": total, **kept}, batch_size=1, sync_dist=True)

    def _depth(self, batch: StackBatch) -> Tensor:
        """[B, 1, H, W] in the unit of training."""
        rgb, stack = batch.rgb.float() / 255.0, batch.stack.float() / 255.0
        found = self._whole[0](
            normalised(rgb, self.config.rgb_normalisation),
            normalised(stack, self.config.stack_normalisation),
            batch.focus,
        )
        depth: Tensor = found.depth.float()
        return depth

    def _loss(self, depth: Tensor, batch: StackBatch) -> tuple[Tensor, dict[str, Tensor]]:
        terms = {
            "silog": silog_loss(depth, batch.target, batch.valid),
            "gradient": multiscale_gradient_loss(depth, batch.target),
        }
        return terms["silog"] + self.settings.gradient_weight * terms["gradient"], terms

    def _tell(self, skipped: tuple[str, ...]) -> None:
        """Once for each frame, here: workers come and go, and each meets the frame again."""
        for reason in skipped:
            if reason not in self._told:
                self._told.add(reason)
                _log.warning("skipped: %s", reason)

    def configure_optimizers(self) -> Any:
        settings = self.settings
        kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
        optimiser = kind(
            self.trained.parameters(),
            lr=settings.learning_rate,
            betas=(0.9, 0.999),
            weight_decay=settings.weight_decay,
        )
        total = self.epochs * self.steps_per_epoch

        def share(step: int) -> float:
            if settings.schedule == "constant":
                return 1.0
            return 0.5 * (1.0 + math.cos(math.pi * min(step / total, 1.0)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> DataLoader[StackBatch]:
        settings, trainer, world = self.settings, self.trainer, self.trainer.world_size
        epoch = epoch_to_run(trainer)
        sampler = EpochSampler(self.steps_per_epoch, self.epochs, trainer.global_rank, world, epoch)
        length = self.epochs * self.steps_per_epoch * world
        stacks = TrainingStacks(self._training, settings, self.config, length)
        return self._loader(stacks, sampler)

    def val_dataloader(self) -> DataLoader[StackBatch]:
        held_out = ValidationStacks(self._validation, self.settings, self.config)
        rank, world = self.trainer.global_rank, self.trainer.world_size
        # As many for each process, or one would wait for the others' sums for ever.
        share = [(place * world + rank) % len(held_out) for place in range(-(-len(held_out) // world))]
        return self._loader(Subset(held_out, share))

    def _loader(self, stacks: Any, sampler: EpochSampler | None = None) -> DataLoader[StackBatch]:
        workers = self.settings.workers
        return DataLoader(
            stacks,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=one_thread,
            pin_memory=self.device.type == "cuda",
        )


def train_published(
    settings: PublishedTraining,
    folder: Path,
    devices: str = "auto",
    nodes: int = 1,
    precision: str = "auto",
    quiet: bool = False,
) -> Path:
    """Trains, or goes on with it, and writes the weights that did best in validation."""
    network, config = starting_network(settings)
    module = PublishedModule(settings, network, config, *open_frames(settings))
    module.check_data()
    # After validation, so that the checkpoint of the epoch, which is written later, knows of it.
    best = ModelCheckpoint(
        dirpath=folder / CHECKPOINTS,
        filename=BEST,
        monitor="val_loss",
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    fit(
        module,
        folder,
        module.epochs,
        settings.gradient_clip or None,
        settings.ema_decay or None,
        precision,
        devices,
        nodes,
        callbacks=[best],
        quiet=quiet,
    )
    path = folder / f"{config.name}.safetensors"
    if is_first_process():
        load_trained(module, folder / CHECKPOINTS / f"{BEST}.ckpt")
        save_weights(path, network, config)
    return path


def load_trained(module: PublishedModule, checkpoint: Path) -> None:
    """The weights of a checkpoint: averaged, where that was asked for."""
    tensors = read_checkpoint(checkpoint)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"{checkpoint}: {one_line(error)}") from None


def save_weights(path: Path, network: Network, config: WeightsConfig) -> None:
    """Tensors under their published names, and their config beside them: as installed weights are."""
    tensors = published_tensors(network.published_layout())
    write_safetensors(path, {name: t.cpu() for name, t in tensors.items()}, {"name": config.name})
    write_config(replace(config, sha256=sha256_of(path)), path.parent)
