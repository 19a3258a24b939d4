"""HybridDepth (Ganj, Su, Guo, WACV 2025): the focus gives the scale, a single-image prior the structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models.alignment import least_squares, robust
from hybriddepth_ros.models.focal_volume import FocalVolume, FocusDepth
from hybriddepth_ros.models.inputs import check_inputs, fill_missing
from hybriddepth_ros.models.published import PublishedLayout, load_published
from hybriddepth_ros.models.relative_depth import RelativeDepth
from hybriddepth_ros.models.scale_refinement import ScaleRefinement

LEAST_DEPTH = 0.02  # the far end of DDFF12's disparities; published weights apply it to metres too
LEAST_RELATIVE = 1e-3  # of the largest in the image
ALIGNMENTS = ("least_squares", "robust")


@dataclass(frozen=True)
class HybridDepthOutput:
    """Every stage's result; all [B, 1, H, W] unless said, lengths in the unit of the focus distances.

    depth: the answer; relative: the prior, inverse depth of unknown scale and shift, large = near;
    relative_used: what was aligned, `relative` or its inverse; focus_depth, focus_std, focus_probability
    [B, N, H, W]: from the focal stack; scale, shift [B, 1]: the alignment; global_depth: scale *
    relative_used + shift; scale_map: focus_depth / global_depth, or 1; refined_scales: depth / global_depth.
    """

    depth: Tensor
    relative: Tensor
    relative_used: Tensor
    focus_depth: Tensor
    focus_std: Tensor
    focus_probability: Tensor
    scale: Tensor
    shift: Tensor
    global_depth: Tensor
    scale_map: Tensor
    refined_scales: Tensor


class HybridDepth(nn.Module):
    """The published model, version 2.

    invert_depth: true where the focus distances are linear in depth (metres), false where they are linear in
    its inverse (disparity, diopters). slice_order: see FocalVolume. relative: a variant of RelativeDepth.
    alignment: `least_squares` as published, or `robust`. least_depth: lower bound of the result.

    Flags that bring back what the published code does and this one corrects: batch_of_four_defect (sample 3
    stands for all where B is 4), guard_relative=False (1 / relative as it comes), slice_order="given".

    As in the published training, prior and focal volume are frozen: in evaluation mode, without gradients.
    """

    def __init__(
        self,
        invert_depth: bool = False,
        *,
        slice_order: str = "rising",
        relative: str = "v1-small",
        alignment: str = "least_squares",
        least_depth: float = LEAST_DEPTH,
        guard_relative: bool = True,
        batch_of_four_defect: bool = False,
    ) -> None:
        super().__init__()
        if alignment not in ALIGNMENTS:
            raise ModelError(f"alignment: expected {' or '.join(ALIGNMENTS)}, got {alignment!r}")
        self.invert_depth = invert_depth
        self.alignment = alignment
        self.least_depth = least_depth
        self.guard_relative = guard_relative
        self.batch_of_four_defect = batch_of_four_defect
        self.relative_depth = RelativeDepth(relative).requires_grad_(False)
        self.focal_volume = FocalVolume(slice_order).requires_grad_(False)
        self.scale_refinement = ScaleRefinement()

    def forward(self, rgb: Tensor, stack: Tensor, focus_distances: Tensor) -> HybridDepthOutput:
        """Depth of rgb [B, 3, H, W] 0..1, stack [B, N, 3, H, W] ImageNet-normalised, focus_distances [B, N].

        H and W may be any size, N any number from 2 up; rgb is one slice of the stack, the published choice
        is the first.
        """
        check_inputs(rgb, stack, focus_distances)
        relative = self.relative_depth(fill_missing(rgb, dim=(2, 3)))
        focus = self.focal_volume(stack, focus_distances)
        return self.fuse(relative, focus)

    def fuse(self, relative: Tensor, focus: FocusDepth) -> HybridDepthOutput:
        """The second half: align relative [B, 1, H, W] to the depth from focus, and refine."""
        relative_used = invert(relative, self.guard_relative) if self.invert_depth else relative
        focus_depth = focus.depth
        if self.batch_of_four_defect and len(focus_depth) == 4:
            focus_depth = focus_depth[3:].expand_as(focus_depth)
        if self.alignment == "robust":
            align = robust(relative_used, focus_depth, focus.std)
        else:
            align = least_squares(relative_used, focus_depth)
        global_depth = align(relative_used)
        scale_map = ratio(focus_depth, global_depth)
        refined_scales = self.scale_refinement(global_depth, scale_map, focus.std)
        return HybridDepthOutput(
            depth=(global_depth * refined_scales).clamp(min=self.least_depth),
            relative=relative,
            relative_used=relative_used,
            focus_depth=focus_depth,
            focus_std=focus.std,
            focus_probability=focus.probability,
            scale=align.scale,
            shift=align.shift,
            global_depth=global_depth,
            scale_map=scale_map,
            refined_scales=refined_scales,
        )

    def train(self, mode: bool = True) -> HybridDepth:
        """As nn.Module's, but the frozen parts stay in evaluation mode."""
        super().train(mode)
        self.relative_depth.eval()
        self.focal_volume.eval()
        return self

    def published_layout(self) -> PublishedLayout:
        """The 1140 published names (with the `v1-small` prior) and what takes them."""
        return (
            self.relative_depth.published_layout().under("depth_anything.")
            | self.focal_volume.published_layout().under("DFF_model.")
            | self.scale_refinement.published_layout().under("ScaleMapLearner.")
        )

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Take a published checkpoint; WeightsError if any name is missing, unknown or of another shape."""
        load_published(self.published_layout(), state_dict, "HybridDepth")


def invert(relative: Tensor, guard: bool = True) -> Tensor:
    """1 / relative [B, 1, H, W], and 0 where that is infinite.

    guard: what is negative (bicubic overshoot) or next to nothing beside the image's largest counts like an
    exact 0; the published code makes depths of it that are negative, or so large that they rule the fit.
    """
    inverse = 1.0 / relative
    if not guard:
        return torch.where(inverse == torch.inf, 0.0, inverse)
    tiny = torch.finfo(relative.dtype).tiny
    least = (LEAST_RELATIVE * relative.amax(dim=(1, 2, 3), keepdim=True)).clamp(min=tiny)
    return torch.where(relative > least, inverse, 0.0)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 1 where that is not finite."""
    quotient = numerator / denominator
    return torch.where(torch.isfinite(quotient), quotient, 1.0)
