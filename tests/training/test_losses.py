"""The losses against the published ones, and where those fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hybriddepth_ros.training.losses import half_size, multiscale_gradient_loss, silog_loss, sobel
from tests.published_weights import load_fixture

FIXTURES = ("loss_1", "loss_2")

LOSSES: dict[str, Callable[[Tensor, dict[str, Tensor]], Tensor]] = {
    "silog_masked": lambda pred, f: silog_loss(pred, f["target"], f["mask"]),
    "silog_nomask_clipped": lambda pred, f: silog_loss(pred, f["target_clipped"]),
    "msgrad": lambda pred, f: multiscale_gradient_loss(pred, f["target"]),
    "msgrad_clipped": lambda pred, f: multiscale_gradient_loss(pred, f["target_clipped"]),
    "total_masked": lambda pred, f: (
        silog_loss(pred, f["target"], f["mask"]) + 0.5 * multiscale_gradient_loss(pred, f["target"])
    ),
}


@pytest.mark.parametrize("fixture", FIXTURES)
@pytest.mark.parametrize("name", LOSSES)
def test_published_loss_and_gradient(fixture: str, name: str) -> None:
    stored = load_fixture(fixture)
    pred = stored["pred"].requires_grad_()
    loss = LOSSES[name](pred, stored)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss.detach(), stored[name], rtol=1e-5, atol=0.0)
    torch.testing.assert_close(pred.grad, stored[f"d_{name}"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("fixture", FIXTURES)
def test_published_pyramid_and_derivatives(fixture: str) -> None:
    stored = load_fixture(fixture)
    level = stored["pred"]
    for index in range(4):
        torch.testing.assert_close(level, stored[f"pyr_pred_{index}"], rtol=1e-6, atol=1e-6)
        level = half_size(level)
    torch.testing.assert_close(sobel(stored["target"]), stored["sobel_target_0"][:, 0], rtol=1e-6, atol=1e-6)


def test_silog_by_hand_forgives_most_of_a_wrong_scale() -> None:
    target = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert silog_loss(2.0 * target, target).item() == pytest.approx(10.0 * 0.15**0.5 * 0.6931, rel=1e-4)


def test_derivatives_point_right_and_down() -> None:
    ramp = torch.arange(5.0)[None, None, None, :] + 10.0 * torch.arange(5.0)[None, None, :, None]
    x, y = sobel(ramp)[0]
    assert x[2, 2].item() == pytest.approx(1.0) and y[2, 2].item() == pytest.approx(10.0)
    assert x[2, 0].item() == pytest.approx(0.5)  # replicated edge


def test_a_perfect_prediction_has_no_loss_and_finite_gradients() -> None:
    target = 1.0 + torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    pred = target.clone().requires_grad_()
    loss = silog_loss(pred, target) + multiscale_gradient_loss(pred, target)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert pred.grad is not None and bool(torch.isfinite(pred.grad).all())


@pytest.mark.parametrize("valid", [0, 1])
def test_too_few_valid_pixels_give_no_silog(valid: int) -> None:
    pred = torch.ones(1, 1, 4, 4, requires_grad=True)
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask.view(-1)[:valid] = True
    loss = silog_loss(pred, torch.full((1, 1, 4, 4), 2.0), mask)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0 and pred.grad is not None and pred.grad.abs().max().item() == 0.0


def test_a_target_without_gradient_gives_zero_or_the_published_nan() -> None:
    pred = torch.rand(1, 1, 16, 16, requires_grad=True)
    loss = multiscale_gradient_loss(pred, torch.zeros(1, 1, 16, 16))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0 and pred.grad is not None and pred.grad.abs().max().item() == 0.0
    published = multiscale_gradient_loss(pred, torch.zeros(1, 1, 16, 16), flat=float("nan"))
    assert bool(published.isnan())


def test_half_precision_is_computed_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    pred, target = (1.0 + torch.rand(1, 1, 32, 32, generator=generator).half() for _ in range(2))
    for loss in (silog_loss, multiscale_gradient_loss):
        result = loss(pred, target)
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, loss(pred.float(), target.float()))
