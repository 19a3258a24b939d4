"""Which engine runs a model's arithmetic: what there is, what goes together, what `auto` takes."""

from __future__ import annotations

import importlib.util

from hybriddepth_ros.errors import ModelError

AUTO, TORCH, COMPILE, ONNX, OPENVINO, TENSORRT = "auto", "torch", "compile", "onnx", "openvino", "tensorrt"
ENGINES = (AUTO, TORCH, COMPILE, ONNX, OPENVINO, TENSORRT)
_ON_CPU, _ON_CUDA = (TORCH, COMPILE, ONNX, OPENVINO), (TORCH, COMPILE, ONNX, TENSORRT)
_FLOAT32 = "float32"
# Where it is not PyTorch: see docs/engines.md. The tenth of sweepnet's time that torch.compile saves on a CPU
# is not worth the minutes until it is ready.
_FASTEST = {("hybriddepth", "cpu"): OPENVINO}


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


def chosen_engine(engine: str, name: str, device: str, precision: str) -> str:
    """What `engine` stands for, on a device that is not `auto` itself.

    `auto` is the fastest by the figures of docs/engines.md, if its package is here, else PyTorch. On CUDA,
    where PyTorch replays CUDA graphs, the others are not measured yet.
    """
    if engine != AUTO:
        return engine
    fastest = _FASTEST.get((name, device), TORCH)
    is_here = precision == _FLOAT32 and importlib.util.find_spec(fastest) is not None
    return fastest if is_here else TORCH
