"""Both nodes on real DDS: estimates come back to the sweep, and it goes where they send it."""

from typing import Any

import pytest
from rclpy.context import Context
from rclpy.parameter import Parameter

from hybriddepth_msgs.msg import FocusState
from hybriddepth_ros.ros.depth_node import DepthNode
from hybriddepth_ros.ros.focus_sweep_node import FocusSweepNode
from tests.ros.helpers import Peer, Running, values_of, wait_for

SIMULATED = {
    "simulated.width": 160,
    "simulated.height": 120,
    "simulated.motion": "none",
    "simulated.loop_frames": 5,
    "simulated.focal_length_mm": 50.0,  # 12 px of blur per diopter in so small a picture
    "focus_diopters": [0.0, 0.75, 1.5, 2.25, 3.0],
    "sweep": "adaptive",
    "full_sweep_period": 1.0,
}
DEPTH = {"model": "classical", "register": False, "input_reliability": "reliable"}


def overrides(values: dict[str, Any]) -> list[Parameter]:
    return [Parameter(name, value=value) for name, value in values.items()]


@pytest.mark.parametrize("count", [0, 3])
def test_the_loop_closes(context: Context, peer: Peer, count: int) -> None:
    sweep = overrides({**SIMULATED, "adaptive_slice_count": count})
    with (
        Running(DepthNode, context, parameter_overrides=overrides(DEPTH)) as depth,
        Running(FocusSweepNode, context, parameter_overrides=sweep) as driver,
    ):
        states = peer.listen(FocusState, "focus", 10_000)
        newest = peer.diagnostics("focus_sweep")
        depth.start()
        driver.start()
        assert wait_for(lambda: int(values_of(newest()).get("sweeps: adaptive", 0)) >= 3, 60.0), newest()
        assert wait_for(lambda: int(values_of(newest()).get("sweeps: full", 0)) >= 2, 60.0), newest()
        full = set(SIMULATED["focus_diopters"])
        adaptive = [state for state in states if state.focus_diopters not in full]
        assert {state.slice_count for state in states} == {5, count or 5}
        assert adaptive and all(0.0 <= state.focus_diopters <= 1.0 / 0.33 for state in adaptive)
        assert depth.counters["stacks estimated"] >= 3 and depth.counters["stacks refused"] == 0
        assert driver.counters["focus demands refused"] == 0
