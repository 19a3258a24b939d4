"""What a depth model takes and gives, and the registry that finds one by name."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models.engine_choice import AUTO, check_engine
from hybriddepth_ros.parameters import nearest_name


@dataclass(frozen=True)
class AlignedStack:
    """Slices that lie over each other pixel by pixel, sorted from far focus to near.

    images [S, H, W, 3] uint8 RGB; covered [S, H, W] bool: this slice saw this pixel (elsewhere it shows
    mirrored content); focus_diopters [S] 1/m, rising; blur_px_per_diopter: blur-disc diameter per diopter of
    defocus [px/(1/m)], None = unknown; reference: index of the slice whose frame this is.
    """

    images: npt.NDArray[np.uint8]
    covered: npt.NDArray[np.bool_]
    focus_diopters: npt.NDArray[np.float32]
    blur_px_per_diopter: float | None = None
    reference: int = 0


@dataclass(frozen=True)
class FocusEstimate:
    """Inverse depth and its 1 sigma, both [H, W] float32 1/m, finite everywhere: no estimate is a large
    sigma.

    blur_px_per_diopter: the lens's, as given or as the model found it.
    """

    diopters: npt.NDArray[np.float32]
    sigma_diopters: npt.NDArray[np.float32]
    blur_px_per_diopter: float


@dataclass(frozen=True)
class SlicePlace:
    """Which slice a row of a stack is, from call to call, and how it is moved to lie there.

    key: its own, never used again for another; image [H, W, 3] uint8 RGB: the slice as it is, without the
    distortion of its lens; transform [3, 3]: pixel of the stack's frame -> pixel of the slice;
    largest_step_px: by how much that moves a pixel, at most.
    """

    key: int
    image: npt.NDArray[np.uint8]
    transform: npt.NDArray[np.float64]
    largest_step_px: float


@dataclass(frozen=True)
class RollingStack:
    """An AlignedStack whose images are not moved yet; fields without a text here mean what they mean there.

    places [S], sorted as there; make_aligned: see `aligned`.
    """

    places: Sequence[SlicePlace]
    covered: npt.NDArray[np.bool_]
    focus_diopters: npt.NDArray[np.float32]
    blur_px_per_diopter: float | None
    reference: int
    make_aligned: Callable[[], AlignedStack]

    @property
    def aligned(self) -> AlignedStack:
        """With the images moved: milliseconds, when it is first asked for."""
        return self.make_aligned()


class RollingModel(Protocol):
    """Inverse depth again and again of a stack of which one slice is new each time, so that what was made of
    the others may be kept. A slice may have been new in a stack that it was not called with.

    reads_aligned: whether it looks at fine structure in `stack.aligned`, whose images then are moved finely.
    """

    reads_aligned: bool

    def __call__(self, stack: RollingStack) -> FocusEstimate: ...


class WholeStack:
    """A RollingModel that keeps nothing: the whole model, for every new slice."""

    reads_aligned = True

    def __init__(self, model: DepthModel) -> None:
        self._model = model

    def __call__(self, stack: RollingStack) -> FocusEstimate:
        return self._model(stack.aligned)


def rolling_model(model: DepthModel) -> RollingModel:
    """What a model has for one new slice at a time, else the whole model."""
    make: Callable[[], RollingModel] = getattr(model, "rolling", lambda: WholeStack(model))
    return make()


class DepthModel(Protocol):
    """Inverse depth from an aligned stack. Built once with a device (`cpu`, `cuda`), used from one thread at
    a time.
    """

    device: str

    def __call__(self, stack: AlignedStack) -> FocusEstimate: ...


_MODELS = {
    "sweepnet": "hybriddepth_ros.models.sweepnet_estimator:SweepNetEstimator",
    "classical": "hybriddepth_ros.models.classical:Classical",
    "hybriddepth": "hybriddepth_ros.models.published_estimator:HybridDepthEstimator",
    "crossdepth": "hybriddepth_ros.models.published_estimator:CrossDepthEstimator",
}
_TAKE_WEIGHTS = ("sweepnet", "hybriddepth", "crossdepth")
_HAVE_PRIOR = ("hybriddepth", "crossdepth")
# CUDA's words, the CPU's, cuDNN's, oneDNN's
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "ALLOC_FAILED", "bad_alloc")
PRECISIONS = ("float32", "int8", "bfloat16", "float16")
_PRECISIONS_OF = {"classical": PRECISIONS[:1], "sweepnet": ("float32", "bfloat16", "float16")}
ON_CPU, ON_CUDA = ("float32", "int8"), ("float32", "bfloat16", "float16")


def model_names() -> tuple[str, ...]:
    """Every model that `load_model` knows."""
    return tuple(_MODELS)


def load_model(
    name: str,
    device: str = "auto",
    weights: str = "",
    precision: str = PRECISIONS[0],
    engine: str = AUTO,
) -> DepthModel:
    """A model by name; ModelError names an unknown model, missing weights or a device that is not there.

    weights: an installed name or a file, for models that take them; "" = the first installed for the model.
    precision: of their arithmetic, see `models.inference.for_inference`. engine: what computes it, one of
    ENGINES.
    """
    check_choice(name, device, weights, precision, engine)
    module, _, attribute = _MODELS[name].partition(":")
    arguments = (device, weights, precision, engine) if takes_weights(name) else (device,)
    try:
        made: DepthModel = getattr(importlib.import_module(module), attribute)(*arguments)
    except ImportError as error:  # a robot that runs `classical` needs neither torch nor safetensors
        hint = "; classical needs none"
        raise ModelError(f"model: {name} needs a Python package that is not here: {error}{hint}") from None
    return made


def check_choice(name: str, device: str, weights: str, precision: str, engine: str = AUTO) -> None:
    """ModelError for what `load_model` refuses whatever is installed: found without importing a network."""
    if name not in _MODELS:
        known = ", ".join(_MODELS)
        raise ModelError(
            f"model: unknown model {name!r}, expected one of {known}{nearest_name(name, _MODELS)}"
        )
    check_device(device)
    if weights and not takes_weights(name):
        raise ModelError(f"model: {name} takes no weights, got {weights!r}")
    possible = precisions_of(name)
    if precision in PRECISIONS and precision not in possible:
        only = " only" if len(possible) == 1 else ""
        raise ModelError(f"precision: {name} knows {', '.join(possible)}{only}, got {precision!r}")
    check_precision(precision, device)
    check_engine(name, engine, device, precision, takes_weights(name))


def takes_weights(name: str) -> bool:
    """Whether a model needs weights."""
    return name in _TAKE_WEIGHTS


def precisions_of(name: str) -> tuple[str, ...]:
    """What a model can compute in, on one device or another."""
    return _PRECISIONS_OF.get(name, PRECISIONS)


def has_own_prior(name: str) -> bool:
    """Whether a model joins focus and a learned prior by itself."""
    return name in _HAVE_PRIOR


def usable_precision(name: str, wanted: str) -> str:
    """The precision that is wanted, or for a model that does not know it the one that every model has."""
    return wanted if wanted in precisions_of(name) else PRECISIONS[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had too little memory: PyTorch says it in several kinds of error."""
    return isinstance(error, MemoryError) or any(mark in str(error) for mark in _OUT_OF_MEMORY)


def check_precision(precision: str, device: str) -> None:
    """ModelError unless there is such a precision and the device can do it; auto may be any device."""
    if precision not in PRECISIONS:
        raise ModelError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    if device == "auto":
        return
    possible = ON_CUDA if device.startswith("cuda") else ON_CPU
    if precision not in possible:
        raise ModelError(f"precision: on {device} expected {' or '.join(possible)}, got {precision!r}")


def check_device(device: str) -> None:
    """ModelError unless `device` is auto, cpu, or a CUDA device that this machine has."""
    if device in ("auto", "cpu"):
        return
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise ModelError(f"device: expected auto, cpu, cuda or cuda:N, got {device!r}")
    try:
        import torch
    except ImportError:
        raise ModelError(
            f"device: {device} needs PyTorch, which is not installed: pip install torch"
        ) from None
    index = int(device.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        raise ModelError(
            f"device: {device} is not there, PyTorch sees {torch.cuda.device_count()} CUDA devices"
        )


def find_device(device: str) -> str:
    """`auto` as cuda where there is one, else cpu; ModelError for a device that is not there."""
    check_device(device)
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
