"""Depth from a focal stack: DFV, the deep differential focus volume (Yang, Huang, Zhou, CVPR 2022).

The four-level variant on differences of neighbouring slices. Attributes carry the names of the published
checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models.feature_pyramid import FeaturePyramid
from hybriddepth_ros.models.inputs import check_stack, fill_missing, pad_to_multiple
from hybriddepth_ros.models.published import PublishedLayout, load_published, without_part_prefix
from hybriddepth_ros.models.volume_decoder import VolumeDecoder

GRID = 32  # the coarsest features are this many times smaller than the image
LEAST_SIZE = 64  # pyramid pooling halves the coarsest features once more
SLICE_ORDERS = ("rising", "falling", "given")


@dataclass(frozen=True)
class FocusDepth:
    """What the focus alone says, in the unit of the focus distances.

    depth, std [B, 1, H, W]: mean and spread of probability [B, N, H, W] over the focus distances, the slices
    in the caller's order. The spread measures how undecided the network is; it is no error bar.
    """

    depth: Tensor
    std: Tensor
    probability: Tensor


class FocalVolume(nn.Module):
    """DFV for any number of slices from 2 up, at any focus distances and image size.

    slice_order: the order of the focus distances that the weights were trained with, into which slices are
    sorted (the volume is made of differences between neighbours): `rising`, as the published NYU and
    ARKitScenes weights have it (metres, near to far) and the phone data (diopters); `falling` for DDFF12
    (disparity, near to far); `given` leaves them, as the published code does.
    """

    def __init__(self, slice_order: str = "rising") -> None:
        super().__init__()
        if slice_order not in SLICE_ORDERS:
            raise ModelError(f"slice_order: expected {', '.join(SLICE_ORDERS)}, got {slice_order!r}")
        self.slice_order = slice_order
        self.feature_extraction = FeaturePyramid()
        self.decoder6 = VolumeDecoder(128, 128, pooling=True)
        self.decoder5 = VolumeDecoder(64 + 64, 64, pooling=True)
        self.decoder4 = VolumeDecoder(32 + 32, 32, pooling=False)
        self.decoder3 = VolumeDecoder(16 + 16, 32, pooling=False, last=True)

    def forward(self, stack: Tensor, focus_distances: Tensor) -> FocusDepth:
        """FocusDepth of stack [B, N, 3, H, W], ImageNet-normalised, at focus_distances [B, N].

        A pixel that is not finite in some slice is filled from the others, and its std is half the range of
        the focus distances: the most there can be.
        """
        check_stack(stack, focus_distances)
        height, width = stack.shape[-2:]
        filled = fill_missing(stack, dim=1)
        order = self._order(focus_distances)  # [B, N]
        ordered = torch.take_along_dim(filled, order[:, :, None, None, None], dim=1)
        focus = torch.take_along_dim(focus_distances, order, dim=1)

        cost = self.cost(padded(ordered))  # [B, N, H'/4, W'/4]
        depth, std, probability = regress(enlarged(cost, height, width), focus)

        if filled is not stack:
            incomplete = ~torch.isfinite(stack).all(dim=2).all(dim=1, keepdim=True)  # [B, 1, H, W]
            most = 0.5 * (focus.amax(dim=1) - focus.amin(dim=1))  # [B]
            std = torch.where(incomplete, most[:, None, None, None], std)
        back = order.argsort(dim=1)[:, :, None, None]
        return FocusDepth(depth, std, torch.take_along_dim(probability, back, dim=1))

    def cost(self, stack: Tensor) -> Tensor:
        """Focus score [B, N, H/4, W/4], large = in focus; of stack [B, N, 3, H, W], sides multiples of 32."""
        return self._cost(*self._features(stack.flatten(0, 1)), slices=stack.shape[1])

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """What `cost` makes of a slice by itself: [N, c, H/k, W/k], k = 4 to 32, of images [N, 3, H, W]."""
        return self._features(images)

    def cost_of(self, *features: Tensor) -> Tensor:
        """`cost` [1, N, H/4, W/4] of the features of the N slices of one stack, in order."""
        return self._cost(*features, slices=len(features[0]))

    def training_costs(self, stack: Tensor) -> list[Tensor]:
        """The scores of all four levels, finest first: [B, N, H/k, W/k] for k = 4, 8, 16, 32.

        DFV is trained on all of them: each resized to the image, then `regress`ed.
        """
        decoders = (self.decoder6, self.decoder5, self.decoder4, self.decoder3)
        slices = stack.shape[1]
        decoded = self._decoded(self._features(stack.flatten(0, 1)), slices)
        return [decoder.classified(x, slices) for decoder, x in zip(decoders, decoded, strict=True)][::-1]

    def _features(self, images: Tensor) -> tuple[Tensor, ...]:
        images = images.contiguous(memory_format=torch.channels_last)  # faster on CPU and GPU
        levels: tuple[Tensor, ...] = self.feature_extraction(images)
        return levels

    def _cost(self, *features: Tensor, slices: int) -> Tensor:
        return self.decoder3.classified(self._decoded(features, slices)[-1], slices)

    def _decoded(self, features: tuple[Tensor, ...], slices: int) -> list[Tensor]:
        """Each decoder's result [B * N, C, h, w], coarsest first."""
        v3, v4, v5, v6 = (slice_differences(level, slices) for level in features)
        x6 = self.decoder6(v6, slices)
        x5 = self.decoder5(torch.cat([self.decoder6.upsampled(x6, slices), v5], dim=1), slices)
        x4 = self.decoder4(torch.cat([self.decoder5.upsampled(x5, slices), v4], dim=1), slices)
        x3 = self.decoder3(torch.cat([self.decoder4.upsampled(x4, slices), v3], dim=1), slices)
        return [x6, x5, x4, x3]

    def _order(self, focus_distances: Tensor) -> Tensor:
        """Which slice comes when [B, N]."""
        if self.slice_order == "given":
            slices = torch.arange(focus_distances.shape[1], device=focus_distances.device)
            return slices.expand_as(focus_distances)
        return focus_distances.argsort(dim=1, descending=self.slice_order == "falling", stable=True)

    def published_layout(self) -> PublishedLayout:
        """The published names and what takes them; the trunk's ImageNet classifier is carried for nothing."""
        classifier = "feature_extraction.encoder.fc."
        unused = {f"{classifier}weight": (1000, 512), f"{classifier}bias": (1000,)}
        return PublishedLayout.of(self, unused)

    def load_published(self, state_dict: dict[str, Any]) -> None:
        """Take the weights of DFV by themselves (names with or without `DFF_model.`)."""
        load_published(self.published_layout(), without_part_prefix(state_dict, "DFF_model."), "DFV")


def padded(images: Tensor) -> Tensor:
    """Images [..., H, W] with sides that the network can halve as often as it does."""
    return pad_to_multiple(images, GRID, LEAST_SIZE)


def enlarged(cost: Tensor, height: int, width: int) -> Tensor:
    """Cost [B, N, H'/4, W'/4] of padded images at each pixel [B, N, H, W]."""
    return F.interpolate(cost, scale_factor=4, mode="bilinear", align_corners=False)[..., :height, :width]


def slice_differences(features: Tensor, slices: int) -> Tensor:
    """The differential volume: each slice's features [B * N, C, h, w] less the next's; the last as it is."""
    difference = features.unflatten(0, (-1, slices)).clone()
    difference[:, :-1] -= features.unflatten(0, (-1, slices))[:, 1:]
    return difference.flatten(0, 1)


def regress(cost: Tensor, focus_distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Depth and std [B, 1, H, W], probability [B, N, H, W], of cost [B, N, H, W]; std carries no gradient."""
    probability = cost.softmax(dim=1)
    focus = focus_distances[:, :, None, None]
    depth = (probability * focus).sum(dim=1, keepdim=True)
    with torch.no_grad():
        std = (probability * (depth - focus) ** 2).sum(dim=1, keepdim=True).sqrt()
    return depth, std, probability
