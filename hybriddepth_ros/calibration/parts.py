"""The parts of a camera that is to be calibrated: what delivers its images, what moves its focus."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from hybriddepth_ros.cameras.assembled import AssembledCamera
from hybriddepth_ros.cameras.base import camera_names, make_camera
from hybriddepth_ros.cameras.lens import FocusLens, lens_prefix
from hybriddepth_ros.cameras.source import ImageSource
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.parameters import nearest_name


def open_parts(camera: str, options: Mapping[str, Any]) -> tuple[ImageSource, FocusLens]:
    """Image source and lens of a camera by its name; `options` as `make_camera` takes them,
    and those of the lens that they name: `optotune_lens.port` with `lens` optotune.

    Both are open, or none is: where the second cannot be opened the first is closed again.
    CameraError for a camera that has no such parts: one that is rendered, or shows a recording.
    """
    known = camera_names()
    if camera not in known:
        expected = f"expected one of {', '.join(known)}{nearest_name(camera, known)}"
        raise CameraError(f"camera: unknown camera {camera!r}, {expected}")
    own, of_lens = _parted(options)
    assembled = make_camera(camera, own, of_lens or None)
    if not isinstance(assembled, AssembledCamera):
        raise CameraError(f"camera {camera}: expected one with an image source and a focus motor of its own")
    source, lens = assembled.parts
    with ExitStack() as opened:
        source.open()
        opened.callback(source.close)
        lens.open()
        opened.pop_all()
    return source, lens


def _parted(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of the camera, and those of the lens that it names; of other lenses it knows none."""
    prefix = f"{lens_prefix(str(options.get('lens', '')))}."
    own = {name: value for name, value in options.items() if not name.startswith(prefix)}
    of_lens = {name.removeprefix(prefix): value for name, value in options.items() if name.startswith(prefix)}
    return own, of_lens
