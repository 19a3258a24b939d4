"""Both nodes in one process: slices go from one to the other without DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from sensor_msgs.msg import Image

from hybriddepth_msgs.msg import FocalSlice
from hybriddepth_ros.ros.graph import DepthGraph
from tests.ros.helpers import NAMESPACE, Peer, wait_for

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "focus_sweep": {"camera": "simulated", "simulated.width": 160, "simulated.height": 120},
    "depth": {"model": "classical", "update": "slice"},
}


def test_slices_reach_the_depth_node_without_a_subscription(peer: Peer) -> None:
    received = peer.listen(Image, "depth/image_rect")
    with DepthGraph(overrides=OPTIONS, namespace=NAMESPACE) as graph:
        assert wait_for(lambda: len(received) > 8, 30.0), graph.depth.counters.snapshot()
        assert graph.depth.count_subscribers(f"/{NAMESPACE}/slice") == 0
        others = peer.listen(FocalSlice, "slice")  # who asks for them still gets them
        assert wait_for(lambda: len(others) > 2)
        assert graph.depth.counters["slices received"] >= len(received)


def test_one_process_runs_both_and_ends_at_a_signal(peer: Peer) -> None:
    received = peer.listen(Image, "depth/image_rect")
    given = [
        argument
        for node, values in OPTIONS.items()
        for name, value in values.items()
        for argument in ("-p", f"{node}:{name}:={value}")
    ]
    command = [sys.executable, "-m", "hybriddepth_ros.ros.composed", "--ros-args", *given]
    command += ["-r", f"__ns:=/{NAMESPACE}"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=dict(os.environ)
    ) as process:
        try:
            assert wait_for(lambda: len(received) > 3 or process.poll() is not None, 60.0)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=30.0)
        finally:
            process.kill()
    assert received and process.returncode == 0, output
    assert "Traceback" not in output and "is ignored" not in output, output
