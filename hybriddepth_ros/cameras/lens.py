"""What moves the focus, and knows nothing of images: the interface of lens drivers, and their registry.

A lens counts in units of its own: motor steps, milliampere, or diopters where it is made for them. What they
mean as a focus distance of the camera that it is mounted on is a matter of calibration, not of the driver.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hybriddepth_ros.cameras.base import Clock
from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.parameters import from_mapping, nearest_name


@dataclass(frozen=True)
class LensState:
    """position: the actuator's, in its units; temperature_c: of the lens [deg C], None = it does not say."""

    position: float
    temperature_c: float | None = None


class FocusLens(ABC):
    """Opened once; commanded and asked by any thread, one call at a time; closed by any.

    Raises LensError with the device and what was expected; a lens that is gone or too hot is one too. After
    an error it is at rest if it still listens.
    """

    clock: Clock = Clock()

    @abstractmethod
    def open(self) -> None:
        """Take the device, read its limits."""

    @abstractmethod
    def close(self) -> None:
        """Send it to rest if it listens, and release it; safe to call twice, takes a second at most."""

    @abstractmethod
    def command(self, position: float) -> int:
        """Send it to a position (its own units); returns the time [ns] at which the device had the command.

        It has begun to move then, not arrived.
        """

    @property
    @abstractmethod
    def position_range(self) -> tuple[float, float]:
        """(lowest, highest) position, once opened."""

    @abstractmethod
    def state(self) -> LensState:
        """What it last told; asks the device only where that delays no command."""

    @property
    def settle_ms(self) -> float | None:
        """From command to standing still [ms], by its data sheet; None = unknown."""
        return None


_BACKEND_MODULES: dict[str, str] = {"optotune": "hybriddepth_ros.cameras.optotune"}
_registry: dict[str, tuple[type, Callable[[Any], FocusLens]]] = {}


def register_lens(name: str, config: type) -> Callable[[type[FocusLens]], type[FocusLens]]:
    """Class decorator: makes a lens known as `name`; it is built from one instance of `config`."""

    def register(backend: type[FocusLens]) -> type[FocusLens]:
        _registry[name] = (config, backend)
        return backend

    return register


def lens_names() -> tuple[str, ...]:
    """Every lens that `make_lens` knows."""
    return tuple(sorted(set(_BACKEND_MODULES) | set(_registry)))


def lens_config_type(name: str) -> type:
    """The parameter dataclass of a lens; CameraError for an unknown name."""
    return _find(name)[0]


def make_lens(name: str, config: Mapping[str, Any] | object) -> FocusLens:
    """An unopened lens from its name and its config: its dataclass, or a mapping to be checked."""
    config_type, backend = _find(name)
    if isinstance(config, Mapping):
        config = from_mapping(config_type, config, where=f"lens {name}")
    return backend(config)


def _find(name: str) -> tuple[type, Callable[[Any], FocusLens]]:
    if name not in _registry and name in _BACKEND_MODULES:
        importlib.import_module(_BACKEND_MODULES[name])
    if name not in _registry:
        known = lens_names()
        expected = f"expected one of {', '.join(known)}{nearest_name(name, known)}"
        raise CameraError(f"lens: unknown lens {name!r}, {expected}")
    return _registry[name]
