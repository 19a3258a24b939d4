"""sweepnet's weights file: tensors, and beside them what made them and what its sigma is worth."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hybriddepth_ros.errors import WeightsError, one_line
from hybriddepth_ros.models.checkpoint_files import read_checkpoint, read_safetensors, write_safetensors
from hybriddepth_ros.models.sweepnet import SweepNet

SHIPPED = Path(__file__).with_name("sweepnet.safetensors")
FORMAT = "hybriddepth_ros sweepnet 1"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SigmaCalibration:
    """1 sigma from the network's own scale, both in steps of the sweep: measured on held-out stacks.

    ln_scale, ln_sigma: knots, rising; linear between them, of slope 1 beyond. One knot is a temperature.
    """

    ln_scale: tuple[float, ...] = (0.0,)
    ln_sigma: tuple[float, ...] = (0.0,)

    def sigma(self, scale: Floats) -> Floats:
        """1 sigma [...] of scale [...], in steps of the sweep."""
        wanted = np.log(np.maximum(scale, np.float32(1e-6)))
        found = np.interp(wanted, self.ln_scale, self.ln_sigma)
        found = (
            found + np.minimum(wanted - self.ln_scale[0], 0.0) + np.maximum(wanted - self.ln_scale[-1], 0.0)
        )
        return np.exp(found, dtype=np.float32)


@dataclass(frozen=True)
class SweepNetWeights:
    """A network in evaluation mode, what its sigma is worth, and the card of its training.

    calibration: of what it finds within the sweep; beyond: of what it finds past the ends, None = the same.
    """

    network: SweepNet
    calibration: SigmaCalibration = field(default_factory=SigmaCalibration)
    card: dict[str, Any] = field(default_factory=dict)
    beyond: SigmaCalibration | None = None

    def sigma(self, scale: Floats, is_beyond: npt.NDArray[np.bool_]) -> Floats:
        """1 sigma [...] of scale [...], in steps of the sweep."""
        sigma = self.calibration.sigma(scale)
        if self.beyond is not None and is_beyond.any():
            sigma[is_beyond] = self.beyond.sigma(scale[is_beyond])
        return sigma


def load_sweepnet(path: str | Path = SHIPPED) -> SweepNetWeights:
    """Of a file written by `save_sweepnet`; WeightsError says what is wrong with another."""
    path = Path(path)
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: expected sweepnet's weights ({FORMAT}), got {metadata.get('format', 'no format')!r}"
        )
    try:
        network = SweepNet(**json.loads(metadata["network"]))
        calibration = _calibration(metadata["sigma"])
        beyond = _calibration(metadata["sigma_beyond"]) if "sigma_beyond" in metadata else None
        card = json.loads(metadata["card"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: expected the description of a sweepnet: {error!r}") from None
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"{path}: {one_line(error)}") from None
    return SweepNetWeights(network.eval().requires_grad_(False), calibration, card, beyond)


def save_sweepnet(path: str | Path, weights: SweepNetWeights) -> None:
    """In one file."""
    metadata = {
        "format": FORMAT,
        "network": json.dumps(weights.network.widths),
        "sigma": json.dumps(asdict(weights.calibration)),
        "card": json.dumps(weights.card),
    }
    if weights.beyond is not None:
        metadata["sigma_beyond"] = json.dumps(asdict(weights.beyond))
    write_safetensors(Path(path), weights.network.state_dict(), metadata)


def _calibration(text: str) -> SigmaCalibration:
    return SigmaCalibration(**{name: tuple(map(float, knots)) for name, knots in json.loads(text).items()})


def trained_network(checkpoint: str | Path) -> SweepNet:
    """The averaged network of a checkpoint that training left."""
    tensors = read_checkpoint(Path(checkpoint))
    network = SweepNet()
    own = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise WeightsError(f"{checkpoint}: {one_line(error)}") from None
    return network.eval().requires_grad_(False)


def on_device(network: SweepNet, device: str) -> SweepNet:
    """Channels last, where convolutions are fastest."""
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
