"""sweepnet's loss is least for the right answer, said with the right width."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from hybriddepth_ros.models.sweepnet import SweepDistribution
from hybriddepth_ros.training.sweepnet_loss import LossWeights, sweepnet_loss

POSITIONS = torch.tensor([[2.0, 4.0, 8.0]])
SIZE = (1, 16, 16)
VALID = torch.ones(SIZE, dtype=torch.bool)


def target_of(seed: int = 0) -> Tensor:
    return 3.0 + 4.0 * torch.rand(SIZE, generator=torch.Generator().manual_seed(seed))


def answer(position: Tensor, scale: float = 1.0) -> SweepDistribution:
    """That its coarse estimate is right and its slices are evenly shared does not matter here."""
    coarse = torch.nn.functional.avg_pool2d(position[:, None], 4)[:, 0]
    shares = torch.full((1, 3, 4, 4), 1 / 3).log()
    return SweepDistribution(position, torch.full(SIZE, scale), coarse, shares, torch.tensor([3.0]))


def terms(found: SweepDistribution, target: Tensor, valid: Tensor = VALID) -> dict[str, Tensor]:
    return sweepnet_loss(found, target, valid, POSITIONS, LossWeights())[1]


def test_the_right_answer_has_no_error() -> None:
    found = terms(answer(target_of()), target_of())
    for name in ("error", "coarse_error", "gradient"):
        assert float(found[name]) < 1e-6, name


def test_errors_count_in_steps_of_the_sweep() -> None:
    found = terms(answer(target_of() + 6.0), target_of())
    assert float(found["error"]) == pytest.approx(2.0, rel=1e-5)
    assert float(found["coarse_error"]) == pytest.approx(2.0, rel=1e-5)
    assert float(found["gradient"]) < 1e-5  # the same everywhere


def test_likelihood_is_best_where_the_scale_is_the_mean_error() -> None:
    target = target_of()
    wrong = target + 1.5
    by_scale = {s: float(terms(answer(wrong, s), target)["likelihood"]) for s in (0.75, 1.2, 1.5, 1.9, 3.0)}
    assert min(by_scale, key=by_scale.__getitem__) == 1.5


def test_slices_are_shared_by_nearness() -> None:
    target = torch.full(SIZE, 5.0)  # a quarter of the way from 4 to 8
    best = torch.tensor([1e-6, 0.75, 0.25]).log()[None, :, None, None].expand(1, 3, 4, 4)
    found = answer(target)
    right = terms(replace(found, log_probability=best), target)["slices"]
    for other in ([0.25, 0.75, 1e-6], [1e-6, 0.6, 0.4], [1e-6, 0.9, 0.1]):
        shares = torch.tensor(other).log()[None, :, None, None].expand(1, 3, 4, 4)
        assert float(terms(replace(found, log_probability=shares), target)["slices"]) > float(right)


@pytest.mark.parametrize(("beyond", "nearest"), [(0.0, 0), (20.0, 2)])
def test_beyond_the_sweep_its_end_is_the_right_slice(beyond: float, nearest: int) -> None:
    shares = torch.full((1, 3, 4, 4), 1e-6)
    shares[:, nearest] = 1.0
    found = replace(answer(torch.full(SIZE, beyond)), log_probability=shares.log())
    assert float(terms(found, torch.full(SIZE, beyond))["slices"]) < 1e-5


def test_where_there_is_no_target_nothing_counts() -> None:
    target, valid = target_of(), VALID.clone()
    valid[:, :8] = False
    spoilt = torch.where(valid, target, torch.nan)
    kept, same = terms(answer(target + 1.0), target, valid), terms(answer(target + 1.0), spoilt, valid)
    for name, term in kept.items():
        torch.testing.assert_close(term, same[name], msg=name)
    assert float(kept["error"]) == pytest.approx(1.0 / 3.0, rel=1e-5)


def test_nothing_valid_is_nothing_lost_and_the_gradient_is_finite() -> None:
    position = target_of().requires_grad_()
    spoilt = torch.full(SIZE, torch.nan)
    total, _ = sweepnet_loss(answer(position), spoilt, ~VALID, POSITIONS, LossWeights())
    total.backward()
    assert float(total.detach()) == 0.0 and float(position.grad.abs().max()) == 0.0


def test_every_weight_weighs_its_term() -> None:
    found, target = answer(target_of(1) + 0.5), target_of()
    nothing = LossWeights(**{field.name: 0.0 for field in fields(LossWeights)})
    for name, term in terms(found, target).items():
        total, _ = sweepnet_loss(found, target, VALID, POSITIONS, replace(nothing, **{name: 2.0}))
        torch.testing.assert_close(total, 2.0 * term, msg=name)
