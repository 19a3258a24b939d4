"""Recorded CUDA work: a function of tensors is captured once per input shape, then replayed in one launch."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hybriddepth_ros.models.base import is_out_of_memory

_KEPT = 4  # shapes; each holds the memory of all its intermediate results
_WARM_UP = 3  # calls: libraries load kernels and take their workspace in them, which a capture cannot do

_log = logging.getLogger(__name__)


class _Captured(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    result: Tensor


class CudaGraph:
    """`work` for tensors on a CUDA device, without launching its kernels one by one.

    work must be arithmetic on tensors alone: no look at a value, no shape that follows from one. The graphs
    of the last four input shapes are kept. Where `work` cannot be captured it runs as it is, and a warning
    says so once.
    """

    def __init__(self, work: Callable[..., Tensor]) -> None:
        self.work = work
        self.can_capture = True
        self._captured: OrderedDict[tuple[torch.Size, ...], _Captured] = OrderedDict()

    def __call__(self, *tensors: Tensor) -> Tensor:
        """What `work` gives for these tensors."""
        with torch.cuda.device(tensors[0].device):
            captured = self._graph_for(tensors)
            if captured is None:
                return self.work(*tensors)
            for target, tensor in zip(captured.inputs, tensors, strict=True):
                target.copy_(tensor)
            captured.graph.replay()
            return captured.result.clone()  # the next replay writes there

    def release(self) -> None:
        """Give the memory of all graphs back."""
        self._captured.clear()

    def _graph_for(self, tensors: tuple[Tensor, ...]) -> _Captured | None:
        shapes = tuple(tensor.shape for tensor in tensors)
        if shapes in self._captured:
            self._captured.move_to_end(shapes)
            return self._captured[shapes]
        if not self.can_capture:
            return None
        while len(self._captured) >= _KEPT:
            self._captured.popitem(last=False)
        try:
            self._captured[shapes] = _capture(self.work, tensors)
        except RuntimeError as error:
            if is_out_of_memory(error):  # there may be enough without the graphs
                self.release()
                torch.cuda.empty_cache()
            else:
                self.can_capture = False
                _log.warning("CUDA graph: running without: %s", " ".join(str(error).split())[:200])
            return None
        return self._captured[shapes]


def _capture(work: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> _Captured:
    with torch.inference_mode(False):  # what is made in that mode can be written to in that mode only
        inputs = tuple(tensor.clone() for tensor in tensors)
    current = torch.cuda.current_stream()
    stream = torch.cuda.Stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            work(*inputs)
    current.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        # thread_local: other threads, which publish and receive, may use the device meanwhile
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            result = work(*inputs)
    finally:
        torch.cuda.set_stream(current)  # a capture that fails leaves its own one as the current stream
    return _Captured(graph, inputs, result)
