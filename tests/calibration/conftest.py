"""An emulated camera and whoever moves its board."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hybriddepth_ros.calibration.board import BoardSpec
from hybriddepth_ros.calibration.rig import Operator, Rig
from hybriddepth_ros.emulation.bench import EmulatedBench
from hybriddepth_ros.emulation.operator import BenchOperator
from hybriddepth_ros.emulation.parts import EmulatedMotor, EmulatedSource, VirtualClock
from hybriddepth_ros.emulation.truth import EmulatedTruth

MakeRig = Callable[[int], tuple[Rig, Operator, EmulatedTruth]]


@pytest.fixture
def make_rig() -> MakeRig:
    """Rig, operator and truth of the emulated camera of a seed."""

    def make(seed: int) -> tuple[Rig, Operator, EmulatedTruth]:
        bench, clock = EmulatedBench(EmulatedTruth.from_seed(seed), BoardSpec(), seed), VirtualClock()
        source, motor = EmulatedSource(bench, clock), EmulatedMotor(bench, clock)
        source.open()
        motor.open()
        operator = BenchOperator(bench, seed, say=lambda text: None)
        return Rig(source, motor, bench.board), operator, bench.truth

    return make
