"""DDFF12: focal stacks of a light-field camera with disparity, in one HDF5 file.

Not tried on the published file. Its light field was refocused by computation, so the slices lie over each
other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hybriddepth_ros.errors import DatasetError
from hybriddepth_ros.estimator import reference_index_of
from hybriddepth_ros.evaluation.frames import DisparityTruth, EvaluationFrame
from hybriddepth_ros.focal_stack import FocalSlice, FocalStack
from hybriddepth_ros.image_files import MAX_IMAGE_PIXELS
from hybriddepth_ros.models.weights_catalogue import DDFF12_DISPARITY_METRES

SLICES = 10
FOCUS_DISPARITY = np.linspace(0.28, 0.02, SLICES)  # near to far
PUBLISHED_SLICES = 5
CHOSEN = {PUBLISHED_SLICES: (0, 2, 4, 6, 9), SLICES: tuple(range(SLICES))}
DISPARITY_RANGE = (0.02, 0.28)  # what counts: about 7 m to 0.5 m, both ends excluded
SPLITS = ("train", "val")


class Ddff12:
    """The stacks of one split, as the published evaluation takes them: `val`, 5 of the 10 slices.

    Slices are in the order near to far. A FrameSource.
    """

    oracle = False

    def __init__(self, path: str | Path, split: str = "val", count: int = PUBLISHED_SLICES) -> None:
        if count not in CHOSEN:
            expected = " or ".join(map(str, CHOSEN))
            raise DatasetError(f"DDFF12: expected {expected} slices, got {count}")
        if split not in SPLITS:
            raise DatasetError(f"DDFF12: expected the split {' or '.join(SPLITS)}, got {split!r}")
        self._path, self._split, self._chosen = Path(path), split, CHOSEN[count]
        self.name = f"DDFF12 {split}" + (f", {count} slices" if count != PUBLISHED_SLICES else "")
        self.options = {"slices": count}
        with _opened(self._path) as file:
            stacks, disparities = (
                _dataset(file, self._path, f"{kind}_{split}") for kind in ("stack", "disp")
            )
            self._count = _check_shapes(self._path, split, stacks.shape, disparities.shape)

    def __len__(self) -> int:
        return self._count

    def names(self) -> list[str]:
        """The frames' names, in order."""
        return [self._frame_name(index) for index in range(self._count)]

    def load(self, index: int) -> EvaluationFrame:
        """The chosen slices with their disparity."""
        where, name = f"{self._path}: {self._split}[{index}]", self._frame_name(index)
        with _opened(self._path) as file:
            try:
                stack = np.asarray(_dataset(file, self._path, f"stack_{self._split}")[index])
                disparity = _dataset(file, self._path, f"disp_{self._split}")[index].astype(np.float32)
            except (OSError, ValueError, RuntimeError, TypeError):
                raise DatasetError(
                    f"{where}: expected a stack and its disparity, could not read them"
                ) from None
        images = stack[list(self._chosen)]
        if images.dtype != np.uint8:
            if images.dtype.kind not in "iuf" or not np.isfinite(images).all():
                raise DatasetError(
                    f"{where}: expected colours of 0 to 255, got {images.dtype}, not all finite"
                )
            low, high = float(images.min()), float(images.max())
            if low < 0.0 or high > 255.0:
                raise DatasetError(f"{where}: expected colours of 0 to 255, got {low:g} to {high:g}")
            images = images.round().astype(np.uint8)
        focus = FOCUS_DISPARITY[list(self._chosen)] / DDFF12_DISPARITY_METRES
        slices = tuple(
            FocalSlice(np.ascontiguousarray(image), float(diopters))
            for image, diopters in zip(images, focus, strict=True)
        )
        truth = DisparityTruth(np.ascontiguousarray(disparity), DDFF12_DISPARITY_METRES)
        low, high = DISPARITY_RANGE
        valid = np.isfinite(truth.values) & (truth.values > low) & (truth.values < high)
        if not valid.any():
            raise DatasetError(f"{where}: expected disparities of {low:g} to {high:g}, found none")
        return EvaluationFrame(
            name, FocalStack(slices, name=name), truth, valid, reference=reference_index_of(focus, "middle")
        )

    def _frame_name(self, index: int) -> str:
        return f"{self._split}_{index:03d}"


def _opened(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise DatasetError(f"{path}: expected the Python package h5py, which reads DDFF12") from None
    if not path.is_file():
        raise DatasetError(f"{path}: expected the HDF5 file of DDFF12, found no file there")
    try:
        return h5py.File(path, "r")
    except OSError:
        raise DatasetError(f"{path}: expected an HDF5 file, could not open it as one") from None


def _dataset(file: Any, path: Path, name: str) -> Any:
    import h5py

    try:
        found = file.get(name)
    except (OSError, KeyError, RuntimeError, ValueError):
        found = None
    if not isinstance(found, h5py.Dataset):
        raise DatasetError(f"{path}: expected the data set {name} of DDFF12, which is missing")
    return found


def _check_shapes(path: Path, split: str, stacks: tuple[int, ...], disparities: tuple[int, ...]) -> int:
    """How many stacks there are."""
    fits = len(stacks) == 5 and stacks[1] == SLICES and stacks[4] == 3
    if not fits or disparities != (stacks[0], stacks[2], stacks[3]):
        expected = f"stack_{split} [N, {SLICES}, H, W, 3] and disp_{split} [N, H, W]"
        raise DatasetError(f"{path}: expected {expected}, got {list(stacks)} and {list(disparities)}")
    if not stacks[0] or not 0 < stacks[2] * stacks[3] <= MAX_IMAGE_PIXELS // SLICES:
        raise DatasetError(f"{path}: expected stacks in stack_{split}, got {list(stacks)}")
    return int(stacks[0])
