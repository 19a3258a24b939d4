"""The papers' networks made ready to run: the same call and the same numbers, sooner.

`for_inference` gives a copy in which batch normalisations are folded into their convolutions, convolutions
after a doubling of the image work on the small image, and weights lie channels-last. On a GPU the networks'
arithmetic is captured as CUDA graphs; another engine than PyTorch's takes it over altogether. A reduced
precision is a choice of its own: int8 on a CPU, half precision on a GPU.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hybriddepth_ros.models.base import check_precision
from hybriddepth_ros.models.crossdepth import CrossAttentionFusion, CrossDepth
from hybriddepth_ros.models.cuda_graph import CudaGraph
from hybriddepth_ros.models.engine_choice import AUTO, TORCH, check_engine, chosen_engine
from hybriddepth_ros.models.engines import CompiledMethod, in_graph
from hybriddepth_ros.models.feature_pyramid import ConvBlock
from hybriddepth_ros.models.hybriddepth import HybridDepth
from hybriddepth_ros.models.int8 import Int8Conv2d, Int8Linear, Quantised, quantise
from hybriddepth_ros.models.volume_decoder import VolumeConv, over_slices

Network = TypeVar("Network", HybridDepth, CrossDepth)
Core = Callable[..., Tensor]

FLOAT32, INT8 = "float32", "int8"
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def for_inference(
    network: Network, device: str = "cpu", precision: str = FLOAT32, engine: str = AUTO
) -> Network:
    """A copy of a network with its weights, on `device`: called as the network is, and never to be trained.

    precision: `float32`, whose results differ from the network's by rounding; `int8` (CPU), for the
    convolutions of the focal volume and the linear layers of the prior; `bfloat16` or `float16` (CUDA), for
    prior and focal volume. Alignment, regression and fusion are in float32 always: the ratio of two depths
    has poles that half precision cannot hold. engine: one of ENGINES, for prior, focal volume and
    HybridDepth's refinement; CrossDepth's fusion, which is mostly one attention over all pixels, stays
    PyTorch's.
    ModelError for a precision or an engine that the device cannot do.
    """
    check_precision(precision, device)
    model = type(network).__name__.lower()
    check_engine(model, engine, device, precision, has_weights=True)
    engine = chosen_engine(engine, model, device, precision)
    ready = copy.deepcopy(network).eval().requires_grad_(False)
    fold_batch_norms(ready)
    _replace(ready, _on_the_small_image)
    _replace(ready, _in_three)
    if precision == INT8:
        _replace(ready.focal_volume, _quantised_convolution)
        _replace(ready.relative_depth.network.backbone, _quantised_linear)
    for parameter in ready.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    ready.to(device)
    for part, name in _cores(ready):
        core: Core = getattr(part, name)
        is_fusion = part not in (ready.relative_depth, ready.focal_volume)
        if engine != TORCH and not isinstance(part, CrossAttentionFusion):
            setattr(part, name, CompiledMethod(part, name, engine, device, f"{model}'s {name}"))
            continue
        if precision == INT8 and not is_fusion:
            setattr(part, name, _one_by_one(core))
        elif device.startswith("cuda"):
            in_half = precision in HALF and not is_fusion
            setattr(part, name, CudaGraph(_in_half(core, HALF[precision]) if in_half else _in_full(core)))
    if device.startswith("cuda"):  # of one slice at a time: small enough to run as they are
        volume: Any = ready.focal_volume
        half = HALF.get(precision)
        volume.features = _all_in(volume.features, half)
        volume.cost_of = _in_half(volume.cost_of, half) if half else _in_full(volume.cost_of)
    return ready


def release_memory(network: Any) -> None:
    """Give back what a network that was made ready keeps beside its weights."""
    for core in (getattr(part, name, None) for part, name in _cores(network)):
        if isinstance(core, (CudaGraph, CompiledMethod)):
            core.release()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def fold_batch_norms(module: nn.Module) -> None:
    """Fold every batch normalisation into the convolution that stands before it in the same module."""
    children = list(module.named_children())
    for (name, convolution), (norm_name, norm) in itertools.pairwise(children):
        if isinstance(convolution, (nn.Conv2d, nn.Conv3d)) and isinstance(norm, _BatchNorm):
            setattr(module, name, nn.utils.fuse_conv_bn_eval(convolution, norm))
            setattr(module, norm_name, nn.Identity())
    for _, child in children:
        fold_batch_norms(child)


class UpsampledConv(nn.Module):
    """Nearest-neighbour doubling and a 3x3 convolution in one, at 4/9 of the work.

    A pixel of the doubled image sees 2x2 pixels of the small one. Which of four kernels it takes depends on
    whether its row and its column are even or odd; their entries are sums of the original's.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        assert (convolution.kernel_size, convolution.stride, convolution.padding) == ((3, 3), (1, 1), (1, 1))
        assert (convolution.dilation, convolution.groups) == ((1, 1), 1)
        # [even or odd, small row, row of the original kernel]
        which = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
        self.phases = nn.ModuleList()
        for row in which:
            for column in which:
                kernel = torch.einsum("ik,jl,ockl->ocij", row, column, convolution.weight)
                self.phases.append(_conv2d(kernel, convolution.bias, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, outputs, 2h, 2w] of x [B, inputs, h, w]."""
        height, width = x.shape[-2:]
        source = _source(x, self.phases[0])
        parts = [phase(source) for phase in self.phases]  # one row and one column too many
        if in_graph():
            cut = [
                part[:, :, index // 2 : index // 2 + height, index % 2 : index % 2 + width]
                for index, part in enumerate(parts)
            ]
            return nn.functional.pixel_shuffle(torch.stack(cut, dim=2).flatten(1, 2), 2)
        shape = (len(x), parts[0].shape[1], 2 * height, 2 * width)
        result = torch.empty(shape, dtype=parts[0].dtype, device=x.device, memory_format=torch.channels_last)
        for index, part in enumerate(parts):
            row, column = divmod(index, 2)
            result[:, :, row::2, column::2] = part[:, :, row : row + height, column : column + width]
        return result


class ThreeSliceConv(nn.Module):
    """VolumeConv with its three kernels as convolutions of their own."""

    def __init__(self, convolution: VolumeConv) -> None:
        super().__init__()
        before, here, after = convolution.kernels()
        self.here = _conv2d(here, convolution.bias)
        self.before = None if before is None else _conv2d(before, None)
        self.after = None if after is None else _conv2d(after, None)

    def forward(self, volume: Tensor, slices: int) -> Tensor:
        """[B * N, outputs, h, w] of volume [B * N, inputs, h, w], N = slices."""
        return over_slices(_source(volume, self.here), slices, self.here, self.before, self.after)


def _source(x: Tensor, convolution: nn.Module) -> Tensor | Quantised:
    """What the convolutions over x take: quantised once for all of them, where they are."""
    return quantise(x) if isinstance(convolution, Int8Conv2d) else x


def _conv2d(kernel: Tensor, bias: Tensor | None, padding: int | None = None) -> nn.Conv2d:
    outputs, inputs, size, _ = kernel.shape
    convolution = nn.Conv2d(
        inputs, outputs, size, padding=size // 2 if padding is None else padding, bias=bias is not None
    )
    convolution.weight.data = kernel.detach().clone(memory_format=torch.contiguous_format)
    if bias is not None:
        convolution.bias = nn.Parameter(bias.detach().clone())
    return convolution.requires_grad_(False)


def _replace(module: nn.Module, change: Callable[[nn.Module], nn.Module | None]) -> None:
    """Every module inside for which `change` has another."""
    for name, child in module.named_children():
        other = change(child)
        if other is None:
            _replace(child, change)
        else:
            setattr(module, name, other)


def _on_the_small_image(module: nn.Module) -> nn.Module | None:
    if not isinstance(module, nn.Sequential) or len(module) != 2:
        return None
    upsample, block = module
    if not isinstance(upsample, nn.Upsample) or not isinstance(block, ConvBlock):
        return None
    convolution, _, activation = block.cbr_unit
    assert upsample.mode == "nearest" and isinstance(convolution, nn.Conv2d)
    return nn.Sequential(UpsampledConv(convolution), activation)


def _in_three(module: nn.Module) -> nn.Module | None:
    return ThreeSliceConv(module) if isinstance(module, VolumeConv) else None


def _quantised_convolution(module: nn.Module) -> nn.Module | None:
    if isinstance(module, nn.Conv2d) and Int8Conv2d.is_worth_it(module):
        return Int8Conv2d(module)
    return None


def _quantised_linear(module: nn.Module) -> nn.Module | None:
    return Int8Linear(module) if isinstance(module, nn.Linear) else None


def _cores(network: Any) -> Iterator[tuple[nn.Module, str]]:
    """The parts that are arithmetic on tensors alone, and the method that is it."""
    if not isinstance(network, (HybridDepth, CrossDepth)):
        return
    yield network.relative_depth, "predict"
    yield network.focal_volume, "cost"
    if isinstance(network, HybridDepth):
        yield network.scale_refinement, "correction"
    elif isinstance(network.depth_fusion, CrossAttentionFusion):
        yield network.depth_fusion, "unclamped"


def _in_half(core: Core, dtype: torch.dtype) -> Core:
    def run(*tensors: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype):
            return core(*tensors).float()

    return run


def _all_in(
    core: Callable[[Tensor], tuple[Tensor, ...]], dtype: torch.dtype | None
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """What gives several tensors, in half precision or, without one, in full."""

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with (
            torch.autocast("cuda", dtype or torch.float16, enabled=dtype is not None),
            torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False),
        ):
            return core(images)

    return run


def _in_full(core: Core) -> Core:
    """Without TF32, which cuDNN uses unasked: 10 bits where float32 has 23."""

    def run(*tensors: Tensor) -> Tensor:
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
            return core(*tensors)

    return run


def _one_by_one(core: Core) -> Core:
    """Sample by sample: in int8 the range of one would else set the levels of all."""

    def run(batch: Tensor) -> Tensor:
        return torch.cat([core(sample) for sample in batch.split(1)])

    return run
