"""What sweepnet's own scale is worth as 1 sigma, measured on stacks that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.models.sweepnet import SweepNet
from hybriddepth_ros.models.sweepnet_weights import SigmaCalibration
from hybriddepth_ros.training.synthetic_stacks import Batch

Floats = npt.NDArray[np.floating]

WITHIN = 0.6827  # of a normal distribution within 1 sigma
KNOTS = 12
_ENOUGH_BEYOND = 5000  # pixels
_STRIDE = 3  # of the pixels that count: neighbours err alike


def fit_calibration(scale: Floats, error: Floats, knots: int = KNOTS) -> SigmaCalibration:
    """The half-width that holds 68.3 % of the errors, as a rising function of the scale.

    scale, error [P], both in steps of the sweep, error of either sign. Each knot stands for as many pixels:
    its scale is their median, its sigma the quantile of their |error|, pooled where that would fall.
    """
    if scale.shape != error.shape or scale.ndim != 1 or len(scale) < knots:
        raise ParameterError(
            f"calibration: expected at least {knots} errors, one per scale; got {len(error)}"
        )
    order = np.argsort(scale, kind="stable")
    groups = [group for group in np.array_split(order, knots) if len(group)]
    at = np.array([np.log(np.median(scale[group])) for group in groups])
    width = np.array([np.log(max(np.quantile(np.abs(error[g]), WITHIN), 1e-6)) for g in groups])
    width = _rising(width, np.array([len(group) for group in groups], np.float64))
    kept = np.r_[True, np.diff(at) > 1e-3]
    return SigmaCalibration(tuple(map(float, at[kept])), tuple(map(float, width[kept])))


@torch.inference_mode()
def calibrate(
    network: SweepNet, batches: Iterable[Batch]
) -> tuple[SigmaCalibration, SigmaCalibration | None]:
    """Of what the network finds within the sweep, and beyond its ends, if that is enough to tell.

    From a network in evaluation mode and held-out batches. Beyond the ends its errors have another shape: it
    knows less there than its scale says.
    """
    device = next(network.parameters()).device
    rows: list[Floats] = []  # scale, error, whether beyond: [3, P]
    for batch in batches:
        positions = batch.positions.to(device)
        found = network(batch.stack.to(device).float() / 255.0, positions)
        spacing = found.spacing[:, None, None]
        error = (found.position - batch.target.to(device)) / spacing
        beyond = (found.position < positions[:, :1, None]) | (found.position > positions[:, -1:, None])
        kept = torch.stack([found.scale / spacing, error, beyond.to(error)])[..., ::_STRIDE, ::_STRIDE]
        rows.append(kept.flatten(1).cpu().numpy())
    if not rows:
        raise ParameterError("calibration: expected at least one batch")
    scale, error, is_beyond = np.concatenate(rows, axis=1)
    past = is_beyond > 0
    beyond_fit = fit_calibration(scale[past], error[past]) if past.sum() >= _ENOUGH_BEYOND else None
    return fit_calibration(scale[~past], error[~past]), beyond_fit


def _rising(values: Floats, weights: Floats) -> Floats:
    """The rising sequence nearest to `values`: neighbours that fall are pooled (isotonic regression)."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, count
    for value, weight in zip(values, weights, strict=True):
        blocks.append((float(value), float(weight), 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, wa, na), (b, wb, nb) = blocks[-2:]
            blocks[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    return np.concatenate([np.full(count, mean) for mean, _, count in blocks])
