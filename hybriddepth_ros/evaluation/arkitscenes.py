"""ARKitScenes, as the papers synthesise stacks from it: an oracle, as the focus comes from the truth.

Not tried on the published files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from hybriddepth_ros.errors import DatasetError
from hybriddepth_ros.evaluation.frames import Floats
from hybriddepth_ros.evaluation.protocols import EvaluationProtocol, load_protocol
from hybriddepth_ros.evaluation.rgbd_folder import RgbdFrames, RgbdPair, file_in, read_list
from hybriddepth_ros.evaluation.synthesis import RgbdImage

DEFAULT_PROTOCOL = "arkitscenes_published"
SPLITS = ("Validation", "Training")
HEIGHT, WIDTH = 480, 640
_LISTED, _COLOR, _DEPTH = "lowres_wide", "wide", "highres_depth"


class ArkitScenes(RgbdFrames):
    """`root/<split>/<video>/wide/<name>.png` with `.../highres_depth/<name>.png` (mm).

    A list (*.txt) in the split's folder chooses the frames, by their paths in lowres_wide; without one all
    are taken. split: "" = Validation where it is there, else Training. mixed_depth: resize depth as the
    published loader does, bilinearly, which mixes it with holes and across edges into depths that are nowhere
    in the scene, and takes the focus from those.
    """

    def __init__(
        self,
        root: str | Path,
        protocol: EvaluationProtocol | None = None,
        split: str = "",
        mixed_depth: bool = False,
    ) -> None:
        protocol = protocol or load_protocol(DEFAULT_PROTOCOL)
        split = split or next((s for s in SPLITS if (Path(root) / s).is_dir()), SPLITS[0])
        pairs = scene_pairs(Path(root), split)
        reader = read_mixed if mixed_depth else RgbdPair.read
        super().__init__(f"ARKitScenes {split}", pairs, protocol, reader)


def scene_pairs(root: Path, split: str) -> list[RgbdPair]:
    """The pairs of a split, in the order of its list, else of their names."""
    folder = root / split
    if split not in SPLITS or not folder.is_dir():
        raise DatasetError(f"{root}: expected the folder {' or '.join(SPLITS)} of ARKitScenes, not {split!r}")
    listings = sorted(folder.glob("*.txt"))
    if len(listings) > 1:
        raise DatasetError(f"{folder}: expected one list of frames (*.txt) or none, found {len(listings)}")
    if listings:
        colors = [_listed(folder, listings[0], line) for line in read_list(listings[0])]
    else:
        colors = sorted(folder.glob(f"*/{_COLOR}/*.png"))
    if not colors:
        raise DatasetError(f"{folder}: expected <video>/{_COLOR}/<name>.png, found none")
    return [RgbdPair(f"{c.parts[-3]}/{c.stem}", c, c.parents[1] / _DEPTH / c.name) for c in colors]


def _listed(folder: Path, listing: Path, line: str) -> Path:
    """The colour image of a line: <video>/lowres_wide/<name>.png, with or without more before it."""
    parts = Path(line.split()[0].strip(",")).parts[-3:]
    if len(parts) != 3 or parts[1] not in (_LISTED, _COLOR):
        raise DatasetError(f"{listing}: expected <video>/{_LISTED}/<name>.png, got {line[:80]!r}")
    return file_in(folder, f"{parts[0]}/{_COLOR}/{parts[2]}", str(listing))


def read_mixed(pair: RgbdPair) -> RgbdImage:
    """Both images at 640x480, bilinear with antialiasing: the depth too."""
    image = pair.read()
    rgb = _resized(image.rgb.astype(np.float32).transpose(2, 0, 1))
    depth = _resized(image.depth[None])[0]
    rounded = rgb.round().clip(0.0, 255.0).astype(np.uint8)
    return RgbdImage(np.ascontiguousarray(rounded.transpose(1, 2, 0)), np.ascontiguousarray(depth))


def _resized(values: Floats) -> Floats:
    """[C, 480, 640] of [C, H, W]."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None]
    resized = F.interpolate(tensor, (HEIGHT, WIDTH), mode="bilinear", antialias=True)
    return np.asarray(resized[0].numpy(), np.float32)
