"""A network's arithmetic in another engine than PyTorch's own: made for the sizes that come, then kept."""

from __future__ import annotations

import hashlib
import importlib
import io
import logging
import os
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hybriddepth_ros.errors import ModelError, one_line
from hybriddepth_ros.models.base import is_out_of_memory
from hybriddepth_ros.models.engine_choice import COMPILE, ONNX, OPENVINO, TENSORRT

OPSET = 18
_KEPT = 4  # sets of input shapes
_NUMPY = {torch.float32: "float32", torch.int64: "int64"}

_log = logging.getLogger(__name__)

Run = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


class Compiled:
    """What a module gives for tensors, by an engine: made at the first call with tensors of these shapes.

    The module must be arithmetic on tensors alone, and takes and gives tensors of fixed shapes. `what` names
    it in messages. ModelError where the engine cannot make or run it. Later sizes cost the same again, which
    one line of the log says; the last four are kept.
    """

    def __init__(self, module: nn.Module, engine: str, device: str, what: str) -> None:
        require_engine(engine, device)
        self._module, self._engine, self._device, self._what = module.eval(), engine, device, what
        self._made: OrderedDict[tuple[torch.Size, ...], Run] = OrderedDict()

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The module's results, as a tuple."""
        shapes = tuple(tensor.shape for tensor in tensors)
        if shapes not in self._made:
            if self._made:
                sizes = ", ".join("x".join(map(str, shape)) for shape in shapes[:2])
                _log.warning("engine %s: making %s ready for %s", self._engine, self._what, sizes)
            while len(self._made) >= _KEPT:
                self._made.popitem(last=False)
            self._made[shapes] = self._guarded(lambda: self._make(tensors))
        self._made.move_to_end(shapes)
        run = self._made[shapes]
        return self._guarded(lambda: run(tensors))

    def release(self) -> None:
        """Give back the memory of what was made."""
        self._made.clear()

    def _make(self, tensors: Sequence[Tensor]) -> Run:
        if self._engine == COMPILE:
            return _compiled(self._module)
        file, results = _exported(self._module, tensors)
        if self._engine == OPENVINO:
            return _openvino(file)
        return _onnxruntime(file, results, self._engine, self._device)

    def _guarded(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except ModelError:
            raise
        except Exception as error:  # each engine has errors of its own, which no base class joins
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            raise ModelError(f"engine: {self._engine} cannot run {self._what}: {one_line(error)}") from error


class CompiledMethod:
    """A method of a module by an engine, to stand in its place in the instance. See Compiled."""

    def __init__(self, module: nn.Module, name: str, engine: str, device: str, what: str) -> None:
        self._compiled = Compiled(_Method(module, name), engine, device, what)

    def __call__(self, *tensors: Tensor) -> Tensor:
        """What the method gives."""
        (result,) = self._compiled(*tensors)
        return result

    def release(self) -> None:
        """As `Compiled.release`."""
        self._compiled.release()


class _Method(nn.Module):
    """The method of the class, whatever stands in its place in the instance."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module = module
        self._name = name

    def forward(self, *tensors: Tensor) -> Tensor:
        result: Tensor = getattr(type(self.module), self._name)(self.module, *tensors)
        return result


def in_graph() -> bool:
    """Whether an engine is recording a module, for which no tensor may be changed through a view of it."""
    return torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling()


def require_engine(engine: str, device: str) -> None:
    """ModelError that says how to get what an engine needs, where it is missing."""
    if engine == COMPILE:
        compiler = os.environ.get("CXX") or "g++"
        if not device.startswith("cuda") and shutil.which(compiler) is None:
            raise ModelError(f"engine: compile needs a C++ compiler, {compiler} is not here: apt install g++")
    elif engine == OPENVINO:
        _package("openvino", engine)
    elif engine in (ONNX, TENSORRT):
        on_gpu = device.startswith("cuda")
        runtime = _package("onnxruntime", engine, "onnxruntime-gpu" if on_gpu else "onnxruntime")
        wanted = _providers(engine, device)[0]
        if wanted not in runtime.get_available_providers():
            raise ModelError(
                f"engine: {engine} on {device} needs ONNX Runtime's {wanted}, which this one has not:"
                " pip install onnxruntime-gpu"
            )


def _package(name: str, engine: str, pip_name: str = "") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ModelError(
            f"engine: {engine} needs the Python package {name}: pip install {pip_name or name}"
        ) from None


def _providers(engine: str, device: str) -> list[str]:
    if not device.startswith("cuda"):
        return ["CPUExecutionProvider"]
    first = ["TensorrtExecutionProvider"] if engine == TENSORRT else []
    return [*first, "CUDAExecutionProvider"]


def _compiled(module: nn.Module) -> Run:
    def run(tensors: Sequence[Tensor]) -> Any:
        return module(*tensors)

    # PyTorch counts what it compiles per code object, and gives up at eight: each of ours has its own.
    run.__code__ = run.__code__.replace()
    made = torch.compile(run, fullgraph=True, dynamic=False)
    return lambda tensors: _as_tuple(made(tensors))


def _exported(module: nn.Module, tensors: Sequence[Tensor]) -> tuple[bytes, tuple[Tensor, ...]]:
    """The module as an ONNX file for these shapes, and what it gave for these tensors."""
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sizes become constants, which they are
        inputs = tuple(tensor.clone() for tensor in tensors)
        results = _as_tuple(module(*inputs))
        file = io.BytesIO()
        torch.onnx.export(
            module,
            inputs,
            file,  # type: ignore[arg-type] # the exporter for dynamo=False takes it
            input_names=[f"input{index}" for index in range(len(inputs))],
            output_names=[f"output{index}" for index in range(len(results))],
            opset_version=OPSET,
            dynamo=False,  # the newer exporter needs another package and takes ten times as long
        )
    return file.getvalue(), results


def _openvino(file: bytes) -> Run:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",  # it takes bfloat16 unasked where a processor has it
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.compile_model(openvino.Core().read_model(file), "CPU", settings)
    request = compiled.create_infer_request()

    def run(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        found = request.infer([tensor.contiguous().numpy() for tensor in tensors], share_inputs=True)
        return tuple(torch.from_numpy(found[output].copy()) for output in compiled.outputs)

    return run


def _onnxruntime(file: bytes, results: Sequence[Tensor], engine: str, device: str) -> Run:
    """results: of the shapes and types that come out. Tensors are read and written where they lie."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 3  # errors
    kind, _, number = device.partition(":")
    index = int(number or 0)
    options: list[dict[str, str]] = [{"device_id": str(index)} if kind == "cuda" else {}]
    providers = _providers(engine, device)
    if engine == TENSORRT:
        folder = cache_folder() / "tensorrt" / hashlib.sha256(file).hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
        cached = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(folder)}
        options = [options[0] | cached, options[0]]
    session = onnxruntime.InferenceSession(file, settings, providers=providers, provider_options=options)
    if providers[0] not in session.get_providers():  # it falls back with no more than a line on stderr
        raise ModelError(f"engine: {engine} on {device}: ONNX Runtime cannot start its {providers[0]}")
    shapes = [(result.shape, result.dtype) for result in results]
    names = [put.name for put in session.get_outputs()]

    def run(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        binding = session.io_binding()
        given = [tensor.contiguous() for tensor in tensors]
        found = tuple(torch.empty(shape, dtype=dtype, device=device) for shape, dtype in shapes)
        for put in session.get_inputs():  # without those that turned out not to matter
            place = _place(given[int(put.name.removeprefix("input"))])
            binding.bind_input(put.name, kind, index, *place)
        for name, result in zip(names, found, strict=True):
            binding.bind_output(name, kind, index, *_place(result))
        if kind == "cuda":
            torch.cuda.synchronize(device)  # ONNX Runtime has a stream of its own
        session.run_with_iobinding(binding)
        return found

    return run


def _place(tensor: Tensor) -> tuple[str, list[int], int]:
    return _NUMPY[tensor.dtype], list(tensor.shape), tensor.data_ptr()


def _as_tuple(results: Any) -> tuple[Tensor, ...]:
    return (results,) if isinstance(results, Tensor) else tuple(results)


def cache_folder() -> Path:
    """Where engines keep what takes minutes to make: hybriddepth_ros in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hybriddepth_ros"
