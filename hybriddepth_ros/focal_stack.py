"""Focal slices and stacks: images of one scene at different focus, read from folders and manifests.

Frames follow REP 103's optical convention: x right, y down, z forward. Focus in diopters (1/m, 0 = infinity).
"""

from __future__ import annotations

import itertools
import math
import os
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from hybriddepth_ros.errors import OutputError, ParameterError, StackError
from hybriddepth_ros.image_files import ImageRGB, encode_png, read_bytes, read_image
from hybriddepth_ros.optics import ThinLens
from hybriddepth_ros.parameters import nearest_name

MANIFEST_NAME = "stack.yaml"
TRUTH_NAMES = ("depth.npy", "depth_mm.png")  # ground truth beside the slices, which is none of them
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# A lens that overshoots infinity is at most slightly negative; 100 1/m is 1 cm in front of it.
FOCUS_RANGE_DIOPTERS = (-1.0, 100.0)
MIN_FOCUS_STEP_DIOPTERS = 1e-4  # closer focus positions are the same one written twice
MAX_MANIFEST_BYTES = 1 << 20

# `_0.90` or `-0.90` at the end of a stem; `_-0.90` is a negative distance, and `_007` is a counter, not 7 m.
_DISTANCE = re.compile(
    r"(?:^(?=[+-])|[_-])([+-]?(?:nan|inf|(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?))$", re.I | re.A
)
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring = 2, 120
_NAME_HINT = "a name that ends in the focus distance in metres (image_3_0.90.jpg, image_5_inf.jpg)"


@dataclass(frozen=True)
class CameraIntrinsics:
    """Pinhole intrinsics of one image, in pixels; `distortion` is plumb_bob (k1, k2, p1, p2, k3) or empty."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("fx", "fy", "width", "height"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise StackError(
                    f"camera: {name}: expected a finite number above 0, got {getattr(self, name)!r}"
                )
        if not all(map(math.isfinite, (self.cx, self.cy, *self.distortion))):
            raise StackError("camera: cx, cy, distortion: expected finite numbers")
        if len(self.distortion) not in (0, 4, 5):
            raise StackError(
                f"camera: distortion: expected 5 numbers (plumb_bob) or none, got {len(self.distortion)}"
            )

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """K [3, 3]."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, eq=False)
class FocalSlice:
    """One image and the focus it was taken at.

    image [H, W, 3] uint8 RGB; focus_diopters [1/m]; stamp_ns: mid-exposure [ns], 0 = unknown;
    camera: intrinsics at this focus (they follow the breathing), or None.
    """

    image: ImageRGB
    focus_diopters: float
    stamp_ns: int = 0
    camera: CameraIntrinsics | None = None


@dataclass(frozen=True, eq=False)
class FocalStack:
    """Slices of one sweep in the order of capture: at least two, of one size, at different focus.

    camera: intrinsics of each slice that has none of its own, or None; lens: thin-lens equivalent, or None.
    """

    slices: tuple[FocalSlice, ...]
    camera: CameraIntrinsics | None = None
    lens: ThinLens | None = None
    name: str = "stack"

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", tuple(self.slices))
        _check_count(len(self.slices), self.name)
        labels = [f"{self.name}: slice {index}" for index in range(len(self.slices))]
        _check_focus([float(s.focus_diopters) for s in self.slices], labels)
        _check_images([s.image for s in self.slices], labels)
        _check_camera_size(self.camera, self.slices[0].image, self.name)
        for item, label in zip(self.slices, labels, strict=True):
            _check_camera_size(item.camera, item.image, label)

    @property
    def focus_diopters(self) -> npt.NDArray[np.float32]:
        """[S] 1/m, in the order of capture."""
        return np.array([s.focus_diopters for s in self.slices], np.float32)

    @classmethod
    def load(cls, path: str | Path) -> FocalStack:
        """A STACK as the command line takes it: a folder, or a manifest (.yaml)."""
        path = Path(path)
        if path.suffix.lower() in (".yaml", ".yml") and not path.is_dir():
            return cls.from_manifest(path)
        return cls.from_folder(path)

    @classmethod
    def from_folder(cls, path: str | Path) -> FocalStack:
        """A folder of images whose names end in the focus distance in metres, in natural order.

        A `stack.yaml` in the folder rules. Hidden files, a ground truth (depth_mm.png) and files that are no
        images are ignored. Of EXIF the orientation alone is used: images stand as a viewer shows them.
        """
        folder = Path(path)
        if not os.path.isdir(folder):
            found = "a file" if os.path.lexists(folder) else "nothing"
            raise StackError(f"{folder}: expected a folder with a focal stack, found {found} there")
        if os.path.lexists(folder / MANIFEST_NAME):
            return cls.from_manifest(folder / MANIFEST_NAME)
        files = _image_files(folder)
        if not files:
            raise StackError(f"{folder}: expected at least 2 images, each with {_NAME_HINT}, found none")
        distances = [_distance_in_name(file) for file in files]
        for file, distance in zip(files, distances, strict=True):
            if distance is None:
                raise StackError(f"{file}: expected {_NAME_HINT}")
        _check_count(len(files), str(folder))
        focus = [1.0 / distance for distance in distances if distance is not None]
        return cls(_read_slices(files, focus, [0] * len(files)), name=folder.resolve().name)

    @classmethod
    def from_manifest(cls, path: str | Path) -> FocalStack:
        """A `stack.yaml`: `slices: [{image, focus_diopters}, ...]`, optional `camera` and `lens`.

        Images are named relative to its folder and lie in it; `camera` is for them as a viewer shows them.
        """
        path = Path(path)
        document = _mapping(load_yaml(path), f"{path}", required=("slices",), optional=("camera", "lens"))
        listing = document["slices"]
        if not isinstance(listing, list):
            raise StackError(f"{path}: slices: expected a list, got {_brief(listing)}")
        _check_count(len(listing), f"{path}: slices")
        files, focus, stamps = [], [], []
        for index, item in enumerate(listing):
            where = f"{path}: slices[{index}]"
            item = _mapping(item, where, required=("image", "focus_diopters"), optional=("stamp_ns",))
            files.append(file_inside(path.parent, item["image"], f"{where}: image"))
            focus.append(_number(item["focus_diopters"], f"{where}: focus_diopters"))
            stamps.append(int(_number(item.get("stamp_ns", 0), f"{where}: stamp_ns")))
        lens = _lens(document.get("lens"), f"{path}: lens")
        slices = _read_slices(files, focus, stamps)
        camera = _camera(document.get("camera"), slices[0].image, f"{path}: camera")
        name = path.resolve().parent.name if path.name == MANIFEST_NAME else path.stem
        return cls(slices, camera, lens, name)

    def write_folder(self, path: str | Path) -> Path:
        """Write the slices as PNG, and the `stack.yaml` that it returns. Slices' own intrinsics are lost."""
        folder = Path(path)
        listing = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for index, item in enumerate(self.slices):
                file_name = f"slice_{index:02d}.png"
                (folder / file_name).write_bytes(encode_png(item.image))
                entry = {"image": file_name, "focus_diopters": float(item.focus_diopters)}
                listing.append(entry | ({"stamp_ns": int(item.stamp_ns)} if item.stamp_ns else {}))
            document: dict[str, Any] = {"slices": listing}
            if self.camera is not None:
                document["camera"] = {
                    key: float(getattr(self.camera, key)) for key in ("fx", "fy", "cx", "cy")
                }
                document["camera"]["distortion"] = [float(value) for value in self.camera.distortion]
            if self.lens is not None:
                document["lens"] = {key: float(value) for key, value in vars(self.lens).items()}
            manifest = folder / MANIFEST_NAME
            manifest.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{folder}: expected a folder that can be written: {error.strerror}") from None
        return manifest


def _check_count(count: int, where: str) -> None:
    if count < 2:
        raise StackError(f"{where}: expected at least 2 slices, got {count}")


def _check_focus(focus: Sequence[float], labels: Sequence[str]) -> None:
    low, high = FOCUS_RANGE_DIOPTERS
    for value, label in zip(focus, labels, strict=True):
        if not low <= value <= high:  # NaN too
            raise StackError(f"{label}: expected a focus of {low:g} to {high:g} 1/m, got {value:g}")
    order = sorted(range(len(focus)), key=lambda index: (focus[index], index))
    for one, other in itertools.pairwise(order):
        if focus[other] - focus[one] < MIN_FOCUS_STEP_DIOPTERS:
            raise StackError(
                f"{labels[other]}: expected another focus than {labels[one]}, got {focus[one]:g} 1/m for both"
            )


def _check_images(images: Sequence[ImageRGB], labels: Sequence[str]) -> None:
    for image, label in zip(images, labels, strict=True):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise StackError(
                f"{label}: expected a uint8 image [H, W, 3], got {image.dtype} {list(image.shape)}"
            )
        if not image.flags.c_contiguous:
            raise StackError(f"{label}: expected a contiguous image (np.ascontiguousarray makes one)")
        if image.shape != images[0].shape:
            raise StackError(
                f"{label}: expected the size of {labels[0]}, {_size(images[0])}, got {_size(image)}"
            )


def _check_camera_size(camera: CameraIntrinsics | None, image: ImageRGB, where: str) -> None:
    if camera is not None and (camera.height, camera.width) != image.shape[:2]:
        got = f"{camera.width}x{camera.height}"
        raise StackError(f"{where}: camera: expected intrinsics for the image size {_size(image)}, got {got}")


def _size(image: ImageRGB) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _image_files(folder: Path) -> list[Path]:
    """Images in natural order: image_2 before image_10."""
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise StackError(f"{folder}: expected a folder that can be read: {error.strerror}") from None
    visible = [e for e in entries if not e.name.startswith(".") and not os.path.isdir(e)]
    visible = [e for e in visible if e.name not in TRUTH_NAMES]
    return sorted((e for e in visible if e.suffix.lower() in IMAGE_SUFFIXES), key=_natural_order)


def _natural_order(file: Path) -> list[str | int]:
    return [
        int(part) if part.isascii() and part.isdigit() else part for part in re.split(r"([0-9]+)", file.name)
    ]


def _distance_in_name(file: Path) -> float | None:
    """The focus distance [m] at the end of the file's name, None if there is none."""
    match = _DISTANCE.search(file.stem)
    if match is None:
        return None
    distance = float(match[1])
    if not distance > 0.0:
        raise StackError(f"{file}: expected a focus distance above 0 m, or inf, got {match[1]}")
    return distance


def _read_slices(
    files: Sequence[Path], focus: Sequence[float], stamps: Sequence[int]
) -> tuple[FocalSlice, ...]:
    labels = [str(file) for file in files]
    _check_focus(focus, labels)
    images = [read_image(file) for file in files]
    _check_images(images, labels)
    return tuple(FocalSlice(*parts) for parts in zip(images, focus, stamps, strict=True))


def load_yaml(path: Path) -> Any:
    """What a small YAML file holds; StackError names the line that cannot be parsed."""
    data = read_bytes(path, MAX_MANIFEST_BYTES)
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise StackError(f"{path}: expected YAML{line}: {problem}") from None


def _mapping(value: Any, where: str, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    known = (*required, *optional)
    if not isinstance(value, dict):
        raise StackError(f"{where}: expected {', '.join(known)}, got {_brief(value)}")
    for key in value:
        if key not in known:
            raise StackError(f"{where}: unknown key {_brief(key)}{nearest_name(str(key), known)}")
    for key in required:
        if key not in value:
            raise StackError(f"{where}: expected {key}, which is missing")
    return value


def _number(value: Any, where: str) -> float:
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return value
    except OverflowError:  # an integer beyond every float
        pass
    raise StackError(f"{where}: expected a finite number, got {_brief(value)}")


def _brief(value: Any) -> str:
    """One short line even of a value that a hostile file made huge."""
    return _BRIEF.repr(value)


def file_inside(folder: Path, name: Any, where: str) -> Path:
    """`folder / name`, which may not lead outside: neither by its parts nor through a symbolic link."""
    if not isinstance(name, str) or not 0 < len(name) < 1000:
        raise StackError(f"{where}: expected a file name, got {_brief(name)}")
    try:
        inside = (folder / name).resolve().is_relative_to(folder.resolve()) and not Path(name).is_absolute()
    except (OSError, ValueError, RuntimeError):  # NUL, too long, links in a circle
        inside = False
    if not inside:
        raise StackError(f"{where}: expected a file in the manifest's folder, got {_brief(name)}")
    return folder / name


def _lens(value: Any, where: str) -> ThinLens | None:
    if value is None:
        return None
    try:
        return ThinLens(**_mapping(value, where, required=("focal_length_mm", "f_number", "pixel_pitch_um")))
    except ParameterError as error:
        raise StackError(f"{where}: {error}") from None


def _camera(value: Any, image: ImageRGB, where: str) -> CameraIntrinsics | None:
    if value is None:
        return None
    value = _mapping(value, where, required=("fx", "fy", "cx", "cy"), optional=("distortion",))
    distortion = value.get("distortion") or []
    if not isinstance(distortion, list):
        raise StackError(f"{where}: distortion: expected a list, got {_brief(distortion)}")
    height, width = image.shape[:2]
    numbers = {key: float(_number(value[key], f"{where}: {key}")) for key in ("fx", "fy", "cx", "cy")}
    for key, limit in (("cx", width), ("cy", height)):
        if not 0.0 <= numbers[key] <= limit:  # else they are most likely those of another resolution
            raise StackError(
                f"{where}: {key}: expected 0 to {limit} px, inside the image, got {numbers[key]:g}"
            )
    coefficients = tuple(float(_number(element, f"{where}: distortion")) for element in distortion)
    try:
        return CameraIntrinsics(**numbers, width=width, height=height, distortion=coefficients)
    except StackError as error:
        raise StackError(f"{where.removesuffix('camera')}{error}") from None
