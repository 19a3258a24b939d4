"""The learned-autofocus data set: phone focal stacks with depth from multi-view stereo and its confidence.

Not tried on the published files.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from hybriddepth_ros.errors import DatasetError
from hybriddepth_ros.estimator import reference_index_of
from hybriddepth_ros.evaluation.frames import EvaluationFrame, Floats, MetricTruth
from hybriddepth_ros.focal_stack import FocalSlice, FocalStack
from hybriddepth_ros.image_files import MAX_FILE_BYTES, ImageRGB, read_bytes, read_grey, read_image

IMAGES = Path("test", "scaled_images")
DEPTHS = Path("test", "merged_depth")
CONFIDENCES = Path("test", "merged_conf")
IMAGE_NAME, DEPTH_NAME = "result_scaled_image_center.jpg", "result_merged_depth_center.png"
CONFIDENCE_NAME = "result_merged_conf_center.exr"

# Far to near: the chosen ones of 49 slices.
FOCUS_MM = {
    0: 3910.92,
    5: 801.09,
    11: 407.40,
    16: 291.72,
    21: 225.41,
    27: 178.29,
    32: 150.59,
    37: 131.23,
    43: 113.63,
    48: 102.01,
}
ROWS, COLUMNS = 504, 378
CUT_ROWS, CUT_COLUMNS = 84, 63  # at each side
OPEN_EXR = "OPENCV_IO_ENABLE_OPENEXR"


class Smartphone:
    """Ten slices per scene, far to near, the middle 336x252 of each. A FrameSource.

    Confidences are OpenEXR files, which OpenCV reads only where OPENCV_IO_ENABLE_OPENEXR=1 is in the
    environment when it starts; otherwise there are none.
    """

    oracle = False
    name = "smartphone"

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)
        self.options = {"confidence": os.environ.get(OPEN_EXR) == "1"}  # by which errors are weighted
        images = self._root / IMAGES
        self._scenes = sorted(p.name for p in images.iterdir() if p.is_dir()) if images.is_dir() else []
        if not self._scenes:
            raise DatasetError(f"{self._root}: expected scenes in {IMAGES.as_posix()}, found none")

    def __len__(self) -> int:
        return len(self._scenes)

    def names(self) -> list[str]:
        """The frames' names, in order."""
        return list(self._scenes)

    def load(self, index: int) -> EvaluationFrame:
        """The scene's stack with its depth."""
        scene = self._scenes[index]
        files = [self._root / IMAGES / scene / str(number) / IMAGE_NAME for number in FOCUS_MM]
        focus = [1e3 / distance for distance in FOCUS_MM.values()]
        slices = tuple(FocalSlice(_image(f), diopters) for f, diopters in zip(files, focus, strict=True))
        confidence = self._root / CONFIDENCES / scene / CONFIDENCE_NAME
        depth_file = self._root / DEPTHS / scene / DEPTH_NAME
        depth = _depth(depth_file)
        if not (depth > 0).any():
            raise DatasetError(f"{depth_file}: expected depths within the sweep, found none")
        return EvaluationFrame(
            scene,
            FocalStack(slices, name=scene),
            MetricTruth(depth),
            depth > 0,
            confidence=_confidence(confidence) if self.options["confidence"] else None,
            reference=reference_index_of(focus, "middle"),
        )


def depth_of_grey(values: np.ndarray) -> Floats:
    """[H, W] float32 m of 8-bit values: 20 / (100 - 99.8 v / 255), 0 outside the sweep."""
    diopters = (100.0 - 99.8 * (values.astype(np.float64) / 255.0)) / 20.0
    within = (diopters >= 1e3 / max(FOCUS_MM.values())) & (diopters <= 1e3 / min(FOCUS_MM.values()))
    return np.where(within, 1.0 / diopters, 0.0).astype(np.float32)


def _depth(path: Path) -> Floats:
    if not path.exists():
        raise DatasetError(f"{path}: expected the ground truth of the scene, found nothing")
    values = read_grey(path)
    if values.dtype != np.uint8:
        raise DatasetError(f"{path}: expected 8 bits per pixel, got {values.dtype}")
    return depth_of_grey(_middle(values, path))


def _image(path: Path) -> ImageRGB:
    return _middle(read_image(path), path)


def _middle(values: np.ndarray, path: Path) -> np.ndarray:
    if values.shape[:2] != (ROWS, COLUMNS):
        found = f"{values.shape[1]}x{values.shape[0]}"
        raise DatasetError(f"{path}: expected {COLUMNS}x{ROWS}, got {found}")
    return np.ascontiguousarray(values[CUT_ROWS:-CUT_ROWS, CUT_COLUMNS:-CUT_COLUMNS])


def _confidence(path: Path) -> Floats | None:
    if not path.exists():
        return None
    try:
        data = np.frombuffer(read_bytes(path, MAX_FILE_BYTES), np.uint8)
        values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except cv2.error:
        values = None
    if values is None:
        raise DatasetError(f"{path}: expected an OpenEXR image, could not decode it")
    if values.ndim == 3:
        values = values[..., 0]
    confidence = np.asarray(_middle(values, path), np.float32)
    if not (np.isfinite(confidence) & (confidence >= 0)).all():
        raise DatasetError(f"{path}: expected confidences of at least 0, got some that are not")
    return confidence
