"""Functions that are smooth over the image and over the prior's value: the grid that a correction lives on.

A bilateral grid (Chen, Paris, Durand 2007): nodes in x, y and in the prior's value r, linear between them.
Two surfaces side by side have different r, so what is learned of one does not leak over the edge to the
other. An affine correction of r that varies smoothly over the image is the special case of two nodes along r.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

CELL = 16  # samples along the side of a cell: the images are reduced to a whole number of cells


@dataclass(frozen=True)
class GridShape:
    """Cells along y and x, and nodes along r; nodes are at the corners of cells."""

    rows: int
    columns: int
    levels: int

    @property
    def nodes(self) -> tuple[int, int, int]:
        return self.rows + 1, self.columns + 1, self.levels

    @property
    def count(self) -> int:
        rows, columns, levels = self.nodes
        return rows * columns * levels

    @property
    def samples(self) -> tuple[int, int]:
        """Height and width of the reduced image that the grid is fitted to."""
        return self.rows * CELL, self.columns * CELL

    @classmethod
    def for_image(cls, size: tuple[int, int], cells: int, levels: int) -> GridShape:
        """About so many cells, as square as the image's sides (H, W) allow."""
        height, width = size
        rows = min(max(round((cells * height / width) ** 0.5), 1), cells)
        return cls(rows, max(round(cells / rows), 1), levels)


@dataclass(frozen=True)
class Basis:
    """Weights of the nodes around every sample of a reduced image, cell by cell.

    weights [cells, CELL^2, 4 * levels]: of the nodes at a cell's four corners; nodes [cells, 4 * levels]:
    which ones they are.
    """

    shape: GridShape
    weights: Floats
    nodes: npt.NDArray[np.intp]

    @classmethod
    def of(cls, level: Floats, shape: GridShape) -> Basis:
        """level: where the samples' r lies among the nodes along r, 0 to levels - 1."""
        weights = _corner_weights()[None, :, :, None] * hats(by_cell(level, shape), shape.levels)[:, :, None]
        cells = shape.rows * shape.columns
        return cls(shape, weights.reshape(cells, CELL * CELL, -1), _nodes_of_cells(shape))

    def gather(self, values: Doubles) -> Floats:
        """A grid's values [nodes] at the samples [cells, CELL^2]."""
        around = values.astype(np.float32)[self.nodes]
        return np.asarray(np.matmul(self.weights, around[:, :, None])[:, :, 0])

    def scatter(self, samples: Floats) -> Doubles:
        """The transpose of `gather`: samples [cells, CELL^2] summed into the nodes around them [nodes]."""
        sums = np.matmul(samples[:, None, :], self.weights)[:, 0]
        return np.asarray(np.bincount(self.nodes.ravel(), sums.ravel(), self.shape.count), np.float64)

    def normal_matrix(self, weight: Floats) -> Doubles:
        """[nodes, nodes]: the sum over samples of weight [cells, CELL^2] times their outer product."""
        blocks = np.matmul((self.weights * weight[:, :, None]).transpose(0, 2, 1), self.weights)
        count = self.shape.count
        place = self.nodes[:, :, None] * count + self.nodes[:, None, :]
        sums = np.bincount(place.ravel(), blocks.ravel(), count * count)
        return np.asarray(sums.reshape(count, count), np.float64)


def hats(level: Floats, levels: int) -> Floats:
    """[..., levels]: how much each node along r counts for samples at `level`."""
    nodes = np.arange(levels, dtype=np.float32)
    return np.maximum(np.float32(1.0) - np.abs(level[..., None] - nodes), np.float32(0.0))


def by_cell(image: Floats, shape: GridShape) -> Floats:
    """A reduced image [rows CELL, columns CELL] as [cells, CELL^2]."""
    cells = image.reshape(shape.rows, CELL, shape.columns, CELL).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(cells).reshape(shape.rows * shape.columns, CELL * CELL)


def slice_grids(grids: Sequence[Doubles], level: Floats, shape: GridShape) -> list[Floats]:
    """The values [nodes] of several grids at every pixel of a full image; level [H, W] is that of its r."""
    height, width = level.shape
    down, across = _along_side(shape.rows, height), _along_side(shape.columns, width)
    planes = [grid.astype(np.float32).reshape(shape.nodes) for grid in grids]
    results = [np.zeros(level.shape, np.float32) for _ in grids]
    weight, product = np.empty_like(level), np.empty_like(level)
    for index in range(shape.levels):
        np.subtract(level, np.float32(index), out=weight)
        np.abs(weight, out=weight)
        np.subtract(np.float32(1.0), weight, out=weight)
        np.maximum(weight, np.float32(0.0), out=weight)
        for result, plane in zip(results, planes, strict=True):
            np.matmul(down, plane[:, :, index] @ across.T, out=product)
            np.multiply(product, weight, out=product)
            np.add(result, product, out=result)
    return results


@functools.lru_cache(maxsize=8)
def _along_side(cells: int, pixels: int) -> Floats:
    """[pixels, cells + 1]: what the nodes along one side of the image count at its pixels."""
    at = (np.arange(pixels, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / pixels)
    return hats(at, cells + 1)


def _corner_weights() -> Floats:
    """[CELL^2, 4]: bilinear weights of a cell's corners at its samples."""
    share = (np.arange(CELL, dtype=np.float32) + 0.5) / CELL
    along = np.stack((1.0 - share, share), axis=1)  # [CELL, 2]
    return np.asarray(np.einsum("ya,xb->yxab", along, along).reshape(CELL * CELL, 4), np.float32)


@functools.lru_cache(maxsize=8)
def _nodes_of_cells(shape: GridShape) -> npt.NDArray[np.intp]:
    index = np.arange(shape.count).reshape(shape.nodes)
    corners = (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:])
    return np.stack(corners, axis=2).reshape(shape.rows * shape.columns, -1)


@functools.lru_cache(maxsize=8)
def smoothness(shape: GridShape, reach: float) -> Doubles:
    """Precision [nodes, nodes] of a random correction: mean variance 1, correlated over `reach` nodes.

    A Matern field, as the inverse of a squared (1 / reach^2 - Laplacian) gives it (Lindgren et al. 2011).
    """
    rows, columns, levels = (np.eye(count) for count in shape.nodes)
    operator = (
        _kron(_differences(len(rows)), columns, levels)
        + _kron(rows, _differences(len(columns)), levels)
        + _kron(rows, columns, _differences(len(levels)))
    )
    operator[np.diag_indices_from(operator)] += 4.0 / reach**2
    precision = operator @ operator
    return np.asarray(precision * np.linalg.inv(precision).diagonal().mean())


def _differences(count: int) -> Doubles:
    """[n, n]: x' M x is the sum of the squared differences of neighbours."""
    step = np.diff(np.eye(count), axis=0)
    return np.asarray(step.T @ step)


def _kron(a: Doubles, b: Doubles, c: Doubles) -> Doubles:
    return np.kron(np.kron(a, b), c)
