"""sweepnet: where each pixel is in focus, from any number of slices at any focus distances.

Everything is measured in pixels of blur: a surface at the inverse depth D [1/m], seen through a lens whose
blur grows by k pixels per diopter, lies at k D, and so do the slices. In this unit one network serves every
lens. Slices share their weights and talk to one another at every resolution.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybriddepth_ros.models.sweepnet_features import (
    GEOMETRY,
    MEASURES,
    FocusMeasures,
    local_spacing,
    mean_spacing,
    slice_geometry,
)

MULTIPLE = 32  # of H and W
_LOGIT_WEIGHTS = (0.3, 0.7, 1.0, 0.3, 0.5, 0.5, 0.2, 0.3, 0.3)  # of the focus measures, to begin with
_CONTRAST = 8.0  # what tells a slice from the mean slice is small


@dataclass(frozen=True)
class SweepDistribution:
    """Where each pixel is in focus, in px of blur; float32.

    position, scale [B, H, W]: median and scale of a Laplace distribution (mean absolute deviation); coarse
    [B, h, w] and log_probability [B, N, h, w]: the estimate on a grid of 4 pixels before it is refined, and
    the slices' shares in it; spacing [B]: mean step of the sweep, the natural unit of an error.
    """

    position: Tensor
    scale: Tensor
    coarse: Tensor
    log_probability: Tensor
    spacing: Tensor


class SweepNet(nn.Module):
    """The network. Widths: channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image; of what is known of a pixel
    when the slices are joined, at 1/4 to 1/32; and at the edges of the image.
    """

    def __init__(
        self,
        channels: tuple[int, int, int, int, int] = (16, 20, 32, 56, 96),
        joined_channels: tuple[int, int, int, int] = (32, 48, 64, 96),
        edge_channels: int = 16,
    ) -> None:
        super().__init__()
        self.widths = {
            "channels": list(channels),
            "joined_channels": list(joined_channels),
            "edge_channels": edge_channels,
        }
        head_channels = joined_channels[0]
        half, *levels = channels
        self.measures = FocusMeasures()
        self.measure_logits = nn.Parameter(torch.tensor(_LOGIT_WEIGHTS))
        self.geometry = nn.Sequential(nn.Linear(GEOMETRY, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU())
        self.stem = Stem(half)
        self.enter = _conv(half, levels[0], stride=2)
        self.join_measures = Joining((levels[0], MEASURES, MEASURES), levels[0])
        self.down = nn.ModuleList(_conv(a, b, stride=2) for a, b in itertools.pairwise(levels))
        self.mix_down = nn.ModuleList(FocusMix(width) for width in levels)
        self.blocks_down = nn.ModuleList(Residual(width) for width in levels)
        self.deepest = Residual(levels[-1])
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(levels))
        self.mix_up = nn.ModuleList(FocusMix(width) for width in levels[:-1])
        self.blocks_up = nn.ModuleList(Residual(width, convolutions=1) for width in levels[:-1])
        self.slice_head = nn.Conv2d(levels[0], 2, 1)
        self.join = Joining((4 * half, levels[0], levels[0], 2), head_channels)
        self.surroundings = Surroundings(joined_channels)
        self.head_residual = _zero(nn.Conv2d(head_channels, 1, 1))
        self.head_scale = nn.Conv2d(head_channels, 1, 1)
        self.to_half = ConvexUpsampling(head_channels, 2)
        self.edge_input = Joining((half, head_channels, 2), edge_channels)
        self.edges = nn.Sequential(Residual(edge_channels), Residual(edge_channels))
        self.edge_residual = _zero(nn.Conv2d(edge_channels, 2, 1))
        self.to_full = ConvexUpsampling(edge_channels, 2)

    def forward(
        self, stack: Tensor, positions: Tensor, kept: list[Tensor] | None = None
    ) -> SweepDistribution:
        """SweepDistribution of stack [B, N, 3, H, W] 0..1, positions [B, N] px of blur, strictly rising.

        H and W are multiples of 32, N is 2 or more. kept: is given what the slices tell one another, each
        [B N, c, h, w]: focus measures, fine features, what they mix at every level, the volume.
        """
        batch = len(stack)
        measures, level = self.measures(stack.float())
        geometry = self.geometry(slice_geometry(positions))
        fine = self.stem(stack)  # [B N, c, H/2, W/2]

        def mixed(mix: nn.Module, x: Tensor) -> Tensor:
            if kept is not None:
                kept.append(x)
            return mix(x, geometry, batch)

        if kept is not None:
            kept += [(measures + level).flatten(0, 1), fine]
        x = self.through_levels(self.known(fine, measures, 0.5 * level + 2.0), mixed)  # [B N, c, H/4, W/4]
        if kept is not None:
            kept.append(x)
        return self.distribution(fine.unflatten(0, (batch, -1)).unbind(1), x, measures, positions)

    def distribution(
        self, fine: Sequence[Tensor], x: Tensor, measures: Tensor, positions: Tensor
    ) -> SweepDistribution:
        """Of N fine maps [B, c, H/2, W/2], the volume x [B N, c, H/4, W/4], measures [B, N, 9, H/4, W/4]."""
        batch, slices = positions.shape
        score, offset = self.slice_head(x).float().unflatten(0, (batch, slices)).unbind(2)
        score = score + (measures * self.measure_logits[:, None, None]).sum(dim=2)
        log_probability = score.log_softmax(dim=1)
        share = log_probability.exp()
        spacing = mean_spacing(positions)[:, None, None, None]
        middle = positions.mean(dim=1)[:, None, None, None]
        at = (positions[:, :, None, None] - middle) + offset * local_spacing(positions)[:, :, None, None]
        mean = (share * at).sum(dim=1, keepdim=True)  # [B, 1, H/4, W/4], from the sweep's middle
        spread = (share * (at - mean) ** 2).sum(dim=1, keepdim=True).clamp(min=1e-4).sqrt()

        volume = x.unflatten(0, (batch, slices))
        weight = share[:, :, None].to(x.dtype)
        fine_weight = F.interpolate(weight[:, :, 0], scale_factor=2.0)[:, :, None]
        in_focus = _sum_over_slices(fine, fine_weight)  # [B, c, H/2, W/2]
        about = torch.cat([mean / spacing, spread / spacing], dim=1)
        features = self._surroundings(
            in_focus, _sum_over_slices(volume.unbind(1), weight), largest_slice(volume, dim=1), about
        )
        estimate = torch.cat(
            [mean / spacing + self.head_residual(features).float(), self.head_scale(features).float()], dim=1
        )  # [B, 2, H/4, W/4]: position and log scale, in steps of the sweep

        estimate = self.to_half(estimate, features)  # [B, 2, H/2, W/2]
        edges = self._edges(in_focus, features, estimate)
        estimate = self.to_full(estimate + self.edge_residual(edges).float(), edges)
        position, log_scale = estimate.unbind(dim=1)
        return SweepDistribution(
            position * spacing[:, 0] + middle[:, 0],
            log_scale.clamp(-6.0, 4.0).exp() * spacing[:, 0],
            (mean + middle)[:, 0],
            log_probability,
            spacing[:, 0, 0, 0],
        )

    def known(self, fine: Tensor, measures: Tensor, level: Tensor) -> Tensor:
        """[B N, c, H/4, W/4] of what is learnt and what is measured of each slice, and of the mean slice."""
        learnt, own, shared = self.join_measures.columns()
        total = F.conv2d(self.enter(fine), learnt)
        total.add_(F.conv2d(_channels_last(measures.flatten(0, 1)), own))
        total = _add_to_slices(total, F.conv2d(_channels_last(level[:, 0]), shared))
        return self.join_measures(total)

    def _surroundings(self, in_focus: Tensor, mean: Tensor, largest: Tensor, about: Tensor) -> Tensor:
        """[B, c, H/4, W/4] of the image in focus, the slices' mean and largest features, the estimate."""
        image, *columns = self.join.columns()
        blocks = image.view(len(image), -1, 2, 2)  # on F.pixel_unshuffle(in_focus, 2) they would be 1x1
        total = F.conv2d(in_focus, blocks, stride=2)
        for part, weight in zip((mean, largest, _channels_last(about)), columns, strict=True):
            total.add_(F.conv2d(part, weight))
        return self.surroundings(self.join(total))

    def _edges(self, in_focus: Tensor, features: Tensor, estimate: Tensor) -> Tensor:
        """[B, c, H/2, W/2] of the image in focus, the coarser features, the estimate."""
        image, coarse, place = self.edge_input.columns()
        total = F.conv2d(in_focus, image)
        total.add_(F.conv2d(_channels_last(estimate), place))
        total.add_(F.interpolate(F.conv2d(features, coarse), scale_factor=2.0))
        return self.edges(self.edge_input(total))

    def through_levels(self, x: Tensor, mixed: Callable[[Any, Tensor], Tensor]) -> Tensor:
        """The slices' features [N, c, h, w], each knowing its neighbours and its surroundings.

        mixed(mix, x): how slices are mixed by a FocusMix or what stands in its place.
        """
        skipped = []
        for index, (mix, block) in enumerate(zip(self.mix_down, self.blocks_down, strict=True)):
            if index:
                skipped.append(x)
                x = self.down[index - 1](x)
            x = block(mixed(mix, x))
        x = self.deepest(x)
        for index in reversed(range(len(self.up))):
            finer = skipped[index]
            x = F.interpolate(self.up[index](x), size=finer.shape[-2:], mode="bilinear") + finer
            x = self.blocks_up[index](mixed(self.mix_up[index], x))
        return x


class Stem(nn.Sequential):
    """Convolution, normalisation and activation of 2 s - 1 and 8 (s - mean over the slices), side by side.

    Convolutions are linear: what depends on the mean alone is done once, not for every slice.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__(*_conv(6, outputs, size=4, stride=2, padding=1))

    def forward(self, stack: Tensor) -> Tensor:
        """[B N, c, H/2, W/2] of stack [B, N, 3, H, W] 0..1."""
        return self.beside(stack.flatten(0, 1), stack.mean(dim=1))

    def beside(self, images: Tensor, mean: Tensor) -> Tensor:
        """[B n, c, H/2, W/2] of n slices each, images [B n, 3, H, W], and the mean of all [B, 3, H, W]."""
        convolution, norm, activation = self
        assert isinstance(convolution, nn.Conv2d)
        image, contrast = convolution.weight.split([3, 3], dim=1)
        contrast = _CONTRAST * contrast
        own = F.conv2d(_channels_last(images), 2.0 * image + contrast, None, 2, 1)
        # The 1 that is taken from images ends at their rim.
        common = torch.cat([mean, torch.ones_like(mean[:, :1])], dim=1)
        weight = torch.cat([-contrast, -image.sum(dim=1, keepdim=True)], dim=1)
        shared = F.conv2d(_channels_last(common), weight, convolution.bias, 2, 1)
        return activation(norm(_add_to_slices(own, shared)))


class Joining(nn.Sequential):
    """Convolution of 1x1, normalisation and activation of several maps that lie side by side.

    In memory they never do: each is convolved with its own `columns` of the weights, where it is smallest,
    and the module is called with the sum.
    """

    def __init__(self, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__(*_conv(sum(widths), outputs, size=1))
        self._widths = widths

    def columns(self) -> tuple[Tensor, ...]:
        """[c, width, 1, 1] of each map."""
        return self._convolution.weight.split(self._widths, dim=1)

    def forward(self, total: Tensor) -> Tensor:
        """[B, c, h, w] of the sum [B, c, h, w], which is overwritten."""
        _, norm, activation = self
        bias = self._convolution.bias
        return activation(norm(total if bias is None else total.add_(bias[:, None, None])))

    @property
    def _convolution(self) -> nn.Conv2d:
        convolution = self[0]
        assert isinstance(convolution, nn.Conv2d)
        return convolution


class FocusMix(nn.Module):
    """Mixing along the focus axis: a slice, its neighbours, the mean and the largest of all.

    How much of the mix a slice takes is set by where it lies in the sweep.
    """

    def __init__(self, channels: int, geometry_channels: int = 32) -> None:
        super().__init__()
        self.modulation = _zero(nn.Linear(geometry_channels, 2 * channels))
        self.local = nn.Conv2d(3 * channels, channels, 1, bias=False)
        self.whole = nn.Conv2d(2 * channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, geometry: Tensor, batch: int) -> Tensor:
        """[B N, c, h, w] of x [B N, c, h, w] and geometry [B, N, 32]."""
        channels = x.shape[1]
        last = x.permute(0, 2, 3, 1)  # channels last: a 1x1 convolution is a matrix product
        volume = last.unflatten(0, (batch, -1))  # [B, N, h, w, c]
        weight = self.local.weight[:, :, 0, 0]
        own, before, after = (F.linear(volume, part) for part in weight.split(channels, dim=1))
        # A slice at an end is its own neighbour.
        mixed = own + torch.cat([before[:, :1], before[:, :-1]], dim=1)
        mixed = mixed + torch.cat([after[:, 1:], after[:, -1:]], dim=1)
        whole = torch.cat([volume.mean(dim=1), largest_slice(volume, dim=1)], dim=-1)
        mixed = mixed + F.linear(whole, self.whole.weight[:, :, 0, 0])[:, None]
        gain, bias = self.modulation(geometry).flatten(0, 1)[:, :, None, None].chunk(2, dim=1)
        normed = self.norm(mixed.flatten(0, 1).permute(0, 3, 1, 2))
        return F.relu(x + normed * (1.0 + gain) + bias)


class Residual(nn.Module):
    """Convolutions of 3x3 beside the identity, which is what it is before training."""

    def __init__(self, channels: int, convolutions: int = 2) -> None:
        super().__init__()
        last = nn.BatchNorm2d(channels)
        if convolutions > 1:
            nn.init.zeros_(last.weight)
        self.body = nn.Sequential(
            *(_conv(channels, channels) for _ in range(convolutions - 1)),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, h, w] of x [B, c, h, w]."""
        return F.relu_(self.body(x).add_(x))


class Surroundings(nn.Module):
    """What is seen around a pixel, down to 1/8 of the input's resolution and beyond: all of the image.

    The slices are one map by now, so that this costs little: here blank surfaces learn what bounds them.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.enter = Residual(channels[0])
        self.down = nn.ModuleList(_conv(a, b, stride=2) for a, b in itertools.pairwise(channels))
        self.blocks_down = nn.ModuleList(Residual(width) for width in channels[1:])
        self.everywhere = nn.Linear(channels[-1], channels[-1])
        self.deepest = Residual(channels[-1])
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(channels))
        self.blocks_up = nn.ModuleList(Residual(width) for width in channels[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, h, w] of x [B, c, h, w]."""
        x = self.enter(x)
        skipped = []
        for down, block in zip(self.down, self.blocks_down, strict=True):
            skipped.append(x)
            x = block(down(x))
        x = self.deepest(x + self.everywhere(x.mean(dim=(2, 3)))[:, :, None, None])
        for up, block, finer in zip(
            reversed(self.up), reversed(self.blocks_up), reversed(skipped), strict=True
        ):
            x = block(F.interpolate(up(x), size=finer.shape[-2:], mode="bilinear") + finer)
        return x


class ConvexUpsampling(nn.Module):
    """Finer pixels as weighted means of the 3x3 coarse ones around (Teed and Deng 2020, RAFT)."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.mask = nn.Conv2d(channels, 9 * factor**2, 1)

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        """[B, c, f h, f w] of image [B, c, h, w], weighed by what features [B, C, h, w] say."""
        batch, channels, height, width = image.shape
        # A convolution of 1x1, as the product that gives whole planes from pixels that lie channels last.
        pixels = features.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2)
        assert self.mask.bias is not None
        mask = torch.matmul(self.mask.weight[:, :, 0, 0], pixels).float() + self.mask.bias[:, None]
        mask = mask.view(batch, 1, 9, self.factor**2, height, width)
        shares = (mask - mask.amax(dim=2, keepdim=True)).exp_()
        padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
        total = image.new_zeros(batch, channels, self.factor**2, height, width)
        for place, share in enumerate(shares.unbind(dim=2)):
            row, column = divmod(place, 3)
            total = total.addcmul(share, padded[:, :, None, row : row + height, column : column + width])
        return F.pixel_shuffle((total / shares.sum(dim=2)).flatten(1, 2), self.factor)


def _conv(
    inputs: int, outputs: int, size: int = 3, stride: int = 1, padding: int | None = None
) -> nn.Sequential:
    padding = size // 2 if padding is None else padding
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _add_to_slices(slices: Tensor, shared: Tensor) -> Tensor:
    """slices [B N, c, h, w], overwritten by their sums with what their sample shares [B, c, h, w]."""
    if len(shared) == 1:
        return slices.add_(shared)
    slices.unflatten(0, (len(shared), -1)).add_(shared[:, None])
    return slices


def _sum_over_slices(volume: Sequence[Tensor], weight: Tensor) -> Tensor:
    """[B, c, h, w] of N maps [B, c, h, w] and weight [B, N, 1, h, w], without the product in memory."""
    total = volume[0] * weight[:, 0]
    for index in range(1, len(volume)):
        total = torch.addcmul(total, volume[index], weight[:, index])
    return total


def largest_slice(volume: Tensor, dim: int = 0) -> Tensor:
    """The largest along an axis of a few: pairs are compared several times as fast as amax compares."""
    return functools.reduce(torch.maximum, volume.unbind(dim))


def _zero(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """A layer that gives 0 until it is trained."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
