"""HybridDepth as a whole: equal to the published model, and right where that one is not."""

from __future__ import annotations

import pytest
import torch

from hybriddepth_ros.errors import ModelError
from hybriddepth_ros.models import HybridDepth
from hybriddepth_ros.models.focal_volume import FocusDepth
from tests.models.conftest import PublishedRun, made_stack, with_plain_prior

FOCUS = torch.tensor([[0.35, 0.5, 0.9, 1.33, 2.21]])

# What is stored, where we have it, and how far float32 arithmetic may differ: absolute, and relative to size.
STAGES = {
    "rel_raw": ("relative", 5e-5, 0.0),
    "dff_pred": ("focus_depth", 5e-5, 0.0),
    "dff_std": ("focus_std", 2e-5, 1e-4),
    "dff_prob": ("focus_probability", 2e-5, 1e-4),
    "inv_rel_used": ("relative_used", 2e-5, 0.0),
    "inv_scale": ("scale", 2e-4, 0.0),
    "inv_shift": ("shift", 2e-4, 0.0),
    "inv_scale_f64": ("scale", 1e-5, 0.0),
    "inv_shift_f64": ("shift", 1e-5, 0.0),
    "inv_global_depth": ("global_depth", 2e-4, 0.0),
    "inv_scale_map": ("scale_map", 2e-4, 1e-4),
    "inv_refined_scales": ("refined_scales", 2e-4, 1e-4),
    "inv_metric_depth": ("depth", 5e-4, 0.0),
}


@pytest.mark.parametrize("invert_depth", [True, False])
def test_every_stage_equals_the_published_one(published_run: PublishedRun, invert_depth: bool) -> None:
    compared = []
    for name, expected in published_run.stored.items():
        stage = name.removesuffix("_s2").replace(f"inv{int(invert_depth)}_", "inv_")
        if stage not in STAGES:
            continue
        attribute, absolute, relative = STAGES[stage]
        result = getattr(published_run.outputs[invert_depth], attribute).to(expected.dtype)
        result = result[..., ::2, ::2] if name.endswith("_s2") else result
        result = result.reshape(expected.shape)  # the published probability loses the batch axis where B is 1
        torch.testing.assert_close(
            result, expected, rtol=relative, atol=absolute, msg=lambda said, stage=name: f"{stage}: {said}"
        )
        compared.append(attribute)
    assert set(compared) >= {attribute for attribute, _, _ in STAGES.values()} - {"relative_used"}


@pytest.mark.parametrize("invert_depth", [True, False])
def test_depth_is_nearer_than_its_bound_almost_everywhere(
    published_run: PublishedRun, invert_depth: bool
) -> None:
    stored = published_run.stored[f"inv{int(invert_depth)}_metric_depth"]
    assert float((published_run.outputs[invert_depth].depth - stored).abs().median()) < 1e-4


def test_outputs_have_the_shapes_of_their_names(published_run: PublishedRun) -> None:
    out = published_run.outputs[True]
    batch, _, height, width = published_run.stored["rgb"].shape
    maps = (out.depth, out.relative, out.focus_depth, out.focus_std)
    maps += (out.global_depth, out.scale_map, out.refined_scales)
    assert all(m.shape == (batch, 1, height, width) and m.dtype == torch.float32 for m in maps)
    assert out.scale.shape == out.shift.shape == (batch, 1)
    assert out.focus_probability.shape == (batch, 5, height, width)


def made_parts(batch: int, height: int = 64, width: int = 96) -> tuple[torch.Tensor, FocusDepth]:
    """A relative depth and a depth from focus, as if the first two networks had run."""
    generator = torch.Generator().manual_seed(5)
    relative = 2.0 + torch.rand(batch, 1, height, width, generator=generator)
    probability = torch.rand(batch, 5, height, width, generator=generator).softmax(dim=1)
    depth = 4.0 / relative + 0.1 * torch.rand(batch, 1, height, width, generator=generator)
    return relative, FocusDepth(depth, 0.1 * torch.ones_like(depth), probability)


def sample(focus: FocusDepth, i: int) -> FocusDepth:
    return FocusDepth(focus.depth[i : i + 1], focus.std[i : i + 1], focus.probability[i : i + 1])


def test_a_batch_of_four_is_four_samples(hybriddepth: HybridDepth) -> None:
    relative, focus = made_parts(4)
    together = hybriddepth.fuse(relative, focus)
    for i in range(4):
        alone = hybriddepth.fuse(relative[i : i + 1], sample(focus, i))
        torch.testing.assert_close(together.depth[i : i + 1], alone.depth, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.scale[i : i + 1], alone.scale)


def test_the_batch_of_four_defect_can_be_had_back(
    hybriddepth: HybridDepth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hybriddepth, "batch_of_four_defect", True)
    relative, focus = made_parts(4)
    out = hybriddepth.fuse(relative, focus)
    for i in range(4):
        torch.testing.assert_close(out.focus_depth[i], focus.depth[3])
    expected = hybriddepth.fuse(relative[:1], sample(focus, 3))
    torch.testing.assert_close(out.scale[:1], expected.scale)
    three = hybriddepth.fuse(relative[:3], FocusDepth(focus.depth[:3], focus.std[:3], focus.probability[:3]))
    torch.testing.assert_close(three.focus_depth, focus.depth[:3])


@pytest.mark.parametrize(("height", "width"), [(75, 100), (20, 30)])
def test_any_image_size_and_any_order_of_slices(hybriddepth: HybridDepth, height: int, width: int) -> None:
    model = with_plain_prior(hybriddepth)
    stack = made_stack(1, 5, height, width)
    rgb = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(2))
    out = model(rgb, stack, FOCUS)
    order = torch.tensor([3, 0, 4, 2, 1])
    shuffled = model(rgb, stack[:, order], FOCUS[:, order])
    assert out.depth.shape == (1, 1, height, width)
    assert bool(torch.isfinite(out.depth).all()) and bool((out.depth >= 0.02).all())
    torch.testing.assert_close(shuffled.depth, out.depth, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(shuffled.focus_probability, out.focus_probability[:, order])


def test_missing_pixels_and_constant_images_give_finite_depth(hybriddepth: HybridDepth) -> None:
    rgb, stack = torch.full((2, 3, 64, 64), 0.5), torch.zeros(2, 5, 3, 64, 64)
    rgb[0, :, 20, 20] = float("nan")
    stack[0, 2, :, 30:34, 10] = float("nan")
    out = with_plain_prior(hybriddepth)(rgb, stack, FOCUS.expand(2, 5))
    for name in ("depth", "relative", "focus_std", "global_depth", "scale_map", "scale", "shift"):
        assert bool(torch.isfinite(getattr(out, name)).all()), name
    # Nothing to see: the focus is undecided, so its spread is a good part of the sweep's range.
    assert float(out.focus_std[1].median()) > 0.1 * float(FOCUS.max() - FOCUS.min())


@pytest.mark.parametrize("alignment", ["least_squares", "robust"])
@pytest.mark.parametrize("value", [0.0, -1.0, 3.0])
def test_relative_depth_without_structure_still_gives_finite_depth(
    hybriddepth: HybridDepth, monkeypatch: pytest.MonkeyPatch, alignment: str, value: float
) -> None:
    monkeypatch.setattr(hybriddepth, "alignment", alignment)
    relative, focus = made_parts(1)
    out = hybriddepth.fuse(torch.full_like(relative, value), focus)
    assert bool(torch.isfinite(out.depth).all())
    assert out.scale.item() == 0.0
    if alignment == "least_squares":  # as published: everything 0, and the ratio 1
        assert out.shift.item() == 0.0
        assert out.global_depth.abs().max().item() == 0.0 and bool((out.scale_map == 1.0).all())
    else:
        assert out.shift.item() == pytest.approx(float(focus.depth.mean()), abs=0.05)


def test_a_few_dead_pixels_of_the_prior_do_not_ruin_the_fit(
    hybriddepth: HybridDepth, monkeypatch: pytest.MonkeyPatch
) -> None:
    relative, focus = made_parts(1)
    clean = hybriddepth.fuse(relative, focus)
    relative[0, 0, 10, :20] = -1e-4
    assert hybriddepth.fuse(relative, focus).scale.item() == pytest.approx(clean.scale.item(), rel=0.3)
    monkeypatch.setattr(hybriddepth, "guard_relative", False)
    assert abs(hybriddepth.fuse(relative, focus).scale.item()) < 0.1 * clean.scale.item()


def test_sizes_that_do_not_fit_are_refused_before_any_work(hybriddepth: HybridDepth) -> None:
    with pytest.raises(
        ModelError, match=r"rgb: expected \[1, 3, 64, 64\] like the stack's, got \[1, 3, 64, 96\]"
    ):
        hybriddepth(torch.rand(1, 3, 64, 96), made_stack(1, 5, 64, 64), FOCUS)
    with pytest.raises(ModelError, match="2 or more slices, got 1"):
        hybriddepth(torch.rand(1, 3, 64, 64), made_stack(1, 1, 64, 64), FOCUS[:, :1])


def test_an_unknown_alignment_is_refused() -> None:
    with torch.device("meta"), pytest.raises(ModelError, match="alignment: expected least_squares or robust"):
        HybridDepth(alignment="median")


def test_only_the_refinement_learns_and_the_rest_stays_in_evaluation() -> None:
    with torch.device("meta"):
        model = HybridDepth().train()
    learning = {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {"scale_refinement"}
    assert model.scale_refinement.training
    assert not any(m.training for part in (model.relative_depth, model.focal_volume) for m in part.modules())
