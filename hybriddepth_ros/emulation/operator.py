"""The person who moves the board, for a bench that is not there: does what is asked, a little inexactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hybriddepth_ros.calibration.rig import Placement
from hybriddepth_ros.emulation.bench import BoardPose, EmulatedBench

_TAPE_ERROR_M = 0.004  # 1 sigma of a distance that was measured by hand
_DISTANCE_ERROR = 0.01  # of where the board is put (ratio)
_SHIFT_M, _TILT_DEG = 0.004, 1.5


class BenchOperator:
    """Places the bench's board as an :class:`Operator`; the same seed moves it the same way."""

    def __init__(self, bench: EmulatedBench, seed: int, say: Callable[[str], None]) -> None:
        self._bench, self._say = bench, say
        self._rng = np.random.default_rng([seed, 23])

    def place(self, wanted: Placement, live_sharpness: Callable[[], float]) -> float | None:
        camera = self._bench.truth.camera
        distance = wanted.distance_m * (1.0 + _DISTANCE_ERROR * self._rng.standard_normal())
        half_width, half_height = (
            0.5 * distance * side / f for side, f in ((camera.width, camera.fx), (camera.height, camera.fy))
        )
        shift_x, shift_y = _SHIFT_M * self._rng.standard_normal(2)
        tilt_x, tilt_y, turn = _TILT_DEG * self._rng.standard_normal(3)
        self._bench.place(
            BoardPose(
                float(distance),
                float(wanted.x_share * half_width + shift_x),
                float(wanted.y_share * half_height + shift_y),
                float(wanted.tilt_x_deg + tilt_x),
                float(wanted.tilt_y_deg + tilt_y),
                float(wanted.turn_deg + turn),
            )
        )
        error = _TAPE_ERROR_M * self._rng.standard_normal()
        return float(distance + error) if wanted.typed else None

    def say(self, text: str) -> None:
        self._say(text)
