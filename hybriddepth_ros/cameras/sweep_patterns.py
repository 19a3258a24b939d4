"""In which order, sweep by sweep, the foci are visited. Every pass is one sweep and a whole stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence

SAWTOOTH = "sawtooth"
TRIANGLE = "triangle"
ADAPTIVE = "adaptive"  # needs estimates, and so is made where they come in
SWEEPS = (SAWTOOTH, TRIANGLE, ADAPTIVE)

# The foci of the next pass [1/m], from those of the full sweep; asked once per pass, in the sweep's thread.
Pattern = Callable[[tuple[float, ...]], Sequence[float]]


def sawtooth(foci: tuple[float, ...]) -> Sequence[float]:
    """Every pass the same way; between two the lens flies back."""
    return foci


class Triangle:
    """There and back: every second pass in reverse, so that the lens never flies back.

    Both passes about a turn expose the focus at which they meet, each for its own stack.
    """

    def __init__(self) -> None:
        self._back = False

    def __call__(self, foci: tuple[float, ...]) -> Sequence[float]:
        back, self._back = self._back, not self._back
        return foci[::-1] if back else foci
