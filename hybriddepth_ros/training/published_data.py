"""What HybridDepth and CrossDepth are trained on: frames of the data set readers, cropped and mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hybriddepth_ros.errors import DatasetError, HybridDepthError
from hybriddepth_ros.evaluation.arkitscenes import ArkitScenes
from hybriddepth_ros.evaluation.datasets import AUTO, open_source, recognise
from hybriddepth_ros.evaluation.ddff12 import SLICES, Ddff12
from hybriddepth_ros.evaluation.frames import (
    DisparityTruth,
    EvaluationFrame,
    Floats,
    FrameSource,
    GroundTruth,
    Mask,
)
from hybriddepth_ros.evaluation.nyu import NyuDepth
from hybriddepth_ros.evaluation.protocols import (
    EvaluationProtocol,
    ProtocolSweep,
    TruthSweep,
    load_protocol,
)
from hybriddepth_ros.image_files import ImageRGB
from hybriddepth_ros.models.published_units import focus_distances, training_order
from hybriddepth_ros.models.weights_config import WeightsConfig
from hybriddepth_ros.training.published_settings import PublishedTraining

LEAST_KNOWN = 0.01  # in the unit of training; what is less counts as no truth when a crop is chosen
HELD_OUT_SHARE = 0.1  # of frames without a split of their own

# What each data set calls the frames to train and to validate on, and how the papers make stacks of them.
_SPLITS = {"nyu": ("train", "test"), "arkitscenes": ("Training", "Validation"), "ddff12": ("train", "val")}
_PROTOCOLS = {"nyu": "nyu_published", "arkitscenes": "arkitscenes_published", "rgbd": "nyu_published"}

Rng = np.random.Generator


class StackBatch(NamedTuple):
    """rgb [B, 3, H, W], stack [B, N, 3, H, W] uint8 and focus [B, N], in the order of training.

    target [B, 1, H, W] in the unit of training, 0 = unknown; valid [B, 1, H, W] bool: what counts. skipped:
    why each frame that was to be among them is not. B may be 0.
    """

    rgb: Tensor
    stack: Tensor
    focus: Tensor
    target: Tensor
    valid: Tensor
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Look:
    """One item of a batch, as arrays: rgb [H, W, 3], stack [N, H, W, 3], focus [N], target, valid [H, W]."""

    rgb: ImageRGB
    stack: npt.NDArray[np.uint8]
    focus: Floats
    target: Floats
    valid: Mask


@dataclass(frozen=True)
class Frames:
    """Some of a source's frames."""

    source: FrameSource
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, place: int) -> EvaluationFrame:
        """The frame, or a HybridDepthError."""
        return self.source.load(self.indices[place])


# ---- which frames


def open_frames(settings: PublishedTraining) -> tuple[Frames, Frames]:
    """The frames to train and to validate on; DatasetError names the path."""
    source, has_split = _open(settings, settings.data, validation=False)
    training = range(len(source))
    if settings.validation_data or has_split:
        held_out, _ = _open(settings, settings.validation_data or settings.data, validation=True)
        validation: Sequence[int] = range(len(held_out))
    else:
        held_out, count = source, max(1, round(HELD_OUT_SHARE * len(source)))
        training, validation = training[:-count], training[-count:]
    if not training:
        raise DatasetError(f"{settings.data}: expected frames to train and to validate on, found 1")
    if 0 < settings.validation_frames < len(validation):
        validation = [validation[place] for place in _evenly(len(validation), settings.validation_frames)]
    return Frames(source, tuple(training)), Frames(held_out, tuple(validation))


def _open(settings: PublishedTraining, path: str, validation: bool) -> tuple[FrameSource, bool]:
    """The source, and whether it is one split of the data set."""
    root = Path(path).expanduser()
    if not root.exists():
        raise DatasetError(
            f"{'validation_data' if validation else 'data'}: {root}: expected a data set there"
        )
    kind = recognise(root) if settings.kind == AUTO else settings.kind
    protocol = _protocol(settings, kind)
    if kind not in _SPLITS:
        return open_source(root, protocol, kind), False
    split = _SPLITS[kind][validation]
    if kind == "nyu":
        return NyuDepth(root, protocol, split), True
    if kind == "arkitscenes":
        return ArkitScenes(root, protocol, split), True
    return Ddff12(root, split, SLICES), True


def _protocol(settings: PublishedTraining, kind: str) -> EvaluationProtocol | None:
    """How stacks are made: with as many slices as are trained on, where the truth gives the focus."""
    if kind not in _PROTOCOLS:
        if settings.protocol:
            raise DatasetError(f"protocol: expected none for {kind}, whose stacks are given")
        return None
    protocol = load_protocol(settings.protocol or _PROTOCOLS[kind])
    if protocol.sweep.from_truth is None:
        return protocol
    return replace(protocol, sweep=ProtocolSweep(from_truth=TruthSweep(settings.slices)))


# ---- what the network sees of a frame


def training_look(
    frame: EvaluationFrame, settings: PublishedTraining, config: WeightsConfig, rng: Rng
) -> Look:
    """Some of the slices, a crop, mirrored, in other colours."""
    count = len(frame.stack.slices)
    _check_slices(frame, settings)
    whole = _look(frame, settings, config, np.sort(rng.choice(count, settings.slices, replace=False)))
    size = (settings.crop_height_px, settings.crop_width_px)
    height, width = whole.target.shape
    if height < size[0] or width < size[1]:
        raise DatasetError(f"{frame.name}: expected at least {size[1]}x{size[0]} px, got {width}x{height}")
    top, left = random_crop(whole.target >= LEAST_KNOWN, size, settings.known_share, rng)
    rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
    if settings.flip_vertical and rng.random() < 0.5:
        rows = _backwards(rows)
    if settings.flip_horizontal and rng.random() < 0.5:
        columns = _backwards(columns)
    images = np.concatenate([whole.rgb[None], whole.stack])[:, rows, columns]  # [1 + N, h, w, 3]
    if settings.colour_jitter:
        images = jittered(images, settings.colour_jitter, rng)
    target, valid = whole.target[rows, columns], whole.valid[rows, columns]
    return Look(images[0], images[1:], whole.focus, target, valid)


def validation_look(frame: EvaluationFrame, settings: PublishedTraining, config: WeightsConfig) -> Look:
    """The whole frame, with slices chosen evenly: of DDFF12's ten as published."""
    _check_slices(frame, settings)
    return _look(frame, settings, config, _evenly(len(frame.stack.slices), settings.slices))


def _look(
    frame: EvaluationFrame, settings: PublishedTraining, config: WeightsConfig, chosen: npt.NDArray[np.intp]
) -> Look:
    """The whole frame, with the chosen of its slices in the order of training."""
    diopters = frame.stack.focus_diopters
    order = training_order(diopters, config)[chosen]
    stack = np.stack([frame.stack.slices[index].image for index in order])
    sharp = frame.sharp if settings.prior_image == "sharp" else None
    return Look(
        stack[0] if sharp is None else sharp,
        stack,
        focus_distances(diopters[order], config),
        target_of(frame.truth, config),
        frame.valid,
    )


def target_of(truth: GroundTruth, config: WeightsConfig) -> Floats:
    """The truth [H, W] in the unit of training, 0 where there is none; also where it does not count."""
    depth = truth.depth_m()
    known = np.isfinite(depth)
    if config.focus_unit == "metres":
        values: Floats = depth
    elif isinstance(truth, DisparityTruth) and config.focus_unit == "disparity":
        values = truth.values * np.float32(config.disparity_metres / truth.baseline_focal_m_px)
    else:
        per_diopter = config.disparity_metres if config.focus_unit == "disparity" else 1.0
        values = np.asarray(per_diopter / np.where(known, depth, 1.0), np.float32)
    return np.where(known, values, np.float32(0.0)).astype(np.float32)


def random_crop(known: Mask, size: tuple[int, int], share: float, rng: Rng) -> tuple[int, int]:
    """Top and left of a crop of this size with that share known, of any crop if none has."""
    height, width = size
    total = cv2.integral(known.astype(np.uint8))
    counts = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    )
    good = np.flatnonzero(counts >= share * height * width)
    place = int(rng.choice(good)) if len(good) else int(rng.integers(counts.size))
    return divmod(place, counts.shape[1])


def jittered(images: npt.NDArray[np.uint8], strength: float, rng: Rng) -> npt.NDArray[np.uint8]:
    """Images [..., H, W, 3] in another brightness, contrast and saturation, the same for all."""
    brightness, contrast, saturation = rng.uniform(1.0 - strength, 1.0 + strength, 3).astype(np.float32)
    values = images.astype(np.float32) * brightness
    values = values.mean() + contrast * (values - values.mean())
    grey = values.mean(axis=-1, keepdims=True)
    values = grey + saturation * (values - grey)
    return values.round().clip(0.0, 255.0).astype(np.uint8)


def _check_slices(frame: EvaluationFrame, settings: PublishedTraining) -> None:
    if len(frame.stack.slices) < settings.slices:
        found = len(frame.stack.slices)
        raise DatasetError(f"{frame.name}: expected {settings.slices} slices or more, got {found}")


def _evenly(total: int, count: int) -> npt.NDArray[np.intp]:
    return np.floor(np.linspace(0, total - 1, count)).astype(np.intp)


def _backwards(window: slice) -> slice:
    return slice(window.stop - 1, window.start - 1 if window.start else None, -1)


# ---- batches


class TrainingStacks(Dataset[StackBatch]):
    """Batch `i` of an endless row, a function of the settings and of i alone.

    A frame that cannot be used is replaced by the next of its pass that can.
    """

    def __init__(
        self, frames: Frames, settings: PublishedTraining, config: WeightsConfig, length: int
    ) -> None:
        self._frames, self._settings, self._config, self._length = frames, settings, config, length
        self._bad: dict[int, str] = {}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> StackBatch:
        cv2.setNumThreads(1)
        settings, total = self._settings, len(self._frames)
        number, row = divmod(index, batches_per_pass(total, settings.batch_size))
        order = np.arange(total)
        if settings.shuffle:
            order = np.random.default_rng([settings.seed, 0, number]).permutation(total)
        looks: list[Look] = []
        skipped: list[str] = []
        for place in map(int, np.roll(order, -row * settings.batch_size)):
            found = self._look(place, np.random.default_rng([settings.seed, 1, index, place]))
            if isinstance(found, Look):
                looks.append(found)
            else:
                skipped.append(found)
            if len(looks) == settings.batch_size:
                break
        return batch_of(looks, skipped)

    def _look(self, place: int, rng: Rng) -> Look | str:
        """The frame, or why there is none."""
        if place not in self._bad:
            try:
                return training_look(self._frames.load(place), self._settings, self._config, rng)
            except HybridDepthError as error:
                self._bad[place] = str(error)
        return self._bad[place]


class ValidationStacks(Dataset[StackBatch]):
    """The frames one by one, whole; a batch of none where one cannot be used."""

    def __init__(self, frames: Frames, settings: PublishedTraining, config: WeightsConfig) -> None:
        self._frames, self._settings, self._config = frames, settings, config

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, place: int) -> StackBatch:
        try:
            look = validation_look(self._frames.load(place), self._settings, self._config)
        except HybridDepthError as error:
            return batch_of([], [str(error)])
        return batch_of([look], [])


def batches_per_pass(frames: int, batch_size: int) -> int:
    """Whole batches only: what is left over is in another pass, when the order is another."""
    return max(1, frames // batch_size)


def batch_of(looks: Sequence[Look], skipped: Sequence[str]) -> StackBatch:
    """The looks, all of one size, as one batch."""
    if not looks:
        nothing = torch.empty(0)
        return StackBatch(nothing, nothing, nothing, nothing, nothing, tuple(skipped))
    rgb, stack, focus, target, valid = (
        torch.from_numpy(np.stack([getattr(look, name) for look in looks]))
        for name in ("rgb", "stack", "focus", "target", "valid")
    )
    return StackBatch(
        rgb.permute(0, 3, 1, 2).contiguous(),
        stack.permute(0, 1, 4, 2, 3).contiguous(),
        focus,
        target[:, None],
        valid[:, None],
        tuple(skipped),
    )


def check_usable(stacks: Dataset[StackBatch], count: int, path: str) -> None:
    """DatasetError if none of the first `count` batches has anything in it."""
    reasons: tuple[str, ...] = ()
    for index in range(count):
        batch = stacks[index]
        if len(batch.target):
            return
        reasons += batch.skipped
    first = f"; the first: {reasons[0]}" if reasons else ""
    raise DatasetError(f"{path}: expected at least one frame that can be used, found none{first}")
