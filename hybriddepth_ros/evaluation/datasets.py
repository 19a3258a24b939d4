"""What a path is: the source of evaluation frames that reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hybriddepth_ros.errors import DatasetError
from hybriddepth_ros.evaluation.arkitscenes import SPLITS, ArkitScenes
from hybriddepth_ros.evaluation.ddff12 import SLICES, Ddff12
from hybriddepth_ros.evaluation.frames import FrameSource
from hybriddepth_ros.evaluation.nyu import NyuDepth, find_list
from hybriddepth_ros.evaluation.protocols import EvaluationProtocol, load_protocol
from hybriddepth_ros.evaluation.rgbd_folder import DEPTH_SUFFIX, RgbdFolder
from hybriddepth_ros.evaluation.rgbd_folder import MANIFEST_NAME as RGBD_MANIFEST
from hybriddepth_ros.evaluation.smartphone import IMAGES as PHONE_IMAGES
from hybriddepth_ros.evaluation.smartphone import Smartphone
from hybriddepth_ros.evaluation.stack_folder import StackFolder, stack_folders
from hybriddepth_ros.parameters import nearest_name

DEFAULT_PROTOCOL = "rooms"
AUTO = "auto"
DDFF12_WHOLE = "ddff12_10"

_WITH_PROTOCOL: dict[str, Callable[[Path, EvaluationProtocol | None], FrameSource]] = {
    "rgbd": lambda path, protocol: RgbdFolder(path, protocol or load_protocol(DEFAULT_PROTOCOL)),
    "nyu": NyuDepth,
    "arkitscenes": ArkitScenes,
}
_WITH_OWN_STACKS: dict[str, Callable[[Path], FrameSource]] = {
    "stack": StackFolder,
    "ddff12": Ddff12,
    DDFF12_WHOLE: partial(Ddff12, count=SLICES),
    "smartphone": Smartphone,
}
# In the order in which they are tried, with what marks each.
_MARKS: dict[str, tuple[str, Callable[[Path], bool]]] = {
    "ddff12": ("a DDFF12 file (*.h5)", lambda path: path.suffix.lower() in (".h5", ".hdf5")),
    "smartphone": (
        f"a folder with {PHONE_IMAGES.as_posix()}",
        lambda path: (path / PHONE_IMAGES).is_dir(),
    ),
    "arkitscenes": (
        f"with {' or '.join(SPLITS)} (ARKitScenes)",
        lambda path: any((path / split).is_dir() for split in SPLITS),
    ),
    "rgbd": (
        f"with {RGBD_MANIFEST} or <name>{DEPTH_SUFFIX}",
        lambda path: (path / RGBD_MANIFEST).exists() or any(path.glob(f"*{DEPTH_SUFFIX}")),
    ),
    "nyu": ("with test/ and a list *test*.txt (NYU)", lambda path: find_list(path) is not None),
    "stack": (
        "with depth.npy or depth_mm.png beside a focal stack",
        lambda path: path.is_dir() and bool(stack_folders(path)),
    ),
}
KINDS = (AUTO, *_MARKS, DDFF12_WHOLE)


def open_source(
    path: str | Path, protocol: EvaluationProtocol | None = None, kind: str = AUTO
) -> FrameSource:
    """The source that reads `path`; DatasetError says what was looked for.

    protocol: how stacks are made where the data set has none, by default that of the data set's publication
    or `rooms`; a data set of stacks takes none.
    """
    path = Path(path)
    if kind not in KINDS:
        raise DatasetError(f"kind: expected {', '.join(KINDS)}, got {kind!r}{nearest_name(kind, KINDS)}")
    if not os.path.exists(path):
        raise DatasetError(f"{path}: expected a data set, found nothing there")
    try:
        if kind == AUTO:
            kind = recognise(path)
        if kind in _WITH_PROTOCOL:
            return _WITH_PROTOCOL[kind](path, protocol)
        if protocol is not None:
            raise DatasetError(f"{path}: expected no protocol for {kind}, whose stacks are given")
        return _WITH_OWN_STACKS[kind](path)
    except OSError as error:
        raise DatasetError(f"{path}: expected a data set that can be read: {error.strerror}") from None


def recognise(path: Path) -> str:
    """The kind that a path is."""
    for kind, (_, matches) in _MARKS.items():
        if matches(path):
            return kind
    looked_for = ", ".join(mark for mark, _ in _MARKS.values())
    raise DatasetError(f"{path}: expected {looked_for}; found none of them")
