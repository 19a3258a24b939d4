"""Folders of colour images with depth: focal stacks are made of them as a protocol says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybriddepth_ros.errors import DatasetError, HybridDepthError, StackError
from hybriddepth_ros.evaluation.frames import EvaluationFrame
from hybriddepth_ros.evaluation.protocols import EvaluationProtocol
from hybriddepth_ros.evaluation.synthesis import RgbdImage, synthesise
from hybriddepth_ros.evaluation.truth_files import read_depth_mm
from hybriddepth_ros.focal_stack import CameraIntrinsics, file_inside
from hybriddepth_ros.image_files import read_bytes, read_image

MANIFEST_NAME = "manifest.json"
DEPTH_SUFFIX = ".depth_mm.png"
SCENE_SHARE = 0.8  # of the measured pixels, to lie in a protocol's range
RGB_SUFFIXES = (".rgb.jpg", ".rgb.jpeg", ".rgb.png")
_MAX_LIST_BYTES = 1 << 26


@dataclass(frozen=True)
class RgbdPair:
    """Two files of one view. k: fx, fy, cx, cy [px] of the colour image, or None."""

    name: str
    rgb: Path
    depth: Path
    k: tuple[float, float, float, float] | None = None

    def read(self) -> RgbdImage:
        """Both images; StackError or DatasetError names the file."""
        if not self.depth.exists():
            raise DatasetError(f"{self.depth}: expected the ground truth of {self.rgb.name}, found nothing")
        rgb = read_image(self.rgb)
        camera = None
        if self.k is not None:
            camera = CameraIntrinsics(*self.k, width=rgb.shape[1], height=rgb.shape[0])
        return RgbdImage(rgb, read_depth_mm(self.depth), camera)

    def share_within(self, low: float, high: float) -> float:
        """How much of what was measured lies between two depths [m]; 0 where nothing was."""
        depth = read_depth_mm(self.depth)
        measured = depth[depth > 0]
        return float(((measured >= low) & (measured <= high)).mean()) if measured.size else 0.0


Reader = Callable[[RgbdPair], RgbdImage]


class RgbdFrames:
    """The frames that a protocol makes of pairs. A FrameSource.

    reader: what is done to a pair's images before the protocol.
    """

    def __init__(
        self,
        name: str,
        pairs: Sequence[RgbdPair],
        protocol: EvaluationProtocol,
        reader: Reader = RgbdPair.read,
    ) -> None:
        self.name = name
        self.protocol = protocol
        self._pairs = suited(pairs, protocol)
        self._reader = reader
        if not self._pairs:
            low, high = protocol.frames.scene_depth_m or (0.0, float("inf"))
            expected = f"a frame mostly {low:g} to {high:g} m away (protocol {protocol.name})"
            raise DatasetError(f"{name}: expected {expected}, found none in {len(pairs)}")

    @property
    def oracle(self) -> bool:
        """Whether the focus distances come from the ground truth."""
        return self.protocol.oracle

    def __len__(self) -> int:
        return len(self._pairs)

    def names(self) -> list[str]:
        """The frames' names, in order."""
        return [pair.name for pair in self._pairs]

    def load(self, index: int) -> EvaluationFrame:
        """The frame that the protocol makes of a pair."""
        pair = self._pairs[index]
        return synthesise(pair.name, self._reader(pair), self.protocol)


class RgbdFolder(RgbdFrames):
    """A folder with a manifest.json, or with pairs `<name>.rgb.jpg` (or .png) and `<name>.depth_mm.png`."""

    def __init__(self, folder: str | Path, protocol: EvaluationProtocol) -> None:
        folder = Path(folder)
        super().__init__(folder.resolve().name, folder_pairs(folder), protocol)


def suited(pairs: Sequence[RgbdPair], protocol: EvaluationProtocol) -> list[RgbdPair]:
    """The pairs whose depth suits the protocol; those that cannot be read stay, to be reported."""
    if not protocol.frames.scene_depth_m:
        return list(pairs)
    low, high = protocol.frames.scene_depth_m

    def suits(pair: RgbdPair) -> bool:
        try:
            return pair.share_within(low, high) >= SCENE_SHARE
        except HybridDepthError:
            return True

    return [pair for pair in pairs if suits(pair)]


def folder_pairs(folder: Path) -> list[RgbdPair]:
    """The pairs of a folder, by its manifest or by their names."""
    if (folder / MANIFEST_NAME).exists():
        return _listed_pairs(folder / MANIFEST_NAME)
    pairs = []
    for depth in sorted(folder.glob(f"*{DEPTH_SUFFIX}")):
        name = depth.name.removesuffix(DEPTH_SUFFIX)
        candidates = [folder / (name + suffix) for suffix in RGB_SUFFIXES]
        rgb = next((file for file in candidates if file.exists()), None)
        if rgb is None:
            raise DatasetError(f"{depth}: expected {candidates[0].name} or {candidates[-1].name} beside it")
        pairs.append(RgbdPair(name, rgb, depth))
    if not pairs:
        raise DatasetError(f"{folder}: expected {MANIFEST_NAME} or <name>{DEPTH_SUFFIX}, found neither")
    return pairs


def read_list(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        text = read_bytes(path, _MAX_LIST_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: expected a list of file names in UTF-8") from None
    return [line for line in text.splitlines() if line.strip()]


def file_in(folder: Path, name: Any, where: str) -> Path:
    """`folder / name`, which may not lead outside the folder."""
    try:
        return file_inside(folder, name, where)
    except StackError as error:
        raise DatasetError(str(error).replace("the manifest's folder", str(folder))) from None


def _listed_pairs(manifest: Path) -> list[RgbdPair]:
    try:
        entries = json.loads(read_bytes(manifest, _MAX_LIST_BYTES))
    except (ValueError, RecursionError):
        raise DatasetError(f"{manifest}: expected JSON, could not parse it") from None
    if not isinstance(entries, list) or not entries:
        raise DatasetError(f"{manifest}: expected a list of frames with rgb and depth")
    pairs: list[RgbdPair] = []
    for index, entry in enumerate(entries):
        where = f"{manifest}: [{index}]"
        if not isinstance(entry, dict):
            raise DatasetError(f"{where}: expected a frame with rgb and depth")
        for key in ("rgb", "depth"):
            if key not in entry:
                raise DatasetError(f"{where}: expected {key}, which is missing")
        rgb, depth = (file_in(manifest.parent, entry[key], f"{where}: {key}") for key in ("rgb", "depth"))
        name = str(entry.get("id", rgb.name.partition(".")[0]))
        pairs.append(RgbdPair(name, rgb, depth, _intrinsics(entry.get("K"), f"{where}: K")))
    names = [pair.name for pair in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DatasetError(f"{manifest}: expected another id for each frame, got {twice!r} twice")
    return pairs


def _intrinsics(value: Any, where: str) -> tuple[float, float, float, float] | None:
    if value is None:
        return None
    numbers = isinstance(value, list) and len(value) == 4
    if not numbers or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value):
        raise DatasetError(f"{where}: expected fx, fy, cx, cy in pixels, got {str(value)[:80]}")
    fx, fy, cx, cy = (float(v) for v in value)
    return fx, fy, cx, cy
