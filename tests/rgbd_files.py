"""Small made colour and depth images, and the files that data sets keep them in."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from tests.stacks import texture


def rgb_and_depth(
    height: int = 48, width: int = 64, near: float = 1.5, far: float = 3.0, seed: int = 0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """A textured wall that slants from near to far [m], in whole millimetres, with a hole in a corner."""
    grey = texture((height, width), seed)
    rgb = np.stack([grey, 0.8 * grey, 0.6 * grey], axis=2).astype(np.uint8)
    depth = np.broadcast_to(np.linspace(near, far, width, dtype=np.float32), (height, width)).round(3)
    depth = np.array(depth, np.float32)
    depth[: height // 6, : width // 8] = 0.0
    return rgb, depth


def write_rgb(path: Path, rgb: npt.NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), rgb[..., ::-1])
    return path


def write_depth_mm(path: Path, depth: npt.NDArray[np.float32]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), (depth * 1e3).round().astype(np.uint16))
    return path


def write_pair(folder: Path, name: str, near: float = 1.5, far: float = 3.0, seed: int = 0) -> None:
    rgb, depth = rgb_and_depth(near=near, far=far, seed=seed)
    write_rgb(folder / f"{name}.rgb.png", rgb)
    write_depth_mm(folder / f"{name}.depth_mm.png", depth)


def one_line(error: BaseException) -> str:
    """The message, which a user sees as one line."""
    text = str(error)
    assert "\n" not in text and len(text) < 400
    return text
