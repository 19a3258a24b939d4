"""What moves the focus, and knows nothing of images: the interface of lens drivers, and their registry.

A lens counts in units of its own: motor steps, milliampere, or diopters where it is made for them. What they
mean as a focus distance of the camera that it is mounted on is a matter of calibration, not of the driver.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hybriddepth_ros.cameras.base import Clock
from hybriddepth_ros.cameras.registry import Registry


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

    def nearest(self, position: float) -> float:
        """The position that it takes when it is sent to this one: a motor of whole steps rounds."""
        return position

    @abstractmethod
    def state(self) -> LensState:
        """What it last told; asks the device only where that delays no command."""

    @property
    def settle_ms(self) -> float | None:
        """From command to standing still [ms], by its data sheet; None = unknown."""
        return None


LENSES = Registry[FocusLens]("lens", {"optotune": "hybriddepth_ros.cameras.optotune"})


def register_lens(name: str, config: type) -> Callable[[type[FocusLens]], type[FocusLens]]:
    """Class decorator: makes a lens known as `name`; it is built from one instance of `config`."""
    return LENSES.register(name, config)


def lens_names() -> tuple[str, ...]:
    """Every lens that `make_lens` knows."""
    return LENSES.names()


def lens_config_type(name: str) -> type:
    """The parameter dataclass of a lens; CameraError for an unknown name."""
    return LENSES.config_type(name)


def lens_prefix(name: str) -> str:
    """Before the names of a lens's parameters, where those of cameras stand beside them."""
    return f"{name}_lens"


def make_lens(name: str, config: Mapping[str, Any] | object) -> FocusLens:
    """An unopened lens from its name and its config: its dataclass, or a mapping to be checked."""
    return LENSES.make(name, config)
