"""Recorded CUDA work: a function of tensors is captured once per input shape, then replayed in one launch."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_KEPT = 4  # shapes; each holds the memory of all its intermediate results
_WARM_UP = 3  # calls in which cuDNN chooses its algorithms and cuBLAS takes its workspace

_log = logging.getLogger(__name__)


class _Captured(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    result: Tensor


class CudaGraph:
    """`work` for tensors on a CUDA device, without launching its kernels one by one.

    work must be arithmetic on tensors alone: no look at a value, no shape that follows from one. Where it
    cannot be captured it runs as it is, and a warning says so once.
    """

    def __init__(self, work: Callable[..., Tensor]) -> None:
        self._work = work
        self._captured: OrderedDict[tuple[torch.Size, ...], _Captured] = OrderedDict()
        self._can_capture = True

    def __call__(self, *tensors: Tensor) -> Tensor:
        """What `work` gives for these tensors."""
        if not self._can_capture:
            return self._work(*tensors)
        shapes = tuple(tensor.shape for tensor in tensors)
        if shapes not in self._captured:
            try:
                captured = self._capture(tensors)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._can_capture = False
                _log.warning(
                    "CUDA graph: cannot be captured, running without: %s", " ".join(str(error).split())
                )
                return self._work(*tensors)
            while len(self._captured) >= _KEPT:
                self._captured.popitem(last=False)
            self._captured[shapes] = captured
        self._captured.move_to_end(shapes)
        graph, inputs, result = self._captured[shapes]
        for target, tensor in zip(inputs, tensors, strict=True):
            target.copy_(tensor)
        graph.replay()
        return result.clone()  # the next replay writes there

    def _capture(self, tensors: tuple[Tensor, ...]) -> _Captured:
        inputs = tuple(tensor.clone() for tensor in tensors)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._work(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._work(*inputs)
        return _Captured(graph, inputs, result)
