"""Which engine runs a model's arithmetic: what there is, what goes together, what `auto` takes."""

from __future__ import annotations

from hybriddepth_ros.errors import ModelError

AUTO, TORCH, COMPILE, ONNX, OPENVINO, TENSORRT = "auto", "torch", "compile", "onnx", "openvino", "tensorrt"
ENGINES = (AUTO, TORCH, COMPILE, ONNX, OPENVINO, TENSORRT)
_ON_CPU, _ON_CUDA = (TORCH, COMPILE, ONNX, OPENVINO), (TORCH, COMPILE, ONNX, TENSORRT)
_FLOAT32 = "float32"


def check_engine(name: str, engine: str, device: str, precision: str, has_weights: bool) -> None:
    """ModelError for an engine that there is not, or not for this model, device (auto: any) or precision."""
    if engine not in ENGINES:
        raise ModelError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    if engine == AUTO:
        return
    if not has_weights:
        raise ModelError(f"engine: {name} is no network and takes auto only, got {engine!r}")
    on_device = engines_on(device)
    if engine not in on_device:
        expected = ", ".join((AUTO, *on_device))
        raise ModelError(f"engine: on {device} expected one of {expected}, got {engine!r}")
    if engine != TORCH and precision != _FLOAT32:
        raise ModelError(f"engine: {engine} computes in {_FLOAT32} only, got precision {precision!r}")


def engines_on(device: str) -> tuple[str, ...]:
    """The engines that a device knows; auto may be any device."""
    if device == "auto":
        return ENGINES[1:]
    return _ON_CUDA if device.startswith("cuda") else _ON_CPU


def chosen_engine(engine: str) -> str:
    """What `engine` stands for.

    `auto` is PyTorch: on a CPU nothing that starts within seconds is faster for any model, as the figures of
    docs/engines.md say; on CUDA it replays CUDA graphs, and the others are not measured yet.
    """
    return TORCH if engine == AUTO else engine
