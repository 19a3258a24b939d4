"""The papers' networks as ONNX models, for any batch, any number of slices from 2 up, and any image size.

PyTorch records one run of the network and takes every Python number and every branch for a constant. So what
depends on sizes in our modules (padding, windows of average pooling, SAME padding) and on values (missing
pixels, the order of the slices) is written here once more, as arithmetic that the graph does itself.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybriddepth_ros import __version__
from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models.crossdepth import HEADS, PATCH, WIDTH, Attention, CrossAttentionFusion, CrossDepth
from hybriddepth_ros.models.efficientnet import SameConv2d
from hybriddepth_ros.models.engines import OPSET
from hybriddepth_ros.models.feature_pyramid import PyramidPooling
from hybriddepth_ros.models.focal_volume import (
    GRID,
    LEAST_SIZE,
    FocalVolume,
    FocusDepth,
    regress,
)
from hybriddepth_ros.models.hybriddepth import HybridDepth, invert
from hybriddepth_ros.models.relative_depth import RelativeDepth
from hybriddepth_ros.models.volume_decoder import VolumeConv, VolumeDecoder
from hybriddepth_ros.models.weights_config import WeightsConfig

if TYPE_CHECKING:
    from onnx import ModelProto

OUTPUTS = ("depth", "relative", "focus_depth", "focus_std")
METADATA_PREFIX = "hybriddepth."
_OF_ALL = ("name", "model", "variant", "rgb_normalisation")
_OF_STACKS = (
    "stack_normalisation",
    "focus_unit",
    "disparity_metres",
    "slice_order",
    "depth_range",
    "invert_depth",
    "sigma_scale",
)
_ORIGIN = ("licence", "source", "source_sha256", "revision", "sha256")

_EXAMPLE = (2, 3, 40, 50)  # B, N, H, W of the recorded run: any will do, small ones are quick


def to_onnx(network: HybridDepth | CrossDepth | RelativeDepth, config: WeightsConfig) -> ModelProto:
    """The network with its weights as an ONNX model, and what `config` says of them as its metadata.

    rgb [B, 3, H, W], stack [B, N, 3, H, W], focus_distances [B, N] -> OUTPUTS, each [B, 1, H, W]; Depth
    Anything by itself: rgb -> relative. All are float32 and what the network's forward takes and gives.
    """
    require_onnx()
    import onnx

    batch, slices, height, width = _EXAMPLE
    inputs = {"rgb": torch.zeros(batch, 3, height, width)}
    image = {0: "batch", 2: "height", 3: "width"}
    axes = {"rgb": image}
    if isinstance(network, RelativeDepth):
        graph: nn.Module = _Relative(network)
        outputs: tuple[str, ...] = ("relative",)
    else:
        graph = _FromStack(network)
        outputs = OUTPUTS
        inputs["stack"] = torch.zeros(batch, slices, 3, height, width)
        inputs["focus_distances"] = torch.zeros(batch, slices)
        axes["stack"] = {0: "batch", 1: "slices", 3: "height", 4: "width"}
        axes["focus_distances"] = {0: "batch", 1: "slices"}
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # that Python numbers become constants: see above
            written = Path(folder) / "network.onnx"
            # dynamo=False: PyTorch's newer exporter (2.13) takes ten times as long for HybridDepth, and could
            # be brought to take sides in multiples of 32 only.
            torch.onnx.export(
                graph.eval(),
                tuple(inputs.values()),
                written,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes=axes | dict.fromkeys(outputs, image),
                opset_version=OPSET,
                dynamo=False,
            )
            model = onnx.load_model(written)
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"export to ONNX: PyTorch {torch.__version__} cannot do it: {reason}") from error
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_value = 1
    model.producer_name, model.producer_version = "hybriddepth_ros", __version__
    for key, value in metadata(config).items():
        model.metadata_props.add(key=METADATA_PREFIX + key, value=value)
    return model


def require_onnx() -> None:
    """ModelError that says how to get the package where it is missing."""
    if importlib.util.find_spec("onnx") is None:
        raise ModelError("the export to ONNX needs the Python package onnx: pip install onnx")


def metadata(config: WeightsConfig) -> dict[str, str]:
    """What somebody who has the ONNX file alone must know: texts as they are, all else as JSON."""
    keys = _OF_ALL + (() if config.model == "depth_anything" else _OF_STACKS) + _ORIGIN
    values = {key: getattr(config, key) for key in keys}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


class _Relative(nn.Module):
    """Depth Anything by itself; it has nothing that depends on the image's size."""

    def __init__(self, network: RelativeDepth) -> None:
        super().__init__()
        self.network = _sharing_weights(network)

    def forward(self, rgb: Tensor) -> Tensor:
        relative: Tensor = self.network(_filled(rgb, (2, 3)))
        return relative


class _FromStack(nn.Module):
    """HybridDepth or CrossDepth from end to end."""

    def __init__(self, network: HybridDepth | CrossDepth) -> None:
        super().__init__()
        self.network = _sharing_weights(network)
        self.focal_volume = _Focus(self.network.focal_volume)
        if isinstance(network, HybridDepth):
            if network.alignment != "least_squares" or network.batch_of_four_defect:
                raise ModelError(
                    "export to ONNX: expected alignment least_squares and no batch_of_four_defect"
                )
            self.network.scale_refinement = _Padded(self.network.scale_refinement, GRID)
        else:
            if not isinstance(network.depth_fusion, CrossAttentionFusion):
                raise ModelError("export to ONNX: expected CrossDepth with the published fusion")
            self.network.depth_fusion = _Padded(self.network.depth_fusion, PATCH)
        for module in self.network.modules():
            module.__class__ = _FOR_ANY_SIZE.get(type(module), type(module))

    def forward(
        self, rgb: Tensor, stack: Tensor, focus_distances: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        relative = self.network.relative_depth(_filled(rgb, (2, 3)))
        focus = self.focal_volume(stack, focus_distances)
        if isinstance(self.network, HybridDepth):
            depth = self.network.fuse(relative, focus).depth
        else:
            used = invert(relative, self.network.guard_relative) if self.network.invert_depth else relative
            depth = self.network.depth_fusion(focus.depth, used, focus.std)
        return depth, relative, focus.depth, focus.std


class _Focus(nn.Module):
    """FocalVolume.forward."""

    def __init__(self, volume: FocalVolume) -> None:
        super().__init__()
        self.volume = volume

    def forward(self, stack: Tensor, focus_distances: Tensor) -> FocusDepth:
        height, width = stack.shape[-2:]
        filled, focus = _filled(stack, 1), focus_distances
        if self.volume.slice_order != "given":
            focus, order = focus.sort(dim=1, descending=self.volume.slice_order == "falling")
            filled = torch.gather(filled, 1, order[:, :, None, None, None].expand_as(stack))
        padded = _pad(filled, GRID, LEAST_SIZE)
        cost = F.interpolate(self.cost(padded), padded.shape[-2:], mode="bilinear")
        depth, std, probability = regress(cost[..., :height, :width], focus)
        complete = torch.isfinite(stack).to(stack.dtype).amin(dim=(1, 2)).unsqueeze(1) > 0.5  # [B, 1, H, W]
        most = 0.5 * (focus.amax(dim=1) - focus.amin(dim=1))  # [B]
        return FocusDepth(depth, torch.where(complete, std, most[:, None, None, None]), probability)

    def cost(self, stack: Tensor) -> Tensor:
        volume, slices = self.volume, stack.shape[1]
        levels = volume.feature_extraction(stack.flatten(0, 1))
        v3, v4, v5, v6 = (_differences(features, slices) for features in levels)
        x6 = volume.decoder6(v6, slices)
        x5 = volume.decoder5(torch.cat([volume.decoder6.upsampled(x6, slices), v5], dim=1), slices)
        x4 = volume.decoder4(torch.cat([volume.decoder5.upsampled(x5, slices), v4], dim=1), slices)
        x3 = volume.decoder3(torch.cat([volume.decoder4.upsampled(x4, slices), v3], dim=1), slices)
        return volume.decoder3.classified(x3, slices)


class _Padded(nn.Module):
    """A network of maps [B, 1, H, W], given them with sides in multiples, and its answer cropped."""

    def __init__(self, network: nn.Module, multiple: int) -> None:
        super().__init__()
        self.network, self.multiple = network, multiple

    def forward(self, *maps: Tensor) -> Tensor:
        height, width = maps[0].shape[-2:]
        return self.network(*(_pad(image, self.multiple) for image in maps))[..., :height, :width]


class _EvenSameConv2d(SameConv2d):
    """SAME padding as a constant: with sides in multiples of 32 every layer's input has an even size."""

    def forward(self, x: Tensor) -> Tensor:
        missing = self.kernel_size[0] - self.stride[0]
        if missing % 2:
            x = F.pad(x, (missing // 2, missing - missing // 2) * 2)
        padding = 0 if missing % 2 else missing // 2
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)


class _AnyPyramidPooling(PyramidPooling):
    def forward(self, x: Tensor) -> Tensor:
        return _pooled(x, list(self.path_module_list)[::-1], axes=2)


class _AnyVolumeDecoder(VolumeDecoder):
    def forward(self, volume: Tensor, slices: int) -> Tensor:
        for unit in self.convs:
            volume = unit(volume, slices)
        if not self.pool_convs:
            return volume
        paths = [_OverVolume(path) for path in self.pool_convs]
        return (
            _pooled(_by_sample(volume, slices).transpose(1, 2), paths, axes=3).transpose(1, 2).flatten(0, 1)
        )

    def classified(self, volume: Tensor, slices: int) -> Tensor:
        (last,) = self.classify[2].children()
        hidden = F.relu(self.classify[0](volume, slices))
        return _by_sample(last(hidden, slices), slices).squeeze(2)


class _OverVolume(nn.Module):
    """A VolumeConvNorm of kernel 1, which mixes channels alone, over [B, C, N, h, w]."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, volume: Tensor) -> Tensor:
        slices = volume.shape[2]
        mixed = self.convolution(volume.transpose(1, 2).flatten(0, 1), slices)
        return _by_sample(mixed, slices).transpose(1, 2)


class _AnyVolumeConv(VolumeConv):
    """One 2-D convolution over the channels of three slices."""

    def forward(self, volume: Tensor, slices: int) -> Tensor:  # type: ignore[override]
        if self.kernel_size[0] == 1:
            return F.conv2d(volume, self.weight[:, :, 0], self.bias)
        here = _by_sample(volume, slices)
        nothing = 0.0 * here[:, :1]
        before, after = torch.cat([nothing, here[:, :-1]], dim=1), torch.cat([here[:, 1:], nothing], dim=1)
        three = torch.cat([before, here, after], dim=2).flatten(0, 1)  # [B * N, 3 C, h, w]
        kernel = self.weight.transpose(1, 2).flatten(1, 2)  # [O, 3 C, 3, 3]
        return F.conv2d(three, kernel, self.bias, padding=1)


def _differences(features: Tensor, slices: int) -> Tensor:
    """`slice_differences`."""
    each = _by_sample(features, slices)
    return torch.cat([each[:, :-1] - each[:, 1:], each[:, -1:]], dim=1).flatten(0, 1)


def _by_sample(batch: Tensor, slices: int) -> Tensor:
    """[B, N, C, h, w] of [B * N, C, h, w]."""
    return batch.reshape(-1, slices, batch.shape[1], batch.shape[2], batch.shape[3])


class _TiledAttention(Attention):
    """The same attention for some queries at a time: memory grows with the tokens, not with their square."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        wq, wkv = self.in_proj_weight.split((WIDTH, 2 * WIDTH))
        bq, bkv = self.in_proj_bias.split((WIDTH, 2 * WIDTH))
        query = F.linear(x, wq, bq) * (WIDTH // HEADS) ** -0.5
        key, value = F.linear(other, wkv, bkv).chunk(2, dim=-1)
        q, k, v = (t.reshape(t.shape[0], t.shape[1], HEADS, -1).transpose(1, 2) for t in (query, key, value))
        attended = torch.jit.script(_attend)(q, k.transpose(2, 3), v)  # [B, 4, T, 8]; a script keeps its loop
        result: Tensor = self.out_proj(attended.transpose(1, 2).reshape(x.shape[0], x.shape[1], WIDTH))
        return result


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    parts: list[Tensor] = []
    for start in range(0, query.shape[2], 512):
        parts.append((query[:, :, start : start + 512] @ key).softmax(dim=-1) @ value)
    return torch.cat(parts, dim=2)


_FOR_ANY_SIZE: dict[type[nn.Module], type[nn.Module]] = {
    Attention: _TiledAttention,
    SameConv2d: _EvenSameConv2d,
    PyramidPooling: _AnyPyramidPooling,
    VolumeConv: _AnyVolumeConv,
    VolumeDecoder: _AnyVolumeDecoder,
}


def _sharing_weights(network: nn.Module) -> Any:
    """A copy whose modules can be replaced; the tensors are the network's own."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


# ---- inputs.py, for a graph


def _filled(images: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """`fill_missing`."""
    finite = torch.isfinite(images)
    known = torch.where(finite, images, 0.0)
    mean = known.sum(dim, keepdim=True) / finite.to(images.dtype).sum(dim, keepdim=True).clamp(min=1.0)
    return torch.where(finite, images, mean)


def _pad(images: Tensor, multiple: int, least: int = 0) -> Tensor:
    """`pad_to_multiple`."""
    for dim in (-2, -1):
        size = torch.as_tensor(images.shape[dim])
        target: Any = ((size + (multiple - 1)) // multiple * multiple).clamp(min=least)
        period = (2 * (size - 1)).clamp(min=1)
        index = torch.arange(target) % period
        images = images.index_select(dim, torch.where(index < size, index, period - index))
    return images


# ---- pyramid pooling


def _pooled(x: Tensor, paths: Sequence[nn.Module], axes: int) -> Tensor:
    """Pyramid pooling over the last `axes` axes; paths from the largest window to the smallest.

    Averages and the way back are products with one matrix [L, L] per axis, in which rows beyond the last
    window are 0: so no size depends on a value.
    """
    positions = [torch.arange(x.shape[axis], dtype=x.dtype) for axis in range(-axes, 0)]
    most = torch.floor(torch.stack([axis[-1] + 1.0 for axis in positions]).amin(dim=0) / 2.0)
    spread = []
    for index, path in enumerate(paths):
        count = 1.0 + torch.floor(index * (most - 1.0) / 3.0)  # `pool_counts`
        means = path(_along_axes(x, [_averaging(axis, count) for axis in positions]))
        spread.append(_along_axes(means, [_spreading(axis, count) for axis in positions]))
    return F.relu(0.5 * (x + 0.25 * torch.stack(spread).sum(dim=0)))


def _windows(axis: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """How long the windows are, and how many fit; what is left over at the end belongs to none."""
    window = torch.floor((axis[-1] + 1.0) / count)
    return window, torch.floor((axis[-1] + 1.0) / window)


def _averaging(axis: Tensor, count: Tensor) -> Tensor:
    """[L, L]: row i takes the mean of window i."""
    window, fit = _windows(axis, count)
    belongs = torch.floor(axis / window)[None, :] == axis[:, None]
    return (belongs & (axis < fit)[:, None]).to(axis.dtype) / window


def _spreading(axis: Tensor, count: Tensor) -> Tensor:
    """[L, L]: linear interpolation from the windows back to the axis, corners not aligned."""
    _, fit = _windows(axis, count)
    source = (axis + 0.5) * fit / (axis[-1] + 1.0) - 0.5
    source = torch.minimum(source.clamp(min=0.0), fit - 1.0)
    return F.relu(1.0 - (source[:, None] - axis[None, :]).abs())


def _along_axes(x: Tensor, matrices: list[Tensor]) -> Tensor:
    """x [B, C, ...] with each of its last axes multiplied by a matrix."""
    x = matrices[-2] @ (x @ matrices[-1].T)
    return torch.einsum("ij,bcjhw->bcihw", matrices[0], x) if len(matrices) == 3 else x
