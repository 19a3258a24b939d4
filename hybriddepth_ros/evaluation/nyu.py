"""NYU Depth V2, as the papers synthesise stacks from it: an oracle, as the focus comes from the truth.

Not tried on the published files.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from hybriddepth_ros.errors import DatasetError
from hybriddepth_ros.evaluation.protocols import PUBLISHED, EvaluationProtocol, load_protocol
from hybriddepth_ros.evaluation.rgbd_folder import RgbdFrames, RgbdPair, file_in, read_list
from hybriddepth_ros.evaluation.synthesis import RgbdImage
from hybriddepth_ros.image_files import ImageRGB

DEFAULT_PROTOCOL = "nyu_published"
SPLITS = {"test": ("test", 0.0), "train": ("sync", 255.0)}  # folder of the images, grey of their border
CROP_HEIGHT, CROP_WIDTH = 384, 512

_FIRST_PX = 5  # the search for a border begins this far inside
_LAST_PX = 20  # and ends once past this
_SAME_GREY = 5.0
_BORDER_SHARE = 0.1


class NyuDepth(RgbdFrames):
    """Images of a split's list: lines `rgb-path depth-path focal-length` below `root/test` or `root/sync`.

    Depth in a border that the camera's undistortion left black (in training images white) counts for nothing.
    A published protocol takes the middle 384x512 of the image, at its own scale; any other fits the whole to
    its camera.
    """

    def __init__(
        self, root: str | Path, protocol: EvaluationProtocol | None = None, split: str = "test"
    ) -> None:
        root = Path(root)
        protocol = protocol or load_protocol(DEFAULT_PROTOCOL)
        pairs = listed_pairs(root, split)
        read = read_without_border
        if protocol.renderer == PUBLISHED:
            camera = replace(protocol.camera, width=CROP_WIDTH, height=CROP_HEIGHT)
            protocol, read = replace(protocol, camera=camera), read_middle
        reader = partial(read, border_grey=SPLITS[split][1])
        name = "NYU Depth V2" if split == "test" else f"NYU Depth V2 {split}"
        super().__init__(name, pairs, protocol, reader)


def find_list(root: Path, split: str = "test") -> Path | None:
    """The list of a split's images in a folder, None if there is none or more than one."""
    lists = sorted(path for path in root.glob("*.txt") if split in path.name.lower())
    return lists[0] if len(lists) == 1 else None


def listed_pairs(root: Path, split: str = "test") -> list[RgbdPair]:
    """The pairs that the split's list in `root` names."""
    if split not in SPLITS:
        raise DatasetError(f"NYU Depth V2: expected the split {' or '.join(SPLITS)}, got {split!r}")
    listing = find_list(root, split)
    if listing is None:
        raise DatasetError(f"{root}: expected one list of {split} images (*{split}*.txt), as of NYU Depth V2")
    folder = root / SPLITS[split][0]
    pairs = []
    for number, line in enumerate(read_list(listing), start=1):
        where = f"{listing}: line {number}"
        parts = line.split()
        if len(parts) != 3:
            raise DatasetError(f"{where}: expected rgb-path depth-path focal-length, got {line[:80]!r}")
        rgb, depth = (file_in(folder, part.lstrip("/"), where) for part in parts[:2])
        pairs.append(RgbdPair(rgb.relative_to(folder).with_suffix("").as_posix(), rgb, depth))
    if not pairs:
        raise DatasetError(f"{listing}: expected lines with rgb-path depth-path focal-length, found none")
    return pairs


def read_without_border(pair: RgbdPair, border_grey: float = 0.0) -> RgbdImage:
    """The pair with no depth in its border of this grey, where the colours continue those inside."""
    image = pair.read()
    if image.rgb.shape[:2] != image.depth.shape:
        sizes = f"{list(image.rgb.shape[:2])} and {list(image.depth.shape)}"
        raise DatasetError(f"{pair.depth}: expected depth of the colour image's size, got {sizes}")
    height, width = image.depth.shape
    if min(height, width) <= 4 * _LAST_PX:
        raise DatasetError(f"{pair.rgb}: expected more than {4 * _LAST_PX} px each way, got {width}x{height}")
    top, bottom, left, right = inner_bounds(image.rgb, border_grey)
    inside = (slice(top, bottom), slice(left, right))
    margins = ((top, height - bottom), (left, width - right))
    rgb = np.pad(image.rgb[inside], (*margins, (0, 0)), mode="reflect")
    return RgbdImage(rgb, np.pad(image.depth[inside], margins), image.camera)


def read_middle(pair: RgbdPair, border_grey: float = 0.0) -> RgbdImage:
    """The middle 384x512 of it."""
    image = read_without_border(pair, border_grey)
    height, width = image.depth.shape
    top, left = (height - CROP_HEIGHT) // 2, (width - CROP_WIDTH) // 2
    if top < 0 or left < 0:
        raise DatasetError(f"{pair.rgb}: expected at least {CROP_WIDTH}x{CROP_HEIGHT}, got {width}x{height}")
    middle = (slice(top, top + CROP_HEIGHT), slice(left, left + CROP_WIDTH))
    return RgbdImage(np.ascontiguousarray(image.rgb[middle]), np.ascontiguousarray(image.depth[middle]))


def inner_bounds(rgb: ImageRGB, border_grey: float = 0.0) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of what lies within the border; bottom and right are excluded.

    From 5 px inside each edge inwards while more than a tenth of the row or column is the border's grey
    within 5 levels, to 21 px at most.
    """
    near = np.abs(rgb.astype(np.float32).mean(axis=2) - border_grey) < _SAME_GREY
    rows, columns = near.mean(axis=1), near.mean(axis=0)
    height, width = near.shape

    def first(shares: np.ndarray) -> int:
        at = _FIRST_PX
        while shares[at] > _BORDER_SHARE:
            at += 1
            if at > _LAST_PX:
                break
        return at

    return first(rows), height - 1 - first(rows[::-1]), first(columns), width - 1 - first(columns[::-1])
