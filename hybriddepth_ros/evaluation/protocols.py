"""How a colour and depth image becomes a focal stack for an evaluation: a YAML file, checked as a whole.

Parameters of a section are dataclass fields, so that an unknown one is refused with the nearest known one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hybriddepth_ros.config_files import find_config
from hybriddepth_ros.errors import HybridDepthError, ParameterError, StackError
from hybriddepth_ros.focal_stack import MIN_FOCUS_STEP_DIOPTERS, load_yaml
from hybriddepth_ros.optics import ThinLens, plan_sweep
from hybriddepth_ros.parameters import from_mapping, nearest_name, parameter
from hybriddepth_ros.simulation.sensor import FULL_WELL_ELECTRONS, READ_NOISE_ELECTRONS

FOLDER = "protocols"  # in config/
THIN_LENS, PUBLISHED = "thin_lens", "published"
RENDERERS = (THIN_LENS, PUBLISHED)

# A lens of which nothing but the blur is known is taken to be this short, so that its blur is linear in
# diopters within half a percent; and to see as wide as most depth cameras.
SHORT_FOCAL_LENGTH_MM = 1.0
FOCAL_LENGTH_OF_WIDTH = 0.82


@dataclass(frozen=True)
class ProtocolCamera:
    """The camera: either blur_px_per_diopter or the three numbers of a lens."""

    width: int = parameter(640, "width of the slices", unit="px", minimum=16, maximum=8192)
    height: int = parameter(480, "height of the slices", unit="px", minimum=16, maximum=8192)
    blur_px_per_diopter: float = parameter(
        0.0, "blur diameter per diopter out of focus", unit="px m", minimum=0.0, maximum=1000.0
    )
    focal_length_mm: float = parameter(0.0, "focal length", unit="mm", minimum=0.0, maximum=1000.0)
    f_number: float = parameter(0.0, "focal length over aperture", minimum=0.0, maximum=100.0)
    pixel_pitch_um: float = parameter(
        0.0, "distance of the slices' pixels on the sensor", unit="um", minimum=0.0, maximum=1000.0
    )
    lens_known: bool = parameter(True, "whether the stack tells the estimator its lens")
    breathing_percent_per_diopter: float = parameter(
        0.0, "growth of the image per diopter nearer", unit="% m", minimum=-20.0, maximum=20.0
    )

    def __post_init__(self) -> None:
        given = [value > 0 for value in (self.focal_length_mm, self.f_number, self.pixel_pitch_um)]
        if any(given) != all(given) or any(given) == (self.blur_px_per_diopter > 0):
            raise ParameterError(
                "expected either blur_px_per_diopter or focal_length_mm, f_number and pixel_pitch_um"
            )

    @property
    def lens(self) -> ThinLens:
        """The lens, or a short one that blurs as much."""
        if self.focal_length_mm > 0:
            return ThinLens(self.focal_length_mm, self.f_number, self.pixel_pitch_um)
        pitch_um = SHORT_FOCAL_LENGTH_MM * 1e3 / (FOCAL_LENGTH_OF_WIDTH * self.width)
        blur_mm_per_diopter = self.blur_px_per_diopter * pitch_um * 1e-3
        f_number = SHORT_FOCAL_LENGTH_MM**2 * 1e-3 / blur_mm_per_diopter
        return ThinLens(SHORT_FOCAL_LENGTH_MM, f_number, pitch_um)


@dataclass(frozen=True)
class TruthSweep:
    """A sweep that knows the answer: even in metres over the very image's depths, as in published results."""

    count: int = parameter(5, "slices", minimum=2, maximum=64)


@dataclass(frozen=True)
class ProtocolSweep:
    """The focus positions: a list, or `count` of them even in diopters, or from_truth."""

    focus_diopters: tuple[float, ...] = parameter((), "focus", unit="1/m", minimum=-1.0, maximum=100.0)
    count: int = parameter(0, "slices", minimum=0, maximum=64)
    farthest_diopters: float = parameter(0.0, "farthest focus", unit="1/m", minimum=0.0, maximum=100.0)
    nearest_diopters: float = parameter(0.0, "nearest focus", unit="1/m", minimum=0.0, maximum=100.0)
    from_truth: TruthSweep | None = None

    def __post_init__(self) -> None:
        chosen = [bool(self.focus_diopters), self.count > 0, self.from_truth is not None]
        if sum(chosen) != 1:
            raise ParameterError("expected one of focus_diopters, count (with its ends) and from_truth")
        if len(self.focus_diopters) == 1 or self.count == 1:
            raise ParameterError("expected at least 2 slices, got 1")
        if self.count > 0:
            if not 0.0 <= self.farthest_diopters < self.nearest_diopters:
                ends = f"{self.farthest_diopters:g} and {self.nearest_diopters:g}"
                raise ParameterError(f"expected farthest_diopters below nearest_diopters, got {ends}")
        elif self.nearest_diopters or self.farthest_diopters:
            raise ParameterError("farthest_diopters, nearest_diopters: expected only together with count")
        for one, other in itertools.pairwise(sorted(self.fixed_diopters or ())):
            if other - one < MIN_FOCUS_STEP_DIOPTERS:
                raise ParameterError(f"expected each slice at another focus, got {one:g} and {other:g} 1/m")

    @property
    def fixed_diopters(self) -> tuple[float, ...] | None:
        """The focus positions [1/m], None where they come from the truth."""
        if self.count > 0:
            far_m = 1.0 / self.farthest_diopters if self.farthest_diopters else float("inf")
            return plan_sweep(1.0 / self.nearest_diopters, far_m, self.count).focus_diopters
        return self.focus_diopters or None


@dataclass(frozen=True)
class ProtocolExposure:
    """What the sensor and its processing add; a section that is left out adds nothing but rounding."""

    full_well_electrons: float = parameter(
        FULL_WELL_ELECTRONS,
        "electrons of a saturated pixel: shot noise",
        unit="e-",
        minimum=10.0,
        maximum=1e7,
    )
    read_noise_electrons: float = parameter(
        READ_NOISE_ELECTRONS, "read noise", unit="e-", minimum=0.0, maximum=1e4
    )
    gain: float = parameter(1.0, "brightness of all slices", minimum=0.0, maximum=100.0)
    gain_jitter: float = parameter(0.0, "relative spread between slices", minimum=0.0, maximum=0.5)
    sharpening: float = parameter(0.0, "strength of the camera's sharpening", minimum=0.0, maximum=4.0)
    jpeg_quality: int = parameter(0, "JPEG quality, 0 for none", minimum=0, maximum=100)


@dataclass(frozen=True)
class ProtocolMotion:
    """A camera in a hand: a random walk of the image from slice to slice."""

    step_px: float = parameter(0.0, "spread of a step along each axis", unit="px", minimum=0.0, maximum=100.0)
    step_deg: float = parameter(0.0, "spread of a turn", unit="deg", minimum=0.0, maximum=10.0)


@dataclass(frozen=True)
class ProtocolFrames:
    """Which frames suit the sweep, and which of their pixels."""

    scene_depth_m: tuple[float, ...] = parameter(
        (),
        "frames of whose measured pixels four in five lie within",
        unit="m",
        minimum=0.0,
        maximum=1e4,
    )
    depth_m: tuple[float, ...] = parameter(
        (), "pixels whose depth lies between", unit="m", minimum=0.0, maximum=1e4
    )

    def __post_init__(self) -> None:
        for name in ("scene_depth_m", "depth_m"):
            ends = getattr(self, name)
            if ends and (len(ends) != 2 or not ends[0] < ends[1]):
                raise ParameterError(f"{name}: expected two ascending numbers, got {list(ends)}")


@dataclass(frozen=True)
class EvaluationProtocol:
    """A protocol file; `seed` and a frame's name decide its noise and motion.

    renderer: thin_lens (near hides far, linear light) or published (the papers' gather over `window` px).
    exposure None adds no noise; motion None holds still.
    """

    name: str
    camera: ProtocolCamera
    sweep: ProtocolSweep
    renderer: str = THIN_LENS
    window: int = 7
    exposure: ProtocolExposure | None = None
    motion: ProtocolMotion | None = None
    frames: ProtocolFrames = field(default_factory=ProtocolFrames)
    seed: int = 0
    description: str = ""

    def __post_init__(self) -> None:
        if self.window < 1 or self.window % 2 == 0:
            raise ParameterError(f"window: expected an odd number of pixels, got {self.window}")
        if self.renderer == PUBLISHED:
            breathes = self.camera.breathing_percent_per_diopter != 0
            if self.motion is not None or self.exposure is not None or breathes:
                raise ParameterError("renderer: published has no exposure, motion or breathing")
            if self.camera.blur_px_per_diopter > 0:
                raise ParameterError("renderer: published needs focal_length_mm, f_number and pixel_pitch_um")

    @property
    def oracle(self) -> bool:
        """Whether the focus distances come from the ground truth."""
        return self.sweep.from_truth is not None


_SECTIONS: dict[str, type[Any]] = {
    "camera": ProtocolCamera,
    "sweep": ProtocolSweep,
    "exposure": ProtocolExposure,
    "motion": ProtocolMotion,
    "frames": ProtocolFrames,
}


@dataclass(frozen=True)
class _Scalars:
    """What stands outside any section."""

    renderer: str = parameter(THIN_LENS, "what makes the slices", choices=RENDERERS)
    window: int = parameter(7, "neighbourhood of the published renderer", unit="px", minimum=1, maximum=99)
    seed: int = parameter(0, "of noise and motion", minimum=0, maximum=2**31)
    description: str = parameter("", "what it is for")


def shipped_protocols() -> list[str]:
    """Names of the protocols that come with the package."""
    folder = find_config(FOLDER)
    return sorted(path.stem for path in folder.glob("*.yaml")) if folder else []


def load_protocol(name: str | Path) -> EvaluationProtocol:
    """A shipped protocol by its name, or a file."""
    path = Path(name)
    if path.suffix.lower() not in (".yaml", ".yml"):
        shipped = shipped_protocols()
        folder = find_config(FOLDER)
        if folder is None or str(name) not in shipped:
            known = f"one of {', '.join(shipped)}, or a .yaml file"
            raise ParameterError(
                f"protocol {str(name)!r}: expected {known}{nearest_name(str(name), shipped)}"
            )
        path = folder / f"{name}.yaml"
    try:
        document = load_yaml(path)
    except StackError as error:
        raise ParameterError(str(error)) from None
    return parse_protocol(document, path.stem, str(path))


def parse_protocol(document: Any, name: str, where: str) -> EvaluationProtocol:
    """A protocol from what its file holds; ParameterError begins with `where`."""
    if not isinstance(document, dict):
        raise ParameterError(f"{where}: expected camera and sweep, got {type(document).__name__}")
    known = (*_SECTIONS, *(item.name for item in fields(_Scalars)))
    for key in document:
        if key not in known:
            raise ParameterError(f"{where}: unknown key {key!r}{nearest_name(str(key), known)}")
    for required in ("camera", "sweep"):
        if required not in document:
            raise ParameterError(f"{where}: expected {required}, which is missing")
    scalars = {key: value for key, value in document.items() if key not in _SECTIONS}
    values = dict(vars(from_mapping(_Scalars, scalars, where)))
    for key, cls in _SECTIONS.items():
        if key in document:
            values[key] = _section(cls, document[key], f"{where}: {key}")
    try:
        return EvaluationProtocol(name, **values)
    except ParameterError as error:
        raise ParameterError(f"{where}: {error}") from None


def _section(cls: type[Any], content: Any, where: str) -> Any:
    known = [item.name for item in fields(cls)]
    if not isinstance(content, dict):
        raise ParameterError(f"{where}: expected {', '.join(known)}, got {content!r}")
    for key in content:
        if key not in known:
            raise ParameterError(f"{where}: unknown key {key!r}{nearest_name(str(key), known)}")
    if cls is not ProtocolSweep or "from_truth" not in content:
        return _checked(cls, content, where)
    rest = {key: value for key, value in content.items() if key != "from_truth"}
    if rest:
        raise ParameterError(f"{where}: expected from_truth alone, got {', '.join(map(str, rest))} too")
    return ProtocolSweep(from_truth=_section(TruthSweep, content["from_truth"], f"{where}: from_truth"))


def _checked(cls: type[Any], content: dict[str, Any], where: str) -> Any:
    try:
        return from_mapping(cls, content, where)
    except HybridDepthError as error:
        text = str(error)
        raise ParameterError(text if text.startswith(where) else f"{where}: {text}") from None
