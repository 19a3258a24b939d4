"""Loading the authors' checkpoints: every name is accounted for, in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hybriddepth_ros.errors import WeightsError

LIGHTNING_PREFIX = "model."
_SHOWN = 4  # names per kind of mistake in one message


@dataclass(frozen=True)
class PublishedLayout:
    """The entries of a published checkpoint, by their names there, and where each goes.

    targets: the tensors that take an entry, joined along their first axis where there are several;
    unused: entries that every checkpoint carries and nothing evaluates, with their shapes.
    """

    targets: dict[str, tuple[Tensor, ...]]
    unused: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, module: nn.Module, unused: Mapping[str, tuple[int, ...]] | None = None) -> PublishedLayout:
        """The layout of a module whose parameters carry the published names."""
        return cls({name: (tensor,) for name, tensor in module.state_dict().items()}, dict(unused or {}))

    def under(self, prefix: str) -> PublishedLayout:
        """The same entries as a part of a larger checkpoint."""
        return PublishedLayout(
            {prefix + name: tensors for name, tensors in self.targets.items()},
            {prefix + name: shape for name, shape in self.unused.items()},
        )

    def __or__(self, other: PublishedLayout) -> PublishedLayout:
        return PublishedLayout(self.targets | other.targets, self.unused | other.unused)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every name of the checkpoint, used or not, with its shape."""
        return {name: _joined_shape(tensors) for name, tensors in self.targets.items()} | self.unused


def load_published(layout: PublishedLayout, state_dict: Mapping[str, Any], model: str) -> None:
    """Copy a published checkpoint into the layout's tensors, or raise WeightsError and change nothing.

    Takes a state dict, or the Lightning file's dictionary round it; names with or without `model.`.
    """
    entries = _without_prefix(_unwrapped(state_dict, model), LIGHTNING_PREFIX)
    shapes = layout.shapes
    mistakes = [
        _named("missing", (name for name in shapes if name not in entries)),
        _named("unexpected", (name for name in entries if name not in shapes)),
        _named("of another shape", _misshapen(entries, shapes)),
    ]
    # Only numbers that are as many as they should be: a few bytes can stand for any count.
    shaped = [n for n in layout.targets if n in entries and tuple(entries[n].shape) == shapes[n]]
    alike = [name for name in shaped if _is_alike(entries[name], layout.targets[name][0])]
    mistakes += [
        _named("of another kind", (f"{n} {entries[n].dtype}" for n in shaped if n not in alike)),
        _named("not finite", (name for name in alike if not _is_finite(entries[name]))),
    ]
    if any(mistakes):
        raise WeightsError(f"weights for {model}: " + "; ".join(filter(None, mistakes)))
    with torch.no_grad():
        for name, tensors in layout.targets.items():
            rows = [tensor.shape[0] for tensor in tensors] if len(tensors) > 1 else []
            pieces = entries[name].split(rows) if rows else (entries[name],)
            for tensor, piece in zip(tensors, pieces, strict=True):
                tensor.copy_(piece)


def published_tensors(layout: PublishedLayout) -> dict[str, Tensor]:
    """What `load_published` takes: the layout's tensors under their published names, zeros for the unused."""
    joined = {
        name: torch.cat(parts) if len(parts) > 1 else parts[0] for name, parts in layout.targets.items()
    }
    return joined | {name: torch.zeros(shape) for name, shape in layout.unused.items()}


def without_part_prefix(state_dict: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
    """The entries of one part by their names within it, where all carry its prefix."""
    return _without_prefix(_without_prefix(state_dict, LIGHTNING_PREFIX), prefix)


def _unwrapped(checkpoint: Mapping[str, Any], model: str) -> Mapping[str, Tensor]:
    entries = checkpoint.get("state_dict", checkpoint)
    if not isinstance(entries, Mapping) or not all(isinstance(v, Tensor) for v in entries.values()):
        raise WeightsError(f"weights for {model}: expected a state dict of names and tensors")
    return entries


def _without_prefix(entries: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
    if not all(name.startswith(prefix) for name in entries):
        return entries
    return {name.removeprefix(prefix): value for name, value in entries.items()}


def _misshapen(entries: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> Iterable[str]:
    for name, expected in shapes.items():
        if name in entries and tuple(entries[name].shape) != expected:
            yield f"{name} {list(entries[name].shape)}, expected {list(expected)}"


def _is_alike(tensor: Tensor, target: Tensor) -> bool:
    same_kind = tensor.is_floating_point() == target.is_floating_point()
    return same_kind and tensor.layout == torch.strided and not tensor.is_complex()


def _is_finite(tensor: Tensor) -> bool:
    """As float32, by its extremes, NaN where any number is: asking each number takes five times as long."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(bool(torch.isfinite(extreme.float())) for extreme in tensor.aminmax())


def _joined_shape(tensors: tuple[Tensor, ...]) -> tuple[int, ...]:
    if len(tensors) == 1:
        return tuple(tensors[0].shape)
    return (sum(tensor.shape[0] for tensor in tensors), *tensors[0].shape[1:])


def _named(what: str, names: Iterable[str]) -> str:
    """`3 missing: a, b, c`, cut short; empty where there is none."""
    found = list(names)
    if not found:
        return ""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{len(found)} {what}: {', '.join(found[:_SHOWN])}{more}"
