"""The grid that a prior's correction lives on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.models.bilateral_grid import CELL, Basis, GridShape, by_cell, slice_grids, smoothness

SHAPE = GridShape(2, 3, 4)


def basis_of(seed: int) -> tuple[Basis, np.ndarray]:
    rng = np.random.default_rng(seed)
    level = rng.uniform(0, SHAPE.levels - 1, SHAPE.samples).astype(np.float32)
    return Basis.of(level, SHAPE), level


@given(seed=st.integers(0, 1000))
def test_scatter_is_the_transpose_of_gather(seed: int) -> None:
    basis, _ = basis_of(seed)
    rng = np.random.default_rng(seed)
    values, samples = rng.normal(size=SHAPE.count), rng.normal(size=(6, CELL * CELL)).astype(np.float32)
    assert float((basis.gather(values) * samples).sum()) == pytest.approx(
        float(basis.scatter(samples) @ values), abs=2e-3
    )


@given(seed=st.integers(0, 1000))
def test_the_normal_matrix_is_that_of_the_weighted_sum_of_squares(seed: int) -> None:
    basis, _ = basis_of(seed)
    rng = np.random.default_rng(seed)
    values, weight = rng.normal(size=SHAPE.count), rng.random((6, CELL * CELL)).astype(np.float32)
    expected = float((weight * basis.gather(values) ** 2).sum())
    assert float(values @ basis.normal_matrix(weight) @ values) == pytest.approx(expected, rel=1e-4)


@given(slopes=st.tuples(*[st.floats(-2, 2)] * 4), seed=st.integers(0, 100))
def test_what_is_linear_in_place_and_level_is_met_exactly(slopes: tuple[float, ...], seed: int) -> None:
    """Bilinear in x and y times linear in r: the smooth field of scales and shifts is one of these."""
    basis, level = basis_of(seed)
    down, across, along, both = slopes
    rows, columns, levels = np.meshgrid(*(np.arange(n) for n in SHAPE.nodes), indexing="ij")

    def function(y: np.ndarray, x: np.ndarray, r: np.ndarray) -> np.ndarray:
        return down * y + across * x + along * r + both * x * y * r

    y, x = (np.arange(n) + 0.5 for n in SHAPE.samples)
    expected = function(y[:, None] / CELL, x[None, :] / CELL, level)
    values = function(rows, columns, levels).ravel().astype(np.float64)
    np.testing.assert_allclose(basis.gather(values), by_cell(expected, SHAPE), atol=1e-4)
    (sliced,) = slice_grids([values], level, SHAPE)
    np.testing.assert_allclose(sliced, expected, atol=1e-4)


def test_two_values_side_by_side_do_not_share_a_correction() -> None:
    values = np.zeros(SHAPE.nodes)
    values[:, :, 0] = 1.0
    level = np.zeros((40, 60), np.float32)
    level[:, 30:] = SHAPE.levels - 1
    (sliced,) = slice_grids([values.ravel()], level, SHAPE)
    assert (sliced[:, :30] == 1.0).all() and (sliced[:, 30:] == 0.0).all()


def test_the_field_has_variance_one_and_forgets_over_its_reach() -> None:
    covariance = np.linalg.inv(smoothness(GridShape(9, 1, 2), 4.0))
    assert covariance.diagonal().mean() == pytest.approx(1.0)
    column = covariance.reshape(10, 2, 2, 10, 2, 2)[:, 0, 0, :, 0, 0]
    assert column[4, 5] > 0.6 > 0.2 > column[0, 9]


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (20, 900), (7, 5)])
def test_cells_are_about_as_many_as_asked_for_and_square(size: tuple[int, int]) -> None:
    shape = GridShape.for_image(size, 48, 4)
    assert 24 <= shape.rows * shape.columns <= 72
    if min(size) > 100:
        assert size[0] / shape.rows == pytest.approx(size[1] / shape.columns, rel=0.2)
