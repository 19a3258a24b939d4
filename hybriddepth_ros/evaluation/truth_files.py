"""Ground truth in files: depth images in millimetres, arrays in metres."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hybriddepth_ros.errors import DatasetError
from hybriddepth_ros.evaluation.frames import Floats
from hybriddepth_ros.evaluation.metrics import is_depth
from hybriddepth_ros.image_files import MAX_IMAGE_PIXELS, read_grey

MM = np.float32(1e-3)


def read_depth_mm(path: Path) -> Floats:
    """[H, W] float32 m of a 16-bit image in millimetres; 0 where there is no measurement."""
    values = read_grey(path)
    if values.dtype != np.uint16:
        raise DatasetError(f"{path}: expected 16 bits per pixel, in millimetres, got {values.dtype}")
    return _with_depth(path, values.astype(np.float32) * MM)


def read_depth_array(path: Path) -> Floats:
    """[H, W] float32 m of a .npy file of floating-point numbers; what is no distance stays as it is."""
    try:
        # Mapped, so that a header that claims more than the file holds costs no memory.
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        reason = error.strerror or "not an array"
        raise DatasetError(f"{path}: expected a .npy file that can be read: {reason}") from None
    except (ValueError, EOFError, SyntaxError, KeyError, TypeError):
        raise DatasetError(
            f"{path}: expected a .npy file with depth in metres, could not decode it"
        ) from None
    if not isinstance(stored, np.ndarray) or stored.ndim != 2 or stored.dtype.kind != "f":
        found = f"{stored.dtype} {list(stored.shape)}" if isinstance(stored, np.ndarray) else "an archive"
        raise DatasetError(f"{path}: expected floating-point depth [H, W] in metres, got {found}")
    if stored.size > MAX_IMAGE_PIXELS:
        raise DatasetError(f"{path}: expected at most {MAX_IMAGE_PIXELS / 1e6:g} million depths")
    return _with_depth(path, np.array(stored, np.float32))


def _with_depth(path: Path, depth: Floats) -> Floats:
    if not is_depth(depth).any():
        raise DatasetError(f"{path}: expected depth above 0, found none")
    return depth
