"""The whole graph in one process, and each node as a process of its own: start, work, Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from hybriddepth_msgs.msg import FocalSlice
from hybriddepth_ros.cameras.base import Progress
from hybriddepth_ros.cameras.simulated import SimulatedCamera
from hybriddepth_ros.config_files import find_config
from hybriddepth_ros.errors import HybridDepthError, ParameterError
from hybriddepth_ros.ros.graph import DepthGraph, set_dds_profile
from tests.busy_model import BEGUN
from tests.ros.helpers import NAMESPACE, Peer, make_sweep, stamps, wait_for

SMALL = {
    "simulated.width": 128,
    "simulated.height": 96,
    "simulated.loop_frames": 5,
    "simulated.motion": "none",
    "simulated.frame_rate": 30,
}
ROOT = Path(__file__).resolve().parents[2]


def test_from_the_simulated_camera_to_depth_with_equal_stamps() -> None:
    camera = {**SMALL, "simulated.width": 320, "simulated.height": 240}  # fewer pixels see too little blur
    with DepthGraph(overrides={"focus_sweep": camera}) as graph:
        peer = Peer(graph.context)
        kinds = {
            "depth/image_rect": Image,
            "depth/uncertainty": Image,
            "depth/camera_info": CameraInfo,
            "rgb/image_rect": Image,
            "depth/points": PointCloud2,
            "ground_truth/depth": Image,
        }
        received = {topic: peer.listen(kind, topic) for topic, kind in kinds.items()}
        assert wait_for(lambda: all(len(messages) > 2 for messages in received.values()), 60.0)
        outputs = [set(stamps(messages)) for messages in received.values()]
        assert set.intersection(*outputs)
        stamp = max(set.intersection(*outputs))
        by_topic = {t: next(m for m in msgs if stamps([m])[0] == stamp) for t, msgs in received.items()}
        depth = np.frombuffer(by_topic["depth/image_rect"].data, np.float32)
        truth = np.frombuffer(by_topic["ground_truth/depth"].data, np.float32)
        assert np.isfinite(depth).mean() > 0.8
        assert np.nanmedian(np.abs(depth - truth) / truth) < 0.08
        peer.close()


def test_close_is_quick_and_may_be_called_again() -> None:
    graph = DepthGraph(overrides={"focus_sweep": SMALL})
    with graph:
        assert graph.wait(timeout=0.2) is False
        began = time.monotonic()
    assert time.monotonic() - began < 10.0  # 2 s on an idle machine
    graph.close()
    assert not graph.context.ok()
    assert graph.wait(timeout=5.0) is False  # what was shut down is not waited for


def test_a_node_that_refuses_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(HybridDepthError, match="model: unknown model 'sweepnett'"):
        DepthGraph(overrides={"depth": {"model": "sweepnett"}, "focus_sweep": SMALL}).start()
    missing = {"camera": "replay", "replay.stack": str(tmp_path / "absent")}
    with pytest.raises(HybridDepthError, match="absent"):
        DepthGraph(overrides={"focus_sweep": missing}).start()


def test_a_stop_during_the_start_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, refused = threading.Event(), threading.Event()
    prepare = SimulatedCamera.prepare

    def prepare_until_told_to_stop(
        camera: SimulatedCamera, foci: Sequence[float], progress: Progress
    ) -> None:
        def stop_at_first_picture(done: int, total: int) -> None:
            stop.set()
            with pytest.raises(HybridDepthError, match="stopped"):
                wait_for(lambda: progress(done, total), 30.0)
            refused.set()
            raise HybridDepthError("stopped")

        prepare(camera, foci, stop_at_first_picture)

    monkeypatch.setattr(SimulatedCamera, "prepare", prepare_until_told_to_stop)
    graph = DepthGraph(overrides={"focus_sweep": SMALL}, stop_event=stop)
    with pytest.raises(KeyboardInterrupt):
        graph.start()
    assert refused.wait(10.0)  # the camera was told, and does not go on in the background


def test_wait_ends_with_the_event() -> None:
    stop = threading.Event()
    graph = DepthGraph(overrides={"focus_sweep": SMALL})
    with graph:
        threading.Timer(0.2, stop.set).start()
        assert graph.wait(stop, timeout=30.0) is True


def test_file_and_overrides_and_namespace_reach_the_nodes(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("/**/depth:\n  ros__parameters: {max_depth: 7, min_depth: 0.2}\n")
    graph = DepthGraph(path, {"depth": {"min_depth": 0.3}, "focus_sweep": SMALL}, namespace="/robot/eye/")
    with graph:
        assert graph.depth.get_fully_qualified_name() == "/robot/eye/depth"
        assert graph.depth.get_parameter("max_depth").value == 7.0
        assert graph.depth.get_parameter("min_depth").value == 0.3


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"depht": {}}, "unknown node 'depht'.*did you mean depth"),
        ({"depth": {"modl": "x"}}, "depth: unknown parameter 'modl'; did you mean model"),
        ({"depth": {"max_depth": "far"}}, "depth: max_depth: expected a number"),
        ({"focus_sweep": {"camera": "webcam"}}, "unknown camera 'webcam'"),
    ],
)
def test_overrides_are_checked_before_anything_starts(
    overrides: dict[str, dict[str, object]], expected: str
) -> None:
    with pytest.raises(ParameterError, match=expected):
        DepthGraph(overrides=overrides)


def test_the_dds_profile_is_set_unless_the_user_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMW_FASTRTPS_PUBLICATION_MODE", "SYNCHRONOUS")
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    if find_config("fastdds.xml") is None:
        pytest.skip("config/fastdds.xml is not there")
    set_dds_profile()
    assert [os.environ[name] for name in names if name in os.environ] == [str(find_config("fastdds.xml"))]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(names[1], "/mine.xml")
    set_dds_profile()
    assert os.environ["RMW_FASTRTPS_PUBLICATION_MODE"] == "SYNCHRONOUS"
    assert names[0] not in os.environ and os.environ[names[1]] == "/mine.xml"


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("module", ["depth_node", "focus_sweep_node"])
def test_ctrl_c_ends_a_node_without_a_traceback(module: str, twice: bool) -> None:
    """`ros2 launch` passes SIGINT on to children that the terminal's Ctrl-C has already reached."""
    arguments = ["-p", "autostart:=true"]
    if module == "focus_sweep_node":
        arguments += [part for name, value in SMALL.items() for part in ("-p", f"{name}:={value}")]
    command = [sys.executable, "-m", f"hybriddepth_ros.ros.{module}", "--ros-args", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    rclpy_context = rclpy.context.Context()
    rclpy_context.init(args=[])
    peer = rclpy.create_node("watcher", context=rclpy_context, use_global_arguments=False)
    name = module.removesuffix("_node")
    assert wait_for(lambda: name in peer.get_node_names(), 30.0), process.communicate(timeout=1)
    wanted = "slice"
    assert wait_for(lambda: peer.count_publishers(wanted) or peer.count_subscribers(wanted), 30.0)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    if twice:
        time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode in (0, 130), output
    assert "Traceback" not in output and "terminate called" not in output, output
    assert time.monotonic() - began < 10.0  # 2 s on an idle machine, exit of Python included
    peer.destroy_node()
    rclpy_context.try_shutdown()


def test_ctrl_c_ends_a_node_whose_model_computes_without_an_abort(peer: Peer) -> None:
    arguments = [
        "-p",
        "autostart:=true",
        "-p",
        "model:=busy",
        "-p",
        "warm_up:=false",
        "-r",
        f"__ns:=/{NAMESPACE}",
    ]
    command = [sys.executable, "-m", "tests.busy_model", "depth", "--ros-args", *arguments]
    told: list[str] = []
    peer.listen(Image, "depth/image_rect")
    publisher = peer.publisher(FocalSlice, "slice")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=told.extend, args=(process.stdout,))
        reader.start()
        try:
            for sweep_id in range(1000):  # the first may come before the node knows that somebody listens
                for message in make_sweep(sweep_id):
                    publisher.publish(message)
                if wait_for(lambda: any(BEGUN in line for line in told) or process.poll() is not None, 0.2):
                    break
            process.send_signal(signal.SIGINT)
            began = time.monotonic()
            assert process.wait(60.0) == 0, told
            assert time.monotonic() - began < 10.0  # as above
        finally:
            process.kill()
            reader.join()
    assert any(BEGUN in line for line in told)
    assert not any("terminate called" in line for line in told), told


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-p", "max_depth:=-3.0"], "max_depth: expected 0.1 to 1000.0 m, got -3.0"),
        (["-p", "use_sim_time:=5"], "'use_sim_time' to '5'"),
        (["-r", "__ns:=1x"], "__ns:=1x"),
        (["--params-file", "/nowhere.yaml"], "/nowhere.yaml"),
    ],
)
def test_a_bad_argument_is_one_line_and_exit_2(arguments: list[str], expected: str) -> None:
    command = [sys.executable, "-m", "hybriddepth_ros.ros.depth_node", "--ros-args", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr and expected in result.stderr.strip().splitlines()[-1]


def test_the_shipped_file_is_what_rcl_reads_too() -> None:
    """The same file through rcl, as `ros2 run` and `ros2 launch` pass it."""
    from hybriddepth_ros.ros.depth_node import DepthNode

    context = rclpy.context.Context()
    context.init(args=[])
    node = DepthNode(
        context=context,
        namespace="focus_camera",
        use_global_arguments=False,
        cli_args=["--ros-args", "--params-file", str(ROOT / "config" / "depth.yaml"), "-p", "max_depth:=9"],
    )
    assert node.get_parameter("max_depth").value == 9.0
    assert "max_sigma_diopters" in node._parameter_overrides
    node.destroy_node()
    context.try_shutdown()
