"""Training that may be killed at any time: the next start goes on from the last epoch's checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from hybriddepth_ros.errors import ParameterError, one_line
from hybriddepth_ros.training.config import CHECKPOINTS, is_first_process


def fit(
    module: LightningModule,
    folder: Path,
    epochs: int,
    gradient_clip: float | None = None,
    ema_decay: float | None = None,
    precision: str = "auto",
    devices: str = "auto",
    nodes: int = 1,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
) -> Trainer:
    """Trains up to `epochs`, from the newest checkpoint in `folder` if there is one.

    precision: auto is bfloat16 on a GPU and float32 on a CPU. Writes checkpoints/, and log/ with a
    version_N/metrics.csv for every start.
    """
    import torch

    if precision == "auto":
        precision = "bf16-mixed" if torch.cuda.is_available() else "32-true"
    saver = ModelCheckpoint(
        dirpath=folder / CHECKPOINTS,
        filename="epoch{epoch:05d}",
        auto_insert_metric_name=False,
        save_top_k=1,
        save_on_train_epoch_end=True,
    )
    average = [EMAWeightAveraging(decay=ema_decay)] if ema_decay else []
    try:
        trainer = Trainer(
            accelerator="auto",
            devices=devices,
            num_nodes=nodes,
            precision=precision,  # type: ignore[arg-type]
            max_epochs=epochs,
            gradient_clip_val=gradient_clip,
            logger=CSVLogger(folder, name="log"),
            callbacks=[saver, *average, *callbacks],
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            log_every_n_steps=10,
            enable_progress_bar=not quiet,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError) as error:  # devices that this machine lacks, say
        asked = f"--devices {devices} --nodes {nodes} --precision {precision}"
        raise ParameterError(f"{asked}: expected what this machine can do: {one_line(error)}") from None
    trainer.fit(module, ckpt_path=newest_checkpoint(folder))
    return trainer


def epoch_to_run(trainer: Trainer) -> int:
    """The epoch that data is to be loaded for; not current_epoch: a checkpoint is written before an epoch
    counts as completed.
    """
    processed: int = trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
    return processed


def newest_checkpoint(folder: Path) -> Path | None:
    """The last that was written whole; a write that was cut off leaves no file of that name."""
    found = sorted((folder / CHECKPOINTS).glob("epoch*.ckpt"))
    if is_first_process():
        for older in found[:-1]:  # of a start that was killed
            older.unlink()
    return found[-1] if found else None
