"""Focal stacks on disk with the depth of their scene beside the slices."""

from __future__ import annotations

from pathlib import Path

from hybriddepth_ros.errors import DatasetError
from hybriddepth_ros.estimator import reference_index_of
from hybriddepth_ros.evaluation.frames import EvaluationFrame, Floats, MetricTruth
from hybriddepth_ros.evaluation.metrics import is_depth
from hybriddepth_ros.evaluation.truth_files import read_depth_array, read_depth_mm
from hybriddepth_ros.focal_stack import TRUTH_NAMES, FocalStack

DEPTH_ARRAY, DEPTH_IMAGE = TRUTH_NAMES


class StackFolder:
    """A STACK folder with depth.npy (m) or depth_mm.png beside its slices, or a folder of such folders.

    The truth is in the frame of the middle slice in the order of focus, which is an estimator's reference
    unless it is told otherwise. A FrameSource.
    """

    oracle = False

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self._folders = stack_folders(folder)
        self.name = folder.resolve().name
        if not self._folders:
            raise DatasetError(f"{folder}: expected {DEPTH_ARRAY} (m) or {DEPTH_IMAGE} beside a focal stack")

    def __len__(self) -> int:
        return len(self._folders)

    def names(self) -> list[str]:
        """The frames' names, in order."""
        return [folder.resolve().name for folder in self._folders]

    def load(self, index: int) -> EvaluationFrame:
        """The stack with its truth."""
        folder = self._folders[index]
        stack = FocalStack.from_folder(folder)
        depth = _truth(folder)
        reference = reference_index_of(stack.focus_diopters, "middle")
        valid = is_depth(depth)
        name = folder.resolve().name
        return EvaluationFrame(name, stack, MetricTruth(depth), valid, reference=reference)


def stack_folders(folder: Path) -> list[Path]:
    """The folder itself if it holds a truth, else those within it that do."""
    if _has_truth(folder):
        return [folder]
    return sorted(path for path in folder.iterdir() if path.is_dir() and _has_truth(path))


def _has_truth(folder: Path) -> bool:
    return any((folder / name).exists() for name in TRUTH_NAMES)


def _truth(folder: Path) -> Floats:
    if (folder / DEPTH_ARRAY).exists():
        return read_depth_array(folder / DEPTH_ARRAY)
    return read_depth_mm(folder / DEPTH_IMAGE)
